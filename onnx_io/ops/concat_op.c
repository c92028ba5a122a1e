/* Concat and Split. */
#include "core/checked.h"
#include "onnx_io/ops/elements.h"
#include "onnx_io/ops/functions.h"

tn_status tn_concat_infer(tn_node *node, tn_error *error)
{
    tn_shape out = {.rank = TN_RANK_UNKNOWN};
    tn_dtype dtype = TN_UNDEFINED;
    int64_t attribute;
    int axis = 0;
    bool complete = true;
    tn_status status = tn_node_int(node, "axis", 1, &attribute, error);
    for (size_t i = 0; status == TN_OK && i < node->n_inputs; i++) {
        tn_shape next = tn_op_shape(node->inputs[i]);
        tn_dtype own = node->inputs[i] ? node->inputs[i]->dtype : TN_UNDEFINED;
        if (dtype != TN_UNDEFINED && own != TN_UNDEFINED && own != dtype)
            return tn_fail(error, TN_ERROR_MODEL, "inputs have types %s and %s: one is expected",
                           tn_dtype_name(dtype), tn_dtype_name(own));
        dtype = own != TN_UNDEFINED ? own : dtype;
        if (next.rank < 0) {
            complete = false;
            continue;
        }
        if (out.rank < 0) {
            out = next;
            status = tn_axis_resolve(attribute, out.rank, &axis, error);
            continue;
        }
        if (next.rank != out.rank)
            return tn_fail(error, TN_ERROR_MODEL, "inputs have rank %d and %d: one is expected",
                           out.rank, next.rank);
        for (int k = 0; k < out.rank; k++) {
            int64_t a = out.dims[k], b = next.dims[k];
            if (k == axis) {
                if (a >= 0 && b >= 0 && !tn_checked_add_i64(a, b, &out.dims[k]))
                    return tn_fail(error, TN_ERROR_MODEL, "the output is too large");
                if (a < 0 || b < 0)
                    out.dims[k] = TN_DIM_UNKNOWN;
            } else if (!tn_dims_agree(a, b)) {
                return tn_fail(
                    error, TN_ERROR_MODEL,
                    "inputs have sizes %lld and %lld on axis %d: they may differ on axis "
                    "%d only",
                    (long long)a, (long long)b, k, axis);
            } else if (a < 0) {
                out.dims[k] = b;
            }
        }
    }
    if (status == TN_OK && !complete && out.rank >= 0)
        out.dims[axis] = TN_DIM_UNKNOWN;
    return status == TN_OK ? tn_op_set_output(node, 0, dtype, &out, error) : status;
}

/* The block of `part`'s shape at position `at` on `axis` of `whole`; the part is the source when
 * joining, the destination when splitting. */
static tn_block part_of(const tn_tensor *whole, const tn_tensor *part, int axis, int64_t at,
                        bool joining)
{
    tn_block block = {.rank = whole->rank};
    int64_t strides[TN_MAX_RANK];
    tn_strides_of(whole->rank, whole->dims, strides);
    tn_strides_of(part->rank, part->dims, joining ? block.src_stride : block.dst_stride);
    for (int i = 0; i < whole->rank; i++) {
        block.dims[i] = part->dims[i];
        (joining ? block.dst_stride : block.src_stride)[i] = strides[i];
    }
    *(joining ? &block.dst_offset : &block.src_offset) = at * strides[axis];
    return block;
}

tn_status tn_concat_evaluate(const tn_node *node, const tn_tensor *const *inputs,
                             tn_tensor *outputs, tn_error *error)
{
    int64_t attribute, at = 0;
    int axis = 0;
    tn_status status = tn_node_int(node, "axis", 1, &attribute, error);
    if (status == TN_OK)
        status = tn_axis_resolve(attribute, inputs[0]->rank, &axis, error);
    if (status == TN_OK)
        status = tn_op_output_init(node, 0, &outputs[0], error);
    for (size_t i = 0; status == TN_OK && i < node->n_inputs; i++) {
        tn_block block = part_of(&outputs[0], inputs[i], axis, at, true);
        status = tn_block_copy(&block, inputs[i], &outputs[0], error);
        at += inputs[i]->dims[axis];
    }
    return status;
}

/* Equal parts; from opset 18 on the last may be smaller. */
static tn_status split_evenly(const tn_node *node, int64_t dim, int64_t parts, tn_int_list *sizes,
                              tn_error *error)
{
    int64_t each = dim / parts + (dim % parts != 0), left = dim;
    if (dim % parts != 0 && (node->model->opset < 18 || each * (parts - 1) > dim))
        return tn_fail(error, TN_ERROR_MODEL, "%lld elements do not split into %lld parts",
                       (long long)dim, (long long)parts);
    for (int64_t k = 0; k < parts; k++) {
        sizes->values[k] = left < each ? left : each;
        left -= sizes->values[k];
    }
    return TN_OK;
}

tn_status tn_split_infer(tn_node *node, tn_error *error)
{
    tn_shape data = tn_op_shape(tn_op_input(node, 0));
    tn_int_list sizes;
    int64_t attribute, declared = (int64_t)node->n_outputs, sum = 0;
    int axis = 0;
    tn_status status = tn_node_int(node, "axis", 0, &attribute, error);
    if (status == TN_OK && data.rank >= 0)
        status = tn_axis_resolve(attribute, data.rank, &axis, error);
    if (status == TN_OK && node->model->opset < 13)
        status = tn_int_list_from_attribute(node, "split", &sizes, error);
    else if (status == TN_OK)
        status =
            tn_int_list_from_input(node, 1, tn_op_constant(node, 1), "split sizes", &sizes, error);
    if (status == TN_OK && node->model->opset >= 18)
        status = tn_node_int(node, "num_outputs", declared, &declared, error);
    if (status != TN_OK)
        return status;
    if (node->n_outputs > TN_INT_LIST_MAX)
        sizes.known = false; /* more than the list holds: sizes stay unknown */
    if (declared != (int64_t)node->n_outputs ||
        (sizes.present && sizes.known && sizes.count != (int)node->n_outputs))
        return tn_fail(error, TN_ERROR_MODEL, "%zu outputs do not match the number of parts",
                       node->n_outputs);
    int64_t dim = data.rank >= 0 ? data.dims[axis] : TN_DIM_UNKNOWN;
    if (!sizes.present && dim >= 0 && node->n_outputs <= TN_INT_LIST_MAX)
        status = split_evenly(node, dim, declared, &sizes, error);
    bool known = sizes.known && (sizes.present || dim >= 0);
    for (size_t k = 0; known && status == TN_OK && k < node->n_outputs; k++)
        if (sizes.values[k] < 0 || !tn_checked_add_i64(sum, sizes.values[k], &sum))
            return tn_fail(error, TN_ERROR_MODEL, "a part has size %lld",
                           (long long)sizes.values[k]);
    if (status == TN_OK && known && !tn_dims_agree(sum, dim))
        return tn_fail(error, TN_ERROR_MODEL, "the parts hold %lld elements, the axis %lld",
                       (long long)sum, (long long)dim);
    for (size_t k = 0; status == TN_OK && k < node->n_outputs; k++) {
        if (data.rank >= 0)
            data.dims[axis] = known ? sizes.values[k] : TN_DIM_UNKNOWN;
        status = tn_op_set_output(node, k, node->inputs[0]->dtype, &data, error);
    }
    return status;
}

tn_status tn_split_evaluate(const tn_node *node, const tn_tensor *const *inputs, tn_tensor *outputs,
                            tn_error *error)
{
    int64_t attribute, at = 0;
    int axis = 0;
    tn_status status = tn_node_int(node, "axis", 0, &attribute, error);
    if (status == TN_OK)
        status = tn_axis_resolve(attribute, inputs[0]->rank, &axis, error);
    for (size_t k = 0; status == TN_OK && k < node->n_outputs; k++) {
        if (!node->outputs[k])
            return tn_fail(error, TN_ERROR_USAGE, "output %zu is omitted: not evaluated", k);
        status = tn_op_output_init(node, k, &outputs[k], error);
        if (status != TN_OK)
            break;
        tn_block block = part_of(inputs[0], &outputs[k], axis, at, false);
        status = tn_block_copy(&block, inputs[0], &outputs[k], error);
        at += outputs[k].dims[axis];
    }
    return status;
}
