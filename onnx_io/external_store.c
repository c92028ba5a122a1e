#include "onnx_io/external.h"

#include "onnx_io/scan.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

enum { ALIGNMENT = 4096 };

typedef struct store {
    tn_model *model;
    tn_file_writer *data;
    const char *location;
    size_t moved;
} store;

static Onnx__StringStringEntryProto *make_entry(tn_arena *arena, const char *key, const char *value)
{
    Onnx__StringStringEntryProto *entry = tn_arena_alloc(arena, sizeof *entry);
    char *own_key = tn_arena_strdup(arena, key), *own_value = tn_arena_strdup(arena, value);
    if (!entry || !own_key || !own_value)
        return NULL;
    onnx__string_string_entry_proto__init(entry);
    entry->key = own_key;
    entry->value = own_value;
    return entry;
}

/* Points the tensor at `bytes` bytes from `offset` on, and takes its own data away. */
static tn_status point(const store *s, Onnx__TensorProto *tensor, uint64_t offset, size_t bytes,
                       tn_error *error)
{
    tn_arena *arena = &s->model->arena;
    char offset_text[24], length_text[24];
    snprintf(offset_text, sizeof offset_text, "%" PRIu64, offset);
    snprintf(length_text, sizeof length_text, "%zu", bytes);
    Onnx__StringStringEntryProto **entries = tn_arena_array(arena, 3, sizeof *entries);
    if (entries) {
        entries[0] = make_entry(arena, "location", s->location);
        entries[1] = make_entry(arena, "offset", offset_text);
        entries[2] = make_entry(arena, "length", length_text);
    }
    if (!entries || !entries[0] || !entries[1] || !entries[2])
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory writing external data");
    tensor->has_raw_data = 0;
    tensor->raw_data = (ProtobufCBinaryData){0};
    tensor->n_float_data = tensor->n_double_data = 0;
    tensor->n_int32_data = tensor->n_int64_data = tensor->n_uint64_data = 0;
    tensor->external_data = entries;
    tensor->n_external_data = 3;
    tensor->has_data_location = 1;
    tensor->data_location = ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL;
    return TN_OK;
}

static tn_status move_tensor(store *s, Onnx__TensorProto *proto, tn_error *error)
{
    static const unsigned char zeros[ALIGNMENT];
    tn_tensor tensor = {0};
    if (proto->data_type == TN_STRING)
        return TN_OK;
    tn_status status = tn_model_tensor(s->model, proto, &tensor, error);
    if (status != TN_OK || tensor.bytes < TN_SCAN_LIFTED)
        goto done;
    size_t past = (size_t)(tn_file_writer_position(s->data) % ALIGNMENT);
    if (past > 0)
        status = tn_file_writer_write(s->data, zeros, ALIGNMENT - past, error);
    uint64_t offset = tn_file_writer_position(s->data);
    if (status == TN_OK)
        status = tn_file_writer_write(s->data, tensor.data, tensor.bytes, error);
    if (status == TN_OK)
        status = point(s, proto, offset, tensor.bytes, error);
    s->moved++;
done:
    tn_tensor_done(&tensor);
    return status;
}

/* Initializers alone: not every runtime reads external data in attributes. */
static tn_status move_graph(store *s, Onnx__GraphProto *graph, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < graph->n_initializer; i++)
        status = move_tensor(s, graph->initializer[i], error);
    for (size_t i = 0; i < graph->n_node; i++) {
        const Onnx__NodeProto *node = graph->node[i];
        for (size_t k = 0; status == TN_OK && k < node->n_attribute; k++) {
            const Onnx__AttributeProto *attribute = node->attribute[k];
            if (attribute->g)
                status = move_graph(s, attribute->g, error);
            for (size_t g = 0; status == TN_OK && g < attribute->n_graphs; g++)
                status = move_graph(s, attribute->graphs[g], error);
        }
    }
    return status;
}

tn_status tn_external_store(tn_model *model, tn_file_writer *data, const char *location,
                            size_t *moved, tn_error *error)
{
    store s = {model, data, location, 0};
    tn_status status = move_graph(&s, model->proto->graph, error);
    if (status == TN_OK)
        *moved = s.moved;
    return status;
}
