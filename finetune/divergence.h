/* How far two networks' outputs are apart. */
#ifndef TERNION_FINETUNE_DIVERGENCE_H
#define TERNION_FINETUNE_DIVERGENCE_H

#include <stdbool.h>
#include <stdint.h>

/* KL(softmax f || softmax q) of one row of logits, natural logarithm; infinite where it is
 * undefined, as by a NaN. */
double tn_divergence_row(const float *f, const float *q, int64_t classes);

enum { TN_NO_MAXIMUM = -1 };

/* TN_NO_MAXIMUM when a logit is NaN or the largest is not finite: such a row names no class. -inf
 * below it masks a class. */
int64_t tn_first_maximum(const float *row, int64_t classes);
/* Whether both rows name the same class. */
bool tn_same_maximum(const float *f, const float *q, int64_t classes);

/* Means over rows [rows, classes]: KL, and share of rows that name the same class. */
void tn_divergence_mean(const float *f, const float *q, int64_t rows, int64_t classes, double *kl,
                        double *agreement);

#endif
