#include "data/image.h"

#include "core/memory.h"

#include <spng.h>
#include <stdbool.h>
#include <string.h>

/* Ancillary chunks (compressed text, profiles) may unpack to this much; pixels are not counted. */
enum { PNG_CACHE_LIMIT = 16 << 20 };

/* libspng's memory through our allocator: counted, limited, made to fail by tests. A failure shows
 * as any of many codes (zlib's among them), so it is noted here. */
static _Thread_local bool out_of_memory;

static void *noted(void *memory)
{
    out_of_memory = out_of_memory || !memory;
    return memory;
}

static void *png_malloc(size_t size)
{
    return noted(tn_alloc(size));
}

static void *png_realloc(void *old, size_t size)
{
    return noted(tn_realloc(old, size));
}

static void *png_calloc(size_t count, size_t size)
{
    return noted(tn_alloc_zero(count, size));
}

static void png_free(void *memory)
{
    tn_free(memory);
}

static struct spng_alloc allocator(void)
{
    return (struct spng_alloc){png_malloc, png_realloc, png_calloc, png_free};
}

static tn_status png_fail(int code, const char *what, tn_error *error)
{
    return tn_fail(error, out_of_memory ? TN_ERROR_LIMIT : TN_ERROR_DATA, "%s: %s", what,
                   spng_strerror(code));
}

/* Sample `x` of a row of `depth`-bit samples; 16-bit ones are in host order. */
static unsigned sample_at(const unsigned char *row, size_t x, int depth)
{
    if (depth == 8)
        return row[x];
    if (depth == 16) {
        uint16_t value;
        memcpy(&value, row + 2 * x, 2);
        return value;
    }
    size_t per_byte = 8 / (size_t)depth;
    unsigned shift = (unsigned)(8 - depth - (int)(x % per_byte) * depth);
    return (unsigned)(row[x / per_byte] >> shift) & ((1u << depth) - 1);
}

/* What Pillow's convert('RGB') makes of a grey sample: mode I;16 clips, LA of 16 bits is cut. */
static unsigned char grey_byte(unsigned value, int depth, bool alpha)
{
    if (depth == 16)
        return (unsigned char)(alpha ? value >> 8 : value > 255 ? 255 : value);
    return (unsigned char)(value * (255u / ((1u << depth) - 1)));
}

/* One decoded row in the file's own format to RGB; false on a palette index out of range. */
static bool convert_row(const struct spng_ihdr *ihdr, const struct spng_plte *palette,
                        const unsigned char *row, unsigned char *rgb)
{
    const int depth = ihdr->bit_depth;
    bool alpha = ihdr->color_type == SPNG_COLOR_TYPE_GRAYSCALE_ALPHA ||
                 ihdr->color_type == SPNG_COLOR_TYPE_TRUECOLOR_ALPHA;
    bool colour = ihdr->color_type == SPNG_COLOR_TYPE_TRUECOLOR ||
                  ihdr->color_type == SPNG_COLOR_TYPE_TRUECOLOR_ALPHA;
    size_t step = (colour ? 3u : 1u) + (alpha ? 1u : 0u);
    for (size_t x = 0; x < ihdr->width; x++) {
        unsigned char *dst = rgb + 3 * x;
        if (colour) {
            for (size_t c = 0; c < 3; c++)
                dst[c] =
                    (unsigned char)(sample_at(row, step * x + c, depth) >> (depth == 16 ? 8 : 0));
            continue;
        }
        unsigned value = sample_at(row, step * x, depth);
        if (ihdr->color_type == SPNG_COLOR_TYPE_INDEXED) {
            if (value >= palette->n_entries)
                return false;
            dst[0] = palette->entries[value].red;
            dst[1] = palette->entries[value].green;
            dst[2] = palette->entries[value].blue;
        } else {
            memset(dst, grey_byte(value, depth, alpha), 3);
        }
    }
    return true;
}

static tn_status check_header(spng_ctx *ctx, struct spng_ihdr *ihdr, struct spng_plte *palette,
                              tn_error *error)
{
    int code = spng_get_ihdr(ctx, ihdr);
    if (code)
        return png_fail(code, "corrupt PNG header", error);
    tn_status status = tn_image_check_size(ihdr->width, ihdr->height, error);
    if (status != TN_OK)
        return status;
    if (ihdr->color_type == SPNG_COLOR_TYPE_INDEXED) {
        code = spng_get_plte(ctx, palette);
        if (code)
            return png_fail(code, "corrupt PNG palette", error);
    }
    return TN_OK;
}

static tn_status decode_rows(spng_ctx *ctx, const struct spng_ihdr *ihdr,
                             const struct spng_plte *palette, tn_image *image, tn_error *error)
{
    size_t size;
    int code = spng_decoded_image_size(ctx, SPNG_FMT_PNG, &size);
    if (code)
        return png_fail(code, "corrupt PNG", error);
    /* libspng puts interlaced samples of less than a byte beside what is there already */
    bool adds = ihdr->interlace_method != SPNG_INTERLACE_NONE && ihdr->bit_depth < 8;
    unsigned char *raw = adds ? tn_alloc_zero(1, size) : tn_alloc(size);
    if (!raw)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a PNG of %ux%u", ihdr->width,
                       ihdr->height);
    tn_status status = tn_image_reserve(image, (int)ihdr->width, (int)ihdr->height, 3, error);
    if (status != TN_OK)
        goto done;
    code = spng_decode_image(ctx, raw, size, SPNG_FMT_PNG, 0);
    if (code) {
        status = png_fail(code, "corrupt PNG", error);
        goto done;
    }
    size_t stride = size / ihdr->height;
    for (size_t y = 0; y < ihdr->height; y++)
        if (!convert_row(ihdr, palette, raw + y * stride,
                         image->pixels + y * 3 * (size_t)ihdr->width)) {
            status = tn_fail(error, TN_ERROR_DATA,
                             "corrupt PNG: row %zu has a palette index beyond the %u colours", y,
                             palette->n_entries);
            goto done;
        }
done:
    tn_free(raw);
    return status;
}

tn_status tn_png_decode(const unsigned char *bytes, size_t size, tn_image *image, tn_error *error)
{
    struct spng_alloc memory = allocator();
    struct spng_ihdr ihdr = {0};
    struct spng_plte palette = {0};
    out_of_memory = false;
    spng_ctx *ctx = spng_ctx_new2(&memory, 0);
    if (!ctx)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a PNG decoder");
    tn_status status = TN_OK;
    /* a chunk cannot be larger than the file; what is kept of ancillary ones is bounded */
    if (spng_set_chunk_limits(ctx, size < PNG_CACHE_LIMIT ? PNG_CACHE_LIMIT : size,
                              size < PNG_CACHE_LIMIT ? PNG_CACHE_LIMIT : size) ||
        spng_set_png_buffer(ctx, bytes, size)) {
        status = tn_fail(error, TN_ERROR_DATA, "a PNG of %zu bytes is too large", size);
        goto done;
    }
    status = check_header(ctx, &ihdr, &palette, error);
    if (status == TN_OK)
        status = decode_rows(ctx, &ihdr, &palette, image, error);
done:
    spng_ctx_free(ctx);
    return status;
}
