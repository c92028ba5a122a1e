/* The values a quantized weight can take: what descent, GPTQ and learned rounding share. */
#ifndef TERNION_FINETUNE_GRID_H
#define TERNION_FINETUNE_GRID_H

#include "converter/weight.h"

/* In double, before the rounding of tn_qweight_value. `scale` is tn_qweight_scale_index's. */
double tn_grid_value(const tn_qweight *weight, int64_t scale, int code);

/* The legal code whose value is nearest to x. */
int tn_grid_nearest(const tn_qweight *weight, int64_t scale, double x);

/* y += factor x, elementwise: the same bits on every processor. */
void tn_grid_add_scaled(int64_t n, double factor, const double *x, double *y);

#endif
