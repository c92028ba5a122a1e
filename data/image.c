#include "data/image.h"

#include "core/checked.h"
#include "core/memory.h"

#include <stdbool.h>
#include <string.h>

tn_status tn_image_check_size(uint64_t width, uint64_t height, tn_error *error)
{
    if (width == 0 || height == 0)
        return tn_fail(error, TN_ERROR_DATA, "an image without pixels");
    if (width > TN_IMAGE_MAX_SIDE || height > TN_IMAGE_MAX_SIDE ||
        width * height > TN_IMAGE_MAX_PIXELS)
        return tn_fail(error, TN_ERROR_DATA,
                       "%llux%llu pixels; sides up to %d and %d pixels in all are read: scale it "
                       "down or take it out",
                       (unsigned long long)width, (unsigned long long)height, TN_IMAGE_MAX_SIDE,
                       TN_IMAGE_MAX_PIXELS);
    return TN_OK;
}

static tn_status reserve(tn_image *image, int width, int height, int channels, bool is_float,
                         tn_error *error)
{
    size_t bytes;
    bool fits = width > 0 && height > 0 && channels > 0 &&
                tn_checked_mul_size((size_t)width, (size_t)height, &bytes) &&
                tn_checked_mul_size(bytes, (size_t)channels, &bytes) &&
                tn_checked_mul_size(bytes, is_float ? sizeof(float) : 1, &bytes);
    if (!fits)
        return tn_fail(error, TN_ERROR_DATA, "an image of %dx%dx%d is impossible", width, height,
                       channels);
    void *memory = image->pixels ? (void *)image->pixels : (void *)image->values;
    if (bytes > image->capacity || !memory) {
        void *grown = tn_alloc(bytes);
        if (!grown)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for an image of %dx%dx%d", width,
                           height, channels);
        tn_free(memory);
        memory = grown;
        image->capacity = bytes;
    }
    image->pixels = is_float ? NULL : memory;
    image->values = is_float ? memory : NULL;
    image->width = width;
    image->height = height;
    image->channels = channels;
    return TN_OK;
}

tn_status tn_image_reserve(tn_image *image, int width, int height, int channels, tn_error *error)
{
    return reserve(image, width, height, channels, false, error);
}

tn_status tn_image_reserve_values(tn_image *image, int width, int height, int channels,
                                  tn_error *error)
{
    return reserve(image, width, height, channels, true, error);
}

void tn_image_done(tn_image *image)
{
    tn_free(image->pixels);
    tn_free(image->values);
    *image = (tn_image){0};
}

static const char *format_name(const unsigned char *bytes, size_t size)
{
    if (size >= 6 && (!memcmp(bytes, "GIF87a", 6) || !memcmp(bytes, "GIF89a", 6)))
        return "a GIF";
    if (size >= 12 && !memcmp(bytes, "RIFF", 4) && !memcmp(bytes + 8, "WEBP", 4))
        return "a WebP";
    if (size >= 2 && !memcmp(bytes, "BM", 2))
        return "a BMP";
    if (size >= 4 && (!memcmp(bytes, "II*", 4) || !memcmp(bytes, "MM\0*", 4)))
        return "a TIFF";
    return "of an unknown format";
}

tn_status tn_image_decode(const unsigned char *bytes, size_t size, tn_image *image, tn_error *error)
{
    static const unsigned char png[8] = {0x89, 'P', 'N', 'G', '\r', '\n', 0x1a, '\n'};
    if (size >= 3 && bytes[0] == 0xff && bytes[1] == 0xd8 && bytes[2] == 0xff)
        return tn_jpeg_decode(bytes, size, image, error);
    if (size >= 8 && memcmp(bytes, png, 8) == 0)
        return tn_png_decode(bytes, size, image, error);
    if (size == 0)
        return tn_fail(error, TN_ERROR_DATA, "the image file is empty");
    return tn_fail(error, TN_ERROR_DATA, "the image is %s; JPEG and PNG are read: convert it",
                   format_name(bytes, size));
}
