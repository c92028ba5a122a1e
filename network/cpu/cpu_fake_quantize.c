#include "network/cpu/cpu.h"

#include <math.h>

enum { LANES = 8 }; /* partial sums of a piece: fixed, so that bits are */

/* + 0 makes -0 the +0 that QuantizeLinear gives */
TN_HOT static void quantize_piece(const tn_fake_quantize_task *t, float step, const float *src,
                                  float *dst, int64_t n)
{
    float low = t->low, high = t->high;
    for (int64_t i = 0; i < n; i++) {
        float q = rintf(src[i] / step) + 0.0f;
        dst[i] = (q < low ? low : q > high ? high : q) * step;
    }
}

TN_HOT static void source_piece(const tn_fake_quantize_task *t, float step, const float *src,
                                const float *ddst, float *dsrc, bool accumulate, int64_t n)
{
    float low = t->low, high = t->high;
    for (int64_t i = 0; i < n; i++) {
        float v = src[i] / step, d = v >= low && v <= high ? ddst[i] : 0.0f;
        dsrc[i] = accumulate ? dsrc[i] + d : d;
    }
}

/* Sum of ddst times the derivative of code * step by the step. */
TN_HOT static double step_piece(const tn_fake_quantize_task *t, float step, const float *src,
                                const float *ddst, int64_t n)
{
    double lane[LANES] = {0.0}, sum = 0.0;
    float low = t->low, high = t->high, inside = t->clip_only ? 0.0f : 1.0f;
    for (int64_t i = 0; i < n; i += LANES) {
        int64_t last = n - i < LANES ? n - i : LANES;
        for (int64_t k = 0; k < last; k++) {
            float v = src[i + k] / step;
            float term = v < low ? low : v > high ? high : inside * (rintf(v) - v);
            lane[k] += (double)ddst[i + k] * (double)term;
        }
    }
    for (int k = 0; k < LANES; k++)
        sum += lane[k];
    return sum;
}

static float step_of(const tn_arguments *args)
{
    return args->params[0][0] >= TN_LEAST_STEP ? args->params[0][0] : TN_LEAST_STEP;
}

typedef struct piece {
    int64_t at, count;
} piece;

static piece piece_of(const tn_fake_quantize_task *t, int i)
{
    int64_t first = t->count * i / TN_CPU_CHUNKS;
    return (piece){first, t->count * (i + 1) / TN_CPU_CHUNKS - first};
}

static tn_status fake_quantize_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const tn_fake_quantize_task *t = &kernel->task.fake_quantize;
    float step = step_of(args);
#pragma omp parallel for schedule(static) if (t->count > TN_CPU_GRAIN)
    for (int i = 0; i < TN_CPU_CHUNKS; i++) {
        piece p = piece_of(t, i);
        quantize_piece(t, step, args->src[0] + p.at, args->dst + p.at, p.count);
    }
    return TN_OK;
}

static tn_status fake_quantize_backward(tn_kernel *kernel, const tn_arguments *args,
                                        tn_error *error)
{
    (void)error;
    const tn_fake_quantize_task *t = &kernel->task.fake_quantize;
    float step = step_of(args), *dstep = args->dparams[0];
    double sums[TN_CPU_CHUNKS], sum = 0.0;
#pragma omp parallel for schedule(static) if (t->count > TN_CPU_GRAIN)
    for (int i = 0; i < TN_CPU_CHUNKS; i++) {
        piece p = piece_of(t, i);
        sums[i] =
            dstep ? step_piece(t, step, args->src[0] + p.at, args->ddst + p.at, p.count) : 0.0;
        if (args->dsrc[0])
            source_piece(t, step, args->src[0] + p.at, args->ddst + p.at, args->dsrc[0] + p.at,
                         args->accumulate[0], p.count);
    }
    for (int i = 0; i < TN_CPU_CHUNKS; i++)
        sum += sums[i];
    if (dstep)
        *dstep = (float)(sum * (double)t->step_factor) + (args->accumulate_params ? *dstep : 0.0f);
    return TN_OK;
}

static const tn_kernel_class fake_quantize_class = {tn_kernel_free, NULL, fake_quantize_forward,
                                                    fake_quantize_backward};

tn_status tn_cpu_fake_quantize_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                       tn_error *error)
{
    tn_status status = tn_kernel_create(device, task, &fake_quantize_class, "omp",
                                        sizeof(tn_kernel), kernel, error);
    if (status == TN_OK)
        (*kernel)->reads_src = true;
    return status;
}
