/* What became of a layer's weights when they were quantized, as counts for a picture. */
#ifndef TERNION_CONVERTER_WEIGHT_HISTOGRAM_H
#define TERNION_CONVERTER_WEIGHT_HISTOGRAM_H

#include "converter/layers.h"
#include "converter/weight.h"

enum { TN_HISTOGRAM_BINS = 64, TN_HISTOGRAM_CODES = 16 };

typedef struct tn_weight_code { /* weights with one code */
    int code;
    int64_t count;
    double level; /* mean of the values they became; 0 when there are none */
    int64_t bin[TN_HISTOGRAM_BINS];
} tn_weight_code;

/* Bins divide [low, high], what the weights before span, evenly. */
typedef struct tn_weight_histogram {
    double low, high;
    int64_t bin[TN_HISTOGRAM_BINS];          /* of all weights */
    int n_codes;                             /* 0: not quantized, or with more codes */
    tn_weight_code code[TN_HISTOGRAM_CODES]; /* rising */
    /* [n_codes - 1]: the edge of a bin that parts weights up to code i from those above with the
     * fewest on the wrong side, over all channels */
    double threshold[TN_HISTOGRAM_CODES];
} tn_weight_histogram;

/* Of the finite weights of `before`; `after` is what they became, of the same rows and columns, or
 * NULL. */
tn_status tn_weight_histogram_take(const tn_layer *before, const tn_qweight *after,
                                   tn_weight_histogram *histogram, tn_error *error) TN_MUST_CHECK;

#endif
