#include "onnx_io/model.h"

#include "onnx_io/model_store.h"

#include <inttypes.h>
#include <string.h>

enum { QUOTA_BASE = 64 << 20, QUOTA_PER_BYTE = 4 };

static void *budget_alloc(void *context, size_t bytes)
{
    tn_model *model = context;
    struct tn_model_store *store = model->store;
    if (bytes > store->quota - store->used) {
        store->over_quota = true;
        return NULL;
    }
    store->used += bytes;
    return tn_arena_alloc(&model->arena, bytes);
}

static void budget_free(void *context, void *memory)
{
    (void)context; /* all goes with the arena */
    (void)memory;
}

static tn_status unpack(tn_model *model, const unsigned char *bytes, size_t size, tn_error *error)
{
    ProtobufCAllocator allocator = {budget_alloc, budget_free, model};
    model->proto = onnx__model_proto__unpack(&allocator, size, bytes);
    if (model->proto)
        return TN_OK;
    if (model->store->over_quota)
        return tn_fail(error, TN_ERROR_LIMIT,
                       "unpacking needs more than %" PRIu64 " bytes: allow more with --max-memory",
                       model->store->quota);
    return tn_fail(error, TN_ERROR_MODEL, "not an ONNX model, or out of memory");
}

/* Takes the versions out of the proto. */
static tn_status read_versions(tn_model *model, tn_error *error)
{
    const Onnx__ModelProto *proto = model->proto;
    if (!proto->graph)
        return tn_fail(error, TN_ERROR_MODEL, "not an ONNX model: it has no graph");
    model->ir_version = proto->has_ir_version ? proto->ir_version : 0;
    for (size_t i = 0; i < proto->n_opset_import; i++) {
        const char *domain = tn_text(proto->opset_import[i]->domain);
        if (!domain[0] || strcmp(domain, "ai.onnx") == 0)
            model->opset =
                proto->opset_import[i]->has_version ? proto->opset_import[i]->version : 0;
    }
    return TN_OK;
}

static tn_status load(tn_model *model, const unsigned char *bytes, size_t size,
                      const tn_read_options *options, tn_error *error)
{
    model->store->quota = options && options->max_memory
                              ? options->max_memory
                              : QUOTA_BASE + QUOTA_PER_BYTE * (uint64_t)size;
    tn_status status = unpack(model, bytes, size, error);
    if (status == TN_OK)
        status = read_versions(model, error);
    return status;
}

tn_status tn_model_read_bytes(const unsigned char *bytes, size_t size,
                              const tn_read_options *options, tn_model **model, tn_error *error)
{
    tn_model *result = tn_model_new("");
    if (!result)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory reading a model");
    tn_status status = load(result, bytes, size, options, error);
    if (status != TN_OK)
        tn_model_destroy(result);
    else
        *model = result;
    return status;
}

tn_status tn_model_read(const char *path, const tn_read_options *options, tn_model **model,
                        tn_error *error)
{
    tn_file_map map;
    tn_status status = tn_file_map_open(path, &map, error);
    if (status != TN_OK)
        return status;
    tn_model *result = tn_model_new(path);
    if (!result || !tn_model_keep_map(result, &map, path)) {
        tn_file_map_close(&map);
        tn_model_destroy(result);
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory reading %s", tn_quote(path));
    }
    status = load(result, map.data, map.size, options, error);
    if (status != TN_OK) {
        tn_error_prepend(error, "%s", tn_quote(path));
        tn_model_destroy(result);
    } else {
        *model = result;
    }
    return status;
}
