/* Copies of protobuf messages. */
#ifndef TERNION_ONNX_IO_CLONE_H
#define TERNION_ONNX_IO_CLONE_H

#include "core/memory.h"

#include <protobuf-c/protobuf-c.h>

/* A copy of `message` and everything below it whose lists and messages are its own; strings, bytes,
 * packed numbers' storage of 4 KiB and more, and unknown fields are shared with the original. NULL
 * when out of memory. Recurses once per message level: callers have limited the depth. */
ProtobufCMessage *tn_clone(tn_arena *arena, const ProtobufCMessage *message);

#endif
