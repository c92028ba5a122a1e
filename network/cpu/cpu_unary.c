#include "network/cpu/cpu.h"

#include "network/cpu/cpu_bf16.h"

#include <math.h>

/* clang-format off */
#define EACH(expression) \
    for (int64_t i = 0; i < count; i++) { float x = src[i]; (void)x; dst[i] = (expression); } break
/* clang-format on */

static inline float clamp(float x, float low, float high)
{
    return x < low ? low : x > high ? high : x;
}

TN_HOT static void simple(tn_function function, float a, float b, const float *src, float *dst,
                          int64_t count)
{
    switch (function) {
    case TN_FUNCTION_RELU:
        EACH(x > 0.0f ? x : x == x ? 0.0f : x);
    case TN_FUNCTION_CLIP:
        EACH(clamp(x, a, b));
    case TN_FUNCTION_LEAKY_RELU:
        EACH(x < 0.0f ? a * x : x);
    case TN_FUNCTION_HARD_SIGMOID:
        EACH(clamp(a * x + b, 0.0f, 1.0f));
    case TN_FUNCTION_HARD_SWISH:
        EACH(x * clamp(x * (1.0f / 6.0f) + 0.5f, 0.0f, 1.0f));
    case TN_FUNCTION_SQRT:
        EACH(sqrtf(x));
    case TN_FUNCTION_ABS:
        EACH(fabsf(x));
    case TN_FUNCTION_NEG:
        EACH(-x);
    case TN_FUNCTION_RECIPROCAL:
        EACH(1.0f / x);
    case TN_FUNCTION_FLOOR:
        EACH(floorf(x));
    case TN_FUNCTION_CEIL:
        EACH(ceilf(x));
    case TN_FUNCTION_ROUND:
        EACH(rintf(x));
    case TN_FUNCTION_INTEGER:
        EACH(clamp(truncf(x), a, b));
    case TN_FUNCTION_BOOLEAN:
        EACH(x != 0.0f ? 1.0f : 0.0f);
    default:
        EACH(x);
    }
}

static void transcendental(tn_function function, float a, const float *src, float *dst,
                           int64_t count)
{
    switch (function) {
    case TN_FUNCTION_SIGMOID:
        EACH(1.0f / (1.0f + expf(-x)));
    case TN_FUNCTION_TANH:
        EACH(tanhf(x));
    case TN_FUNCTION_ELU:
        EACH(x < 0.0f ? a * expm1f(x) : x);
    case TN_FUNCTION_SOFTPLUS:
        EACH(x > 20.0f ? x : log1pf(expf(x)));
    case TN_FUNCTION_EXP:
        EACH(expf(x));
    case TN_FUNCTION_LOG:
        EACH(logf(x));
    default: /* ERF */
        EACH(erff(x));
    }
}

static bool is_transcendental(tn_function function)
{
    return function == TN_FUNCTION_SIGMOID || function == TN_FUNCTION_TANH ||
           function == TN_FUNCTION_ELU || function == TN_FUNCTION_SOFTPLUS ||
           function == TN_FUNCTION_EXP || function == TN_FUNCTION_LOG ||
           function == TN_FUNCTION_ERF;
}

void tn_cpu_function(tn_function function, float a, float b, const float *src, float *dst,
                     int64_t count)
{
    if (is_transcendental(function))
        transcendental(function, a, src, dst, count);
    else
        simple(function, a, b, src, dst, count);
}

/* The derivative as a factor of dy, into d. */
TN_HOT static void derivative(tn_function function, float a, float b, const float *restrict src,
                              const float *restrict y, float *restrict dst, int64_t count)
{
    switch (function) {
    case TN_FUNCTION_RELU:
        EACH(y[i] > 0.0f ? 1.0f : 0.0f);
    case TN_FUNCTION_CLIP: /* PyTorch: 1 at the bounds */
        EACH(x >= a && x <= b ? 1.0f : 0.0f);
    case TN_FUNCTION_LEAKY_RELU:
        EACH(x > 0.0f ? 1.0f : a);
    case TN_FUNCTION_SIGMOID:
        EACH(y[i] * (1.0f - y[i]));
    case TN_FUNCTION_HARD_SIGMOID:
        EACH(a * x + b > 0.0f && a * x + b < 1.0f ? a : 0.0f);
    case TN_FUNCTION_HARD_SWISH:
        EACH(x <= -3.0f ? 0.0f : x >= 3.0f ? 1.0f : x * (1.0f / 3.0f) + 0.5f);
    case TN_FUNCTION_TANH:
        EACH(1.0f - y[i] * y[i]);
    case TN_FUNCTION_ELU:
        EACH(x < 0.0f ? y[i] + a : 1.0f);
    case TN_FUNCTION_EXP:
        EACH(y[i]);
    case TN_FUNCTION_LOG:
        EACH(1.0f / x);
    case TN_FUNCTION_SQRT:
        EACH(0.5f / y[i]);
    case TN_FUNCTION_ABS:
        EACH(x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f);
    case TN_FUNCTION_NEG:
        EACH(-1.0f);
    case TN_FUNCTION_RECIPROCAL:
        EACH(-y[i] * y[i]);
    default:
        EACH(1.0f);
    }
}

bool tn_cpu_function_has_backward(tn_function function)
{
    return function <= TN_FUNCTION_RECIPROCAL && function != TN_FUNCTION_SOFTPLUS;
}

TN_HOT static void multiply(const float *restrict d, const float *dy, float *dx, bool accumulate,
                            int64_t count)
{
    if (accumulate)
        for (int64_t i = 0; i < count; i++)
            dx[i] += dy[i] * d[i];
    else
        for (int64_t i = 0; i < count; i++)
            dx[i] = dy[i] * d[i];
}

void tn_cpu_function_backward(tn_function function, float a, float b, const float *x,
                              const float *y, const float *dy, float *dx, bool accumulate,
                              int64_t count)
{
    enum { PIECE = 512 };
    float d[PIECE];
    for (int64_t i = 0; i < count; i += PIECE) {
        int64_t n = count - i < PIECE ? count - i : PIECE;
        derivative(function, a, b, x + i, y + i, d, n);
        multiply(d, dy + i, dx + i, accumulate, n);
    }
}

enum { PIECE = 512 }; /* widened at a time */

static void forward_bf16(const tn_unary_task *t, const uint16_t *src, uint16_t *dst, int64_t count)
{
    float x[PIECE];
    for (int64_t i = 0; i < count; i += PIECE) {
        int64_t n = count - i < PIECE ? count - i : PIECE;
        tn_cpu_widen_piece(src + i, x, n);
        tn_cpu_function(t->function, t->a, t->b, x, x, n);
        tn_cpu_round_piece(x, dst + i, n);
    }
}

static void backward_bf16(const tn_unary_task *t, const uint16_t *src, const uint16_t *dst,
                          const uint16_t *ddst, uint16_t *dsrc, bool accumulate, int64_t count)
{
    float x[PIECE], y[PIECE], dy[PIECE], dx[PIECE];
    for (int64_t i = 0; i < count; i += PIECE) {
        int64_t n = count - i < PIECE ? count - i : PIECE;
        tn_cpu_widen_piece(src + i, x, n);
        tn_cpu_widen_piece(dst + i, y, n);
        tn_cpu_widen_piece(ddst + i, dy, n);
        if (accumulate)
            tn_cpu_widen_piece(dsrc + i, dx, n);
        tn_cpu_function_backward(t->function, t->a, t->b, x, y, dy, dx, accumulate, n);
        tn_cpu_round_piece(dx, dsrc + i, n);
    }
}

static tn_status unary_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const tn_task *task = &kernel->task;
    const tn_unary_task *t = &task->unary;
    const bool bf16 = task->bf16_dst;
#pragma omp parallel for schedule(static) if (t->count > TN_CPU_GRAIN)
    for (int64_t i = 0; i < t->count; i += TN_CPU_GRAIN) {
        int64_t n = tn_cpu_piece(t->count, i);
        void *src = tn_place(args->src[0], i, bf16), *dst = tn_place(args->dst, i, bf16);
        if (bf16)
            forward_bf16(t, src, dst, n);
        else
            tn_cpu_function(t->function, t->a, t->b, src, dst, n);
    }
    return TN_OK;
}

static tn_status unary_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const tn_task *task = &kernel->task;
    const tn_unary_task *t = &task->unary;
    const bool bf16 = task->bf16_dst, add = args->accumulate[0];
    if (!args->dsrc[0])
        return TN_OK;
#pragma omp parallel for schedule(static) if (t->count > TN_CPU_GRAIN)
    for (int64_t i = 0; i < t->count; i += TN_CPU_GRAIN) {
        int64_t n = tn_cpu_piece(t->count, i);
        void *x = tn_place(args->src[0], i, bf16), *y = tn_place(args->dst, i, bf16);
        void *dy = tn_place(args->ddst, i, bf16), *dx = tn_place(args->dsrc[0], i, bf16);
        if (bf16)
            backward_bf16(t, x, y, dy, dx, add, n);
        else
            tn_cpu_function_backward(t->function, t->a, t->b, x, y, dy, dx, add, n);
    }
    return TN_OK;
}

static const tn_kernel_class unary_class = {tn_kernel_free, NULL, unary_forward, unary_backward};
static const tn_kernel_class unary_forward_class = {tn_kernel_free, NULL, unary_forward, NULL};

tn_status tn_cpu_unary_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                               tn_error *error)
{
    bool backward = tn_cpu_function_has_backward(task->unary.function);
    tn_kernel *k;
    tn_status status =
        tn_kernel_create(device, task, backward ? &unary_class : &unary_forward_class, "omp",
                         sizeof(tn_kernel), &k, error);
    if (status != TN_OK)
        return status;
    k->reads_src = tn_function_by_source(task->unary.function);
    k->reads_dst = true;
    *kernel = k;
    return TN_OK;
}
