#include "network/cpu/cpu.h"

enum { LANES = 64 };

/* `n` (<= LANES) columns of [reduced, inner], in double and in order of the rows. */
TN_HOT static void columns(tn_reduce_kind kind, const float *src, int64_t reduced, int64_t inner,
                           int64_t n, float *dst)
{
    double sum[LANES] = {0.0};
    if (kind == TN_REDUCE_MAX) {
        for (int64_t i = 0; i < n; i++)
            dst[i] = src[i];
        for (int64_t r = 1; r < reduced; r++)
            for (int64_t i = 0; i < n; i++)
                dst[i] = src[r * inner + i] > dst[i] ? src[r * inner + i] : dst[i];
        return;
    }
    for (int64_t r = 0; r < reduced; r++)
        for (int64_t i = 0; i < n; i++)
            sum[i] += (double)src[r * inner + i];
    double scale = kind == TN_REDUCE_MEAN ? 1.0 / (double)reduced : 1.0;
    for (int64_t i = 0; i < n; i++)
        dst[i] = (float)(sum[i] * scale);
}

static tn_status reduce_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const tn_reduce_task *t = &((tn_cpu_kernel *)kernel)->task.reduce;
    int64_t bands = (t->inner + LANES - 1) / LANES;
#pragma omp parallel for collapse(2)                                                               \
    schedule(static) if (t->outer * t->reduced * t->inner > TN_CPU_GRAIN)
    for (int64_t o = 0; o < t->outer; o++)
        for (int64_t band = 0; band < bands; band++) {
            int64_t c = band * LANES, n = t->inner - c < LANES ? t->inner - c : LANES;
            columns(t->kind, args->src[0] + o * t->reduced * t->inner + c, t->reduced, t->inner, n,
                    args->dst + o * t->inner + c);
        }
    return TN_OK;
}

static tn_status reduce_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const tn_reduce_task *t = &((tn_cpu_kernel *)kernel)->task.reduce;
    float scale = t->kind == TN_REDUCE_MEAN ? 1.0f / (float)t->reduced : 1.0f;
    float *dsrc = args->dsrc[0];
    if (!dsrc)
        return TN_OK;
#pragma omp parallel for schedule(static) if (t->outer * t->reduced * t->inner > TN_CPU_GRAIN)
    for (int64_t row = 0; row < t->outer * t->reduced; row++) {
        const float *from = args->ddst + row / t->reduced * t->inner;
        float *to = dsrc + row * t->inner;
        if (args->accumulate[0])
            for (int64_t i = 0; i < t->inner; i++)
                to[i] += from[i] * scale;
        else
            for (int64_t i = 0; i < t->inner; i++)
                to[i] = from[i] * scale;
    }
    return TN_OK;
}

static const tn_kernel_class reduce_class = {tn_cpu_kernel_destroy, NULL, reduce_forward,
                                             reduce_backward};
static const tn_kernel_class reduce_max_class = {tn_cpu_kernel_destroy, NULL, reduce_forward, NULL};

tn_status tn_cpu_reduce_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                tn_error *error)
{
    return tn_cpu_kernel_create(
        device, task, task->reduce.kind == TN_REDUCE_MAX ? &reduce_max_class : &reduce_class, "omp",
        sizeof(tn_cpu_kernel), kernel, error);
}
