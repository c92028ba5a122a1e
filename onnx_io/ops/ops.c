#include "onnx_io/ops/functions.h"

#include <limits.h>
#include <string.h>

enum { ANY = INT_MAX };

#define UNARY(type, first)                                                                         \
    {                                                                                              \
        type, "", first, 0, 1, 1, 1, 1, tn_unary_infer, NULL, tn_unary_evaluate, false             \
    }
#define LIKE(type, first, max_in)                                                                  \
    {                                                                                              \
        type, "", first, 0, 1, max_in, 1, 1, tn_like_infer, NULL, NULL, false                      \
    }
#define BINARY(type, first)                                                                        \
    {                                                                                              \
        type, "", first, 0, 2, 2, 1, 1, tn_binary_infer, NULL, tn_binary_evaluate, false           \
    }
#define VARIADIC(type)                                                                             \
    {                                                                                              \
        type, "", 6, 0, 1, ANY, 1, 1, tn_binary_infer, NULL, tn_variadic_evaluate, false           \
    }
#define REDUCE(type, change)                                                                       \
    {type, "", 1, change - 1, 1, 1, 1, 1, tn_reduce_infer, NULL, tn_reduce_evaluate, false},       \
    {                                                                                              \
        type, "", change, 0, 1, 2, 1, 1, tn_reduce_infer, NULL, tn_reduce_evaluate, false          \
    }

/* One row per operator and range of opsets with the same inputs and outputs: type, domain, first
 * and last opset, inputs, outputs (least and most), functions, whether the value follows from the
 * input's shape alone. */
static const tn_op ops[] = {
    /* convolution, products, pooling */
    {"Conv", "", 1, 0, 2, 3, 1, 1, tn_conv_infer, tn_conv_flops, NULL, false},
    {"ConvTranspose", "", 1, 0, 2, 3, 1, 1, tn_conv_infer, tn_conv_flops, NULL, false},
    {"ConvInteger", "", 10, 0, 2, 4, 1, 1, tn_conv_integer_infer, tn_conv_flops, NULL, false},
    {"QLinearConv", "", 10, 0, 8, 9, 1, 1, tn_qlinear_conv_infer, tn_conv_flops, NULL, false},
    {"Gemm", "", 1, 10, 3, 3, 1, 1, tn_gemm_infer, tn_gemm_flops, tn_gemm_evaluate, false},
    {"Gemm", "", 11, 0, 2, 3, 1, 1, tn_gemm_infer, tn_gemm_flops, tn_gemm_evaluate, false},
    {"MatMul", "", 1, 0, 2, 2, 1, 1, tn_matmul_infer, tn_matmul_flops, tn_matmul_evaluate, false},
    {"MatMulInteger", "", 10, 0, 2, 4, 1, 1, tn_matmul_infer, tn_matmul_flops, NULL, false},
    {"MaxPool", "", 1, 7, 1, 1, 1, 1, tn_pool_infer, NULL, NULL, false},
    {"MaxPool", "", 8, 0, 1, 1, 1, 2, tn_pool_infer, NULL, NULL, false},
    {"AveragePool", "", 1, 0, 1, 1, 1, 1, tn_pool_infer, NULL, NULL, false},
    {"LpPool", "", 2, 0, 1, 1, 1, 1, tn_pool_infer, NULL, NULL, false},
    {"GlobalAveragePool", "", 1, 0, 1, 1, 1, 1, tn_global_pool_infer, NULL, NULL, false},
    {"GlobalMaxPool", "", 1, 0, 1, 1, 1, 1, tn_global_pool_infer, NULL, NULL, false},
    {"GlobalLpPool", "", 2, 0, 1, 1, 1, 1, tn_global_pool_infer, NULL, NULL, false},
    /* normalization */
    {"BatchNormalization", "", 1, 0, 5, 5, 1, 5, tn_batch_normalization_infer, NULL, NULL, false},
    {"InstanceNormalization", "", 1, 0, 3, 3, 1, 1, tn_instance_normalization_infer, NULL, NULL,
     false},
    {"LayerNormalization", "", 17, 0, 2, 3, 1, 3, tn_layer_normalization_infer, NULL, NULL, false},
    LIKE("GroupNormalization", 18, 3),
    LIKE("LRN", 1, 1),
    LIKE("LpNormalization", 1, 1),
    LIKE("MeanVarianceNormalization", 9, 1),
    {"Softmax", "", 1, 0, 1, 1, 1, 1, tn_softmax_infer, NULL, NULL, false},
    {"LogSoftmax", "", 1, 0, 1, 1, 1, 1, tn_softmax_infer, NULL, NULL, false},
    {"Hardmax", "", 1, 0, 1, 1, 1, 1, tn_softmax_infer, NULL, NULL, false},
    {"Dropout", "", 1, 11, 1, 1, 1, 2, tn_dropout_infer, NULL, tn_dropout_evaluate, false},
    {"Dropout", "", 12, 0, 1, 3, 1, 2, tn_dropout_infer, NULL, tn_dropout_evaluate, false},
    {"Identity", "", 1, 0, 1, 1, 1, 1, tn_like_infer, NULL, tn_identity_evaluate, false},
    {"Clip", "", 1, 10, 1, 1, 1, 1, tn_clip_infer, NULL, tn_clip_evaluate, false},
    {"Clip", "", 11, 0, 1, 3, 1, 1, tn_clip_infer, NULL, tn_clip_evaluate, false},
    /* elementwise, one input */
    UNARY("Relu", 1),
    UNARY("Sigmoid", 1),
    UNARY("Tanh", 1),
    UNARY("Abs", 1),
    UNARY("Neg", 1),
    UNARY("Exp", 1),
    UNARY("Log", 1),
    UNARY("Sqrt", 1),
    UNARY("Reciprocal", 1),
    UNARY("Floor", 1),
    UNARY("Ceil", 1),
    UNARY("Round", 11),
    UNARY("Sign", 9),
    UNARY("Not", 1),
    UNARY("Erf", 9),
    UNARY("Softplus", 1),
    UNARY("Softsign", 1),
    UNARY("HardSwish", 14),
    UNARY("LeakyRelu", 1),
    UNARY("Elu", 1),
    UNARY("Selu", 1),
    UNARY("HardSigmoid", 1),
    UNARY("Gelu", 20),
    UNARY("Sin", 7),
    UNARY("Cos", 7),
    LIKE("ThresholdedRelu", 10, 1),
    LIKE("Celu", 12, 1),
    LIKE("Mish", 18, 1),
    LIKE("Tan", 7, 1),
    LIKE("CumSum", 11, 2),
    /* elementwise, more inputs, with broadcasting */
    BINARY("Add", 7),
    BINARY("Sub", 7),
    BINARY("Mul", 7),
    BINARY("Div", 7),
    BINARY("Pow", 7),
    BINARY("Mod", 10),
    BINARY("PRelu", 7),
    BINARY("Equal", 7),
    BINARY("Greater", 7),
    BINARY("Less", 7),
    BINARY("GreaterOrEqual", 12),
    BINARY("LessOrEqual", 12),
    BINARY("And", 7),
    BINARY("Or", 7),
    BINARY("Xor", 7),
    VARIADIC("Min"),
    VARIADIC("Max"),
    VARIADIC("Sum"),
    VARIADIC("Mean"),
    {"Where", "", 9, 0, 3, 3, 1, 1, tn_where_infer, NULL, tn_where_evaluate, false},
    /* shapes */
    {"Shape", "", 1, 0, 1, 1, 1, 1, tn_shape_infer, NULL, tn_shape_evaluate, true},
    {"Size", "", 1, 0, 1, 1, 1, 1, tn_size_infer, NULL, tn_size_evaluate, true},
    {"Reshape", "", 5, 0, 2, 2, 1, 1, tn_reshape_infer, NULL, tn_identity_evaluate, false},
    {"Flatten", "", 1, 0, 1, 1, 1, 1, tn_flatten_infer, NULL, tn_identity_evaluate, false},
    {"Squeeze", "", 1, 12, 1, 1, 1, 1, tn_squeeze_infer, NULL, tn_identity_evaluate, false},
    {"Squeeze", "", 13, 0, 1, 2, 1, 1, tn_squeeze_infer, NULL, tn_identity_evaluate, false},
    {"Unsqueeze", "", 1, 12, 1, 1, 1, 1, tn_unsqueeze_infer, NULL, tn_identity_evaluate, false},
    {"Unsqueeze", "", 13, 0, 2, 2, 1, 1, tn_unsqueeze_infer, NULL, tn_identity_evaluate, false},
    /* elements moved, picked, repeated */
    {"Concat", "", 4, 0, 1, ANY, 1, 1, tn_concat_infer, NULL, tn_concat_evaluate, false},
    {"Split", "", 2, 12, 1, 1, 1, ANY, tn_split_infer, NULL, tn_split_evaluate, false},
    {"Split", "", 13, 0, 1, 2, 1, ANY, tn_split_infer, NULL, tn_split_evaluate, false},
    {"Slice", "", 1, 9, 1, 1, 1, 1, tn_slice_infer, NULL, tn_slice_evaluate, false},
    {"Slice", "", 10, 0, 3, 5, 1, 1, tn_slice_infer, NULL, tn_slice_evaluate, false},
    {"Pad", "", 2, 10, 1, 1, 1, 1, tn_pad_infer, NULL, tn_pad_evaluate, false},
    {"Pad", "", 11, 17, 2, 3, 1, 1, tn_pad_infer, NULL, tn_pad_evaluate, false},
    {"Pad", "", 18, 0, 2, 4, 1, 1, tn_pad_infer, NULL, tn_pad_evaluate, false},
    {"Gather", "", 1, 0, 2, 2, 1, 1, tn_gather_infer, NULL, tn_gather_evaluate, false},
    {"GatherElements", "", 11, 0, 2, 2, 1, 1, tn_gather_elements_infer, NULL,
     tn_gather_elements_evaluate, false},
    {"Transpose", "", 1, 0, 1, 1, 1, 1, tn_transpose_infer, NULL, tn_transpose_evaluate, false},
    {"DepthToSpace", "", 1, 0, 1, 1, 1, 1, tn_depth_space_infer, NULL, tn_depth_space_evaluate,
     false},
    {"SpaceToDepth", "", 1, 0, 1, 1, 1, 1, tn_depth_space_infer, NULL, tn_depth_space_evaluate,
     false},
    {"Tile", "", 6, 0, 2, 2, 1, 1, tn_tile_infer, NULL, tn_tile_evaluate, false},
    {"Expand", "", 8, 0, 2, 2, 1, 1, tn_expand_infer, NULL, tn_expand_evaluate, false},
    {"Resize", "", 10, 10, 2, 2, 1, 1, tn_resize_infer, NULL, NULL, false},
    {"Resize", "", 11, 0, 1, 4, 1, 1, tn_resize_infer, NULL, NULL, false},
    {"Upsample", "", 7, 8, 1, 1, 1, 1, tn_resize_infer, NULL, NULL, false},
    {"Upsample", "", 9, 9, 2, 2, 1, 1, tn_resize_infer, NULL, NULL, false},
    /* constants */
    {"Constant", "", 1, 0, 0, 0, 1, 1, tn_constant_infer, NULL, tn_constant_evaluate, false},
    {"ConstantOfShape", "", 9, 0, 1, 1, 1, 1, tn_constant_of_shape_infer, NULL,
     tn_constant_of_shape_evaluate, false},
    {"Range", "", 11, 0, 3, 3, 1, 1, tn_range_infer, NULL, tn_range_evaluate, false},
    {"Cast", "", 6, 0, 1, 1, 1, 1, tn_cast_infer, NULL, tn_cast_evaluate, false},
    {"CastLike", "", 15, 0, 2, 2, 1, 1, tn_cast_infer, NULL, tn_cast_evaluate, false},
    /* reductions */
    REDUCE("ReduceSum", 13),
    REDUCE("ReduceMean", 18),
    REDUCE("ReduceMax", 18),
    REDUCE("ReduceMin", 18),
    REDUCE("ReduceProd", 18),
    REDUCE("ReduceL1", 18),
    REDUCE("ReduceL2", 18),
    REDUCE("ReduceSumSquare", 18),
    REDUCE("ReduceLogSum", 18),
    REDUCE("ReduceLogSumExp", 18),
    {"ArgMax", "", 1, 0, 1, 1, 1, 1, tn_arg_infer, NULL, tn_arg_evaluate, false},
    {"ArgMin", "", 1, 0, 1, 1, 1, 1, tn_arg_infer, NULL, tn_arg_evaluate, false},
    {"TopK", "", 1, 9, 1, 1, 2, 2, tn_topk_infer, NULL, NULL, false},
    {"TopK", "", 10, 0, 2, 2, 2, 2, tn_topk_infer, NULL, NULL, false},
    /* quantization */
    {"QuantizeLinear", "", 10, 0, 2, 3, 1, 1, tn_quantize_infer, NULL, tn_quantize_evaluate, false},
    {"DequantizeLinear", "", 10, 0, 2, 3, 1, 1, tn_dequantize_infer, NULL, tn_dequantize_evaluate,
     false},
    {"Quant", "qonnx.custom_op.general", 1, 0, 4, 4, 1, 1, tn_quant_infer, NULL, tn_quant_evaluate,
     false},
    {"DynamicQuantizeLinear", "", 11, 0, 1, 1, 3, 3, tn_dynamic_quantize_infer, NULL, NULL, false},
};

static const char *domain_name(const char *domain)
{
    return strcmp(domain, "ai.onnx") != 0 ? domain : "";
}

const tn_op *tn_op_find(const char *domain, const char *type, int64_t opset, bool *known)
{
    bool seen = false;
    const tn_op *found = NULL;
    for (size_t i = 0; i < sizeof ops / sizeof *ops && !found; i++) {
        if (strcmp(ops[i].type, type) != 0 || strcmp(ops[i].domain, domain_name(domain)) != 0)
            continue;
        seen = true;
        if (opset >= ops[i].first_opset && (ops[i].last_opset == 0 || opset <= ops[i].last_opset))
            found = &ops[i];
    }
    if (known)
        *known = seen;
    return found;
}

const tn_op *tn_op_at(size_t i)
{
    return i < sizeof ops / sizeof *ops ? &ops[i] : NULL;
}
