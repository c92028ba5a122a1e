#include "data/image.h"

#include "core/memory.h"

#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <turbojpeg.h>

/* Scans of a JPEG: SOS markers outside of segments. A progressive bomb holds hundreds, each of
 * which makes the decoder walk the whole picture. */
static int count_scans(const unsigned char *bytes, size_t size)
{
    int scans = 0;
    size_t at = 2;
    while (at + 3 < size) {
        const unsigned char *marker = memchr(bytes + at, 0xff, size - at - 3);
        if (!marker)
            break;
        at = (size_t)(marker - bytes) + 1;
        unsigned code = bytes[at];
        if (code == 0xff)
            continue;
        if (code == 0xda)
            scans++;
        if (code == 0 || code == 1 || (code >= 0xd0 && code <= 0xd9)) {
            at++; /* stuffed byte or a marker without length */
            continue;
        }
        at += 1 + ((size_t)bytes[at + 1] << 8 | bytes[at + 2]);
    }
    return scans;
}

static bool ends_whole(const unsigned char *bytes, size_t size)
{
    while (size > 2 && bytes[size - 1] != 0xd9)
        size--;
    return size > 2 && bytes[size - 2] == 0xff;
}

/* Pillow's cmyk2rgb on Adobe's inverted samples: c = 255 - C and so on. */
static void convert_cmyk(const unsigned char *cmyk, size_t pixels, unsigned char *rgb)
{
    for (size_t i = 0; i < pixels; i++) {
        int k = cmyk[4 * i + 3]; /* 255 - K */
        for (int c = 0; c < 3; c++) {
            int product = (255 - cmyk[4 * i + (size_t)c]) * k + 128;
            int value = k - (((product >> 8) + product) >> 8);
            rgb[3 * i + (size_t)c] = (unsigned char)(value < 0 ? 0 : value);
        }
    }
}

static tn_status decompress(tjhandle handle, const unsigned char *bytes, size_t size,
                            unsigned char *dst, int width, int height, int format, tn_error *error)
{
    if (tjDecompress2(handle, bytes, (unsigned long)size, dst, width, 0, height, format,
                      TJFLAG_ACCURATEDCT) == 0)
        return TN_OK;
    const char *why = tjGetErrorStr2(handle);
    /* stray bytes between whole segments are common and harmless */
    if (tjGetErrorCode(handle) == TJERR_WARNING && strstr(why, "extraneous bytes") &&
        ends_whole(bytes, size))
        return TN_OK;
    return tn_fail(error, TN_ERROR_DATA, "corrupt JPEG: %s", why);
}

tn_status tn_jpeg_decode(const unsigned char *bytes, size_t size, tn_image *image, tn_error *error)
{
    tn_status status = TN_OK;
    unsigned char *cmyk = NULL;
    int width = 0, height = 0, subsampling, colorspace = -1;
    tjhandle handle = tjInitDecompress();
    if (!handle)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a JPEG decoder");
    bool readable =
        size <= LONG_MAX && (tjDecompressHeader3(handle, bytes, (unsigned long)size, &width,
                                                 &height, &subsampling, &colorspace) == 0 ||
                             /* it knows the size, but has no name for the subsampling: decodable */
                             (width > 0 && strstr(tjGetErrorStr2(handle), "subsampling type")));
    if (!readable) {
        status = tn_fail(error, TN_ERROR_DATA, "corrupt JPEG header: %s", tjGetErrorStr2(handle));
        goto done;
    }
    status = tn_image_check_size((uint64_t)width, (uint64_t)height, error);
    if (status != TN_OK)
        goto done;
    int scans = count_scans(bytes, size);
    if (scans > TN_IMAGE_MAX_SCANS) {
        status = tn_fail(error, TN_ERROR_DATA, "a JPEG of %d scans; at most %d are decoded", scans,
                         TN_IMAGE_MAX_SCANS);
        goto done;
    }
    status = tn_image_reserve(image, width, height, 3, error);
    if (status != TN_OK)
        goto done;
    if (colorspace != TJCS_CMYK && colorspace != TJCS_YCCK) {
        status = decompress(handle, bytes, size, image->pixels, width, height, TJPF_RGB, error);
        goto done;
    }
    size_t pixels = (size_t)width * (size_t)height;
    cmyk = tn_alloc_array(pixels, 4);
    if (!cmyk) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for a CMYK image of %dx%d", width,
                         height);
        goto done;
    }
    status = decompress(handle, bytes, size, cmyk, width, height, TJPF_CMYK, error);
    if (status == TN_OK)
        convert_cmyk(cmyk, pixels, image->pixels);
done:
    tn_free(cmyk);
    tjDestroy(handle);
    return status;
}
