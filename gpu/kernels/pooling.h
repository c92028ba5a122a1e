/* Pooling bodies; the gradient is gathered: each input element adds the windows that hold it. */
#ifndef TERNION_GPU_KERNELS_POOLING_H
#define TERNION_GPU_KERNELS_POOLING_H

#include "gpu/kernels/tiles.h"

/* Always three spatial axes, leading ones of size 1. */
typedef struct tn_pooling_args {
    const void *src; /* backward: dy */
    void *dst;       /* backward: dx */
    int32_t *index;  /* max, training: for each output the input pixel of its maximum, or -1 */
    bool max, count_include_pad, accumulate, bf16;
    int width; /* channels of a thread: 4 or 1 */
    int64_t channels, in_pixels, out_pixels;
    int32_t in[3], out[3], kernel[3], stride[3], dilation[3], pad_begin[3], pad_end[3];
} tn_pooling_args;

/* Thread i's first channel, image and position, of images of `pixels`. */
TN_BODY void tn_pooling_place(const tn_pooling_args *k, int64_t i, int64_t pixels,
                              const int32_t size[3], int64_t *c, int64_t *n, int32_t at[3])
{
    int64_t row, pixel;
    tn_divide(i, k->channels / k->width, &row, c);
    *c *= k->width;
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
    float value[4], v[4];
    int32_t from[4];
    for (int w = 0; w < 4; w++) {
        value[w] = k->max ? -INFINITY : 0.0f;
        from[w] = -1;
    }
    for (int32_t z = f0; z < l0; z++)
        for (int32_t y = f1; y < l1; y++)
            for (int32_t x = f2; x < l2; x++) {
                int32_t p =
                    ((o0 + z * k->dilation[0]) * k->in[1] + o1 + y * k->dilation[1]) * k->in[2] +
                    o2 + x * k->dilation[2];
                tn_load_wide(k->src, image + (int64_t)p * k->channels, k->width, k->bf16, v);
                for (int w = 0; w < 4; w++) {
                    bool taken = !k->max || v[w] > value[w] || v[w] != v[w];
                    value[w] = !k->max ? value[w] + v[w] : taken ? v[w] : value[w];
                    from[w] = taken ? p : from[w];
                }
            }
    float scale = k->max ? 1.0f : tn_window_scale(k, at[0], at[1], at[2]);
    for (int w = 0; w < 4; w++) {
        value[w] *= scale;
        if (k->index && w < k->width)
            k->index[i * k->width + w] = from[w];
    }
    tn_store_wide(k->dst, i * k->width, k->width, k->bf16, value);
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

/* Outputs in ascending order. */
TN_BODY void tn_pooling_backward_body(const tn_pooling_args *k, int64_t i)
{
    int64_t c, n;
    int32_t in[3];
    tn_pooling_place(k, i, k->in_pixels, k->in, &c, &n, in);
    int64_t out = n * k->out_pixels;
    int32_t pixel = (in[0] * k->in[1] + in[1]) * k->in[2] + in[2];
    float sum[4] = {0.0f, 0.0f, 0.0f, 0.0f}, d[4];
    if (k->accumulate)
        tn_load_wide(k->dst, i * k->width, k->width, k->bf16, sum);
    for (int32_t a = k->kernel[0] - 1; a >= 0; a--) {
        int32_t z = tn_window_of(k, 0, in[0], a);
        for (int32_t b = k->kernel[1] - 1; b >= 0 && z >= 0; b--) {
            int32_t y = tn_window_of(k, 1, in[1], b);
            for (int32_t e = k->kernel[2] - 1; e >= 0 && y >= 0; e--) {
                int32_t x = tn_window_of(k, 2, in[2], e);
                if (x < 0)
                    continue;
                int64_t at = (out + (z * k->out[1] + y) * k->out[2] + x) * k->channels + c;
                float scale = k->max ? 1.0f : tn_window_scale(k, z, y, x);
                tn_load_wide(k->src, at, k->width, k->bf16, d);
                for (int w = 0; w < 4; w++) {
                    bool mine = !k->max || (w < k->width && k->index[at + w] == pixel);
                    sum[w] += mine ? d[w] * scale : 0.0f;
                }
            }
        }
    }
    tn_store_wide(k->dst, i * k->width, k->width, k->bf16, sum);
}

#endif
