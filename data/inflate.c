#include "data/inflate.h"

#include <limits.h>
#include <stdbool.h>
#include <string.h>
#include <zlib.h>

enum { BLOCK = 64 << 10 };

typedef struct inflate_input {
    const tn_source *source;
    uint64_t offset, left;
    unsigned char block[BLOCK];
} inflate_input;

static tn_status refill(inflate_input *input, z_stream *stream, tn_error *error)
{
    size_t n = input->left < BLOCK ? (size_t)input->left : BLOCK;
    tn_status status = tn_source_read(input->source, input->offset, input->block, n, error);
    if (status != TN_OK)
        return status;
    input->offset += n;
    input->left -= n;
    stream->next_in = input->block;
    stream->avail_in = (uInt)n;
    return TN_OK;
}

/* Unpacks until `bytes` are there and, with `whole`, the stream has ended. */
static tn_status run(inflate_input *input, z_stream *stream, bool whole, unsigned char *dst,
                     size_t bytes, tn_error *error)
{
    const char *path = tn_quote(input->source->path);
    size_t done = 0;
    unsigned char beyond;
    for (;;) {
        if (stream->avail_in == 0 && input->left > 0) {
            tn_status status = refill(input, stream, error);
            if (status != TN_OK)
                return status;
        }
        size_t want = bytes - done < INT_MAX ? bytes - done : INT_MAX;
        /* behind the last wanted byte, one more would show that the stream is too long */
        stream->next_out = want ? dst + done : &beyond;
        stream->avail_out = want ? (uInt)want : 1;
        uInt room = stream->avail_out;
        int code = inflate(stream, Z_NO_FLUSH);
        size_t made = room - stream->avail_out;
        if (!want && made)
            return tn_fail(error, TN_ERROR_DATA, "%s unpacks to more than the %zu bytes it claims",
                           path, bytes);
        done += want ? made : 0;
        if (code == Z_STREAM_END) {
            if (done == bytes)
                return TN_OK;
            return tn_fail(error, TN_ERROR_DATA, "%s unpacks to %zu bytes, not the %zu it claims",
                           path, done, bytes);
        }
        if (done == bytes && !whole)
            return TN_OK;
        if (code != Z_OK && code != Z_BUF_ERROR)
            return tn_fail(error, TN_ERROR_DATA, "%s: corrupt compressed data (%s)", path,
                           stream->msg ? stream->msg : "zlib error");
        if (made == 0 && stream->avail_in == 0 && input->left == 0)
            return tn_fail(error, TN_ERROR_DATA, "%s: the compressed data is cut off", path);
    }
}

tn_status tn_inflate(const tn_source *source, uint64_t offset, uint64_t packed,
                     tn_deflate_kind kind, int whole, void *dst, size_t bytes, tn_error *error)
{
    z_stream stream = {0};
    inflate_input *input = tn_alloc(sizeof *input);
    if (!input || inflateInit2(&stream, kind == TN_DEFLATE_RAW ? -15 : 15 + 16) != Z_OK) {
        tn_free(input);
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for unpacking %s",
                       tn_quote(source->path));
    }
    input->source = source;
    input->offset = offset;
    input->left = packed;
    tn_status status = run(input, &stream, whole != 0, dst, bytes, error);
    inflateEnd(&stream);
    tn_free(input);
    return status;
}
