/* The pixel body of augmentation: one output pixel from the picture, the sample's parameters and
 * the normalization. Plain C that nvcc compiles for host and device as well. */
#ifndef TERNION_DATA_AUGMENT_PIXEL_H
#define TERNION_DATA_AUGMENT_PIXEL_H

#include "core/portable.h"

#include <math.h>
#include <stdint.h>

enum { TN_PIXEL_CHANNELS = 3 };

/* One sample's parameters; plain data, copied to devices as it is. */
typedef struct tn_augmentation {
    /* output pixel (x, y) comes from (a x + b y + c, d x + e y + f) */
    float a, b, c, d, e, f;
    int exact; /* the map is a shift with or without a flip: no interpolation */
    float brightness, contrast, saturation, sharpness; /* factors; 1: nothing happens */
    float mean_grey;
    int cut_left, cut_top, cut_right, cut_bottom; /* half open; left == right: none */
    float mix;                                    /* share of the partner, 0 .. 1 */
} tn_augmentation;

/* out = byte * factor + offset, per channel as the network has them. */
typedef struct tn_normalization {
    float factor[TN_PIXEL_CHANNELS], offset[TN_PIXEL_CHANNELS];
    int bgr; /* network channel k is picture channel 2 - k */
} tn_normalization;

TN_BODY float tn_pixel_clamp(float v)
{
    return v < 0.0f ? 0.0f : v > 255.0f ? 255.0f : v;
}

TN_BODY float tn_pixel_luma(const float *v, int channels)
{
    return channels == 3 ? 0.299f * v[0] + 0.587f * v[1] + 0.114f * v[2] : v[0];
}

/* v += weight * src[y][x]; 0 outside. */
TN_BODY void tn_pixel_add(const unsigned char *src, int width, int height, int channels,
                                  int x, int y, float weight, float *v)
{
    if (x < 0 || y < 0 || x >= width || y >= height)
        return;
    const unsigned char *p = src + ((int64_t)y * width + x) * channels;
    for (int k = 0; k < channels; k++)
        v[k] += weight * (float)p[k];
}

/* The picture at (sx, sy): bilinear, or the nearest pixel where the map is exact. */
TN_BODY void tn_pixel_sample(const unsigned char *src, int width, int height, int channels,
                                     float sx, float sy, int exact, float *v)
{
    for (int k = 0; k < channels; k++)
        v[k] = 0.0f;
    if (exact) {
        tn_pixel_add(src, width, height, channels, (int)floorf(sx + 0.5f), (int)floorf(sy + 0.5f),
                     1.0f, v);
        return;
    }
    float fx = floorf(sx), fy = floorf(sy);
    int x = (int)fx, y = (int)fy;
    float wx = sx - fx, wy = sy - fy;
    tn_pixel_add(src, width, height, channels, x, y, (1.0f - wx) * (1.0f - wy), v);
    tn_pixel_add(src, width, height, channels, x + 1, y, wx * (1.0f - wy), v);
    tn_pixel_add(src, width, height, channels, x, y + 1, (1.0f - wx) * wy, v);
    tn_pixel_add(src, width, height, channels, x + 1, y + 1, wx * wy, v);
}

/* Sharpness: away from (or towards) the picture smoothed by [1 1 1; 1 5 1; 1 1 1] / 13. */
TN_BODY void tn_pixel_sharpen(const unsigned char *src, int width, int height, int channels,
                                      float sx, float sy, const tn_augmentation *a, float *v)
{
    float sum[TN_PIXEL_CHANNELS], near[TN_PIXEL_CHANNELS];
    for (int k = 0; k < channels; k++)
        sum[k] = 4.0f * v[k];
    for (int dy = -1; dy <= 1; dy++)
        for (int dx = -1; dx <= 1; dx++) {
            tn_pixel_sample(src, width, height, channels, sx + (float)dx, sy + (float)dy, a->exact,
                            near);
            for (int k = 0; k < channels; k++)
                sum[k] += near[k];
        }
    for (int k = 0; k < channels; k++) {
        float smooth = sum[k] / 13.0f;
        v[k] = tn_pixel_clamp(smooth + (v[k] - smooth) * a->sharpness);
    }
}

/* Pixel (x, y) of the augmented picture, still 0..255 and in the picture's channel order. */
TN_BODY void tn_pixel_augment(const unsigned char *src, int width, int height, int channels,
                                      const tn_augmentation *a, int x, int y, float *v)
{
    float sx = a->a * (float)x + a->b * (float)y + a->c;
    float sy = a->d * (float)x + a->e * (float)y + a->f;
    tn_pixel_sample(src, width, height, channels, sx, sy, a->exact, v);
    if (a->sharpness != 1.0f)
        tn_pixel_sharpen(src, width, height, channels, sx, sy, a, v);
    if (a->brightness != 1.0f)
        for (int k = 0; k < channels; k++)
            v[k] = tn_pixel_clamp(v[k] * a->brightness);
    if (a->contrast != 1.0f) {
        float mean = tn_pixel_clamp(a->mean_grey * a->brightness);
        for (int k = 0; k < channels; k++)
            v[k] = tn_pixel_clamp(mean + (v[k] - mean) * a->contrast);
    }
    if (a->saturation != 1.0f) {
        float grey = tn_pixel_luma(v, channels);
        for (int k = 0; k < channels; k++)
            v[k] = tn_pixel_clamp(grey + (v[k] - grey) * a->saturation);
    }
}

/* out[k], k < channels: the network's input at (x, y) of a sample without its partner. channels is
 * 1 or 3. */
TN_BODY void tn_pixel_normalized(const unsigned char *src, int width, int height,
                                         int channels, const tn_augmentation *a,
                                         const tn_normalization *n, int x, int y, float *out)
{
    float v[TN_PIXEL_CHANNELS];
    if (x >= a->cut_left && x < a->cut_right && y >= a->cut_top && y < a->cut_bottom) {
        for (int k = 0; k < channels; k++)
            out[k] = 0.0f;
        return;
    }
    tn_pixel_augment(src, width, height, channels, a, x, y, v);
    for (int k = 0; k < channels; k++)
        out[k] = (n->bgr && channels == 3 ? v[2 - k] : v[k]) * n->factor[k] + n->offset[k];
}

/* The same with mixup: (1 - mix) of the sample and mix of its partner, each with its own
 * parameters. partner may be NULL (then mix is ignored). */
TN_BODY void tn_pixel_mixed(const unsigned char *src, const tn_augmentation *a,
                                    const unsigned char *partner, const tn_augmentation *b,
                                    int width, int height, int channels, const tn_normalization *n,
                                    int x, int y, float *out)
{
    tn_pixel_normalized(src, width, height, channels, a, n, x, y, out);
    if (!partner || a->mix == 0.0f)
        return;
    float other[TN_PIXEL_CHANNELS];
    tn_pixel_normalized(partner, width, height, channels, b, n, x, y, other);
    for (int k = 0; k < channels; k++)
        out[k] += (other[k] - out[k]) * a->mix;
}

#endif
