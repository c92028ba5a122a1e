/* Gather and GatherElements. */
#include "onnx_io/ops/elements.h"
#include "onnx_io/ops/functions.h"

#include <string.h>

static tn_status check_index_type(const tn_node *node, tn_error *error)
{
    tn_dtype dtype = node->inputs[1]->dtype;
    if (dtype != TN_UNDEFINED && dtype != TN_INT32 && dtype != TN_INT64)
        return tn_fail(error, TN_ERROR_MODEL, "indices have type %s: INT32 or INT64 expected",
                       tn_dtype_name(dtype));
    return TN_OK;
}

tn_status tn_gather_infer(tn_node *node, tn_error *error)
{
    tn_shape data = tn_op_shape(tn_op_input(node, 0)), indices = tn_op_shape(tn_op_input(node, 1));
    tn_shape out = {.rank = TN_RANK_UNKNOWN};
    int64_t attribute;
    int axis = 0;
    tn_status status = check_index_type(node, error);
    if (status == TN_OK)
        status = tn_node_int(node, "axis", 0, &attribute, error);
    if (status == TN_OK && data.rank >= 0)
        status = tn_axis_resolve(attribute, data.rank, &axis, error);
    if (status != TN_OK)
        return status;
    if (data.rank >= 0 && indices.rank >= 0) {
        if (data.rank + indices.rank - 1 > TN_MAX_RANK)
            return tn_fail(error, TN_ERROR_MODEL, "the output has rank %d: at most %d expected",
                           data.rank + indices.rank - 1, TN_MAX_RANK);
        out.rank = 0;
        for (int i = 0; i < axis; i++)
            out.dims[out.rank++] = data.dims[i];
        for (int i = 0; i < indices.rank; i++)
            out.dims[out.rank++] = indices.dims[i];
        for (int i = axis + 1; i < data.rank; i++)
            out.dims[out.rank++] = data.dims[i];
    }
    return tn_op_set_output(node, 0, node->inputs[0]->dtype, &out, error);
}

/* Reads n indices into [0, dim), counting negative ones from the end. */
static tn_status read_indices(const tn_tensor *indices, int64_t first, int64_t n, int64_t dim,
                              int64_t *dst, tn_error *error)
{
    tn_status status = tn_lane_load(indices, first, n, TN_WORK_INT, dst, error);
    for (int64_t i = 0; status == TN_OK && i < n; i++) {
        if (dst[i] < -dim || dst[i] >= dim)
            return tn_fail(error, TN_ERROR_MODEL, "index %lld is outside an axis of size %lld",
                           (long long)dst[i], (long long)dim);
        dst[i] += dst[i] < 0 ? dim : 0;
    }
    return status;
}

/* Rows of `size` bytes picked from `src`; sizes of lookup tables have loops of their own. */
static void pick_rows(const unsigned char *src, size_t size, const int64_t *index, int64_t n,
                      unsigned char *dst)
{
    if (size == 16)
        for (int64_t i = 0; i < n; i++)
            memcpy(dst + i * 16, src + index[i] * 16, 16);
    else if (size == 8)
        for (int64_t i = 0; i < n; i++)
            memcpy(dst + i * 8, src + index[i] * 8, 8);
    else if (size == 4)
        for (int64_t i = 0; i < n; i++)
            memcpy(dst + i * 4, src + index[i] * 4, 4);
    else
        for (int64_t i = 0; i < n; i++)
            memcpy(dst + (size_t)i * size, src + (size_t)index[i] * size, size);
}

tn_status tn_gather_evaluate(const tn_node *node, const tn_tensor *const *inputs,
                             tn_tensor *outputs, tn_error *error)
{
    const tn_tensor *data = inputs[0], *indices = inputs[1];
    int64_t attribute, outer = 1, inner = 1, lane[TN_LANE];
    int axis = 0, bits = tn_dtype_bits(data->dtype);
    tn_status status = tn_node_int(node, "axis", 0, &attribute, error);
    if (status == TN_OK)
        status = tn_axis_resolve(attribute, data->rank, &axis, error);
    if (status == TN_OK && bits < 8)
        return tn_fail(error, TN_ERROR_USAGE, "type %s is not evaluated",
                       tn_dtype_name(data->dtype));
    if (status == TN_OK)
        status = tn_op_output_init(node, 0, &outputs[0], error);
    if (status != TN_OK || tn_tensor_count(&outputs[0]) == 0)
        return status;
    for (int i = 0; i < data->rank; i++)
        *(i < axis ? &outer : &inner) *= i == axis ? 1 : data->dims[i];
    int64_t count = tn_tensor_count(indices), dim = data->dims[axis];
    size_t row = (size_t)inner * ((size_t)bits / 8);
    for (int64_t from = 0; from < count; from += TN_LANE) {
        int64_t n = count - from < TN_LANE ? count - from : TN_LANE;
        status = read_indices(indices, from, n, dim, lane, error);
        if (status != TN_OK)
            return status;
        for (int64_t o = 0; o < outer; o++)
            pick_rows((const unsigned char *)data->data + (size_t)(o * dim) * row, row, lane, n,
                      (unsigned char *)outputs[0].data + (size_t)(o * count + from) * row);
    }
    return status;
}

tn_status tn_gather_elements_infer(tn_node *node, tn_error *error)
{
    tn_shape data = tn_op_shape(tn_op_input(node, 0)), indices = tn_op_shape(tn_op_input(node, 1));
    int64_t attribute;
    int axis = 0;
    tn_status status = check_index_type(node, error);
    if (status == TN_OK)
        status = tn_node_int(node, "axis", 0, &attribute, error);
    if (status == TN_OK && data.rank >= 0)
        status = tn_axis_resolve(attribute, data.rank, &axis, error);
    if (status == TN_OK && data.rank >= 0 && indices.rank >= 0 && data.rank != indices.rank)
        return tn_fail(error, TN_ERROR_MODEL,
                       "data and indices have rank %d and %d: equal expected", data.rank,
                       indices.rank);
    return status == TN_OK ? tn_op_set_output(node, 0, node->inputs[0]->dtype, &indices, error)
                           : status;
}

tn_status tn_gather_elements_evaluate(const tn_node *node, const tn_tensor *const *inputs,
                                      tn_tensor *outputs, tn_error *error)
{
    const tn_tensor *data = inputs[0], *indices = inputs[1];
    int64_t attribute, strides[TN_MAX_RANK], at[TN_MAX_RANK] = {0};
    int64_t count = tn_tensor_count(indices);
    int axis = 0;
    tn_status status = tn_node_int(node, "axis", 0, &attribute, error);
    if (status == TN_OK)
        status = tn_axis_resolve(attribute, data->rank, &axis, error);
    for (int i = 0; status == TN_OK && i < data->rank; i++)
        if (i != axis && indices->dims[i] > data->dims[i])
            return tn_fail(error, TN_ERROR_MODEL, "indices exceed the data on axis %d", i);
    if (status == TN_OK)
        status = tn_op_output_init(node, 0, &outputs[0], error);
    tn_strides_of(data->rank, data->dims, strides);
    for (int64_t k = 0; status == TN_OK && k < count; k++) {
        int64_t index;
        tn_block block = {.rank = 0, .dst_offset = k};
        status = read_indices(indices, k, 1, data->dims[axis], &index, error);
        for (int i = 0; i < data->rank; i++)
            block.src_offset += strides[i] * (i == axis ? index : at[i]);
        if (status == TN_OK)
            status = tn_block_copy(&block, data, &outputs[0], error);
        for (int i = data->rank - 1; i >= 0 && ++at[i] == indices->dims[i]; i--)
            at[i] = 0;
    }
    return status;
}
