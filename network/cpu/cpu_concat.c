#include "network/cpu/cpu.h"

#include "core/memory.h"

#include <string.h>

typedef struct concat_kernel {
    tn_cpu_kernel plain;
    int64_t total; /* sum of inner */
    int64_t inner[];
} concat_kernel;

static tn_status concat_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const concat_kernel *k = (const concat_kernel *)kernel;
    const tn_concat_task *t = &k->plain.task.concat;
#pragma omp parallel for schedule(static) if (t->outer * k->total > TN_CPU_GRAIN)
    for (int64_t o = 0; o < t->outer; o++) {
        float *dst = args->dst + o * k->total;
        for (int i = 0; i < t->n; i++) {
            memcpy(dst, args->src[i] + o * k->inner[i], (size_t)k->inner[i] * sizeof(float));
            dst += k->inner[i];
        }
    }
    return TN_OK;
}

static tn_status concat_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const concat_kernel *k = (const concat_kernel *)kernel;
    const tn_concat_task *t = &k->plain.task.concat;
#pragma omp parallel for schedule(static) if (t->outer * k->total > TN_CPU_GRAIN)
    for (int64_t o = 0; o < t->outer; o++) {
        const float *src = args->ddst + o * k->total;
        for (int i = 0; i < t->n; i++) {
            float *dst = args->dsrc[i] ? args->dsrc[i] + o * k->inner[i] : NULL;
            if (dst && args->accumulate[i])
                for (int64_t j = 0; j < k->inner[i]; j++)
                    dst[j] += src[j];
            else if (dst)
                memcpy(dst, src, (size_t)k->inner[i] * sizeof(float));
            src += k->inner[i];
        }
    }
    return TN_OK;
}

static const tn_kernel_class concat_class = {tn_cpu_kernel_destroy, NULL, concat_forward,
                                             concat_backward};

tn_status tn_cpu_concat_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                tn_error *error)
{
    const tn_concat_task *t = &task->concat;
    tn_kernel *created;
    tn_status status = tn_cpu_kernel_create(device, task, &concat_class, "omp",
                                            sizeof(concat_kernel) + (size_t)t->n * sizeof(int64_t),
                                            &created, error);
    if (status != TN_OK)
        return status;
    concat_kernel *k = (concat_kernel *)created;
    for (int i = 0; i < t->n; i++) {
        k->inner[i] = t->inner[i];
        k->total += t->inner[i];
    }
    k->plain.task.concat.inner = k->inner;
    *kernel = created;
    return TN_OK;
}
