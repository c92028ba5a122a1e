#include "finetune/bn_statistics.h"

#include "core/memory.h"

#include <string.h>

static tn_status add_layer(tn_bn_layer *layer, const tn_plan *plan, size_t index,
                           const tn_plan_step *step, tn_error *error)
{
    const tn_params *params = tn_plan_params(plan);
    /* the step may begin with another node: find the BN among those it computes */
    const tn_node *node = step->node;
    while (node && strcmp(node->type, "BatchNormalization"))
        node = node->n_outputs && node->outputs[0] && node->outputs[0]->n_users
                   ? node->outputs[0]->users[0]
                   : NULL;
    if (!node || node->n_inputs < 5)
        return tn_fail(error, TN_ERROR_MODEL, "step %s: its BatchNormalization was not found",
                       tn_quote(step->label));
    layer->step = index;
    layer->mean = tn_params_find(params, node->inputs[3]->name);
    layer->variance = tn_params_find(params, node->inputs[4]->name);
    if (layer->mean == SIZE_MAX || layer->variance == SIZE_MAX)
        return tn_fail(error, TN_ERROR_MODEL, "node %s: statistics that are no constants",
                       tn_quote(tn_node_label(node)));
    layer->channels = tn_params_at(params, layer->mean)->count;
    size_t channels = (size_t)layer->channels;
    layer->sum_mean = tn_alloc_zero(channels, sizeof(double));
    layer->sum_square = tn_alloc_zero(channels, sizeof(double));
    layer->saved = tn_alloc_array(2 * channels, sizeof(float));
    if (!layer->sum_mean || !layer->sum_square || !layer->saved)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for BN statistics");
    tn_status status = tn_params_get(params, layer->mean, layer->saved, error);
    if (status == TN_OK)
        status = tn_params_get(params, layer->variance, layer->saved + channels, error);
    return status;
}

tn_status tn_bn_statistics_create(const tn_plan *plan, tn_bn_statistics *out, tn_error *error)
{
    size_t steps = tn_plan_step_count(plan), most = 1;
    tn_bn_statistics statistics = {.layer = tn_alloc_zero(steps + 1, sizeof *statistics.layer)};
    tn_status status = statistics.layer
                           ? TN_OK
                           : tn_fail(error, TN_ERROR_LIMIT, "out of memory for BN statistics");
    for (size_t i = 0; status == TN_OK && i < steps; i++) {
        tn_plan_step step;
        status = tn_plan_step_at(plan, i, &step, error);
        if (status != TN_OK || step.verb != TN_VERB_BATCH_NORM)
            continue;
        tn_bn_layer *layer = &statistics.layer[statistics.count++];
        status = add_layer(layer, plan, i, &step, error);
        most = (size_t)layer->channels > most ? (size_t)layer->channels : most;
    }
    if (status == TN_OK && !(statistics.scratch = tn_alloc_array(2 * most, sizeof(float))))
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for BN statistics");
    if (status == TN_OK)
        *out = statistics;
    else
        tn_bn_statistics_done(&statistics);
    return status;
}

void tn_bn_statistics_done(tn_bn_statistics *statistics)
{
    for (size_t i = 0; i < statistics->count; i++) {
        tn_free(statistics->layer[i].sum_mean);
        tn_free(statistics->layer[i].sum_square);
        tn_free(statistics->layer[i].saved);
    }
    tn_free(statistics->layer);
    tn_free(statistics->scratch);
    *statistics = (tn_bn_statistics){0};
}

tn_status tn_bn_statistics_add(tn_bn_statistics *statistics, tn_plan *plan, tn_error *error)
{
    for (size_t i = 0; i < statistics->count; i++) {
        tn_bn_layer *layer = &statistics->layer[i];
        float *mean = statistics->scratch, *variance = mean + layer->channels;
        tn_status status = tn_plan_batch_statistics(plan, layer->step, mean, variance, error);
        if (status != TN_OK)
            return status;
        for (int64_t c = 0; c < layer->channels; c++) {
            layer->sum_mean[c] += (double)mean[c];
            layer->sum_square[c] += (double)variance[c] + (double)mean[c] * (double)mean[c];
        }
    }
    statistics->batches++;
    return TN_OK;
}

tn_status tn_bn_statistics_apply(const tn_bn_statistics *statistics, tn_plan *plan, tn_error *error)
{
    tn_params *params = tn_plan_params(plan);
    tn_status status = TN_OK;
    double n = statistics->batches > 0 ? (double)statistics->batches : 1;
    for (size_t i = 0; status == TN_OK && i < statistics->count; i++) {
        const tn_bn_layer *layer = &statistics->layer[i];
        float *mean = statistics->scratch, *variance = mean + layer->channels;
        for (int64_t c = 0; c < layer->channels; c++) {
            double m = layer->sum_mean[c] / n, v = layer->sum_square[c] / n - m * m;
            mean[c] = (float)m;
            variance[c] = (float)(v > 0 ? v : 0);
        }
        status = tn_params_set(params, layer->mean, mean, error);
        if (status == TN_OK)
            status = tn_params_set(params, layer->variance, variance, error);
    }
    return status;
}

tn_status tn_bn_statistics_restore(const tn_bn_statistics *statistics, tn_plan *plan,
                                   tn_error *error)
{
    tn_params *params = tn_plan_params(plan);
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < statistics->count; i++) {
        const tn_bn_layer *layer = &statistics->layer[i];
        status = tn_params_set(params, layer->mean, layer->saved, error);
        if (status == TN_OK)
            status = tn_params_set(params, layer->variance, layer->saved + layer->channels, error);
    }
    return status;
}
