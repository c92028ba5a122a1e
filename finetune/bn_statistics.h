/* Re-estimated statistics of BatchNorm layers: what the network's activations are now, averaged
 * over many batches, in place of the running averages that training left. */
#ifndef TERNION_FINETUNE_BN_STATISTICS_H
#define TERNION_FINETUNE_BN_STATISTICS_H

#include "network/plan.h"

typedef struct tn_bn_layer {
    size_t step;           /* of the plan */
    size_t mean, variance; /* positions in the parameter store */
    int64_t channels;
    double *sum_mean, *sum_square; /* of batch means, of variance + mean^2 */
    float *saved;                  /* mean[C], variance[C] as they were */
} tn_bn_layer;

typedef struct tn_bn_statistics {
    tn_bn_layer *layer;
    size_t count;
    int64_t batches;
    float *scratch; /* 2 x the most channels */
} tn_bn_statistics;

/* For all BN steps of a plan made with separate_bn or training; remembers the present statistics.
 */
tn_status tn_bn_statistics_create(const tn_plan *plan, tn_bn_statistics *statistics,
                                  tn_error *error) TN_MUST_CHECK;
void tn_bn_statistics_done(tn_bn_statistics *statistics);

/* Adds the batch of the last forward with batch statistics. */
tn_status tn_bn_statistics_add(tn_bn_statistics *statistics, tn_plan *plan,
                               tn_error *error) TN_MUST_CHECK;

/* Sets mean and variance (of all samples seen: E[var] + Var[mean]) in the plan's store, or puts the
 * remembered ones back. */
tn_status tn_bn_statistics_apply(const tn_bn_statistics *statistics, tn_plan *plan,
                                 tn_error *error) TN_MUST_CHECK;
tn_status tn_bn_statistics_restore(const tn_bn_statistics *statistics, tn_plan *plan,
                                   tn_error *error) TN_MUST_CHECK;

#endif
