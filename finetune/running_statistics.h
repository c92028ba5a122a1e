/* The running statistics of BatchNormalization before a step, so that a dropped step leaves nothing
 * behind. */
#ifndef TERNION_FINETUNE_RUNNING_STATISTICS_H
#define TERNION_FINETUNE_RUNNING_STATISTICS_H

#include "network/params.h"

typedef struct tn_running_statistics {
    float *kept; /* every mean and variance of the store, in its order */
} tn_running_statistics;

tn_status tn_running_statistics_create(const tn_params *params, tn_running_statistics *statistics,
                                       tn_error *error) TN_MUST_CHECK;
void tn_running_statistics_done(tn_running_statistics *statistics);

/* Of a store whose memory is the host's. */
void tn_running_statistics_keep(tn_running_statistics *statistics, const tn_params *params);
void tn_running_statistics_restore(const tn_running_statistics *statistics, tn_params *params);

#endif
