#include "onnx_io/clone.h"

#include "onnx_io/model.h"
#include "onnx_io/model_store.h"

#include <string.h>

enum { SHARED_BYTES = 4096 };

static size_t element_size(ProtobufCType type)
{
    switch (type) {
    case PROTOBUF_C_TYPE_SINT64:
    case PROTOBUF_C_TYPE_SFIXED64:
    case PROTOBUF_C_TYPE_INT64:
    case PROTOBUF_C_TYPE_UINT64:
    case PROTOBUF_C_TYPE_FIXED64:
    case PROTOBUF_C_TYPE_DOUBLE:
        return 8;
    case PROTOBUF_C_TYPE_BOOL:
        return sizeof(protobuf_c_boolean);
    case PROTOBUF_C_TYPE_STRING:
    case PROTOBUF_C_TYPE_MESSAGE:
        return sizeof(void *);
    case PROTOBUF_C_TYPE_BYTES:
        return sizeof(ProtobufCBinaryData);
    default:
        return 4;
    }
}

/* Replaces the list at `member` of the clone by one of its own. */
static bool own_list(tn_arena *arena, const ProtobufCFieldDescriptor *field, unsigned char *copy)
{
    void **member = (void **)(void *)(copy + field->offset);
    size_t count = *(const size_t *)(const void *)(copy + field->quantifier_offset);
    size_t bytes = count * element_size(field->type);
    bool is_message = field->type == PROTOBUF_C_TYPE_MESSAGE;
    bool is_edited = is_message || field->type == PROTOBUF_C_TYPE_STRING;
    if (count == 0 || (!is_edited && bytes >= SHARED_BYTES))
        return true;
    void *list = tn_arena_alloc(arena, bytes);
    if (!list)
        return false;
    memcpy(list, *member, bytes);
    *member = list;
    for (size_t i = 0; is_message && i < count; i++) {
        ProtobufCMessage **item = (ProtobufCMessage **)list + i;
        *item = tn_clone(arena, *item);
        if (!*item)
            return false;
    }
    return true;
}

ProtobufCMessage *tn_clone(tn_arena *arena, const ProtobufCMessage *message)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    unsigned char *copy = tn_arena_alloc(arena, descriptor->sizeof_message);
    if (!copy)
        return NULL;
    memcpy(copy, message, descriptor->sizeof_message);
    for (unsigned i = 0; i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            if (!own_list(arena, field, copy))
                return NULL;
        } else if (field->type == PROTOBUF_C_TYPE_MESSAGE) {
            ProtobufCMessage **member = (ProtobufCMessage **)(void *)(copy + field->offset);
            bool absent =
                (field->flags & PROTOBUF_C_FIELD_FLAG_ONEOF) &&
                *(const uint32_t *)(const void *)(copy + field->quantifier_offset) != field->id;
            if (absent || !*member)
                continue;
            *member = tn_clone(arena, *member);
            if (!*member)
                return NULL;
        }
    }
    return (ProtobufCMessage *)(void *)copy;
}

tn_status tn_model_copy(const tn_model *model, tn_model **copy, tn_error *error)
{
    tn_model *result = tn_model_new(model->path);
    bool ok = result != NULL;
    if (ok) {
        result->proto = (Onnx__ModelProto *)tn_clone(&result->arena, &model->proto->base);
        ok = result->proto != NULL;
    }
    for (const struct tn_model_map *map = model->store->maps; ok && map; map = map->next)
        ok = tn_model_keep_map(result, &map->map, true);
    if (!ok) {
        tn_model_destroy(result);
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory copying the model");
    }
    result->ir_version = model->ir_version;
    result->opset = model->opset;
    *copy = result;
    return TN_OK;
}
