/* Elementwise bodies: one thread does four neighbours with 16-byte accesses where `vector` says
 * that all pointers allow it, else one element at a time. */
#ifndef TERNION_GPU_KERNELS_ELEMENTWISE_H
#define TERNION_GPU_KERNELS_ELEMENTWISE_H

#include "gpu/kernels/tiles.h"

typedef struct tn_add_args { /* dst += src */
    float *dst;
    const float *src;
    int64_t count;
    bool vector;
} tn_add_args;

TN_BODY void tn_add_body(const tn_add_args *k, int64_t i)
{
    int64_t at = 4 * i;
    if (k->vector && at + 4 <= k->count) {
        tn_float4 d = tn_load4(k->dst + at), s = tn_load4(k->src + at);
        d.x += s.x;
        d.y += s.y;
        d.z += s.z;
        d.w += s.w;
        tn_store4(k->dst + at, d);
        return;
    }
    for (int64_t last = at + 4 < k->count ? at + 4 : k->count; at < last; at++)
        k->dst[at] += k->src[at];
}

typedef struct tn_scale_args { /* dst = alpha dst */
    float *dst;
    float alpha;
    int64_t count;
    bool vector;
} tn_scale_args;

TN_BODY void tn_scale_body(const tn_scale_args *k, int64_t i)
{
    int64_t at = 4 * i;
    if (k->vector && at + 4 <= k->count) {
        tn_float4 d = tn_load4(k->dst + at);
        d.x *= k->alpha;
        d.y *= k->alpha;
        d.z *= k->alpha;
        d.w *= k->alpha;
        tn_store4(k->dst + at, d);
        return;
    }
    for (int64_t last = at + 4 < k->count ? at + 4 : k->count; at < last; at++)
        k->dst[at] *= k->alpha;
}

typedef struct tn_fill_args {
    void *dst;
    float value;
    bool bf16;
} tn_fill_args;

TN_BODY void tn_fill_body(const tn_fill_args *k, int64_t i)
{
    tn_store_operand(k->dst, i, k->bf16, k->value);
}

typedef struct tn_unary_args {
    const void *src;
    void *dst;
    tn_function function;
    float a, b;
    int64_t count;
    bool vector, bf16;
} tn_unary_args;

TN_BODY void tn_unary_body(const tn_unary_args *k, int64_t i)
{
    int64_t at = 4 * i;
    if (k->vector && at + 4 <= k->count) {
        float v[4];
        tn_load_wide(k->src, at, 4, k->bf16, v);
        for (int w = 0; w < 4; w++)
            v[w] = tn_function_value(k->function, k->a, k->b, v[w]);
        tn_store_wide(k->dst, at, 4, k->bf16, v);
        return;
    }
    for (int64_t last = at + 4 < k->count ? at + 4 : k->count; at < last; at++)
        tn_store_operand(k->dst, at, k->bf16,
                         tn_function_value(k->function, k->a, k->b, tn_load(k->src, at, k->bf16)));
}

typedef struct tn_unary_backward_args { /* x or y may be NULL where the derivative needs it not */
    const void *x, *y, *dy;
    void *dx;
    tn_function function;
    float a, b;
    bool accumulate, bf16;
} tn_unary_backward_args;

TN_BODY void tn_unary_backward_body(const tn_unary_backward_args *k, int64_t i)
{
    float x = k->x ? tn_load(k->x, i, k->bf16) : 0.0f, y = k->y ? tn_load(k->y, i, k->bf16) : 0.0f;
    float d = tn_load(k->dy, i, k->bf16) * tn_function_slope(k->function, k->a, k->b, x, y);
    tn_store_operand(k->dx, i, k->bf16, k->accumulate ? tn_load(k->dx, i, k->bf16) + d : d);
}

/* dst = f(dst + bias[i % channels] + residual) */
typedef struct tn_epilogue_args {
    void *dst;
    const float *bias;    /* NULL: none */
    const void *residual; /* NULL: none */
    int64_t channels;
    tn_function function;
    float a, b;
    bool bf16, residual_bf16;
} tn_epilogue_args;

TN_BODY void tn_epilogue_body(const tn_epilogue_args *k, int64_t i)
{
    float v = tn_load(k->dst, i, k->bf16);
    int64_t row, channel;
    tn_divide(i, k->channels, &row, &channel);
    if (k->bias)
        v += k->bias[channel];
    if (k->residual)
        v += tn_load(k->residual, i, k->residual_bf16);
    tn_store_operand(k->dst, i, k->bf16, tn_function_value(k->function, k->a, k->b, v));
}

enum { TN_BINARY_RANK = 6 }; /* axes after neighbours were merged */

/* Broadcast axes merged: dims of dst, strides of a and b (0 where broadcast). */
typedef struct tn_binary_args {
    const void *a, *b, *dy, *y;
    void *dst;
    tn_binary_kind kind;
    bool relu, accumulate, bf16;
    int which; /* backward: 0 for a's gradient */
    int rank;
    int64_t dims[TN_BINARY_RANK], a_stride[TN_BINARY_RANK], b_stride[TN_BINARY_RANK];
} tn_binary_args;

TN_BODY void tn_binary_offsets(const tn_binary_args *k, int64_t index, int64_t *a, int64_t *b)
{
    *a = *b = 0;
    for (int d = k->rank - 1; d >= 0; d--) {
        int64_t at;
        tn_divide(index, k->dims[d], &index, &at);
        *a += at * k->a_stride[d];
        *b += at * k->b_stride[d];
    }
}

TN_BODY float tn_binary_value(tn_binary_kind kind, float x, float y)
{
    switch (kind) {
    case TN_BINARY_ADD:
        return x + y;
    case TN_BINARY_SUB:
        return x - y;
    case TN_BINARY_MUL:
        return x * y;
    case TN_BINARY_DIV:
        return x / y;
    case TN_BINARY_MAX:
        return x > y || x != x ? x : y;
    case TN_BINARY_MIN:
        return x < y || x != x ? x : y;
    case TN_BINARY_POW:
        return powf(x, y);
    default: /* PRELU */
        return x < 0.0f ? x * y : x;
    }
}

TN_BODY float tn_binary_slope(tn_binary_kind kind, int which, float x, float y)
{
    float half = x == y ? 0.5f : 0.0f, f;
    switch (kind) {
    case TN_BINARY_ADD:
        return 1.0f;
    case TN_BINARY_SUB:
        return which ? -1.0f : 1.0f;
    case TN_BINARY_MUL:
        return which ? x : y;
    case TN_BINARY_DIV:
        return which ? -x / (y * y) : 1.0f / y;
    case TN_BINARY_MAX:
        f = x > y ? 1.0f : half;
        return which ? 1.0f - f : f;
    case TN_BINARY_MIN:
        f = x < y ? 1.0f : half;
        return which ? 1.0f - f : f;
    case TN_BINARY_POW:
        if (which)
            return x > 0.0f ? powf(x, y) * logf(x) : 0.0f;
        return y * powf(x, y - 1.0f);
    default: /* PRELU */
        if (which)
            return x < 0.0f ? x : 0.0f;
        return x < 0.0f ? y : 1.0f;
    }
}

TN_BODY void tn_binary_body(const tn_binary_args *k, int64_t i)
{
    int64_t a, b;
    tn_binary_offsets(k, i, &a, &b);
    float v = tn_binary_value(k->kind, tn_load(k->a, a, k->bf16), tn_load(k->b, b, k->bf16));
    v = k->relu ? tn_function_value(TN_FUNCTION_RELU, 0.0f, 0.0f, v) : v;
    tn_store_operand(k->dst, i, k->bf16, v);
}

/* The gradient at element i of dst for one operand, which lies at `at` there. */
TN_BODY float tn_binary_gradient(const tn_binary_args *k, int64_t i, int64_t a, int64_t b)
{
    bool plain = k->kind == TN_BINARY_ADD || k->kind == TN_BINARY_SUB;
    float d = k->relu && !(tn_load(k->y, i, k->bf16) > 0.0f) ? 0.0f : tn_load(k->dy, i, k->bf16);
    return d * tn_binary_slope(k->kind, k->which, plain ? 0.0f : tn_load(k->a, a, k->bf16),
                               plain ? 0.0f : tn_load(k->b, b, k->bf16));
}

TN_BODY void tn_binary_backward_body(const tn_binary_args *k, int64_t i) /* operand as large */
{
    int64_t a, b;
    tn_binary_offsets(k, i, &a, &b);
    float d = tn_binary_gradient(k, i, a, b);
    d += k->accumulate ? tn_load(k->dst, i, k->bf16) : 0.0f;
    tn_store_operand(k->dst, i, k->bf16, d);
}

/* A broadcast operand: thread (chunk, element) sums a chunk of the dst elements that read it. */
typedef struct tn_binary_sum_args {
    tn_binary_args binary;
    double *partial; /* [chunks, count] */
    int64_t count, repeats;
    int chunks;
} tn_binary_sum_args;

TN_BODY void tn_binary_sum_body(const tn_binary_sum_args *k, int64_t i)
{
    const tn_binary_args *t = &k->binary;
    int64_t element = i % k->count, chunk = i / k->count;
    double sum = 0.0;
    for (int64_t r = k->repeats * chunk / k->chunks; r < k->repeats * (chunk + 1) / k->chunks;
         r++) {
        int64_t kept = element, over = r, at = 0, stride = 1, a = 0, b = 0;
        for (int d = t->rank - 1; d >= 0; d--) {
            bool mine = (t->which ? t->b_stride[d] : t->a_stride[d]) != 0;
            int64_t from = mine ? kept : over, c = from % t->dims[d];
            kept = mine ? from / t->dims[d] : kept;
            over = mine ? over : from / t->dims[d];
            at += c * stride;
            stride *= t->dims[d];
            a += c * t->a_stride[d];
            b += c * t->b_stride[d];
        }
        sum += (double)tn_binary_gradient(t, at, a, b);
    }
    k->partial[i] = sum;
}

/* Quantize: clamp(round(x / scale) + zero, low, high); dequantize: (x - zero) scale. */
typedef struct tn_affine_args {
    const float *src, *scale, *zero; /* zero: NULL, none */
    float *dst;
    int64_t axis, inner;
    float low, high;
    bool dequantize;
} tn_affine_args;

TN_BODY void tn_affine_body(const tn_affine_args *k, int64_t i)
{
    int64_t axis = i / k->inner % k->axis;
    float scale = k->scale[axis], zero = k->zero ? k->zero[axis] : 0.0f;
    k->dst[i] = k->dequantize ? (k->src[i] - zero) * scale
                              : tn_clamp(rintf(k->src[i] / scale) + zero, k->low, k->high);
}

/* Codes of a step, times it; backward: the step's gradient in chunks, for tn_chunks_phase to add,
 * and the source's (device.h: tn_fake_quantize_task). */
typedef struct tn_fake_quantize_args {
    const float *src, *step, *ddst;
    float *dst;      /* backward: dsrc */
    double *partial; /* [chunks] */
    int64_t count;
    int chunks;
    float low, high;
    bool clip_only, accumulate;
} tn_fake_quantize_args;

TN_BODY float tn_step(const float *step)
{
    return step[0] >= TN_LEAST_STEP ? step[0] : TN_LEAST_STEP;
}

TN_BODY float tn_code_value(float x, float step, float low, float high)
{
    return tn_clamp(rintf(x / step) + 0.0f, low, high) * step;
}

/* Of a code times its step by the step, at v = x / step. */
TN_BODY float tn_code_slope(float v, float low, float high, bool clip_only)
{
    return v < low ? low : v > high ? high : (clip_only ? 0.0f : 1.0f) * (rintf(v) - v);
}

TN_BODY void tn_fake_quantize_body(const tn_fake_quantize_args *k, int64_t i)
{
    k->dst[i] = tn_code_value(k->src[i], tn_step(k->step), k->low, k->high);
}

TN_BODY void tn_fake_quantize_backward_body(const tn_fake_quantize_args *k, int64_t i)
{
    float v = k->src[i] / tn_step(k->step), d = v >= k->low && v <= k->high ? k->ddst[i] : 0.0f;
    k->dst[i] = k->accumulate ? k->dst[i] + d : d;
}

/* A block's slice of the elements. */
TN_BODY void tn_fake_quantize_sums_phase(const tn_fake_quantize_args *k, tn_tile_shared *s,
                                         int64_t block, int thread, int phase)
{
    float step = tn_step(k->step);
    if (phase > 0) {
        tn_block_finish(s, thread, phase, k->partial + block);
        return;
    }
    double sum = 0.0;
    int64_t last = k->count * (block + 1) / k->chunks;
    for (int64_t i = k->count * block / k->chunks + thread; i < last; i += TN_GPU_BLOCK) {
        float slope = tn_code_slope(k->src[i] / step, k->low, k->high, k->clip_only);
        sum += (double)k->ddst[i] * (double)slope;
    }
    s->sums[0][thread] = sum;
}

/* dst (+)= src between storages; four elements a thread. */
typedef struct tn_convert_args {
    const void *src;
    void *dst;
    int64_t count;
    bool src_bf16, dst_bf16, accumulate, aligned; /* aligned: 16 bytes, both */
} tn_convert_args;

TN_BODY void tn_convert_body(const tn_convert_args *k, int64_t i)
{
    int64_t first = 4 * i, last = first + 4 < k->count ? first + 4 : k->count;
    if (k->aligned && first + 4 <= k->count) {
        float v[4], old[4];
        tn_load_wide(k->src, first, 4, k->src_bf16, v);
        if (k->accumulate)
            tn_load_wide(k->dst, first, 4, k->dst_bf16, old);
        for (int w = 0; w < 4; w++)
            v[w] += k->accumulate ? old[w] : 0.0f;
        tn_store_wide(k->dst, first, 4, k->dst_bf16, v);
        return;
    }
    for (int64_t at = first; at < last; at++) {
        float v = tn_load(k->src, at, k->src_bf16);
        v += k->accumulate ? tn_load(k->dst, at, k->dst_bf16) : 0.0f;
        tn_store_operand(k->dst, at, k->dst_bf16, v);
    }
}

#endif
