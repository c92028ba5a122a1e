#include "onnx_io/model.h"

#include "onnx_io/check.h"
#include "onnx_io/external.h"
#include "onnx_io/model_store.h"
#include "onnx_io/skeleton.h"

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
    void *memory = tn_arena_alloc(&model->arena, bytes);
    store->out_of_memory |= !memory;
    return memory;
}

static void budget_free(void *context, void *memory)
{
    (void)context; /* all goes with the arena */
    (void)memory;
}

static tn_status unpack(tn_model *model, const unsigned char *bytes, size_t size, tn_error *error)
{
    ProtobufCAllocator allocator = {budget_alloc, budget_free, model};
    tn_scan scan;
    tn_error reason = {0};
    tn_status status = tn_scan_model(bytes, size, &scan, &reason);
    if (status == TN_OK)
        status = tn_skeleton_unpack(bytes, size, &scan, &allocator, &model->proto, &reason);
    tn_scan_done(&scan);
    if (model->store->over_quota)
        return tn_fail(error, TN_ERROR_LIMIT,
                       "unpacking needs more than %" PRIu64 " bytes: allow more with --max-memory",
                       model->store->quota);
    if (model->store->out_of_memory)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory unpacking the model");
    return status == TN_OK ? TN_OK : tn_fail(error, status, "%s", reason.message);
}

static tn_status load(tn_model *model, const unsigned char *bytes, size_t size,
                      const tn_read_options *options, tn_error *error)
{
    if (size > INT32_MAX)
        return tn_fail(error, TN_ERROR_LIMIT,
                       "the file has %zu bytes; protobuf ends below 2 GiB: save the model with "
                       "external data",
                       size);
    if (size == 0)
        return tn_fail(error, TN_ERROR_MODEL, "the file is empty");
    model->store->quota = options && options->max_memory
                              ? options->max_memory
                              : QUOTA_BASE + QUOTA_PER_BYTE * (uint64_t)size;
    tn_status status = unpack(model, bytes, size, error);
    if (status == TN_OK)
        status = tn_check_versions(model, error);
    if (status == TN_OK)
        status = tn_external_resolve(model, options && options->allow_symlinks, error);
    if (status == TN_OK)
        status = tn_check_model(model, error);
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
    if (!result || !tn_model_keep_map(result, &map, false)) {
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
