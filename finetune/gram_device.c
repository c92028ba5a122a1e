#include "finetune/gram_device.h"

#include "core/memory.h"

#include <string.h>

enum { VECTORS = 7 }; /* as in the task's params */

struct tn_gram_device {
    tn_device *device;
    const tn_gram_target *target;
    tn_gram_task task;
    tn_kernel *kernel;
    void *vector[VECTORS];
    double *dst;
    void *workspace;
    uint32_t *places;
    int64_t room; /* for places */
};

static void describe(tn_gram_task *task, const tn_patches *p, bool cross_only,
                     const tn_gram_target *target)
{
    *task = (tn_gram_task){.channels = p->channels,
                           .group = p->group,
                           .outputs = target->channels / p->group,
                           .cross_only = cross_only,
                           .relaxed = target->values != NULL};
    for (int i = 0; i < 3; i++) {
        int from = i - (3 - p->spatial);
        bool is = from >= 0;
        task->in[i] = is ? p->in[from] : 1;
        task->out[i] = is ? p->out[from] : 1;
        task->kernel[i] = is ? p->kernel[from] : 1;
        task->stride[i] = is ? p->stride[from] : 1;
        task->dilation[i] = is ? p->dilation[from] : 1;
        task->pad[i] = is ? p->pad[from] : 0;
    }
}

static tn_status no_memory(const tn_gram_device *sums, tn_error *error)
{
    return tn_fail(error, tn_device_memory_status(sums->device),
                   "no memory on %s for the Gram matrix of %lld inputs", sums->device->id,
                   (long long)tn_gram_layout_of(&sums->task).cols);
}

static tn_status upload(tn_gram_device *sums, int which, const void *from, size_t bytes,
                        tn_error *error)
{
    const tn_device_class *type = sums->device->type;
    if (!from)
        return TN_OK;
    sums->vector[which] = type->alloc(sums->device, bytes);
    return sums->vector[which] ? type->upload(sums->device, sums->vector[which], from, bytes, error)
                               : no_memory(sums, error);
}

/* Rows of values as the product wants them, zeros between. */
static tn_status upload_values(tn_gram_device *sums, tn_error *error)
{
    const tn_gram_layout l = tn_gram_layout_of(&sums->task);
    const tn_gram_target *target = sums->target;
    if (!target->values)
        return TN_OK;
    size_t count = (size_t)(target->channels * l.y_at);
    float *padded = tn_alloc_zero(count, sizeof *padded);
    if (!padded)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu weights", count);
    for (int64_t o = 0; o < target->channels; o++)
        memcpy(padded + o * l.y_at, target->values + o * l.cols, (size_t)l.cols * sizeof *padded);
    tn_status status = upload(sums, 2, padded, count * sizeof *padded, error);
    tn_free(padded);
    return status;
}

static size_t products_count(const tn_gram_device *sums)
{
    const tn_gram_layout l = tn_gram_layout_of(&sums->task);
    return (size_t)(sums->task.group * l.cols * l.sum_width);
}

static tn_status prepare(tn_gram_device *sums, tn_error *error)
{
    tn_device *device = sums->device;
    const tn_gram_target *target = sums->target;
    const size_t channels = (size_t)target->channels;
    const size_t bytes = (products_count(sums) + 2 * channels) * sizeof(double);
    const tn_task task = {.verb = TN_VERB_GRAM, .precision = TN_PRECISION_FP32, .gram = sums->task};
    tn_status status = device->type->prepare(device, &task, &sums->kernel, error);
    if (status == TN_OK) {
        sums->dst = device->type->alloc(device, bytes);
        sums->workspace = device->type->alloc(device, sums->kernel->workspace_bytes);
        status = sums->dst && sums->workspace ? device->type->zero(device, sums->dst, bytes, error)
                                              : no_memory(sums, error);
    }
    const void *const from[VECTORS] = {target->bias, target->correction, NULL,
                                       target->gain, target->offset,     target->slope,
                                       target->shift};
    for (int i = 0; status == TN_OK && i < VECTORS; i++)
        status =
            upload(sums, i, from[i], channels * (i < 3 ? sizeof(float) : sizeof(double)), error);
    return status == TN_OK ? upload_values(sums, error) : status;
}

tn_status tn_gram_device_create(tn_device *device, const tn_patches *patches, bool cross_only,
                                const tn_gram_target *target, tn_gram_device **out, tn_error *error)
{
    tn_gram_device *sums = tn_alloc_zero(1, sizeof *sums);
    if (!sums)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    sums->device = device;
    sums->target = target;
    describe(&sums->task, patches, cross_only, target);
    tn_status status = prepare(sums, error);
    if (status == TN_OK)
        *out = sums;
    else
        tn_gram_device_destroy(sums);
    return status;
}

void tn_gram_device_destroy(tn_gram_device *sums)
{
    if (!sums)
        return;
    const tn_device_class *type = sums->device->type;
    tn_kernel_destroy(sums->kernel);
    for (int i = 0; i < VECTORS; i++)
        type->release(sums->device, sums->vector[i]);
    type->release(sums->device, sums->dst);
    type->release(sums->device, sums->workspace);
    type->release(sums->device, sums->places);
    tn_free(sums);
}

tn_gram_layout tn_gram_device_layout(const tn_gram_device *sums)
{
    return tn_gram_layout_of(&sums->task);
}

tn_status tn_gram_device_add(tn_gram_device *sums, const float *data, const uint32_t *places,
                             int64_t count, tn_error *error)
{
    tn_device *device = sums->device;
    const tn_gram_target *target = sums->target;
    size_t bytes = (size_t)count * sizeof *places;
    if (count > sums->room) {
        device->type->release(device, sums->places);
        sums->places = device->type->alloc(device, bytes);
        sums->room = sums->places ? count : 0;
        if (!sums->places)
            return no_memory(sums, error);
    }
    const float *src[] = {data, target->output, target->other_f, target->other_q};
    const float *params[VECTORS];
    for (int i = 0; i < VECTORS; i++)
        params[i] = sums->vector[i];
    const tn_arguments args = {.src = src,
                               .dst = (float *)(void *)sums->dst,
                               .params = params,
                               .workspace = sums->workspace,
                               .places = sums->places,
                               .count = count};
    tn_status status = device->type->upload(device, sums->places, places, bytes, error);
    return status == TN_OK ? sums->kernel->type->forward(sums->kernel, &args, error) : status;
}

tn_status tn_gram_device_get(const tn_gram_device *sums, double *products, double *moments,
                             tn_error *error)
{
    tn_device *device = sums->device;
    size_t count = products_count(sums), rest = 2 * (size_t)sums->target->channels;
    tn_status status =
        device->type->download(device, products, sums->dst, count * sizeof *products, error);
    return status == TN_OK ? device->type->download(device, moments, sums->dst + count,
                                                    rest * sizeof *moments, error)
                           : status;
}
