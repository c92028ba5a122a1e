/* Conv, ConvTranspose, QLinearConv, ConvInteger; MaxPool, AveragePool, LpPool and their global
 * forms. */
#include "core/checked.h"
#include "onnx_io/ops/functions.h"
#include "onnx_io/ops/window.h"

#include <string.h>

/* A bias is a vector of one value per output channel. */
static tn_status check_bias(const tn_node *node, size_t index, int64_t channels, tn_error *error)
{
    tn_shape bias = tn_op_shape(tn_op_input(node, index));
    if (bias.rank < 0)
        return TN_OK;
    if (bias.rank != 1 || !tn_dims_agree(bias.dims[0], channels))
        return tn_fail(error, TN_ERROR_MODEL,
                       "the bias has rank %d and %lld elements: [%lld] expected", bias.rank,
                       (long long)(bias.rank ? bias.dims[0] : 1), (long long)channels);
    return TN_OK;
}

static tn_status convolve(tn_node *node, tn_dtype dtype, size_t bias, tn_error *error)
{
    tn_shape shape;
    tn_status status = tn_window_output(node, &shape, error);
    if (status == TN_OK && bias && shape.rank >= 2)
        status = check_bias(node, bias, shape.dims[1], error);
    return status == TN_OK ? tn_op_set_output(node, 0, dtype, &shape, error) : status;
}

tn_status tn_conv_infer(tn_node *node, tn_error *error)
{
    return convolve(node, node->inputs[0]->dtype, 2, error);
}

tn_status tn_qlinear_conv_infer(tn_node *node, tn_error *error)
{
    return convolve(node, node->inputs[7]->dtype, 8, error);
}

tn_status tn_conv_integer_infer(tn_node *node, tn_error *error)
{
    return convolve(node, TN_INT32, 0, error);
}

int64_t tn_conv_flops(const tn_node *node)
{
    bool transposed = !strcmp(node->type, "ConvTranspose");
    size_t index = !strcmp(node->type, "QLinearConv") ? 3 : 1;
    tn_shape weight = tn_op_shape(tn_op_input(node, index));
    tn_shape swept = tn_op_shape(transposed ? tn_op_input(node, 0) : tn_op_output(node, 0));
    int64_t flops = tn_shape_count(&swept);
    if (flops < 0 || !tn_shape_is_known(&weight))
        return -1;
    for (int i = 1; i < weight.rank; i++)
        if (!tn_checked_mul_i64(flops, weight.dims[i], &flops))
            return -1;
    return tn_checked_mul_i64(flops, 2, &flops) ? flops : -1;
}

tn_status tn_pool_infer(tn_node *node, tn_error *error)
{
    tn_shape shape;
    tn_status status = tn_window_output(node, &shape, error);
    if (status == TN_OK)
        status = tn_op_set_output(node, 0, node->inputs[0]->dtype, &shape, error);
    if (status == TN_OK && !strcmp(node->type, "MaxPool"))
        status = tn_op_set_output(node, 1, TN_INT64, &shape, error);
    return status;
}

tn_status tn_global_pool_infer(tn_node *node, tn_error *error)
{
    tn_shape shape = tn_op_shape(tn_op_input(node, 0));
    if (shape.rank >= 0 && shape.rank < 2)
        return tn_fail(error, TN_ERROR_MODEL, "the input has rank %d: at least 2 expected",
                       shape.rank);
    for (int i = 2; i < shape.rank; i++)
        shape.dims[i] = 1;
    return tn_op_set_output(node, 0, node->inputs[0]->dtype, &shape, error);
}
