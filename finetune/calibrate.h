/* Calibration: codes and scales from some hundred unlabelled images, layer by layer.
 *
 * The float network and the quantized one run side by side over the same images, one step at a
 * time. A quantized layer is fitted so that, fed with what the already quantized network gives it,
 * it yields what the float network yields there: least squares over the images (gram.h), by
 * coordinate descent (descent.h), GPTQ (gptq.h) or learned rounding (block_learning.h). Behind it
 * the per-channel mean and slope that are left are put into the BatchNorm, the bias and the scale.
 */
#ifndef TERNION_FINETUNE_CALIBRATE_H
#define TERNION_FINETUNE_CALIBRATE_H

#include "converter/convert.h"
#include "core/reporter.h"
#include "data/preprocess.h"
#include "network/device.h"

typedef enum tn_calibrate_method {
    TN_CALIBRATE_AUTO,    /* cd */
    TN_CALIBRATE_ROUND,   /* the scheme's own rounding: what conversion without data gives */
    TN_CALIBRATE_CD,      /* coordinate descent on codes and scales, from rounded codes */
    TN_CALIBRATE_GPTQ,    /* one pass with error feedback in the order of the activations' size */
    TN_CALIBRATE_ADAROUND /* cd, then learned over blocks (block_learning.h); a layer that is in no
                             block learns to round up or down by itself (adaround.h) */
} tn_calibrate_method;

/* What is done to BatchNorm (and, without one, to biases and scales). */
typedef enum tn_calibrate_bn {
    TN_CALIBRATE_BN_AUTO,       /* the best of the others by held-out KL */
    TN_CALIBRATE_BN_KEEP,       /* nothing */
    TN_CALIBRATE_BN_REESTIMATE, /* mean and variance of the quantized network's activations */
    TN_CALIBRATE_BN_CONTROL,    /* mean += mean_q - mean_f, variance *= variance_q / variance_f */
    TN_CALIBRATE_BN_AFFINE      /* gamma, beta by least squares on the float network's output */
} tn_calibrate_bn;

/* Names as on the command line; false when unknown. */
bool tn_calibrate_method_parse(const char *name, tn_calibrate_method *method);
bool tn_calibrate_bn_parse(const char *name, tn_calibrate_bn *bn);
const char *tn_calibrate_method_name(tn_calibrate_method method);
const char *tn_calibrate_bn_name(tn_calibrate_bn bn);

/* Zero-initialized means the defaults in brackets. */
typedef struct tn_calibrate_options {
    tn_policy policy;
    tn_calibrate_method method; /* [auto] */
    tn_calibrate_bn bn;         /* [auto] */
    size_t samples;             /* [256] images, drawn by the seed; at most the data set's */
    size_t skip;                /* leave out so many of the drawn before taking samples */
    uint64_t seed;
    const tn_preprocess *preprocess; /* NULL: the model's record, else the guess (evaluate.h) */
    const char *output;              /* name of the network's output; NULL: the first */
    double damping;                  /* [0.01] pull to the float weights, of the mean diagonal */
    int sweeps;                      /* [30] of coordinate descent */
    int64_t positions; /* [65536] output positions a layer is fitted to at least, if it has them */
    int relu_passes;   /* [1] times the target is relaxed where the ReLU behind hides it; < 0: 0 */
    bool no_residual;  /* do not correct at a residual branch what the other branch got wrong */
    bool hold_out;     /* fit to the first three quarters; the rest only tells kl_held_out */
    bool independent;  /* every layer as if it alone were quantized: inputs of the float network */
    const tn_layers *schemes; /* NULL: the policy's. Else schemes by weight name (budget.h) */
    const float *images;      /* instead of a data set: [skip + samples, C, H, W] */
    uint64_t memory;   /* [1 GB, or a quarter of the library's limit] bytes of activations kept in
                          memory; more go to a temporary file. The result does not depend on it */
    tn_device *device; /* borrowed. NULL: a CPU device of its own. On others the networks run there
                          and the Gram matrices are summed there; codes are fitted on the host */
    const tn_reporter *reporter;
} tn_calibrate_options;

typedef struct tn_calibrated_layer {
    const char *name;    /* of the weight */
    const char *method;  /* "cd", or "round" with a reason */
    const char *reason;  /* why not the method asked for; NULL */
    double output_error; /* |y_q - y_f|^2 / |y_f - mean|^2 after fitting; < 0: not measured */
} tn_calibrated_layer;

/* The result: a copy of the model with its changed float parameters, ready for tn_pack. */
typedef struct tn_calibration {
    struct tn_model *model; /* owned; shares payloads with the input model, which must outlive it */
    tn_graph *graph;
    tn_layers layers;
    tn_conversion conversion;   /* weights of the quantized layers, in graph order */
    tn_calibrated_layer *layer; /* beside conversion.item */
    tn_calibrate_method method; /* what was used */
    tn_calibrate_bn bn;         /* what was used */
    size_t images, held_out;    /* used; of them held out for choices (0: no choice was needed) */
    double kl_held_out;         /* KL(float || quantized) on the held-out images; < 0: none */
    double kl, agreement;       /* the same, and equal top-1, on all calibration images */
    double kl_round;            /* KL of plain rounding on all of them; < 0 with hold_out */
    double seconds;
    uint64_t peak_bytes; /* of the library's memory while calibrating */
    uint64_t spilled;    /* bytes of activations that went to a temporary file */
    size_t params_changed;
} tn_calibration;

/* Calibrates. dataset may be NULL with options->images. Labels are never read. The model is left
 * as it is. USAGE for options, MODEL when the network cannot run, DATA for images. The result does
 * not depend on the number of threads. */
tn_status tn_calibrate(const tn_model *model, const tn_dataset *dataset,
                       const tn_calibrate_options *options, tn_calibration *calibration,
                       tn_error *error) TN_MUST_CHECK;
void tn_calibration_done(tn_calibration *calibration);

#endif
