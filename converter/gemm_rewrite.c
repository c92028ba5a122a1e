#include "converter/packer.h"

#include <string.h>

enum { OPSET_OPTIONAL_BIAS = 11 };

/* The Add that adds a bias [N] or [1, N] to the product and nothing else reads: Gemm does both. A
 * bias is constant: another product may be [1, N] too, and two cannot both take in the Add. */
static const tn_node *find_bias_add(const tn_node *node, size_t *bias)
{
    const tn_value *product = node->outputs[0];
    if (product->n_users != 1 || product->is_output)
        return NULL;
    const tn_node *add = product->users[0];
    if (strcmp(add->type, "Add") != 0 || add->domain[0] || add->n_inputs != 2)
        return NULL;
    size_t index = add->inputs[0] == product ? 1 : 0;
    const tn_value *other = add->inputs[index];
    int64_t columns = product->rank == 2 ? product->dims[1] : TN_DIM_UNKNOWN;
    if (!other || !other->constant || other->rank < 1 || other->rank > 2 || columns <= 0 ||
        other->dims[other->rank - 1] != columns || (other->rank == 2 && other->dims[0] != 1))
        return NULL;
    *bias = index;
    return add;
}

static tn_status set_inputs(tn_model *model, Onnx__NodeProto *node, const char *a, const char *b,
                            const char *c, tn_error *error)
{
    tn_status status = tn_edit_set_input(model, node, 0, a, error);
    if (status == TN_OK)
        status = tn_edit_set_input(model, node, 1, b, error);
    if (status == TN_OK && c)
        status = tn_edit_set_input(model, node, 2, c, error);
    return status;
}

/* Before opset 11 Gemm's bias is no option. */
static tn_status add_zero_bias(tn_packer *packer, Onnx__NodeProto *node, tn_dtype dtype,
                               tn_error *error)
{
    static const unsigned char zero[8];
    static const int64_t dims[1] = {1};
    size_t bytes = (size_t)tn_dtype_bits(dtype) / 8;
    const char *name = tn_edit_unique_name(packer->model, "ternion_zero_bias");
    if (!name || !tn_edit_add_initializer(packer->model, name, dtype, 1, dims, zero, bytes, true))
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory packing the model");
    return tn_edit_set_input(packer->model, node, 2, name, error);
}

static tn_status set_type(tn_packer *packer, Onnx__NodeProto *node, tn_error *error)
{
    node->op_type = tn_arena_strdup(&packer->model->arena, "Gemm");
    return node->op_type ? TN_OK
                         : tn_fail(error, TN_ERROR_LIMIT, "out of memory packing the model");
}

tn_status tn_packer_make_gemm(tn_packer *packer, const tn_node *node, const char *weight,
                              tn_error *error)
{
    tn_model *model = packer->model;
    Onnx__NodeProto *product = tn_packer_node(packer, node), *gemm = product;
    size_t bias = 0;
    tn_status status;
    if (strcmp(node->type, "Gemm") == 0)
        return tn_edit_set_int(model, product, "transB", 1, error);
    const tn_node *add = find_bias_add(node, &bias);
    if (add) { /* the Gemm stands where the Add stood: its bias is there by then */
        gemm = tn_packer_node(packer, add);
        /* its name in the copy, where the bias may have been replaced */
        status = set_inputs(model, gemm, node->inputs[0]->name, weight, gemm->input[bias], error);
        gemm->name = product->name;
        tn_edit_remove_node(model, product);
        tn_packer_forget_type(packer, node->outputs[0]->name);
    } else {
        status = set_inputs(model, gemm, node->inputs[0]->name, weight, NULL, error);
        if (status == TN_OK && model->opset < OPSET_OPTIONAL_BIAS)
            status = add_zero_bias(packer, gemm, node->outputs[0]->dtype, error);
    }
    if (status == TN_OK)
        status = set_type(packer, gemm, error);
    return status == TN_OK ? tn_edit_set_int(model, gemm, "transB", 1, error) : status;
}
