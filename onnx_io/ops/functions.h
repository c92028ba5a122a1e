/* The functions of the operator files, as ops.c lists them; see op.h for their contracts. */
#ifndef TERNION_ONNX_IO_OPS_FUNCTIONS_H
#define TERNION_ONNX_IO_OPS_FUNCTIONS_H

#include "onnx_io/ops/op.h"

#define TN_OP_INFER(name) tn_status tn_##name##_infer(tn_node *node, tn_error *error) TN_MUST_CHECK
#define TN_OP_FLOPS(name) int64_t tn_##name##_flops(const tn_node *node)
#define TN_OP_EVALUATE(name)                                                                       \
    tn_status tn_##name##_evaluate(const tn_node *node, const tn_tensor *const *inputs,            \
                                   tn_tensor *outputs, tn_error *error) TN_MUST_CHECK

TN_OP_INFER(arg);
TN_OP_INFER(batch_normalization);
TN_OP_INFER(binary);
TN_OP_INFER(cast);
TN_OP_INFER(clip);
TN_OP_INFER(concat);
TN_OP_INFER(constant);
TN_OP_INFER(constant_of_shape);
TN_OP_INFER(conv);
TN_OP_INFER(conv_integer);
TN_OP_INFER(depth_space);
TN_OP_INFER(dequantize);
TN_OP_INFER(quant);
TN_OP_INFER(dropout);
TN_OP_INFER(dynamic_quantize);
TN_OP_INFER(expand);
TN_OP_INFER(flatten);
TN_OP_INFER(gather_elements);
TN_OP_INFER(gather);
TN_OP_INFER(gemm);
TN_OP_INFER(global_pool);
TN_OP_INFER(instance_normalization);
TN_OP_INFER(layer_normalization);
TN_OP_INFER(like);
TN_OP_INFER(matmul);
TN_OP_INFER(pad);
TN_OP_INFER(pool);
TN_OP_INFER(qlinear_conv);
TN_OP_INFER(quantize);
TN_OP_INFER(range);
TN_OP_INFER(reduce);
TN_OP_INFER(reshape);
TN_OP_INFER(resize);
TN_OP_INFER(shape);
TN_OP_INFER(size);
TN_OP_INFER(slice);
TN_OP_INFER(softmax);
TN_OP_INFER(split);
TN_OP_INFER(squeeze);
TN_OP_INFER(tile);
TN_OP_INFER(topk);
TN_OP_INFER(transpose);
TN_OP_INFER(unary);
TN_OP_INFER(unsqueeze);
TN_OP_INFER(where);

TN_OP_FLOPS(conv);
TN_OP_FLOPS(gemm);
TN_OP_FLOPS(matmul);

TN_OP_EVALUATE(arg);
TN_OP_EVALUATE(binary);
TN_OP_EVALUATE(cast);
TN_OP_EVALUATE(clip);
TN_OP_EVALUATE(concat);
TN_OP_EVALUATE(constant);
TN_OP_EVALUATE(constant_of_shape);
TN_OP_EVALUATE(depth_space);
TN_OP_EVALUATE(dequantize);
TN_OP_EVALUATE(quant);
TN_OP_EVALUATE(dropout);
TN_OP_EVALUATE(expand);
TN_OP_EVALUATE(gather_elements);
TN_OP_EVALUATE(gather);
TN_OP_EVALUATE(gemm);
TN_OP_EVALUATE(identity);
TN_OP_EVALUATE(matmul);
TN_OP_EVALUATE(pad);
TN_OP_EVALUATE(quantize);
TN_OP_EVALUATE(range);
TN_OP_EVALUATE(reduce);
TN_OP_EVALUATE(shape);
TN_OP_EVALUATE(size);
TN_OP_EVALUATE(slice);
TN_OP_EVALUATE(split);
TN_OP_EVALUATE(tile);
TN_OP_EVALUATE(transpose);
TN_OP_EVALUATE(unary);
TN_OP_EVALUATE(variadic);
TN_OP_EVALUATE(where);

#endif
