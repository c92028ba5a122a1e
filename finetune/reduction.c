#include "finetune/reduction.h"

#include "core/memory.h"

struct tn_reduction {
    tn_params *params;
    tn_device *device;
    tn_collective *collective;
    tn_span *spans;     /* device memory: all gradients, then every statistic */
    tn_span *host;      /* the same in `staging`, where the collective cannot reach the device */
    size_t *statistics; /* [n - 1] places in the store */
    size_t n;
    float *staging; /* NULL: not needed */
};

static bool is_statistic(const tn_param *param)
{
    return param->role == TN_PARAM_MEAN || param->role == TN_PARAM_VAR;
}

static tn_status out_of_memory(tn_error *error)
{
    return tn_fail(error, TN_ERROR_LIMIT, "out of memory for gradients of several processes");
}

static void list_spans(tn_reduction *r, bool statistics)
{
    r->spans[0].data = tn_params_gradients(r->params, &r->spans[0].count);
    r->n = 1;
    for (size_t i = 0; statistics && i < tn_params_count(r->params); i++) {
        const tn_param *param = tn_params_at(r->params, i);
        if (!is_statistic(param))
            continue;
        r->statistics[r->n - 1] = i;
        r->spans[r->n++] = (tn_span){param->data, param->count};
    }
}

static tn_status stage(tn_reduction *r, tn_error *error)
{
    int64_t total = 0;
    if (r->device->host_memory || r->collective->on_device)
        return TN_OK;
    for (size_t i = 0; i < r->n; i++)
        total += r->spans[i].count;
    r->staging = tn_alloc_array((size_t)total, sizeof *r->staging);
    if (!r->staging)
        return out_of_memory(error);
    total = 0;
    for (size_t i = 0; i < r->n; i++) {
        r->host[i] = (tn_span){r->staging + total, r->spans[i].count};
        total += r->spans[i].count;
    }
    return TN_OK;
}

tn_status tn_reduction_create(tn_params *params, tn_device *device, tn_collective *collective,
                              bool statistics, tn_reduction **reduction, tn_error *error)
{
    *reduction = NULL;
    if (collective->size == 1)
        return TN_OK;
    const size_t most = tn_params_count(params) + 1;
    tn_reduction *r = tn_alloc_zero(1, sizeof *r);
    if (!r)
        return out_of_memory(error);
    *r = (tn_reduction){.params = params,
                        .device = device,
                        .collective = collective,
                        .spans = tn_alloc_array(most, sizeof *r->spans),
                        .host = tn_alloc_array(most, sizeof *r->host),
                        .statistics = tn_alloc_array(most, sizeof *r->statistics)};
    tn_status status = TN_OK;
    if (!r->spans || !r->host || !r->statistics)
        status = out_of_memory(error);
    if (status == TN_OK) {
        list_spans(r, statistics);
        status = stage(r, error);
    }
    if (status == TN_OK)
        *reduction = r;
    else
        tn_reduction_destroy(r);
    return status;
}

void tn_reduction_destroy(tn_reduction *r)
{
    if (!r)
        return;
    tn_free(r->spans);
    tn_free(r->host);
    tn_free(r->statistics);
    tn_free(r->staging);
    tn_free(r);
}

/* By way of the host's memory. */
static tn_status sum_staged(tn_reduction *r, tn_error *error)
{
    const tn_device_class *type = r->device->type;
    tn_status status = TN_OK;
    for (size_t i = 0; i < r->n && status == TN_OK; i++)
        status = type->download(r->device, r->host[i].data, r->spans[i].data,
                                (size_t)r->spans[i].count * sizeof(float), error);
    if (status == TN_OK)
        status = tn_collective_sum(r->collective, r->host, r->n, error);
    for (size_t i = 0; i < r->n && status == TN_OK; i++)
        status = type->upload(r->device, r->spans[i].data, r->host[i].data,
                              (size_t)r->spans[i].count * sizeof(float), error);
    return status;
}

tn_status tn_reduction_run(tn_reduction *r, tn_error *error)
{
    if (!r)
        return TN_OK;
    tn_status status =
        r->staging ? sum_staged(r, error) : tn_collective_sum(r->collective, r->spans, r->n, error);
    const float share = 1.0f / (float)r->collective->size;
    for (size_t i = 1; i < r->n && status == TN_OK; i++) {
        status =
            r->device->type->scale(r->device, r->spans[i].data, share, r->spans[i].count, error);
        tn_params_touch(r->params, r->statistics[i - 1]);
    }
    return status;
}
