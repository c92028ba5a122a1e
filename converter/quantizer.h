/* The interface of a quantization scheme. One scheme is one file in quantizers/, listed once in
 * quantizers.c; help, recipes, gradient tests and CPU/GPU comparison walk that table.
 *
 * All functions work on rows (weight.h): w is [rows, cols] fp32. The state of a scheme is its scales,
 * zeros and thresholds per scale group. They are called inside training steps: no allocation, no
 * failure; sizes were checked before. */
#ifndef TERNION_CONVERTER_QUANTIZER_H
#define TERNION_CONVERTER_QUANTIZER_H

#include "converter/weight.h"

typedef enum tn_threshold_kind {
    TN_THRESHOLD_OPTIMAL,  /* least squares (facts: exact optima) */
    TN_THRESHOLD_MEAN,     /* value * mean|w| (TWN: 0.7) */
    TN_THRESHOLD_MAX,      /* value * max|w| (TTQ: 0.05) */
    TN_THRESHOLD_SPARSITY  /* the fraction `value` of smallest |w| is 0 */
} tn_threshold_kind;

/* What the user asked for one layer. */
typedef struct tn_scheme {
    const struct tn_quantizer *quantizer;
    bool ternary; /* --bits 1.58 */
    int bits;     /* 2 for ternary */
    int low, high;
    tn_granularity granularity;
    int64_t group;
    tn_threshold_kind threshold;
    float threshold_value;
} tn_scheme;

/* Arrays have weight->n_scales entries. Trained ones are scale and scale_neg. */
typedef struct tn_quantizer_state {
    float *scale, *scale_neg, *zero, *threshold; /* those the scheme does not use are NULL */
} tn_quantizer_state;

typedef struct tn_parameter { /* one row of a scheme's parameter table */
    const char *name, *range, *standard, *help;
} tn_parameter;

typedef struct tn_quantizer {
    const char *id;      /* "twn" */
    const char *summary; /* one line */
    const tn_parameter *parameters; /* ends with name == NULL */
    bool two_scales, has_zero, needs_training;
    /* Checks and completes a scheme (bits, range, threshold defaults). USAGE when impossible. */
    tn_status (*resolve)(tn_scheme *scheme, tn_error *error);
    /* Start values of the state from latent weights. h (may be NULL) is a weight per element >= 0
     * of the squared error. Finite for all-zero, denormal and huge layers. */
    void (*fit)(const tn_scheme *scheme, const tn_qweight *shape, const float *w, const float *h,
                tn_quantizer_state *state);
    /* Codes and values of latent weights; either output may be NULL. values are bitwise
     * tn_qweight_value of the codes. Refreshes state->threshold where it derives from w. */
    void (*quantize)(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                     tn_quantizer_state *state, int16_t *codes, float *values);
    /* dvalues -> dw (overwritten) and dscale, dscale_neg (overwritten; NULL when not trained).
     * Head comment of each file: forward formula, each gradient, citation, deviations. */
    void (*backward)(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                     const tn_quantizer_state *state, const float *dvalues, float *dw,
                     float *dscale, float *dscale_neg);
    /* Keeps the state legal after an update (scales > 0). */
    void (*constrain)(const tn_scheme *scheme, const tn_qweight *shape, tn_quantizer_state *state);
} tn_quantizer;

const tn_quantizer *tn_quantizer_find(const char *id); /* NULL when unknown */
const tn_quantizer *tn_quantizer_at(size_t i);         /* walks the table; NULL at its end */

#endif
