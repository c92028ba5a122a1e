#include "network/cpu/cpu.h"

#include "core/random.h"

#include <string.h>

typedef struct dropout_kernel {
    tn_kernel base;
    bool drop; /* of the last forward */
    tn_draw draw;
} dropout_kernel;

/* dst (+)= src * mask / (1 - ratio); row r of the batch. */
static void mask_row(const dropout_kernel *k, int64_t r, const float *src, float *dst,
                     bool accumulate)
{
    const tn_dropout_task *t = &k->base.task.dropout;
    tn_random random = tn_random_make(k->draw.seed + t->layer, TN_PURPOSE_DROPOUT, k->draw.epoch,
                                      k->draw.sample + (uint64_t)r);
    uint32_t threshold = (uint32_t)((double)t->ratio * 4294967296.0);
    float scale = 1.0f / (1.0f - t->ratio);
    for (int64_t i = 0; i < t->inner; i++) {
        float factor = !k->drop ? 1.0f : tn_random_u32(&random) >= threshold ? scale : 0.0f;
        dst[i] = src[i] * factor + (accumulate ? dst[i] : 0.0f);
    }
}

static tn_status dropout_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    dropout_kernel *k = (dropout_kernel *)kernel;
    const tn_dropout_task *t = &k->base.task.dropout;
    k->drop = args->drop;
    if (args->drop)
        k->draw = *args->draw;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < t->rows; r++)
        mask_row(k, r, args->src[0] + r * t->inner, args->dst + r * t->inner, false);
    return TN_OK;
}

static tn_status dropout_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const dropout_kernel *k = (const dropout_kernel *)kernel;
    const tn_dropout_task *t = &k->base.task.dropout;
    if (!args->dsrc[0])
        return TN_OK;
#pragma omp parallel for schedule(static)
    for (int64_t r = 0; r < t->rows; r++)
        mask_row(k, r, args->ddst + r * t->inner, args->dsrc[0] + r * t->inner,
                 args->accumulate[0]);
    return TN_OK;
}

static const tn_kernel_class dropout_class = {tn_kernel_free, NULL, dropout_forward,
                                              dropout_backward};

tn_status tn_cpu_dropout_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                 tn_error *error)
{
    return tn_kernel_create(device, task, &dropout_class, "omp", sizeof(dropout_kernel), kernel,
                            error);
}
