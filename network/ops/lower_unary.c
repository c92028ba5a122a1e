/* Elementwise functions of one operand, Clip and Cast. */
#include "network/lowering.h"

#include <float.h>
#include <math.h>
#include <string.h>

static const struct {
    const char *type;
    tn_function function;
    float alpha, beta; /* defaults of the attributes */
} functions[] = {
    {"Relu", TN_FUNCTION_RELU, 0.0f, 0.0f},
    {"LeakyRelu", TN_FUNCTION_LEAKY_RELU, 0.01f, 0.0f},
    {"Sigmoid", TN_FUNCTION_SIGMOID, 0.0f, 0.0f},
    {"HardSigmoid", TN_FUNCTION_HARD_SIGMOID, 0.2f, 0.5f},
    {"HardSwish", TN_FUNCTION_HARD_SWISH, 0.0f, 0.0f},
    {"Tanh", TN_FUNCTION_TANH, 0.0f, 0.0f},
    {"Elu", TN_FUNCTION_ELU, 1.0f, 0.0f},
    {"Softplus", TN_FUNCTION_SOFTPLUS, 0.0f, 0.0f},
    {"Exp", TN_FUNCTION_EXP, 0.0f, 0.0f},
    {"Log", TN_FUNCTION_LOG, 0.0f, 0.0f},
    {"Sqrt", TN_FUNCTION_SQRT, 0.0f, 0.0f},
    {"Abs", TN_FUNCTION_ABS, 0.0f, 0.0f},
    {"Neg", TN_FUNCTION_NEG, 0.0f, 0.0f},
    {"Reciprocal", TN_FUNCTION_RECIPROCAL, 0.0f, 0.0f},
    {"Erf", TN_FUNCTION_ERF, 0.0f, 0.0f},
    {"Floor", TN_FUNCTION_FLOOR, 0.0f, 0.0f},
    {"Ceil", TN_FUNCTION_CEIL, 0.0f, 0.0f},
    {"Round", TN_FUNCTION_ROUND, 0.0f, 0.0f},
};

static tn_status add_function(tn_plan *plan, const tn_node *node, tn_function function, float a,
                              float b, tn_error *error)
{
    size_t src, dst;
    tn_status status = tn_lower_input(plan, node->inputs[0], TN_LAYOUT_ANY, &src, error);
    if (status == TN_OK)
        status = tn_lower_output(
            plan, node, 0, plan->values[src].last ? TN_LAYOUT_LAST : TN_LAYOUT_PLAIN, &dst, error);
    if (status != TN_OK)
        return status;
    tn_task task = {.verb = TN_VERB_UNARY};
    task.unary = (tn_unary_task){plan->values[src].count, function, a, b};
    return tn_lower_step(plan, node, &task, &src, 1, dst, NULL, 0, error);
}

tn_status tn_lower_unary(tn_plan *plan, const tn_node *node, tn_error *error)
{
    size_t i = 0;
    float a, b;
    while (strcmp(functions[i].type, node->type) != 0)
        i++;
    tn_status status = tn_node_float(node, "alpha", functions[i].alpha, &a, error);
    if (status == TN_OK)
        status = tn_node_float(node, "beta", functions[i].beta, &b, error);
    return status == TN_OK ? add_function(plan, node, functions[i].function, a, b, error) : status;
}

tn_status tn_lower_clip(tn_plan *plan, const tn_node *node, tn_error *error)
{
    float low, high;
    tn_status status = tn_lower_scalar(node, 1, "min", -FLT_MAX, &low, error);
    if (status == TN_OK)
        status = tn_lower_scalar(node, 2, "max", FLT_MAX, &high, error);
    return status == TN_OK ? add_function(plan, node, TN_FUNCTION_CLIP, low, high, error) : status;
}

/* Integers are kept in fp32: exact to 24 bits. */
tn_status tn_lower_cast(tn_plan *plan, const tn_node *node, tn_error *error)
{
    int64_t to;
    tn_status status = tn_node_int(node, "to", TN_FLOAT, &to, error);
    if (status != TN_OK)
        return status;
    tn_dtype type = (tn_dtype)to;
    if (tn_dtype_is_float(type))
        return tn_lower_identity(plan, node, error);
    if (type == TN_BOOL)
        return add_function(plan, node, TN_FUNCTION_BOOLEAN, 0.0f, 0.0f, error);
    if (!tn_dtype_is_integer(type))
        return tn_lower_unsupported(node, error, "this type");
    bool is_unsigned = type == TN_UINT8 || type == TN_UINT16 || type == TN_UINT32 ||
                       type == TN_UINT64 || type == TN_UINT4 || type == TN_UINT2;
    int bits = tn_dtype_bits(type) - !is_unsigned;
    float high = (float)(ldexp(1.0, bits) - (bits < 24 ? 1.0 : 0.0));
    float low = is_unsigned ? 0.0f : (float)-ldexp(1.0, bits);
    return add_function(plan, node, TN_FUNCTION_INTEGER, low, high, error);
}

tn_status tn_lower_identity(tn_plan *plan, const tn_node *node, tn_error *error)
{
    size_t src;
    tn_status status = tn_lower_input(plan, node->inputs[0], TN_LAYOUT_ANY, &src, error);
    if (node->n_outputs > 1 && node->outputs[1] && node->outputs[1]->n_users)
        return tn_lower_unsupported(node, error, "a mask");
    return status == TN_OK ? tn_lower_view(plan, node, 0, src, error) : status;
}

/* Dropout (opset 7, 10, 12, 13, 22): the identity unless the plan trains. */
tn_status tn_lower_dropout(tn_plan *plan, const tn_node *node, tn_error *error)
{
    float ratio;
    size_t src, dst;
    tn_status status = tn_lower_scalar(node, 1, "ratio", 0.5f, &ratio, error);
    if (status != TN_OK || !plan->options.training || !(ratio > 0.0f))
        return status == TN_OK ? tn_lower_identity(plan, node, error) : status;
    if (ratio >= 1.0f)
        return tn_lower_unsupported(node, error, "a ratio of 1");
    if (node->n_outputs > 1 && node->outputs[1] && node->outputs[1]->n_users)
        return tn_lower_unsupported(node, error, "a mask");
    status = tn_lower_input(plan, node->inputs[0], TN_LAYOUT_ANY, &src, error);
    if (status == TN_OK)
        status = tn_lower_output(
            plan, node, 0, plan->values[src].last ? TN_LAYOUT_LAST : TN_LAYOUT_PLAIN, &dst, error);
    if (status != TN_OK)
        return status;
    const tn_plan_value *x = &plan->values[src];
    int64_t rows = x->rank && x->dims[0] ? x->dims[0] : 1;
    tn_task task = {.verb = TN_VERB_DROPOUT};
    task.dropout = (tn_dropout_task){rows, x->count / rows, ratio, node->index};
    return tn_lower_step(plan, node, &task, &src, 1, dst, NULL, 0, error);
}
