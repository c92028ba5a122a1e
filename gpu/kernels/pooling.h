/* Pooling bodies; the gradient is gathered: each input element adds the windows that hold it. */
#ifndef TERNION_GPU_KERNELS_POOLING_H
#define TERNION_GPU_KERNELS_POOLING_H

#include "gpu/body.h"

/* Always three spatial axes, leading ones of size 1. */
typedef struct tn_pooling_args {
    const void *src; /* backward: dy */
    void *dst;       /* backward: dx */
    int32_t *index;  /* max, training: for each output the input pixel of its maximum, or -1 */
    bool max, count_include_pad, accumulate, bf16;
    int64_t channels, in_pixels, out_pixels;
    int32_t in[3], out[3], kernel[3], stride[3], dilation[3], pad_begin[3], pad_end[3];
} tn_pooling_args;

/* Thread i's channel, image and position, of images of `pixels`. */
TN_BODY void tn_pooling_place(const tn_pooling_args *k, int64_t i, int64_t pixels,
                              const int32_t size[3], int64_t *c, int64_t *n, int32_t at[3])
{
    int64_t row, pixel;
    tn_divide(i, k->channels, &row, c);
    tn_divide(row, pixels, n, &pixel);
    int32_t left = (int32_t)pixel;
    at[2] = left % size[2];
    left /= size[2];
    at[1] = left % size[1];
    at[0] = left / size[1];
}

/* The kernel cells of an axis that lie inside the input for output position `at`. */
TN_BODY void tn_window_axis(const tn_pooling_args *k, int axis, int32_t at, int32_t *origin,
                            int32_t *first, int32_t *last, int32_t *padded)
{
    int32_t d = k->dilation[axis], o = at * k->stride[axis] - k->pad_begin[axis];
    int32_t end = (k->in[axis] - o + d - 1) / d;
    int32_t cells = (k->in[axis] + k->pad_end[axis] - o + d - 1) / d;
    *origin = o;
    *first = o < 0 ? (-o + d - 1) / d : 0;
    *last = end < k->kernel[axis] ? end : k->kernel[axis];
    *padded = cells < k->kernel[axis] ? cells : k->kernel[axis];
}

/* 1 / the number of cells an average divides by. */
TN_BODY float tn_window_scale(const tn_pooling_args *k, int32_t z, int32_t y, int32_t x)
{
    int32_t o, f0, l0, p0, f1, l1, p1, f2, l2, p2;
    tn_window_axis(k, 0, z, &o, &f0, &l0, &p0);
    tn_window_axis(k, 1, y, &o, &f1, &l1, &p1);
    tn_window_axis(k, 2, x, &o, &f2, &l2, &p2);
    int32_t inside = (l0 > f0 ? l0 - f0 : 0) * (l1 > f1 ? l1 - f1 : 0) * (l2 > f2 ? l2 - f2 : 0);
    return 1.0f / (float)(k->count_include_pad ? p0 * p1 * p2 : inside > 0 ? inside : 1);
}

TN_BODY void tn_pooling_body(const tn_pooling_args *k, int64_t i)
{
    int64_t c, n;
    int32_t at[3], o0, f0, l0, p0, o1, f1, l1, p1, o2, f2, l2, p2;
    tn_pooling_place(k, i, k->out_pixels, k->out, &c, &n, at);
    tn_window_axis(k, 0, at[0], &o0, &f0, &l0, &p0);
    tn_window_axis(k, 1, at[1], &o1, &f1, &l1, &p1);
    tn_window_axis(k, 2, at[2], &o2, &f2, &l2, &p2);
    int64_t image = n * k->in_pixels * k->channels + c;
    float value = k->max ? -INFINITY : 0.0f;
    int32_t from = -1;
    for (int32_t z = f0; z < l0; z++)
        for (int32_t y = f1; y < l1; y++)
            for (int32_t x = f2; x < l2; x++) {
                int32_t p =
                    ((o0 + z * k->dilation[0]) * k->in[1] + o1 + y * k->dilation[1]) * k->in[2] +
                    o2 + x * k->dilation[2];
                float v = tn_load(k->src, image + (int64_t)p * k->channels, k->bf16);
                if (!k->max) {
                    value += v;
                } else if (v > value || v != v) {
                    value = v;
                    from = p;
                }
            }
    value *= k->max ? 1.0f : tn_window_scale(k, at[0], at[1], at[2]);
    tn_store_operand(k->dst, i, k->bf16, value);
    if (k->index)
        k->index[i] = from;
}

/* The output position whose kernel cell `cell` reads input position `at`; -1: none. */
TN_BODY int32_t tn_window_of(const tn_pooling_args *k, int axis, int32_t at, int32_t cell)
{
    int32_t o = at + k->pad_begin[axis] - cell * k->dilation[axis];
    if (o < 0 || o % k->stride[axis] != 0)
        return -1;
    o /= k->stride[axis];
    return o < k->out[axis] ? o : -1;
}

/* One thread per input element; outputs in ascending order. */
TN_BODY void tn_pooling_backward_body(const tn_pooling_args *k, int64_t i)
{
    int64_t c, n;
    int32_t in[3];
    tn_pooling_place(k, i, k->in_pixels, k->in, &c, &n, in);
    int64_t out = n * k->out_pixels;
    int32_t pixel = (in[0] * k->in[1] + in[1]) * k->in[2] + in[2];
    float sum = k->accumulate ? tn_load(k->dst, i, k->bf16) : 0.0f;
    for (int32_t a = k->kernel[0] - 1; a >= 0; a--) {
        int32_t z = tn_window_of(k, 0, in[0], a);
        for (int32_t b = k->kernel[1] - 1; b >= 0 && z >= 0; b--) {
            int32_t y = tn_window_of(k, 1, in[1], b);
            for (int32_t d = k->kernel[2] - 1; d >= 0 && y >= 0; d--) {
                int32_t x = tn_window_of(k, 2, in[2], d);
                if (x < 0)
                    continue;
                int64_t at = (out + (z * k->out[1] + y) * k->out[2] + x) * k->channels + c;
                if (!k->max)
                    sum += tn_load(k->src, at, k->bf16) * tn_window_scale(k, z, y, x);
                else if (k->index[at] == pixel)
                    sum += tn_load(k->src, at, k->bf16);
            }
        }
    }
    tn_store_operand(k->dst, i, k->bf16, sum);
}

#endif
