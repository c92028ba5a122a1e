/* What kernel bodies are written in: functions of their arguments and one thread's index, compiled
 * for the GPU by nvcc and for the processor by the C compiler, where the tests run them.
 *
 * A body reads what earlier launches wrote and writes what no other thread of its launch writes:
 * no atomics, so results do not depend on scheduling. (Threads that share memory: tiles.h.) What is
 * summed is summed in an order fixed by the shapes, in double. */
#ifndef TERNION_GPU_BODY_H
#define TERNION_GPU_BODY_H

#ifdef __cplusplus
#define export export_ /* a member of tn_device_class, a keyword there */
#endif
#include "network/device.h"
#ifdef __cplusplus
#undef export
#endif

#include "core/bf16.h"
#include "core/portable.h"

#include <math.h>
#include <string.h>

typedef uint16_t tn_bf16;

/* Four floats moved by one 16-byte access. */
typedef struct tn_float4 {
#ifdef __cplusplus
    alignas(16)
#else
    _Alignas(16)
#endif
        float x;
    float y, z, w;
} tn_float4;

TN_BODY tn_float4 tn_load4(const float *from)
{
    return *(const tn_float4 *)(const void *)from;
}

TN_BODY void tn_store4(float *to, tn_float4 v)
{
    *(tn_float4 *)(void *)to = v;
}

/* Four bf16 values moved by one 8-byte access. */
typedef struct tn_bf16x4 {
#ifdef __cplusplus
    alignas(8)
#else
    _Alignas(8)
#endif
        tn_bf16 x;
    tn_bf16 y, z, w;
} tn_bf16x4;

/* A float or its bf16 rounding at element i of an operand. */
TN_BODY void tn_store_operand(void *to, int64_t i, bool bf16, float x)
{
    if (bf16)
        ((tn_bf16 *)to)[i] = tn_float_to_bfloat16(x);
    else
        ((float *)to)[i] = x;
}

TN_BODY float tn_load(const void *from, int64_t i, bool bf16)
{
    return bf16 ? tn_bfloat16_to_float(((const tn_bf16 *)from)[i]) : ((const float *)from)[i];
}

/* i = *high * n + *low; divisions of 64 bits are slow, so where 32 are enough they do. */
TN_BODY void tn_divide(int64_t i, int64_t n, int64_t *high, int64_t *low)
{
    if (((uint64_t)i | (uint64_t)n) >> 32 == 0) {
        uint32_t q = (uint32_t)i / (uint32_t)n;
        *high = q;
        *low = (uint32_t)i - q * (uint32_t)n;
    } else {
        *high = i / n;
        *low = i % n;
    }
}

TN_BODY float tn_clamp(float x, float low, float high)
{
    return x < low ? low : x > high ? high : x;
}

/* The functions of tn_function, as the CPU device computes them. */
TN_BODY float tn_function_value(tn_function function, float a, float b, float x)
{
    switch (function) {
    case TN_FUNCTION_RELU:
        return x > 0.0f ? x : x == x ? 0.0f : x;
    case TN_FUNCTION_CLIP:
        return tn_clamp(x, a, b);
    case TN_FUNCTION_LEAKY_RELU:
        return x < 0.0f ? a * x : x;
    case TN_FUNCTION_SIGMOID:
        return 1.0f / (1.0f + expf(-x));
    case TN_FUNCTION_HARD_SIGMOID:
        return tn_clamp(a * x + b, 0.0f, 1.0f);
    case TN_FUNCTION_HARD_SWISH:
        return x * tn_clamp(x * (1.0f / 6.0f) + 0.5f, 0.0f, 1.0f);
    case TN_FUNCTION_TANH:
        return tanhf(x);
    case TN_FUNCTION_ELU:
        return x < 0.0f ? a * expm1f(x) : x;
    case TN_FUNCTION_SOFTPLUS:
        return x > 20.0f ? x : log1pf(expf(x));
    case TN_FUNCTION_EXP:
        return expf(x);
    case TN_FUNCTION_LOG:
        return logf(x);
    case TN_FUNCTION_SQRT:
        return sqrtf(x);
    case TN_FUNCTION_ABS:
        return fabsf(x);
    case TN_FUNCTION_NEG:
        return -x;
    case TN_FUNCTION_RECIPROCAL:
        return 1.0f / x;
    case TN_FUNCTION_ERF:
        return erff(x);
    case TN_FUNCTION_FLOOR:
        return floorf(x);
    case TN_FUNCTION_CEIL:
        return ceilf(x);
    case TN_FUNCTION_ROUND:
        return rintf(x);
    case TN_FUNCTION_INTEGER:
        return tn_clamp(truncf(x), a, b);
    case TN_FUNCTION_BOOLEAN:
        return x != 0.0f ? 1.0f : 0.0f;
    default:
        return x;
    }
}

/* The derivative, by x or by y = f(x): what reads_src and reads_dst promise is there. */
TN_BODY float tn_function_slope(tn_function function, float a, float b, float x, float y)
{
    switch (function) {
    case TN_FUNCTION_RELU:
        return y > 0.0f ? 1.0f : 0.0f;
    case TN_FUNCTION_CLIP: /* PyTorch: 1 at the bounds */
        return x >= a && x <= b ? 1.0f : 0.0f;
    case TN_FUNCTION_LEAKY_RELU:
        return x > 0.0f ? 1.0f : a;
    case TN_FUNCTION_SIGMOID:
        return y * (1.0f - y);
    case TN_FUNCTION_HARD_SIGMOID:
        return a * x + b > 0.0f && a * x + b < 1.0f ? a : 0.0f;
    case TN_FUNCTION_HARD_SWISH:
        return x <= -3.0f ? 0.0f : x >= 3.0f ? 1.0f : x * (1.0f / 3.0f) + 0.5f;
    case TN_FUNCTION_TANH:
        return 1.0f - y * y;
    case TN_FUNCTION_ELU:
        return x < 0.0f ? y + a : 1.0f;
    case TN_FUNCTION_EXP:
        return y;
    case TN_FUNCTION_LOG:
        return 1.0f / x;
    case TN_FUNCTION_SQRT:
        return 0.5f / y;
    case TN_FUNCTION_ABS:
        return x > 0.0f ? 1.0f : x < 0.0f ? -1.0f : 0.0f;
    case TN_FUNCTION_NEG:
        return -1.0f;
    case TN_FUNCTION_RECIPROCAL:
        return -y * y;
    default:
        return 1.0f;
    }
}

#endif
