#include "finetune/running_statistics.h"

#include "core/memory.h"

#include <string.h>

static bool is_statistic(const tn_param *param)
{
    return param->role == TN_PARAM_MEAN || param->role == TN_PARAM_VAR;
}

tn_status tn_running_statistics_create(const tn_params *params, tn_running_statistics *statistics,
                                       tn_error *error)
{
    int64_t count = 1;
    for (size_t i = 0; i < tn_params_count(params); i++)
        count += is_statistic(tn_params_at(params, i)) ? tn_params_at(params, i)->count : 0;
    statistics->kept = tn_alloc_zero((size_t)count, sizeof *statistics->kept);
    return statistics->kept ? TN_OK
                            : tn_fail(error, TN_ERROR_LIMIT, "out of memory for BN statistics");
}

void tn_running_statistics_done(tn_running_statistics *statistics)
{
    tn_free(statistics->kept);
    statistics->kept = NULL;
}

void tn_running_statistics_keep(tn_running_statistics *statistics, const tn_params *params)
{
    float *to = statistics->kept;
    for (size_t i = 0; i < tn_params_count(params); i++) {
        const tn_param *param = tn_params_at(params, i);
        if (!is_statistic(param))
            continue;
        memcpy(to, param->data, (size_t)param->count * sizeof *to);
        to += param->count;
    }
}

void tn_running_statistics_restore(const tn_running_statistics *statistics, tn_params *params)
{
    const float *from = statistics->kept;
    for (size_t i = 0; i < tn_params_count(params); i++) {
        tn_param *param = tn_params_at(params, i);
        if (!is_statistic(param))
            continue;
        memcpy(param->data, from, (size_t)param->count * sizeof *from);
        from += param->count;
        tn_params_touch(params, i);
    }
}
