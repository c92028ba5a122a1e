#include "finetune/grid.h"

#include "core/hot.h"

#include <math.h>

double tn_grid_value(const tn_qweight *weight, int64_t scale, int code)
{
    if (weight->scale_neg)
        return code > 0   ? (double)weight->scale[scale]
               : code < 0 ? -(double)weight->scale_neg[scale]
                          : 0;
    double zero = weight->zero ? (double)weight->zero[scale] : 0;
    return (code - zero) * (double)weight->scale[scale];
}

int tn_grid_nearest(const tn_qweight *weight, int64_t scale, double x)
{
    if (weight->scale_neg) {
        if (x > 0)
            return x > 0.5 * (double)weight->scale[scale] ? 1 : 0;
        return -x > 0.5 * (double)weight->scale_neg[scale] ? -1 : 0;
    }
    double zero = weight->zero ? (double)weight->zero[scale] : 0;
    double code = rint(x / (double)weight->scale[scale] + zero);
    return code < weight->low ? weight->low : code > weight->high ? weight->high : (int)code;
}

TN_HOT void tn_grid_add_scaled(int64_t n, double factor, const double *restrict x,
                               double *restrict y)
{
#pragma omp simd
    for (int64_t i = 0; i < n; i++)
        y[i] += factor * x[i];
}
