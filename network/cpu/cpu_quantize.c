#include "network/cpu/cpu.h"

#include <math.h>

TN_HOT static void quantize_row(const tn_quantize_task *t, const float *src, float scale,
                                float zero, float *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        float q = rintf(src[i] / scale) + zero;
        dst[i] = q < t->low ? t->low : q > t->high ? t->high : q;
    }
}

TN_HOT static void dequantize_row(const float *src, float scale, float zero, float *dst, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = (src[i] - zero) * scale;
}

static tn_status quantize_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const tn_task *task = &kernel->task;
    const tn_quantize_task *t = &task->quantize;
    int64_t piece = t->inner < TN_CPU_GRAIN ? t->inner : TN_CPU_GRAIN;
    int64_t per_row = piece ? (t->inner + piece - 1) / piece : 0;
#pragma omp parallel for schedule(static) if (t->outer * t->axis * t->inner > TN_CPU_GRAIN)
    for (int64_t p = 0; p < t->outer * t->axis * per_row; p++) {
        int64_t row = p / per_row, at = p % per_row * piece, axis = row % t->axis;
        int64_t n = t->inner - at < piece ? t->inner - at : piece;
        float scale = args->src[1][axis], zero = t->zero ? args->src[2][axis] : 0.0f;
        const float *src = args->src[0] + row * t->inner + at;
        if (task->verb == TN_VERB_QUANTIZE)
            quantize_row(t, src, scale, zero, args->dst + row * t->inner + at, n);
        else
            dequantize_row(src, scale, zero, args->dst + row * t->inner + at, n);
    }
    return TN_OK;
}

static const tn_kernel_class quantize_class = {tn_kernel_free, NULL, quantize_forward, NULL};

tn_status tn_cpu_quantize_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                  tn_error *error)
{
    return tn_kernel_create(device, task, &quantize_class, "omp", sizeof(tn_kernel), kernel, error);
}
