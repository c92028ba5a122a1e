/* Resizing of 8-bit images, bit-identical to Pillow's Image.resize(..., BILINEAR, box): a triangle
 * filter stretched by the scale (antialias), weights in 22-bit fixed point, first along rows, then
 * along columns. */
#ifndef TERNION_DATA_RESIZE_H
#define TERNION_DATA_RESIZE_H

#include "data/image.h"

/* A part of the source in pixels, edges included, not necessarily whole. */
typedef struct tn_resize_box {
    float left, top, right, bottom;
} tn_resize_box;

/* Scales the box of src (NULL: all of it) to width x height in dst. src must hold pixels and be
 * another image than dst. USAGE when the box leaves the source. */
tn_status tn_image_resize(const tn_image *src, const tn_resize_box *box, int width, int height,
                          tn_image *dst, tn_error *error) TN_MUST_CHECK;

/* tn_image_crop of tn_image_resize(src, NULL, width, height), without the pixels in between that
 * are cut away. */
tn_status tn_image_resize_crop(const tn_image *src, int width, int height, int left, int top,
                               int crop_width, int crop_height, tn_image *dst,
                               tn_error *error) TN_MUST_CHECK;

/* dst = the width x height part of src at (left, top); what lies outside src is 0. */
tn_status tn_image_crop(const tn_image *src, int left, int top, int width, int height,
                        tn_image *dst, tn_error *error) TN_MUST_CHECK;

/* dst = src with 1 or 3 channels: grey by Pillow's (19595 R + 38470 G + 7471 B + 32768) >> 16. */
tn_status tn_image_convert_channels(const tn_image *src, int channels, tn_image *dst,
                                    tn_error *error) TN_MUST_CHECK;

#endif
