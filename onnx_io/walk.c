#include "onnx_io/walk.h"

#include <stdbool.h>

static tn_status walk_list(ProtobufCMessage **list, size_t count, tn_tensor_visit visit,
                           void *context, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < count; i++)
        status = tn_walk_tensors(list[i], visit, context, error);
    return status;
}

tn_status tn_walk_tensors(ProtobufCMessage *message, tn_tensor_visit visit, void *context,
                          tn_error *error)
{
    const ProtobufCMessageDescriptor *descriptor = message->descriptor;
    tn_status status = TN_OK;
    if (descriptor == &onnx__tensor_proto__descriptor)
        return visit(context, (Onnx__TensorProto *)(void *)message, error);
    if (descriptor == &onnx__type_proto__descriptor) /* types hold none */
        return TN_OK;
    for (unsigned i = 0; status == TN_OK && i < descriptor->n_fields; i++) {
        const ProtobufCFieldDescriptor *field = &descriptor->fields[i];
        unsigned char *member = (unsigned char *)message + field->offset;
        unsigned char *quantifier = (unsigned char *)message + field->quantifier_offset;
        if (field->type != PROTOBUF_C_TYPE_MESSAGE)
            continue;
        if (field->label == PROTOBUF_C_LABEL_REPEATED) {
            status = walk_list(*(ProtobufCMessage ***)(void *)member, *(size_t *)(void *)quantifier,
                               visit, context, error);
        } else {
            ProtobufCMessage *child = *(ProtobufCMessage **)(void *)member;
            status = child ? tn_walk_tensors(child, visit, context, error) : TN_OK;
        }
    }
    return status;
}
