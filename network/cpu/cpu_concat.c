#include "network/cpu/cpu.h"

#include "core/memory.h"
#include "network/cpu/cpu_bf16.h"

#include <string.h>

typedef struct concat_kernel {
    tn_kernel base;
    int64_t total; /* sum of inner */
    int64_t inner[];
} concat_kernel;

static tn_status concat_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const concat_kernel *k = (const concat_kernel *)kernel;
    const tn_concat_task *t = &k->base.task.concat;
    const bool bf16 = k->base.task.bf16_dst;
#pragma omp parallel for schedule(static) if (t->outer * k->total > TN_CPU_GRAIN)
    for (int64_t o = 0; o < t->outer; o++) {
        char *dst = tn_place(args->dst, o * k->total, bf16);
        for (int i = 0; i < t->n; i++) {
            size_t bytes = (size_t)k->inner[i] * tn_element(bf16);
            memcpy(dst, tn_place(args->src[i], o * k->inner[i], bf16), bytes);
            dst += bytes;
        }
    }
    return TN_OK;
}

static tn_status concat_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const concat_kernel *k = (const concat_kernel *)kernel;
    const tn_concat_task *t = &k->base.task.concat;
    const bool bf16 = k->base.task.bf16_dst;
#pragma omp parallel for schedule(static) if (t->outer * k->total > TN_CPU_GRAIN)
    for (int64_t o = 0; o < t->outer; o++) {
        const char *src = tn_place(args->ddst, o * k->total, bf16);
        for (int i = 0; i < t->n; i++) {
            size_t bytes = (size_t)k->inner[i] * tn_element(bf16);
            void *dst = args->dsrc[i] ? tn_place(args->dsrc[i], o * k->inner[i], bf16) : NULL;
            if (dst && args->accumulate[i])
                tn_cpu_add_piece(dst, src, k->inner[i], bf16);
            else if (dst)
                memcpy(dst, src, bytes);
            src += bytes;
        }
    }
    return TN_OK;
}

static const tn_kernel_class concat_class = {tn_kernel_free, NULL, concat_forward, concat_backward};

tn_status tn_cpu_concat_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                tn_error *error)
{
    const tn_concat_task *t = &task->concat;
    tn_kernel *created;
    tn_status status =
        tn_kernel_create(device, task, &concat_class, "omp",
                         sizeof(concat_kernel) + (size_t)t->n * sizeof(int64_t), &created, error);
    if (status != TN_OK)
        return status;
    concat_kernel *k = (concat_kernel *)created;
    for (int i = 0; i < t->n; i++) {
        k->inner[i] = t->inner[i];
        k->total += t->inner[i];
    }
    k->base.task.concat.inner = k->inner;
    *kernel = created;
    return TN_OK;
}
