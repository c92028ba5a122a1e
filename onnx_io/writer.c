#include "onnx_io/model.h"

#include <stdio.h>
#include <string.h>

/* protobuf-c packs through this callback; payloads go from the mapped input straight to write(2).
 */
typedef struct file_sink {
    ProtobufCBuffer base;
    tn_file_writer *writer;
    tn_status status;
    tn_error *error;
} file_sink;

static void append(ProtobufCBuffer *buffer, size_t bytes, const uint8_t *data)
{
    file_sink *sink = (file_sink *)(void *)buffer;
    if (sink->status == TN_OK)
        sink->status = tn_file_writer_write(sink->writer, data, bytes, sink->error);
}

static tn_status pack(const Onnx__ModelProto *proto, tn_file_writer *writer, tn_error *error)
{
    file_sink sink = {.base = {append}, .writer = writer, .error = error};
    onnx__model_proto__pack_to_buffer(proto, &sink.base);
    return sink.status;
}

tn_status tn_model_write(const tn_model *model, const char *path, const tn_write_options *options,
                         uint64_t *bytes, tn_error *error)
{
    static const tn_write_options standard = {.replace = false};
    tn_file_writer *writer = NULL;
    if (!options)
        options = &standard;
    if (model->path[0] && tn_file_is_same(model->path, path))
        return tn_fail(error, TN_ERROR_USAGE, "%s is the input: choose another name for the output",
                       tn_quote(path));
    tn_status status = tn_file_writer_open(path, options->replace, &writer, error);
    if (status != TN_OK)
        return status;
    status = pack(model->proto, writer, error);
    if (status != TN_OK) {
        tn_file_writer_discard(writer);
        return status;
    }
    uint64_t written = tn_file_writer_position(writer);
    status = tn_file_writer_commit(writer, error);
    if (status == TN_OK && bytes)
        *bytes = written;
    return status;
}
