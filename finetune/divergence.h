/* How far two networks' outputs are apart. */
#ifndef TERNION_FINETUNE_DIVERGENCE_H
#define TERNION_FINETUNE_DIVERGENCE_H

#include <stdint.h>

/* KL(softmax f || softmax q) of one row of logits, natural logarithm. */
double tn_divergence_row(const float *f, const float *q, int64_t classes);

int64_t tn_first_maximum(const float *row, int64_t classes);

/* Means over rows [rows, classes]: KL, and share of rows with the same first maximum. */
void tn_divergence_mean(const float *f, const float *q, int64_t rows, int64_t classes, double *kl,
                        double *agreement);

#endif
