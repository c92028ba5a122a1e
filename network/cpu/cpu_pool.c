#include "network/cpu/cpu.h"

#include <math.h>
#include <string.h>

/* Always three spatial axes, leading ones of size 1. saved (max, training): for each output the
 * input pixel of its maximum. */
typedef struct pool_kernel {
    tn_cpu_kernel plain;
    tn_pool_task t;
    int64_t in_pixels, out_pixels;
} pool_kernel;

typedef struct window {        /* clipped to the input */
    int64_t first[3], last[3]; /* kernel cells */
    int64_t origin[3];
    float scale; /* average */
} window;

static window window_at(const tn_pool_task *t, int64_t pixel)
{
    window w;
    int64_t cells = 1, inside = 1;
    for (int i = 2; i >= 0; i--) {
        int64_t at = pixel % t->out[i], d = t->dilation[i];
        pixel /= t->out[i];
        int64_t origin = at * t->stride[i] - t->pad_begin[i];
        int64_t first = origin < 0 ? (-origin + d - 1) / d : 0;
        int64_t last = (t->in[i] - origin + d - 1) / d;
        int64_t padded = (t->in[i] + t->pad_end[i] - origin + d - 1) / d;
        w.origin[i] = origin;
        w.first[i] = first;
        w.last[i] = last < t->kernel[i] ? last : t->kernel[i];
        cells *= padded < t->kernel[i] ? padded : t->kernel[i];
        inside *= w.last[i] > first ? w.last[i] - first : 0;
    }
    w.scale = 1.0f / (float)(t->count_include_pad ? cells : inside > 0 ? inside : 1);
    return w;
}

static inline int64_t pixel_of(const tn_pool_task *t, const window *w, int64_t a, int64_t b,
                               int64_t c)
{
    return ((w->origin[0] + a * t->dilation[0]) * t->in[1] + w->origin[1] + b * t->dilation[1]) *
               t->in[2] +
           w->origin[2] + c * t->dilation[2];
}

#define EACH_CELL(w)                                                                               \
    for (int64_t a = (w).first[0]; a < (w).last[0]; a++)                                           \
        for (int64_t b = (w).first[1]; b < (w).last[1]; b++)                                       \
            for (int64_t c = (w).first[2]; c < (w).last[2]; c++)

/* One call a pixel: calls of hot functions are indirect. */
TN_HOT static void max_window(const tn_pool_task *t, const window *w, const float *restrict image,
                              float *restrict dst)
{
    int64_t n = t->channels;
    for (int64_t i = 0; i < n; i++)
        dst[i] = -INFINITY;
    EACH_CELL(*w)
    {
        const float *restrict src = image + pixel_of(t, w, a, b, c) * n;
        for (int64_t i = 0; i < n; i++)
            dst[i] = src[i] > dst[i] || src[i] != src[i] ? src[i] : dst[i];
    }
}

TN_HOT static void take_max_index(const float *restrict src, float *restrict dst,
                                  int32_t *restrict index, int32_t pixel, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        bool better = src[i] > dst[i] || src[i] != src[i];
        dst[i] = better ? src[i] : dst[i];
        index[i] = better ? pixel : index[i];
    }
}

TN_HOT static void add_scaled(const float *restrict src, float scale, float *restrict dst,
                              int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] += src[i] * scale;
}

static void forward_pixel(const pool_kernel *k, const float *image, int64_t pixel, float *dst,
                          int32_t *index)
{
    const tn_pool_task *t = &k->t;
    window w = window_at(t, pixel);
    if (t->max && !index) {
        max_window(t, &w, image, dst);
        return;
    }
    for (int64_t i = 0; i < t->channels; i++)
        dst[i] = t->max ? -INFINITY : 0.0f;
    if (index)
        memset(index, 0xff, (size_t)t->channels * sizeof(int32_t));
    EACH_CELL(w)
    {
        int64_t p = pixel_of(t, &w, a, b, c);
        const float *src = image + p * t->channels;
        if (index)
            take_max_index(src, dst, index, (int32_t)p, t->channels);
        else
            add_scaled(src, 1.0f, dst, t->channels);
    }
    if (!t->max)
        for (int64_t i = 0; i < t->channels; i++)
            dst[i] *= w.scale;
}

static tn_status pool_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const pool_kernel *k = (const pool_kernel *)kernel;
    const tn_pool_task *t = &k->t;
    int32_t *index = kernel->saved_bytes ? args->saved : NULL;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < t->batch * k->out_pixels; i++) {
        int64_t n = i / k->out_pixels;
        forward_pixel(k, args->src[0] + n * k->in_pixels * t->channels, i % k->out_pixels,
                      args->dst + i * t->channels, index ? index + i * t->channels : NULL);
    }
    return TN_OK;
}

static void backward_max(const pool_kernel *k, const float *dy, const int32_t *index, float *dx)
{
    int64_t channels = k->t.channels;
    for (int64_t p = 0; p < k->out_pixels; p++)
        for (int64_t i = 0; i < channels; i++) {
            int32_t from = index[p * channels + i];
            if (from >= 0)
                dx[from * channels + i] += dy[p * channels + i];
        }
}

static void backward_average(const pool_kernel *k, const float *dy, float *dx)
{
    const tn_pool_task *t = &k->t;
    for (int64_t p = 0; p < k->out_pixels; p++) {
        window w = window_at(t, p);
        EACH_CELL(w)
        {
            add_scaled(dy + p * t->channels, w.scale, dx + pixel_of(t, &w, a, b, c) * t->channels,
                       t->channels);
        }
    }
}

static tn_status pool_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const pool_kernel *k = (const pool_kernel *)kernel;
    const tn_pool_task *t = &k->t;
    int64_t in = k->in_pixels * t->channels, out = k->out_pixels * t->channels;
    if (!args->dsrc[0])
        return TN_OK;
#pragma omp parallel for schedule(static)
    for (int64_t n = 0; n < t->batch; n++) {
        float *dx = args->dsrc[0] + n * in;
        if (!args->accumulate[0])
            memset(dx, 0, (size_t)in * sizeof(float));
        if (t->max)
            backward_max(k, args->ddst + n * out, (const int32_t *)args->saved + n * out, dx);
        else
            backward_average(k, args->ddst + n * out, dx);
    }
    return TN_OK;
}

static const tn_kernel_class pool_class = {tn_cpu_kernel_destroy, NULL, pool_forward,
                                           pool_backward};

tn_status tn_cpu_pool_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                              tn_error *error)
{
    const tn_pool_task *t = &task->pool;
    tn_kernel *created;
    tn_status status = tn_cpu_kernel_create(device, task, &pool_class, "omp", sizeof(pool_kernel),
                                            &created, error);
    if (status != TN_OK)
        return status;
    pool_kernel *k = (pool_kernel *)created;
    k->t = *t;
    k->in_pixels = k->out_pixels = 1;
    for (int i = 0; i < 3; i++) {
        int from = i - (3 - t->spatial);
        k->t.in[i] = from < 0 ? 1 : t->in[from];
        k->t.out[i] = from < 0 ? 1 : t->out[from];
        k->t.kernel[i] = from < 0 ? 1 : t->kernel[from];
        k->t.stride[i] = from < 0 ? 1 : t->stride[from];
        k->t.dilation[i] = from < 0 ? 1 : t->dilation[from];
        k->t.pad_begin[i] = from < 0 ? 0 : t->pad_begin[from];
        k->t.pad_end[i] = from < 0 ? 0 : t->pad_end[from];
        k->in_pixels *= k->t.in[i];
        k->out_pixels *= k->t.out[i];
    }
    if (t->max && task->backward)
        created->saved_bytes = (size_t)(t->batch * k->out_pixels * t->channels) * sizeof(int32_t);
    *kernel = created;
    return TN_OK;
}
