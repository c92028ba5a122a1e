/* Augmentation: the network's input from pictures of bytes, by the pixel body of data/. */
#ifndef TERNION_GPU_KERNELS_AUGMENTATION_H
#define TERNION_GPU_KERNELS_AUGMENTATION_H

#include "gpu/body.h"

typedef struct tn_augment_args { /* dst [rows, height, width, channels]; a thread per pixel */
    const unsigned char *pixels; /* [..., height, width, channels] */
    const uint32_t *places;      /* [rows] in pixels; TN_NO_PLACE: zeros */
    const tn_augmentation *augmentations; /* [rows] */
    const float *table;                   /* [channels, 256]; NULL with augmentation */
    float *dst;
    int64_t rows;
    int width, height, channels;
    tn_normalization normalization;
} tn_augment_args;

/* channels is a constant here, so that no array is indexed by what is known late. */
TN_BODY void tn_augment_pixel(const tn_augment_args *k, int64_t row, int x, int y, int channels,
                              float *dst)
{
    int64_t plane = (int64_t)k->width * k->height, picture = plane * channels, mate = row ^ 1;
    uint32_t place = k->places[row];
    float v[TN_PIXEL_CHANNELS] = {0.0f, 0.0f, 0.0f};
    if (place != TN_NO_PLACE && k->table) {
        const unsigned char *p =
            k->pixels + (int64_t)place * picture + ((int64_t)y * k->width + x) * channels;
        for (int c = 0; c < channels; c++)
            v[c] = k->table[256 * c + p[k->normalization.bgr && channels == 3 ? 2 - c : c]];
    } else if (place != TN_NO_PLACE) {
        const tn_augmentation *a = &k->augmentations[row];
        bool mixes = a->mix != 0.0f && mate < k->rows && k->places[mate] != TN_NO_PLACE;
        tn_pixel_mixed(k->pixels + (int64_t)place * picture, a,
                       mixes ? k->pixels + (int64_t)k->places[mate] * picture : NULL,
                       mixes ? &k->augmentations[mate] : NULL, k->width, k->height, channels,
                       &k->normalization, x, y, v);
    }
    for (int c = 0; c < channels; c++)
        dst[c] = v[c];
}

TN_BODY void tn_augment_body(const tn_augment_args *k, int64_t i)
{
    int64_t plane = (int64_t)k->width * k->height, at = i % plane;
    int x = (int)(at % k->width), y = (int)(at / k->width);
    if (k->channels == 3)
        tn_augment_pixel(k, i / plane, x, y, 3, k->dst + 3 * i);
    else
        tn_augment_pixel(k, i / plane, x, y, 1, k->dst + i);
}

#endif
