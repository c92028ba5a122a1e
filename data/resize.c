#include "data/resize.h"

#include "core/hot.h"
#include "core/memory.h"

#include <math.h>
#include <stdbool.h>
#include <string.h>

enum { PRECISION_BITS = 32 - 8 - 2 };

typedef int int_lanes __attribute__((vector_size(16)));
typedef unsigned char byte_lanes __attribute__((vector_size(4)));

/* Weights of one direction: dst pixel i is the sum over k < count[i] of weight[i * most + k] times
 * src pixel first[i] + k. */
typedef struct resize_weights {
    int most;
    int *first, *count, *weight; /* one allocation behind first */
} resize_weights;

/* The part of a resized picture that is wanted. */
typedef struct resize_window_place {
    int left, top, width, height;
} resize_window_place;

static void weights_done(resize_weights *weights)
{
    tn_free(weights->first);
}

static double triangle(double x)
{
    x = fabs(x);
    return x < 1.0 ? 1.0 - x : 0.0;
}

/* Pillow's precompute_coeffs and normalize_coeffs_8bpc (src/libImaging/Resample.c), for the `count`
 * results from `from` on of out_size. */
static tn_status weights_init(resize_weights *weights, int in_size, double in0, double in1,
                              int out_size, int from, int count, tn_error *error)
{
    double scale = (in1 - in0) / out_size;
    double filterscale = scale < 1.0 ? 1.0 : scale;
    double support = filterscale, inverse = 1.0 / filterscale;
    int most = (int)ceil(support) * 2 + 1;
    size_t n = (size_t)count;
    int *memory = tn_alloc_array(n * ((size_t)most + 2), sizeof(int));
    double *exact = tn_alloc_array((size_t)most, sizeof(double));
    if (!memory || !exact) {
        tn_free(memory);
        tn_free(exact);
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for resizing to %d", out_size);
    }
    *weights = (resize_weights){most, memory, memory + n, memory + 2 * n};
    for (int i = 0; i < count; i++) {
        double center = in0 + (from + i + 0.5) * scale, sum = 0.0;
        int lo = (int)(center - support + 0.5);
        int hi = (int)(center + support + 0.5);
        lo = lo < 0 ? 0 : lo;
        hi = hi > in_size ? in_size : hi;
        int taps = hi - lo;
        for (int k = 0; k < taps; k++) {
            exact[k] = triangle((k + lo - center + 0.5) * inverse);
            sum += exact[k];
        }
        int *weight = weights->weight + (size_t)i * (size_t)most;
        for (int k = 0; k < taps; k++) {
            double normal = sum != 0.0 ? exact[k] / sum : exact[k];
            weight[k] = (int)(0.5 + normal * (1 << PRECISION_BITS));
        }
        weights->first[i] = lo;
        weights->count[i] = taps;
    }
    tn_free(exact);
    return TN_OK;
}

static unsigned char clip8(int sum)
{
    int value = sum >> PRECISION_BITS;
    return (unsigned char)(value < 0 ? 0 : value > 255 ? 255 : value);
}

/* Three channels at once, in four lanes; the last tap must not read behind the image. */
TN_HOT static void resize_row3(const unsigned char *restrict src, unsigned char *restrict dst,
                               int width, const resize_weights *weights)
{
    for (int x = 0; x < width; x++, dst += 3) {
        const int *weight = weights->weight + (size_t)x * (size_t)weights->most;
        const unsigned char *from = src + 3 * (size_t)weights->first[x];
        int last = weights->count[x] - 1, half = 1 << (PRECISION_BITS - 1);
        int_lanes sum = {half, half, half, half};
        for (int k = 0; k < last; k++, from += 3) {
            byte_lanes pixel;
            memcpy(&pixel, from, sizeof pixel);
            sum += __builtin_convertvector(pixel, int_lanes) * weight[k];
        }
        for (int c = 0; c < 3; c++)
            dst[c] = clip8(sum[c] + from[c] * weight[last]);
    }
}

static void resize_row(const unsigned char *src, unsigned char *dst, int width, int channels,
                       const resize_weights *weights)
{
    if (channels == 3) {
        resize_row3(src, dst, width, weights);
        return;
    }
    for (int x = 0; x < width; x++) {
        const int *weight = weights->weight + (size_t)x * (size_t)weights->most;
        const unsigned char *from = src + (size_t)weights->first[x] * (size_t)channels;
        for (int c = 0; c < channels; c++) {
            int sum = 1 << (PRECISION_BITS - 1);
            for (int k = 0; k < weights->count[x]; k++)
                sum += from[(size_t)k * (size_t)channels + (size_t)c] * weight[k];
            *dst++ = clip8(sum);
        }
    }
}

/* One row of the result as a weighted sum of `count` rows; `sums` is scratch of `bytes` ints. */
TN_HOT static void resize_column(const unsigned char *src, size_t stride, unsigned char *dst,
                                 size_t bytes, const int *weight, int count, int *restrict sums)
{
    for (size_t i = 0; i < bytes; i++)
        sums[i] = 1 << (PRECISION_BITS - 1);
    for (int k = 0; k < count; k++) {
        const unsigned char *row = src + (size_t)k * stride;
        int w = weight[k];
        for (size_t i = 0; i < bytes; i++)
            sums[i] += row[i] * w;
    }
    for (size_t i = 0; i < bytes; i++)
        dst[i] = clip8(sums[i]);
}

static tn_status check_box(const tn_image *src, const tn_resize_box *box, tn_error *error)
{
    if (!src->pixels)
        return tn_fail(error, TN_ERROR_USAGE, "arrays of floats cannot be resized");
    if (!(box->left >= 0.0f && box->top >= 0.0f && box->right <= (float)src->width &&
          box->bottom <= (float)src->height && box->left < box->right && box->top < box->bottom))
        return tn_fail(error, TN_ERROR_USAGE,
                       "the box (%g, %g, %g, %g) does not lie in an image of %dx%d",
                       (double)box->left, (double)box->top, (double)box->right, (double)box->bottom,
                       src->width, src->height);
    return TN_OK;
}

/* Rows [first, first + rows) of src resized along x. */
static tn_status resize_horizontal(const tn_image *src, int first, int rows, int width,
                                   const resize_weights *weights, tn_image *dst, tn_error *error)
{
    tn_status status = tn_image_reserve(dst, width, rows, src->channels, error);
    if (status != TN_OK)
        return status;
    size_t from = (size_t)src->width * (size_t)src->channels;
    size_t to = (size_t)width * (size_t)src->channels;
    for (int y = 0; y < rows; y++)
        resize_row(src->pixels + (size_t)(y + first) * from, dst->pixels + (size_t)y * to, width,
                   src->channels, weights);
    return TN_OK;
}

/* All columns of src, whose row 0 is row `skipped` of what the weights speak of. */
static tn_status resize_vertical(const tn_image *src, int height, int skipped,
                                 const resize_weights *weights, tn_image *dst, tn_error *error)
{
    size_t stride = (size_t)src->width * (size_t)src->channels;
    int *sums = tn_alloc_array(stride, sizeof(int));
    if (!sums)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for resizing");
    tn_status status = tn_image_reserve(dst, src->width, height, src->channels, error);
    for (int y = 0; status == TN_OK && y < height; y++)
        resize_column(src->pixels + (size_t)(weights->first[y] - skipped) * stride, stride,
                      dst->pixels + (size_t)y * stride, stride,
                      weights->weight + (size_t)y * (size_t)weights->most, weights->count[y], sums);
    tn_free(sums);
    return status;
}

/* Both directions; each rounds to bytes, so the order shows in the last bit. */
static tn_status resize_both(const tn_image *src, const resize_weights *across,
                             const resize_weights *down, bool down_first, int width, int height,
                             tn_image *dst, tn_error *error)
{
    tn_image between = {0};
    tn_status status;
    if (down_first) {
        status = resize_vertical(src, height, 0, down, &between, error);
        if (status == TN_OK)
            status = resize_horizontal(&between, 0, height, width, across, dst, error);
    } else {
        int first = down->first[0];
        int rows = down->first[height - 1] + down->count[height - 1] - first;
        status = resize_horizontal(src, first, rows, width, across, &between, error);
        if (status == TN_OK)
            status = resize_vertical(&between, height, first, down, dst, error);
    }
    tn_image_done(&between);
    return status;
}

/* The part at (left, top) of the picture that the box of src gives at full_width x full_height. */
static tn_status resize_window(const tn_image *src, const tn_resize_box *b, int full_width,
                               int full_height, const resize_window_place *w, tn_image *dst,
                               tn_error *error)
{
    resize_weights across = {0}, down = {0};
    /* a direction that keeps its size is copied, not filtered, as Pillow does */
    bool horizontal = full_width != src->width || b->left != 0.0f || b->right != (float)full_width;
    bool vertical = full_height != src->height || b->top != 0.0f || b->bottom != (float)full_height;
    if (!horizontal && !vertical)
        return tn_image_crop(src, w->left, w->top, w->width, w->height, dst, error);
    if (!horizontal || !vertical) { /* rare: one direction, then the cut */
        tn_image whole = {0};
        tn_status status = horizontal
                               ? weights_init(&across, src->width, (double)b->left,
                                              (double)b->right, full_width, 0, full_width, error)
                               : weights_init(&down, src->height, (double)b->top, (double)b->bottom,
                                              full_height, 0, full_height, error);
        if (status == TN_OK)
            status = horizontal ? resize_horizontal(src, 0, full_height, full_width, &across,
                                                    &whole, error)
                                : resize_vertical(src, full_height, 0, &down, &whole, error);
        if (status == TN_OK)
            status = tn_image_crop(&whole, w->left, w->top, w->width, w->height, dst, error);
        tn_image_done(&whole);
        weights_done(&across);
        weights_done(&down);
        return status;
    }
    /* Pillow 13 takes the vertical pass first where the height shrinks by more than twice what the
     * width does (earlier versions never did) */
    bool down_first =
        full_height < src->height && src->height - full_height > 2 * (src->width - full_width);
    tn_status status = weights_init(&down, src->height, (double)b->top, (double)b->bottom,
                                    full_height, w->top, w->height, error);
    if (status == TN_OK)
        status = weights_init(&across, src->width, (double)b->left, (double)b->right, full_width,
                              w->left, w->width, error);
    if (status == TN_OK)
        status = resize_both(src, &across, &down, down_first, w->width, w->height, dst, error);
    weights_done(&across);
    weights_done(&down);
    return status;
}

static tn_status check_sizes(const tn_image *src, const tn_resize_box *box, int width, int height,
                             tn_error *error)
{
    tn_status status = check_box(src, box, error);
    if (status == TN_OK)
        status = tn_image_check_size((uint64_t)(width > 0 ? width : 0),
                                     (uint64_t)(height > 0 ? height : 0), error);
    return status;
}

tn_status tn_image_resize(const tn_image *src, const tn_resize_box *box, int width, int height,
                          tn_image *dst, tn_error *error)
{
    tn_resize_box whole = {0.0f, 0.0f, (float)src->width, (float)src->height};
    const tn_resize_box *b = box ? box : &whole;
    resize_window_place all = {0, 0, width, height};
    tn_status status = check_sizes(src, b, width, height, error);
    return status == TN_OK ? resize_window(src, b, width, height, &all, dst, error) : status;
}

tn_status tn_image_resize_crop(const tn_image *src, int width, int height, int left, int top,
                               int crop_width, int crop_height, tn_image *dst, tn_error *error)
{
    tn_resize_box whole = {0.0f, 0.0f, (float)src->width, (float)src->height};
    resize_window_place part = {left, top, crop_width, crop_height};
    bool inside =
        left >= 0 && top >= 0 && crop_width <= width - left && crop_height <= height - top;
    tn_status status = check_sizes(src, &whole, width, height, error);
    if (status != TN_OK)
        return status;
    if (inside)
        return resize_window(src, &whole, width, height, &part, dst, error);
    tn_image scaled = {0};
    status = tn_image_resize(src, NULL, width, height, &scaled, error);
    if (status == TN_OK)
        status = tn_image_crop(&scaled, left, top, crop_width, crop_height, dst, error);
    tn_image_done(&scaled);
    return status;
}

tn_status tn_image_crop(const tn_image *src, int left, int top, int width, int height,
                        tn_image *dst, tn_error *error)
{
    bool is_float = !src->pixels;
    tn_status status = is_float ? tn_image_reserve_values(dst, width, height, src->channels, error)
                                : tn_image_reserve(dst, width, height, src->channels, error);
    if (status != TN_OK)
        return status;
    size_t pixel = (size_t)src->channels * (is_float ? sizeof(float) : 1);
    unsigned char *to = is_float ? (unsigned char *)dst->values : dst->pixels;
    const unsigned char *from = is_float ? (const unsigned char *)src->values : src->pixels;
    int x0 = left < 0 ? -left : 0;
    int x1 = left + width > src->width ? src->width - left : width;
    for (int y = 0; y < height; y++, to += (size_t)width * pixel) {
        int row = y + top;
        if (row < 0 || row >= src->height || x0 >= x1) {
            memset(to, 0, (size_t)width * pixel);
            continue;
        }
        memset(to, 0, (size_t)x0 * pixel);
        memcpy(to + (size_t)x0 * pixel,
               from + ((size_t)row * (size_t)src->width + (size_t)(left + x0)) * pixel,
               (size_t)(x1 - x0) * pixel);
        memset(to + (size_t)x1 * pixel, 0, (size_t)(width - x1) * pixel);
    }
    return TN_OK;
}

tn_status tn_image_convert_channels(const tn_image *src, int channels, tn_image *dst,
                                    tn_error *error)
{
    if (!src->pixels ||
        !((src->channels == 3 && channels == 1) || (src->channels == 1 && channels == 3)))
        return tn_fail(error, TN_ERROR_DATA, "images of %d channels cannot become ones of %d",
                       src->channels, channels);
    tn_status status = tn_image_reserve(dst, src->width, src->height, channels, error);
    if (status != TN_OK)
        return status;
    size_t n = (size_t)src->width * (size_t)src->height;
    for (size_t i = 0; i < n; i++) {
        const unsigned char *p = src->pixels + i * (size_t)src->channels;
        if (channels == 3)
            memset(dst->pixels + 3 * i, *p, 3);
        else
            dst->pixels[i] =
                (unsigned char)((19595u * p[0] + 38470u * p[1] + 7471u * p[2] + 0x8000u) >> 16);
    }
    return TN_OK;
}
