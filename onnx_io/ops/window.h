/* Output shapes of convolutions and pooling. */
#ifndef TERNION_ONNX_IO_OPS_WINDOW_H
#define TERNION_ONNX_IO_OPS_WINDOW_H

#include "onnx_io/ops/shapes.h"

/* The output shape of a Conv, ConvTranspose, QLinearConv, ConvInteger or pooling node; unknown in
 * part where its inputs are. Everything tn_window_parse checks is checked. */
tn_status tn_window_output(const tn_node *node, tn_shape *shape, tn_error *error) TN_MUST_CHECK;

#endif
