/* Corrections of a BatchNorm (inference form) whose input has changed because layers before it were
 * quantized. */
#ifndef TERNION_FINETUNE_BATCHNORM_H
#define TERNION_FINETUNE_BATCHNORM_H

#include "finetune/calibrate.h"
#include "network/params.h"

/* Per channel over [rows, channels], channels last: what a correction needs. */
typedef struct tn_channel_moments {
    double mean_f, mean_q, var_f, var_q, cov;
} tn_channel_moments;

/* Sums in fp64 over a number of parts fixed by `rows`: the same bits for every number of threads.
 * LIMIT when out of memory. */
tn_status tn_channel_moments_measure(const float *f, const float *q, int64_t rows, int64_t channels,
                                     tn_channel_moments *moments, tn_error *error) TN_MUST_CHECK;

/* Changes gamma and mean so that fed with y the BN gives what it gave for slope (y - bias) + shift:
 * gamma *= slope, mean = bias + (mean - shift) / slope. slope and bias may be NULL (1 and 0). */
tn_status tn_bn_absorb(tn_params *params, const tn_node *bn, int64_t channels, const double *slope,
                       const double *shift, const float *bias, tn_error *error) TN_MUST_CHECK;

/* Corrects the BN for inputs q in place of f, both [rows, channels]: REESTIMATE, CONTROL (exact
 * when q = f) or AFFINE (least squares of f on q). */
tn_status tn_bn_correct(tn_params *params, const tn_node *bn, int64_t channels, int64_t rows,
                        const float *f, const float *q, tn_calibrate_bn mode,
                        tn_error *error) TN_MUST_CHECK;

#endif
