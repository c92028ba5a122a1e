/* All tensors of a message, wherever they are: initializers, attributes, subgraphs, functions. */
#ifndef TERNION_ONNX_IO_WALK_H
#define TERNION_ONNX_IO_WALK_H

#include "core/status.h"
#include "proto/onnx.pb-c.h"

typedef tn_status (*tn_tensor_visit)(void *context, Onnx__TensorProto *tensor, tn_error *error);

/* Calls visit for every TensorProto below `message` in field order until one fails, and returns
 * that. Recurses once per message level, which the scan has bounded. */
tn_status tn_walk_tensors(ProtobufCMessage *message, tn_tensor_visit visit, void *context,
                          tn_error *error) TN_MUST_CHECK;

#endif
