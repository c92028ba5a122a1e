/* Transpose, DepthToSpace, SpaceToDepth, Tile: elements in another order. */
#include "core/checked.h"
#include "onnx_io/ops/elements.h"
#include "onnx_io/ops/functions.h"

#include <string.h>

static tn_status read_permutation(const tn_node *node, int rank, int perm[TN_MAX_RANK],
                                  tn_error *error)
{
    tn_int_list list;
    int marks[TN_MAX_RANK];
    tn_status status = tn_int_list_from_attribute(node, "perm", &list, error);
    if (status != TN_OK)
        return status;
    if (list.present && list.count != rank)
        return tn_fail(error, TN_ERROR_MODEL, "attribute perm has %d values: %d expected",
                       list.count, rank);
    status = tn_axes_mark(&list, rank, marks, error);
    for (int i = 0; status == TN_OK && i < rank; i++) {
        perm[i] = rank - 1 - i;
        if (list.present)
            status = tn_axis_resolve(list.values[i], rank, &perm[i], error);
    }
    return status;
}

tn_status tn_transpose_infer(tn_node *node, tn_error *error)
{
    tn_shape data = tn_op_shape(tn_op_input(node, 0)), out = data;
    int perm[TN_MAX_RANK];
    tn_status status = data.rank >= 0 ? read_permutation(node, data.rank, perm, error) : TN_OK;
    for (int i = 0; status == TN_OK && i < data.rank; i++)
        out.dims[i] = data.dims[perm[i]];
    return status == TN_OK ? tn_op_set_output(node, 0, node->inputs[0]->dtype, &out, error)
                           : status;
}

tn_status tn_transpose_evaluate(const tn_node *node, const tn_tensor *const *inputs,
                                tn_tensor *outputs, tn_error *error)
{
    int perm[TN_MAX_RANK], rank = inputs[0]->rank;
    int64_t strides[TN_MAX_RANK];
    tn_block block = {.rank = rank};
    tn_status status = read_permutation(node, rank, perm, error);
    if (status == TN_OK)
        status = tn_op_output_init(node, 0, &outputs[0], error);
    if (status != TN_OK)
        return status;
    tn_strides_of(rank, inputs[0]->dims, strides);
    tn_strides_of(rank, outputs[0].dims, block.dst_stride);
    for (int i = 0; i < rank; i++) {
        block.dims[i] = outputs[0].dims[i];
        block.src_stride[i] = strides[perm[i]];
    }
    return tn_block_copy(&block, inputs[0], &outputs[0], error);
}

/* blocksize, and whether the block index runs outside the channels (DCR) or inside (CRD). */
static tn_status read_block(const tn_node *node, int64_t *size, bool *inside, tn_error *error)
{
    char mode[8];
    tn_status status = tn_node_int(node, "blocksize", 0, size, error);
    if (status == TN_OK)
        status = tn_node_string(node, "mode", "DCR", mode, sizeof mode, error);
    if (status != TN_OK)
        return status;
    if (*size < 1 || *size > INT32_MAX)
        return tn_fail(error, TN_ERROR_MODEL, "attribute blocksize is %lld", (long long)*size);
    *inside = !strcmp(mode, "CRD");
    return TN_OK;
}

tn_status tn_depth_space_infer(tn_node *node, tn_error *error)
{
    tn_shape out = tn_op_shape(tn_op_input(node, 0));
    int64_t size, square;
    bool inside, to_space = node->type[0] == 'D';
    tn_status status = read_block(node, &size, &inside, error);
    if (status != TN_OK)
        return status;
    if (out.rank >= 0 && out.rank != 4)
        return tn_fail(error, TN_ERROR_MODEL, "the input has rank %d: 4 expected", out.rank);
    square = size * size;
    for (int i = 1; i < out.rank; i++) {
        int64_t factor = i == 1 ? square : size;
        bool divide = to_space == (i == 1);
        if (out.dims[i] < 0)
            continue;
        if (divide ? out.dims[i] % factor != 0
                   : !tn_checked_mul_i64(out.dims[i], factor, &out.dims[i]))
            return tn_fail(error, TN_ERROR_MODEL,
                           "blocksize %lld does not fit axis %d of size %lld", (long long)size, i,
                           (long long)out.dims[i]);
        if (divide)
            out.dims[i] /= factor;
    }
    return tn_op_set_output(node, 0, node->inputs[0]->dtype, &out, error);
}

tn_status tn_depth_space_evaluate(const tn_node *node, const tn_tensor *const *inputs,
                                  tn_tensor *outputs, tn_error *error)
{
    int64_t size, strides[6];
    bool inside, to_space = node->type[0] == 'D';
    tn_status status = read_block(node, &size, &inside, error);
    if (status == TN_OK)
        status = tn_op_output_init(node, 0, &outputs[0], error);
    if (status != TN_OK)
        return status;
    /* Both ways the block is [n, c, h, row, w, column] of the wide side. */
    const int64_t *deep = to_space ? inputs[0]->dims : outputs[0].dims;
    int64_t channels = deep[1] / (size * size);
    int64_t wide_dims[6] = {deep[0], channels, deep[2], size, deep[3], size};
    int64_t deep_dims[6] = {deep[0], size, size, channels, deep[2], deep[3]};
    int order[6] = {0, 3, 4, 1, 5, 2}; /* where each wide axis lies in deep_dims (DCR) */
    if (inside) {
        const int64_t crd[6] = {deep[0], channels, size, size, deep[2], deep[3]};
        const int crd_order[6] = {0, 1, 4, 2, 5, 3};
        memcpy(deep_dims, crd, sizeof crd);
        memcpy(order, crd_order, sizeof crd_order);
    }
    tn_block block = {.rank = 6};
    tn_strides_of(6, deep_dims, strides);
    tn_strides_of(6, wide_dims, to_space ? block.dst_stride : block.src_stride);
    for (int i = 0; i < 6; i++) {
        block.dims[i] = wide_dims[i];
        (to_space ? block.src_stride : block.dst_stride)[i] = strides[order[i]];
    }
    return tn_block_copy(&block, inputs[0], &outputs[0], error);
}

tn_status tn_tile_infer(tn_node *node, tn_error *error)
{
    tn_shape out = tn_op_shape(tn_op_input(node, 0));
    tn_int_list repeats;
    tn_status status =
        tn_int_list_from_input(node, 1, tn_op_constant(node, 1), "repeats", &repeats, error);
    if (status != TN_OK)
        return status;
    if (repeats.known && out.rank >= 0 && repeats.count != out.rank)
        return tn_fail(error, TN_ERROR_MODEL, "%d repeats are given: %d expected", repeats.count,
                       out.rank);
    for (int i = 0; i < out.rank; i++) {
        int64_t times = repeats.known ? repeats.values[i] : TN_DIM_UNKNOWN;
        if (repeats.known && (times < 0 || (out.dims[i] >= 0 &&
                                            !tn_checked_mul_i64(out.dims[i], times, &out.dims[i]))))
            return tn_fail(error, TN_ERROR_MODEL, "axis %d is repeated %lld times", i,
                           (long long)times);
        if (!repeats.known)
            out.dims[i] = TN_DIM_UNKNOWN;
    }
    return tn_op_set_output(node, 0, node->inputs[0]->dtype, &out, error);
}

tn_status tn_tile_evaluate(const tn_node *node, const tn_tensor *const *inputs, tn_tensor *outputs,
                           tn_error *error)
{
    int rank = inputs[0]->rank;
    int64_t from[TN_MAX_RANK], to[TN_MAX_RANK];
    tn_block block = {.rank = 2 * rank};
    tn_status status = tn_op_output_init(node, 0, &outputs[0], error);
    if (status != TN_OK || tn_tensor_count(&outputs[0]) == 0)
        return status;
    tn_strides_of(rank, inputs[0]->dims, from);
    tn_strides_of(rank, outputs[0].dims, to);
    for (int i = 0; i < rank; i++) {
        block.dims[2 * i] = outputs[0].dims[i] / inputs[0]->dims[i];
        block.dst_stride[2 * i] = to[i] * inputs[0]->dims[i];
        block.dims[2 * i + 1] = inputs[0]->dims[i];
        block.src_stride[2 * i + 1] = from[i];
        block.dst_stride[2 * i + 1] = to[i];
    }
    return tn_block_copy(&block, inputs[0], &outputs[0], error);
}
