#include "network/cpu/cpu.h"

#include <math.h>

static void forward_one(const tn_softmax_task *t, const float *src, float *dst)
{
    float most = -INFINITY;
    double sum = 0.0;
    for (int64_t i = 0; i < t->axis; i++)
        most = src[i * t->inner] > most ? src[i * t->inner] : most;
    for (int64_t i = 0; i < t->axis; i++) {
        float e = expf(src[i * t->inner] - most);
        sum += (double)e;
        if (!t->log)
            dst[i * t->inner] = e;
    }
    float scale = (float)(1.0 / sum), shift = most + (float)log(sum);
    for (int64_t i = 0; i < t->axis; i++)
        dst[i * t->inner] = t->log ? src[i * t->inner] - shift : dst[i * t->inner] * scale;
}

static tn_status softmax_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const tn_softmax_task *t = &kernel->task.softmax;
#pragma omp parallel for schedule(static) if (t->outer * t->axis * t->inner > TN_CPU_GRAIN)
    for (int64_t i = 0; i < t->outer * t->inner; i++) {
        int64_t at = i / t->inner * t->axis * t->inner + i % t->inner;
        forward_one(t, args->src[0] + at, args->dst + at);
    }
    return TN_OK;
}

/* dx = y (dy - sum y dy), or with log: dy - exp(y) sum dy. */
static tn_status softmax_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const tn_softmax_task *t = &kernel->task.softmax;
    if (!args->dsrc[0])
        return TN_OK;
#pragma omp parallel for schedule(static) if (t->outer * t->axis * t->inner > TN_CPU_GRAIN)
    for (int64_t i = 0; i < t->outer * t->inner; i++) {
        int64_t first = i / t->inner * t->axis * t->inner + i % t->inner;
        double sum = 0.0;
        for (int64_t j = 0; j < t->axis; j++) {
            int64_t at = first + j * t->inner;
            sum += t->log ? (double)args->ddst[at] : (double)args->ddst[at] * (double)args->dst[at];
        }
        for (int64_t j = 0; j < t->axis; j++) {
            int64_t at = first + j * t->inner;
            float d = t->log ? args->ddst[at] - expf(args->dst[at]) * (float)sum
                             : args->dst[at] * (args->ddst[at] - (float)sum);
            args->dsrc[0][at] = d + (args->accumulate[0] ? args->dsrc[0][at] : 0.0f);
        }
    }
    return TN_OK;
}

static const tn_kernel_class softmax_class = {tn_kernel_free, NULL, softmax_forward,
                                              softmax_backward};

tn_status tn_cpu_softmax_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                 tn_error *error)
{
    tn_kernel *k;
    tn_status status =
        tn_kernel_create(device, task, &softmax_class, "omp", sizeof(tn_kernel), &k, error);
    if (status != TN_OK)
        return status;
    k->reads_dst = true;
    *kernel = k;
    return TN_OK;
}
