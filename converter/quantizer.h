/* The interface of a quantization scheme. One scheme is one file in quantizers/, listed once in
 * quantizers.c; help, recipes, gradient tests and CPU/GPU comparison walk that table.
 *
 * Only rows, cols, granularity, group, groups_per_row, n_scales, low, high of `shape` are read.
 * Rows are independent unless the granularity is TN_PER_TENSOR: tn_qweight_row_range gives the
 * shape of some of them, so that callers can go row by row while it is in cache.
 *
 * All functions work on rows (weight.h): w is [rows, cols] fp32. The state of a scheme is its
 * scales, zeros and thresholds per scale group. They are called inside training steps: no
 * allocation, no failure; sizes were checked before. */
#ifndef TERNION_CONVERTER_QUANTIZER_H
#define TERNION_CONVERTER_QUANTIZER_H

#include "converter/weight.h"

typedef enum tn_threshold_kind {
    TN_THRESHOLD_OPTIMAL, /* least squares (facts: exact optima) */
    TN_THRESHOLD_MEAN,    /* value * mean|w| (TWN: 0.7) */
    TN_THRESHOLD_MAX,     /* value * max|w| (TTQ: 0.05) */
    TN_THRESHOLD_SPARSITY /* the fraction `value` of smallest |w| is 0 */
} tn_threshold_kind;

/* What the user asked for one layer. */
typedef struct tn_scheme {
    const struct tn_quantizer *quantizer;
    bool ternary;  /* --bits 1.58 */
    int bits;      /* 2 for ternary; 0 before resolve: the scheme's own */
    int low, high; /* legal codes; both 0 before resolve: from bits */
    bool narrow;   /* drops the lowest code */
    tn_granularity granularity;
    int64_t group;
    tn_threshold_kind threshold;
    float threshold_value;
} tn_scheme;

/* Arrays have weight->n_scales entries. Trained ones are scale and scale_neg. All may be given; a
 * scheme touches only those its flags name. */
typedef struct tn_quantizer_state {
    float *scale;
    float *scale_neg; /* two_scales */
    float *zero;      /* has_zero */
    float *threshold; /* twn, ttq: |w| > threshold gets a code; dorefa: max|tanh w|; else NULL */
    float rho_inv;    /* parq: 1 (values = latents) annealed to 0 (hard); 0 for all others */
} tn_quantizer_state;

typedef struct tn_parameter { /* one row of a scheme's parameter table */
    const char *name, *range, *standard, *help;
} tn_parameter;

typedef struct tn_quantizer {
    const char *id;                 /* "twn" */
    const char *summary;            /* one line */
    const tn_parameter *parameters; /* ends with name == NULL */
    bool two_scales, has_zero, needs_training;
    bool plain; /* float, half: values without codes or scales; bypasses tn_qweight and fit */
    /* Checks and completes a scheme (bits, low, high). USAGE when impossible. */
    tn_status (*resolve)(tn_scheme *scheme, tn_error *error);
    /* Start values of the whole state from latent weights. h (may be NULL) is a weight per element
     * >= 0 of the squared error. Finite for all-zero, denormal and huge layers. */
    void (*fit)(const tn_scheme *scheme, const tn_qweight *shape, const float *w, const float *h,
                tn_quantizer_state *state);
    /* What follows from the latents anew in every training step (twn: threshold and scale; ttq:
     * threshold). NULL: nothing does. Not needed right after fit. */
    void (*refresh)(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                    tn_quantizer_state *state);
    /* Latents [rows, cols] that refresh and quantize bring back to the weight's codes, and where
     * they can to its scales. NULL: the weight's values are such. */
    void (*latents)(const tn_scheme *scheme, const tn_qweight *weight, float *w);
    /* Codes and values of latent weights under the state; either output may be NULL. values are
     * bitwise tn_qweight_value of the codes (parq: when rho_inv is 0). */
    void (*quantize)(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                     const tn_quantizer_state *state, int16_t *codes, float *values);
    /* dvalues -> dw (overwritten) and dscale, dscale_neg (overwritten; NULL: not wanted). w and
     * state are those of the forward pass.
     * Head comment of each file: forward formula, each gradient, citation, deviations. */
    void (*backward)(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                     const tn_quantizer_state *state, const float *dvalues, float *dw,
                     float *dscale, float *dscale_neg);
    /* Keeps the state legal after an update (scales > 0). */
    void (*constrain)(const tn_scheme *scheme, const tn_qweight *shape, tn_quantizer_state *state);
} tn_quantizer;

/* Fills the scheme-given members of a weight (granularity, group, low, high, ternary, bits, scheme)
 * whose shape is set: what tn_qweight_init needs. */
void tn_scheme_apply(const tn_scheme *scheme, tn_qweight *weight);

const tn_quantizer *tn_quantizer_find(const char *id); /* NULL when unknown */
const tn_quantizer *tn_quantizer_at(size_t i);         /* walks the table; NULL at its end */

#endif
