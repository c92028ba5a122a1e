/* Choosing the range of a value from its histogram. */
#ifndef TERNION_FINETUNE_ACTIVATION_RANGE_H
#define TERNION_FINETUNE_ACTIVATION_RANGE_H

#include "finetune/activations.h"

enum { TN_HISTOGRAM_BINS = 2048 };

typedef struct tn_histogram {
    double low, high; /* of all values seen; bins are equal parts of it */
    uint64_t bin[TN_HISTOGRAM_BINS];
} tn_histogram;

void tn_histogram_add(tn_histogram *histogram, const float *values, int64_t count);

/* [low, high] by the method for codes of `bits` bits. An empty or constant histogram gives all of
 * it. */
void tn_histogram_range(const tn_histogram *histogram, tn_range_method method, int bits,
                        double *low, double *high);

#endif
