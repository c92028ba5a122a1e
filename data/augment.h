/* Augmentation of training images. What happens to a sample is drawn here, from
 * (seed, epoch, sample) alone; the pixels are made by the body in data/augment_pixel.h, which runs
 * on the host and on devices alike. */
#ifndef TERNION_DATA_AUGMENT_H
#define TERNION_DATA_AUGMENT_H

#include "data/augment_pixel.h"
#include "data/resize.h"

#include <stdbool.h>

/* Zero means off. */
typedef struct tn_augment_options {
    int pad;        /* shift by up to this many pixels each way, 0 outside (pad and crop) */
    bool flip;      /* left and right, with probability 1/2 */
    float min_area; /* random resized crop: smallest share of the area (0.08); ratio 3/4 to 4/3 */
    float rotation; /* up to this many degrees each way */
    float brightness, contrast, saturation, sharpness; /* factor in [1 - v, 1 + v] */
    int cutout;  /* side of a grey square (the mean, 0 after normalization) at a random place */
    float mixup; /* Zhang et al. 2018, with Beta(alpha, alpha) */
} tn_augment_options;

/* "none", "cifar" (pad 4, flip), "imagenet" (random resized crop, flip), or a list such as
 * "pad:4,flip,cutout:8,brightness:0.2": crop:0.08, rotation, contrast, saturation, sharpness,
 * mixup. USAGE when not understood. */
tn_status tn_augment_parse(const char *text, tn_augment_options *options,
                           tn_error *error) TN_MUST_CHECK;

bool tn_augment_is_on(const tn_augment_options *options); /* NULL: false */

/* What happens to a sample of width x height; mean_grey is its mean luma (0..255; only contrast
 * uses it). */
tn_augmentation tn_augment_draw(const tn_augment_options *options, uint64_t seed, uint32_t epoch,
                                uint64_t sample, int width, int height, float mean_grey);

/* The part of a picture that a random resized crop takes; all of it when that is off. */
tn_resize_box tn_augment_draw_box(const tn_augment_options *options, uint64_t seed, uint32_t epoch,
                                  uint64_t sample, int width, int height);

/* Mean luma of a picture of bytes. */
float tn_augment_mean_grey(const unsigned char *pixels, size_t n_pixels, int channels);

#endif
