#include "data/image.h"

#include "core/file.h"

#include <spng.h>
#include <stdlib.h>

tn_status tn_png_write(const char *path, const tn_image *image, int replace, tn_error *error)
{
    tn_file_writer *writer = NULL;
    void *bytes = NULL;
    size_t size = 0;
    int code = 0;
    tn_status status = TN_OK;
    if (!image->pixels || (image->channels != 1 && image->channels != 3))
        return tn_fail(error, TN_ERROR_USAGE, "only grey and RGB images are written as PNG");
    spng_ctx *ctx = spng_ctx_new(SPNG_CTX_ENCODER);
    if (!ctx)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a PNG encoder");
    struct spng_ihdr ihdr = {.width = (uint32_t)image->width,
                             .height = (uint32_t)image->height,
                             .bit_depth = 8,
                             .color_type = image->channels == 3 ? SPNG_COLOR_TYPE_TRUECOLOR
                                                                : SPNG_COLOR_TYPE_GRAYSCALE};
    size_t pixels = (size_t)image->width * (size_t)image->height * (size_t)image->channels;
    spng_set_option(ctx, SPNG_ENCODE_TO_BUFFER, 1);
    code = spng_set_ihdr(ctx, &ihdr);
    if (!code)
        code = spng_encode_image(ctx, image->pixels, pixels, SPNG_FMT_PNG, SPNG_ENCODE_FINALIZE);
    if (!code)
        bytes = spng_get_png_buffer(ctx, &size, &code);
    if (!bytes) {
        status = tn_fail(error, TN_ERROR_LIMIT, "encoding a PNG: %s", spng_strerror(code));
        goto done;
    }
    status = tn_file_writer_open(path, replace != 0, &writer, error);
    if (status == TN_OK)
        status = tn_file_writer_write(writer, bytes, size, error);
    if (status == TN_OK) {
        status = tn_file_writer_commit(writer, error);
        writer = NULL;
    }
done:
    tn_file_writer_discard(writer);
    free(bytes);
    spng_ctx_free(ctx);
    return status;
}
