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

/* Sums over rows that come in chunks; fp64, in an order fixed by the chunks' sizes alone. */
typedef struct tn_moment_sums {
    int64_t channels;
    double rows;
    double *sums; /* [5, channels] */
    double *parts;
} tn_moment_sums;

tn_status tn_moment_sums_init(tn_moment_sums *sums, int64_t channels,
                              tn_error *error) TN_MUST_CHECK; /* LIMIT when out of memory */
void tn_moment_sums_done(tn_moment_sums *sums);
void tn_moment_sums_add(tn_moment_sums *sums, const float *f, const float *q, int64_t rows);
/* moments [channels] */
void tn_moment_sums_get(const tn_moment_sums *sums, tn_channel_moments *moments);

/* Changes gamma and mean so that fed with y the BN gives what it gave for slope (y - bias) + shift:
 * gamma *= slope, mean = bias + (mean - shift) / slope. slope and bias may be NULL (1 and 0). */
tn_status tn_bn_absorb(tn_params *params, const tn_node *bn, int64_t channels, const double *slope,
                       const double *shift, const float *bias, tn_error *error) TN_MUST_CHECK;

/* Corrects the BN for inputs q in place of f: REESTIMATE, CONTROL (exact when q = f) or AFFINE
 * (least squares of f on q). */
tn_status tn_bn_correct(tn_params *params, const tn_node *bn, const tn_moment_sums *sums,
                        tn_calibrate_bn mode, tn_error *error) TN_MUST_CHECK;

#endif
