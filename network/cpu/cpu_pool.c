#include "network/cpu/cpu.h"

#include "network/cpu/cpu_bf16.h"

#include <math.h>
#include <omp.h>
#include <string.h>

/* Always three spatial axes, leading ones of size 1. saved (max, training): for each output the
 * input pixel of its maximum. */
typedef struct pool_kernel {
    tn_kernel base;
    tn_pool_task t;
    int64_t in_pixels, out_pixels;
    int64_t slots; /* of backward: each takes its part of the images, one after the other; in bf16
                  it has memory for an image in fp32, so there are not more than threads */
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

/* One call a pixel: calls of hot functions are indirect. `n` channels from `at` of an image. */
TN_INLINE void max_of(const tn_pool_task *t, const window *w, const void *restrict image,
                      int64_t at, int64_t n, float *restrict dst, bool bf16)
{
    for (int64_t i = 0; i < n; i++)
        dst[i] = -INFINITY;
    EACH_CELL(*w)
    {
        int64_t from = pixel_of(t, w, a, b, c) * t->channels + at;
        for (int64_t i = 0; i < n; i++) {
            float x = tn_load(image, from + i, bf16);
            dst[i] = x > dst[i] || x != x ? x : dst[i];
        }
    }
}

TN_HOT static void max_window(const tn_pool_task *t, const window *w, const void *image, int64_t at,
                              int64_t n, float *dst, bool bf16)
{
    if (bf16)
        max_of(t, w, image, at, n, dst, true);
    else
        max_of(t, w, image, at, n, dst, false);
}

TN_INLINE void index_of(const void *restrict src, float *restrict dst, int32_t *restrict index,
                        int32_t pixel, int64_t n, bool bf16)
{
    for (int64_t i = 0; i < n; i++) {
        float x = tn_load(src, i, bf16);
        bool better = x > dst[i] || x != x;
        dst[i] = better ? x : dst[i];
        index[i] = better ? pixel : index[i];
    }
}

TN_HOT static void take_max_index(const void *src, float *dst, int32_t *index, int32_t pixel,
                                  int64_t n, bool bf16)
{
    if (bf16)
        index_of(src, dst, index, pixel, n, true);
    else
        index_of(src, dst, index, pixel, n, false);
}

TN_HOT static void add_scaled(const void *restrict src, float scale, float *restrict dst, int64_t n,
                              bool bf16)
{
    if (bf16)
        for (int64_t i = 0; i < n; i++)
            dst[i] += tn_load(src, i, true) * scale;
    else
        for (int64_t i = 0; i < n; i++)
            dst[i] += tn_load(src, i, false) * scale;
}

/* `n` channels from `at` of an output pixel. */
static void forward_band(const pool_kernel *k, const window *w, const void *image, int64_t at,
                         int64_t n, float *dst, int32_t *index)
{
    const tn_pool_task *t = &k->t;
    const bool bf16 = k->base.task.bf16_dst;
    if (t->max && !index) {
        max_window(t, w, image, at, n, dst, bf16);
        return;
    }
    for (int64_t i = 0; i < n; i++)
        dst[i] = t->max ? -INFINITY : 0.0f;
    if (index)
        memset(index, 0xff, (size_t)n * sizeof(int32_t));
    EACH_CELL(*w)
    {
        int64_t p = pixel_of(t, w, a, b, c);
        const void *src = tn_place(image, p * t->channels + at, bf16);
        if (index)
            take_max_index(src, dst, index, (int32_t)p, n, bf16);
        else
            add_scaled(src, 1.0f, dst, n, bf16);
    }
    if (!t->max)
        for (int64_t i = 0; i < n; i++)
            dst[i] *= w->scale;
}

/* Results in fp32 are made where they lie, others in bands. */
static void forward_pixel(const pool_kernel *k, const void *image, int64_t pixel, void *dst,
                          int32_t *index)
{
    enum { BAND = 256 };
    float row[BAND];
    const int64_t channels = k->t.channels;
    window w = window_at(&k->t, pixel);
    if (!k->base.task.bf16_dst) {
        forward_band(k, &w, image, 0, channels, dst, index);
        return;
    }
    for (int64_t at = 0; at < channels; at += BAND) {
        int64_t n = channels - at < BAND ? channels - at : BAND;
        forward_band(k, &w, image, at, n, row, index ? index + at : NULL);
        tn_cpu_round_piece(row, (uint16_t *)dst + at, n);
    }
}

static tn_status pool_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const pool_kernel *k = (const pool_kernel *)kernel;
    const tn_pool_task *t = &k->t;
    const bool bf16 = k->base.task.bf16_dst;
    int32_t *index = kernel->saved_bytes ? args->saved : NULL;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < t->batch * k->out_pixels; i++) {
        int64_t n = i / k->out_pixels;
        forward_pixel(k, tn_place(args->src[0], n * k->in_pixels * t->channels, bf16),
                      i % k->out_pixels, tn_place(args->dst, i * t->channels, bf16),
                      index ? index + i * t->channels : NULL);
    }
    return TN_OK;
}

static void backward_max(const pool_kernel *k, const void *dy, const int32_t *index, float *dx)
{
    const bool bf16 = k->base.task.bf16_dst;
    int64_t channels = k->t.channels;
    for (int64_t p = 0; p < k->out_pixels; p++)
        for (int64_t i = 0; i < channels; i++) {
            int32_t from = index[p * channels + i];
            if (from >= 0)
                dx[from * channels + i] += tn_load(dy, p * channels + i, bf16);
        }
}

static void backward_average(const pool_kernel *k, const void *dy, float *dx)
{
    const tn_pool_task *t = &k->t;
    const bool bf16 = k->base.task.bf16_dst;
    for (int64_t p = 0; p < k->out_pixels; p++) {
        window w = window_at(t, p);
        EACH_CELL(w)
        {
            add_scaled(tn_place(dy, p * t->channels, bf16), w.scale,
                       dx + pixel_of(t, &w, a, b, c) * t->channels, t->channels, bf16);
        }
    }
}

/* An image's gradient in fp32, on top of what is in dx. */
static void backward_image(const pool_kernel *k, const tn_arguments *args, int64_t image, float *dx)
{
    int64_t at = image * k->out_pixels * k->t.channels;
    const void *dy = tn_place(args->ddst, at, k->base.task.bf16_dst);
    if (k->t.max)
        backward_max(k, dy, (const int32_t *)args->saved + at, dx);
    else
        backward_average(k, dy, dx);
}

static tn_status pool_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const pool_kernel *k = (const pool_kernel *)kernel;
    const bool bf16 = k->base.task.bf16_dst, add = args->accumulate[0];
    const int64_t in = k->in_pixels * k->t.channels, batch = k->t.batch;
    if (!args->dsrc[0])
        return TN_OK;
#pragma omp parallel for schedule(static)
    for (int64_t s = 0; s < k->slots; s++)
        for (int64_t n = batch * s / k->slots; n < batch * (s + 1) / k->slots; n++) {
            void *dsrc = tn_place(args->dsrc[0], n * in, bf16);
            float *dx = bf16 ? (float *)args->workspace + s * in : dsrc;
            if (!add)
                memset(dx, 0, (size_t)in * sizeof(float));
            else if (bf16)
                tn_cpu_widen_piece(dsrc, dx, in);
            backward_image(k, args, n, dx);
            if (bf16)
                tn_cpu_round_piece(dx, dsrc, in);
        }
    return TN_OK;
}

static const tn_kernel_class pool_class = {tn_kernel_free, NULL, pool_forward, pool_backward};

tn_status tn_cpu_pool_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                              tn_error *error)
{
    const tn_pool_task *t = &task->pool;
    tn_kernel *created;
    tn_status status =
        tn_kernel_create(device, task, &pool_class, "omp", sizeof(pool_kernel), &created, error);
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
    k->slots = t->batch;
    if (task->bf16_dst && omp_get_max_threads() < t->batch)
        k->slots = omp_get_max_threads();
    if (task->bf16_dst && task->backward)
        created->workspace_bytes = (size_t)(k->slots * k->in_pixels * t->channels) * sizeof(float);
    *kernel = created;
    return TN_OK;
}
