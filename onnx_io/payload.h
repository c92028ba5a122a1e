/* Where a TensorProto keeps its elements. */
#ifndef TERNION_ONNX_IO_PAYLOAD_H
#define TERNION_ONNX_IO_PAYLOAD_H

#include "onnx_io/model.h"

typedef enum tn_payload_kind {
    TN_PAYLOAD_NONE,
    TN_PAYLOAD_RAW,
    TN_PAYLOAD_FLOAT,
    TN_PAYLOAD_INT32,
    TN_PAYLOAD_INT64,
    TN_PAYLOAD_DOUBLE,
    TN_PAYLOAD_UINT64,
    TN_PAYLOAD_STRING
} tn_payload_kind;

typedef struct tn_payload {
    tn_payload_kind kind;
    const void *data; /* raw bytes or the array of the field; NULL for strings */
    size_t count;     /* bytes for RAW, else elements of the field */
} tn_payload;

/* Finds the payload and checks it against type and dims: one field at most, the field the standard
 * wants for the type, exactly the size. MODEL errors name the tensor and both sizes. */
tn_status tn_payload_find(const Onnx__TensorProto *proto, tn_payload *payload,
                          tn_error *error) TN_MUST_CHECK;

#endif
