/* A small model with a bit of everything, for tests that damage it. */
#ifndef TERNION_TESTS_ONNX_IO_SMALL_MODEL_H
#define TERNION_TESTS_ONNX_IO_SMALL_MODEL_H

#include "wire.h"

/* Conv, Gemm, a Constant node, an If with two branches, typed and raw payloads of which `large`
 * floats stay in the map, metadata, unknown fields. The bytes are what protobuf writers give. */
wire small_model(int large);

#endif
