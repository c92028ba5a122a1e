#include "onnx_io/external.h"
#include "onnx_io/model_store.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Protobuf ends at 2 GiB; some runtimes give up a little earlier. */
static const uint64_t external_above = 1800000000, protobuf_limit = INT32_MAX;

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

/* Neither the model file nor its external data may be overwritten: they are still being read. */
static tn_status refuse_input(const tn_model *model, const char *path, tn_error *error)
{
    struct stat info;
    if (stat(path, &info) != 0)
        return TN_OK;
    for (const struct tn_model_map *map = model->store->maps; map; map = map->next)
        if (map->map.device == (uint64_t)info.st_dev && map->map.inode == (uint64_t)info.st_ino)
            return tn_fail(error, TN_ERROR_USAGE,
                           "%s is an input of this run: choose another name for the output",
                           tn_quote(path));
    return TN_OK;
}

/* One file under construction and its name. */
typedef struct output {
    char *path;
    tn_file_writer *writer;
} output;

static tn_status open_output(const tn_model *model, bool replace, output *out, tn_error *error)
{
    tn_status status = refuse_input(model, out->path, error);
    return status == TN_OK ? tn_file_writer_open(out->path, replace, &out->writer, error) : status;
}

static bool wants_external(const tn_write_options *options, uint64_t size)
{
    return options->external == TN_EXTERNAL_ALWAYS ||
           (options->external == TN_EXTERNAL_AUTO && size > external_above);
}

/* Both files are complete and on disk before either gets its name. */
static tn_status commit(output *out, output *data, bool replace, tn_error *error)
{
    tn_status status = data->writer ? tn_file_writer_finish(data->writer, error) : TN_OK;
    bool has_data = data->writer != NULL;
    if (status == TN_OK)
        status = tn_file_writer_finish(out->writer, error);
    if (status == TN_OK && has_data) {
        status = tn_file_writer_commit(data->writer, error);
        data->writer = NULL;
    }
    if (status != TN_OK)
        return status;
    status = tn_file_writer_commit(out->writer, error);
    out->writer = NULL;
    if (status != TN_OK && has_data && !replace)
        remove(data->path); /* ours: it did not exist before */
    return status;
}

/* Writes the data file and a copy of the model that points into it. */
static tn_status write_external(const tn_model *model, const tn_write_options *options, output *out,
                                output *data, tn_model **copy, tn_error *error)
{
    size_t bytes = strlen(out->path) + 6, moved = 0;
    data->path = tn_alloc(bytes);
    if (!data->path)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory writing %s", tn_quote(out->path));
    snprintf(data->path, bytes, "%s.data", out->path);
    const char *slash = strrchr(data->path, '/');
    tn_status status = tn_model_copy(model, copy, error);
    if (status == TN_OK)
        status = open_output(model, options->replace, data, error);
    if (status == TN_OK)
        status =
            tn_external_store(*copy, data->writer, slash ? slash + 1 : data->path, &moved, error);
    if (status == TN_OK && moved == 0) {
        tn_file_writer_discard(data->writer);
        data->writer = NULL;
    }
    return status;
}

tn_status tn_model_write(const tn_model *model, const char *path, const tn_write_options *options,
                         uint64_t *bytes, tn_error *error)
{
    static const tn_write_options standard = {.replace = false};
    output out = {.path = tn_strdup(path)}, data = {0};
    tn_model *copy = NULL;
    uint64_t size = onnx__model_proto__get_packed_size(model->proto), written = 0;
    if (!options)
        options = &standard;
    tn_status status =
        out.path ? open_output(model, options->replace, &out, error)
                 : tn_fail(error, TN_ERROR_LIMIT, "out of memory writing %s", tn_quote(path));
    if (status == TN_OK && wants_external(options, size)) {
        status = write_external(model, options, &out, &data, &copy, error);
        if (status == TN_OK)
            size = onnx__model_proto__get_packed_size(copy->proto);
    }
    if (status == TN_OK && size > protobuf_limit)
        status =
            tn_fail(error, TN_ERROR_LIMIT,
                    "%s would have %" PRIu64 " bytes; protobuf ends below 2 GiB: write it with "
                    "external data (--external-data auto)",
                    tn_quote(path), size);
    if (status == TN_OK)
        status = pack(copy ? copy->proto : model->proto, out.writer, error);
    if (status == TN_OK) {
        written = tn_file_writer_position(out.writer);
        written += data.writer ? tn_file_writer_position(data.writer) : 0;
        status = commit(&out, &data, options->replace, error);
    }
    tn_file_writer_discard(out.writer);
    tn_file_writer_discard(data.writer);
    tn_model_destroy(copy);
    tn_free(out.path);
    tn_free(data.path);
    if (status == TN_OK && bytes)
        *bytes = written;
    return status;
}
