/* Images as the readers hand them out, and their decoding from JPEG and PNG. */
#ifndef TERNION_DATA_IMAGE_H
#define TERNION_DATA_IMAGE_H

#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

/* What an untrusted picture may ask for, checked on the header before anything is allocated. */
enum {
    TN_IMAGE_MAX_SIDE = 16384,
    TN_IMAGE_MAX_PIXELS = 89478485,  /* Pillow's limit against decompression bombs */
    TN_IMAGE_MAX_SCANS = 64,         /* of a progressive JPEG */
    TN_IMAGE_MAX_ENCODED = 512 << 20 /* bytes of the file */
};

/* One picture, row-major [height][width][channels]. Start from {0}; reading into a used image
 * reuses its memory. Exactly one of pixels and values is set after a read. */
typedef struct tn_image {
    int width, height;
    int channels;          /* 3 (RGB), or 1 where the data set is grey; arrays may have others */
    unsigned char *pixels; /* owned */
    float *values;         /* owned; arrays of floats, in the file's own scale */
    size_t capacity;       /* bytes behind pixels or values */
} tn_image;

/* Makes room for width x height x channels bytes in image->pixels (or floats in image->values) and
 * sets the shape. LIMIT when out of memory. */
tn_status tn_image_reserve(tn_image *image, int width, int height, int channels,
                           tn_error *error) TN_MUST_CHECK;
tn_status tn_image_reserve_values(tn_image *image, int width, int height, int channels,
                                  tn_error *error) TN_MUST_CHECK;
void tn_image_done(tn_image *image); /* may be called again */

/* DATA when width x height breaks the limits above. */
tn_status tn_image_check_size(uint64_t width, uint64_t height, tn_error *error) TN_MUST_CHECK;

/* Decodes a JPEG or PNG (told apart by their first bytes) into RGB, bit-identical to Pillow's
 * Image.convert('RGB'): accurate DCT, fancy upsampling; CMYK and YCCK in Adobe's inverted sense;
 * alpha dropped, palettes looked up, 16 bits cut to the high byte (grey: clipped, as Pillow does).
 * DATA when corrupt, truncated, over the limits, or another format. */
tn_status tn_image_decode(const unsigned char *bytes, size_t size, tn_image *image,
                          tn_error *error) TN_MUST_CHECK;

/* One decoder each; tn_image_decode chooses. */
tn_status tn_jpeg_decode(const unsigned char *bytes, size_t size, tn_image *image,
                         tn_error *error) TN_MUST_CHECK;
tn_status tn_png_decode(const unsigned char *bytes, size_t size, tn_image *image,
                        tn_error *error) TN_MUST_CHECK;

/* Writes an RGB or grey image as PNG (atomic; replace = false refuses an existing file). */
tn_status tn_png_write(const char *path, const tn_image *image, int replace,
                       tn_error *error) TN_MUST_CHECK;

#endif
