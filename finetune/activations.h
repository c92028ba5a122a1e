/* Activations in few bits: ranges measured on images, QuantizeLinear / DequantizeLinear in the
 * written graph.
 *
 * What is quantized is what quantized layers read: one scale and zero point per value, unsigned and
 * affine, 0 exactly representable. Widths below 8 (and 9 to 15) are the codes 0 .. 2^bits - 1 of
 * the next type ONNX has, kept there by a Clip in front. */
#ifndef TERNION_FINETUNE_ACTIVATIONS_H
#define TERNION_FINETUNE_ACTIVATIONS_H

#include "converter/convert.h"
#include "core/reporter.h"
#include "data/preprocess.h"
#include "network/device.h"

typedef enum tn_range_method {
    TN_RANGE_MINMAX,     /* all that was seen */
    TN_RANGE_PERCENTILE, /* all but 0.005 % at each end */
    TN_RANGE_ENTROPY,    /* least KL between the histogram and its quantized form */
    TN_RANGE_MSE         /* least squared error over the histogram */
} tn_range_method;

bool tn_range_method_parse(const char *name, tn_range_method *method);
const char *tn_range_method_name(tn_range_method method);

typedef struct tn_activation_options {
    int bits;               /* 2 to 16, of what quantized layers read; 0: left in floating point */
    int input_bits;         /* of the network's input, 2 to 16; 0: as every other value */
    tn_range_method method; /* of activations; the input's range is always min and max */
    size_t samples;         /* 0: 256 images drawn by seed */
    uint64_t seed;
    const tn_preprocess *preprocess; /* NULL: as in evaluate.h */
    const char *output;
    const float *images; /* instead of a data set: [samples, C, H, W] */
    tn_device *device;   /* borrowed; NULL: a CPU device of its own */
    const tn_reporter *reporter;
} tn_activation_options;

typedef struct tn_activation_range {
    char *value; /* name */
    int bits;
    bool is_input;              /* of the network */
    double seen_low, seen_high; /* over all images */
    float scale;                /* > 0 */
    int32_t zero;               /* 0 .. 2^bits - 1: codes of 0 */
} tn_activation_range;

typedef struct tn_activations {
    tn_activation_range *range;
    size_t count;
} tn_activations;

/* The values that would be quantized, with their bits; scales are 1. graph is of the conversion's
 * model or a copy (names decide). MODEL when one is not FLOAT. */
tn_status tn_activations_list(const tn_graph *graph, const tn_conversion *conversion,
                              const tn_activation_options *options, tn_activations *activations,
                              tn_error *error) TN_MUST_CHECK;

/* Ranges of the values that the layers of `conversion` read, in the network with those weights.
 * conversion's graph may be another than model's (names decide). DATA, USAGE, MODEL as for
 * calibration. */
tn_status tn_activations_measure(const tn_model *model, const tn_conversion *conversion,
                                 const tn_dataset *dataset, const tn_activation_options *options,
                                 tn_activations *activations, tn_error *error) TN_MUST_CHECK;
void tn_activations_done(tn_activations *activations);

/* Scale and zero point of [low, high] widened to hold 0, and that range in fp32: what Clip keeps.
 */
void tn_activation_fit(double low, double high, int bits, tn_activation_range *range);

/* The opset that the written nodes need: 13, or 21 for more than 8 bits. */
int64_t tn_activations_opset(const tn_activations *activations);

/* The record's object (converter/activation_record.h), for tn_free. */
tn_status tn_activations_to_json(const tn_activations *activations, tn_range_method method,
                                 char **json, tn_error *error) TN_MUST_CHECK;

/* Puts the quantization in front of every Conv, ConvTranspose, Gemm and MatMul of the (packed)
 * model that reads such a value, and in front of every reader of a quantized input. Raises the
 * opset to tn_activations_opset. */
tn_status tn_activations_write(const tn_activations *activations, tn_model *model,
                               tn_error *error) TN_MUST_CHECK;

#endif
