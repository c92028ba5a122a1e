/* Equalization before quantization (Nagel et al., "Data-Free Quantization Through Weight
 * Equalization and Bias Correction", 2019): channels that differ in range by orders of magnitude
 * cannot share one step. The network computes what it did, up to float rounding. */
#ifndef TERNION_CONVERTER_EQUALIZE_H
#define TERNION_CONVERTER_EQUALIZE_H

#include "converter/layers.h"
#include "core/reporter.h"

typedef enum tn_equalize_when {
    TN_EQUALIZE_NEVER, /* nothing */
    TN_EQUALIZE_AUTO,  /* rows and links of convolutions quantized per tensor */
    TN_EQUALIZE_ALWAYS /* links into all other quantized convolutions too */
} tn_equalize_when;

typedef struct tn_equalized {
    size_t rows;    /* convolutions whose rows were scaled against their BatchNormalization */
    size_t links;   /* convolutions whose input channels were scaled against what feeds them */
    size_t clipped; /* links left alone because a Clip lies between */
} tn_equalized;

/* "never", "auto" or "always"; NULL: never. USAGE for anything else. */
tn_status tn_equalize_parse(const char *text, tn_equalize_when *when,
                            tn_error *error) TN_MUST_CHECK;

/* Changes fp32 weights, biases and BN parameters of `model`, whose graph is `graph` (to be made
 * anew after that, as are `layers`: tn_layers_select's of that graph).
 *
 * Rows: Conv, then BN, the weight quantized per tensor. Each row is brought to one range; the BN's
 * mean follows and its scale takes the inverse. Nothing behind the BN sees it, so a Clip may
 * follow.
 *
 * Links: BN or Conv, then positively homogeneous activations (none, Relu, LeakyRelu, PRelu), then a
 * quantized Conv: channel i of the source times s_i, input channel i of the consumer by s_i. Behind
 * a convolution quantized per tensor without BN s_i = sqrt(r_consumer / r_source), r = max|w|;
 * otherwise the source's scale costs nothing and s_i brings the consumer's channels to one range.
 *
 * Values and constants with any other user are left alone. MODEL or LIMIT on failure: `model` may
 * then be changed in part. */
tn_status tn_equalize(tn_model *model, const tn_graph *graph, const tn_layers *layers,
                      tn_equalize_when when, tn_equalized *equalized,
                      tn_error *error) TN_MUST_CHECK;

#endif
