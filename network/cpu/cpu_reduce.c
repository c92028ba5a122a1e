#include "network/cpu/cpu.h"

#include "network/cpu/cpu_bf16.h"

enum { LANES = 64 };

/* `n` (<= LANES) columns of [reduced, inner], in double and in order of the rows. */
TN_INLINE void reduce_columns(tn_reduce_kind kind, const void *src, int64_t reduced, int64_t inner,
                              int64_t n, float *dst, bool bf16)
{
    double sum[LANES] = {0.0};
    if (kind == TN_REDUCE_MAX) {
        for (int64_t i = 0; i < n; i++)
            dst[i] = tn_load(src, i, bf16);
        for (int64_t r = 1; r < reduced; r++)
            for (int64_t i = 0; i < n; i++) {
                float x = tn_load(src, r * inner + i, bf16);
                dst[i] = x > dst[i] ? x : dst[i];
            }
        return;
    }
    for (int64_t r = 0; r < reduced; r++)
        for (int64_t i = 0; i < n; i++)
            sum[i] += (double)tn_load(src, r * inner + i, bf16);
    double scale = kind == TN_REDUCE_MEAN ? 1.0 / (double)reduced : 1.0;
    for (int64_t i = 0; i < n; i++)
        dst[i] = (float)(sum[i] * scale);
}

TN_HOT static void columns(tn_reduce_kind kind, const void *src, int64_t reduced, int64_t inner,
                           int64_t n, float *dst, bool bf16)
{
    if (bf16)
        reduce_columns(kind, src, reduced, inner, n, dst, true);
    else
        reduce_columns(kind, src, reduced, inner, n, dst, false);
}

static tn_status reduce_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const tn_task *task = &kernel->task;
    const tn_reduce_task *t = &task->reduce;
    const bool bf16_src = task->bf16_src & 1;
    int64_t bands = (t->inner + LANES - 1) / LANES;
#pragma omp parallel for collapse(2)                                                               \
    schedule(static) if (t->outer * t->reduced * t->inner > TN_CPU_GRAIN)
    for (int64_t o = 0; o < t->outer; o++)
        for (int64_t band = 0; band < bands; band++) {
            float result[LANES];
            int64_t c = band * LANES, n = t->inner - c < LANES ? t->inner - c : LANES;
            columns(t->kind, tn_place(args->src[0], o * t->reduced * t->inner + c, bf16_src),
                    t->reduced, t->inner, n, result, bf16_src);
            for (int64_t i = 0; i < n; i++)
                tn_save(args->dst, o * t->inner + c + i, result[i], task->bf16_dst);
        }
    return TN_OK;
}

/* The gradient of one row. */
TN_HOT static void spread(const void *from, bool bf16_from, float scale, void *to, bool bf16_to,
                          bool accumulate, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float d = tn_load(from, i, bf16_from) * scale;
        tn_save(to, i, accumulate ? tn_load(to, i, bf16_to) + d : d, bf16_to);
    }
}

static tn_status reduce_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const tn_task *task = &kernel->task;
    const tn_reduce_task *t = &task->reduce;
    const bool bf16_src = task->bf16_src & 1;
    float scale = t->kind == TN_REDUCE_MEAN ? 1.0f / (float)t->reduced : 1.0f;
    if (!args->dsrc[0])
        return TN_OK;
#pragma omp parallel for schedule(static) if (t->outer * t->reduced * t->inner > TN_CPU_GRAIN)
    for (int64_t row = 0; row < t->outer * t->reduced; row++)
        spread(tn_place(args->ddst, row / t->reduced * t->inner, task->bf16_dst), task->bf16_dst,
               scale, tn_place(args->dsrc[0], row * t->inner, bf16_src), bf16_src,
               args->accumulate[0], t->inner);
    return TN_OK;
}

static const tn_kernel_class reduce_class = {tn_kernel_free, NULL, reduce_forward, reduce_backward};
static const tn_kernel_class reduce_max_class = {tn_kernel_free, NULL, reduce_forward, NULL};

tn_status tn_cpu_reduce_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                tn_error *error)
{
    return tn_kernel_create(device, task,
                            task->reduce.kind == TN_REDUCE_MAX ? &reduce_max_class : &reduce_class,
                            "omp", sizeof(tn_kernel), kernel, error);
}
