/* Shape, Size; Reshape, Flatten, Squeeze, Unsqueeze: operators that read or change shapes. The data
 * of the latter four stays as it is: folding borrows it. */
#include "core/checked.h"
#include "onnx_io/ops/elements.h"
#include "onnx_io/ops/functions.h"

/* The range [start, end) of axes a Shape node (opset 15) reads. */
static tn_status shape_range(const tn_node *node, int rank, int *start, int *end, tn_error *error)
{
    int64_t bounds[2] = {0, rank};
    tn_status status = tn_node_int(node, "start", 0, &bounds[0], error);
    if (status == TN_OK)
        status = tn_node_int(node, "end", rank, &bounds[1], error);
    if (status != TN_OK)
        return status;
    for (int i = 0; i < 2; i++) {
        if (bounds[i] < 0)
            bounds[i] += rank;
        bounds[i] = bounds[i] < 0 ? 0 : bounds[i] > rank ? rank : bounds[i];
    }
    *start = (int)bounds[0];
    *end = (int)(bounds[1] > bounds[0] ? bounds[1] : bounds[0]);
    return TN_OK;
}

tn_status tn_shape_infer(tn_node *node, tn_error *error)
{
    tn_shape data = tn_op_shape(tn_op_input(node, 0));
    tn_shape out = {.rank = 1, .dims = {TN_DIM_UNKNOWN}};
    int start, end;
    if (data.rank >= 0) {
        tn_status status = shape_range(node, data.rank, &start, &end, error);
        if (status != TN_OK)
            return status;
        out.dims[0] = end - start;
    }
    return tn_op_set_output(node, 0, TN_INT64, &out, error);
}

tn_status tn_shape_evaluate(const tn_node *node, const tn_tensor *const *inputs, tn_tensor *outputs,
                            tn_error *error)
{
    (void)inputs;
    tn_shape data = tn_op_shape(tn_op_input(node, 0));
    int start, end;
    if (!tn_shape_is_known(&data))
        return tn_fail(error, TN_ERROR_USAGE, "the shape of the input is not known");
    tn_status status = shape_range(node, data.rank, &start, &end, error);
    if (status == TN_OK)
        status = tn_op_output_init(node, 0, &outputs[0], error);
    return status == TN_OK
               ? tn_tensor_write_int64(&outputs[0], 0, end - start, data.dims + start, error)
               : status;
}

tn_status tn_size_infer(tn_node *node, tn_error *error)
{
    return tn_op_set_output(node, 0, TN_INT64, &(tn_shape){.rank = 0}, error);
}

tn_status tn_size_evaluate(const tn_node *node, const tn_tensor *const *inputs, tn_tensor *outputs,
                           tn_error *error)
{
    (void)inputs;
    tn_shape data = tn_op_shape(tn_op_input(node, 0));
    int64_t count = tn_shape_count(&data);
    if (count < 0)
        return tn_fail(error, TN_ERROR_USAGE, "the shape of the input is not known");
    tn_status status = tn_op_output_init(node, 0, &outputs[0], error);
    return status == TN_OK ? tn_tensor_write_int64(&outputs[0], 0, 1, &count, error) : status;
}

/* Reshape: fills in 0 (copy of the input's dimension) and -1 (what is left). Unknown dimensions
 * that are copied cancel out of the division. */
static tn_status reshape_resolve(const tn_shape *data, const tn_int_list *wanted, bool allow_zero,
                                 tn_shape *out, tn_error *error)
{
    int rest = -1;
    bool copied[TN_MAX_RANK] = {false};
    out->rank = wanted->count;
    int64_t left = 1, given = 1;
    for (int i = 0; i < wanted->count; i++) {
        int64_t dim = wanted->values[i];
        if (dim == 0 && !allow_zero) {
            if (data->rank >= 0 && i >= data->rank)
                return tn_fail(error, TN_ERROR_MODEL,
                               "the shape copies axis %d of a rank %d tensor", i, data->rank);
            copied[i] = data->rank >= 0;
            dim = data->rank >= 0 ? data->dims[i] : TN_DIM_UNKNOWN;
        } else if (dim == -1) {
            if (rest >= 0)
                return tn_fail(error, TN_ERROR_MODEL, "the shape holds -1 twice");
            rest = i;
        } else if (dim < 0 || !tn_checked_mul_i64(given, dim, &given)) {
            return tn_fail(error, TN_ERROR_MODEL, "the shape holds %lld", (long long)dim);
        }
        out->dims[i] = dim;
    }
    bool known = data->rank >= 0;
    for (int i = 0; i < data->rank; i++) {
        if (i < out->rank && copied[i])
            continue;
        known = known && data->dims[i] >= 0;
        if (data->dims[i] >= 0 && !tn_checked_mul_i64(left, data->dims[i], &left))
            return tn_fail(error, TN_ERROR_MODEL, "the input has too many elements");
    }
    if (!known)
        return TN_OK;
    bool fits = rest >= 0 ? (given > 0 ? left % given == 0 : left == 0) : left == given;
    if (!fits)
        return tn_fail(error, TN_ERROR_MODEL,
                       "the input has %lld elements, the shape %lld (without copied axes)",
                       (long long)left, (long long)given);
    if (rest >= 0)
        out->dims[rest] = given > 0 ? left / given : 0;
    return TN_OK;
}

tn_status tn_reshape_infer(tn_node *node, tn_error *error)
{
    tn_shape data = tn_op_shape(tn_op_input(node, 0)), out = {.rank = TN_RANK_UNKNOWN};
    tn_int_list wanted;
    int64_t allow_zero = 0;
    tn_status status =
        tn_int_list_from_input(node, 1, tn_op_constant(node, 1), "shape values", &wanted, error);
    if (status == TN_OK && node->model->opset >= 14)
        status = tn_node_int(node, "allowzero", 0, &allow_zero, error);
    if (status != TN_OK)
        return status;
    if (wanted.known && wanted.count > TN_MAX_RANK)
        return tn_fail(error, TN_ERROR_MODEL, "the shape has %d axes: at most %d are supported",
                       wanted.count, TN_MAX_RANK);
    if (wanted.known) {
        status = reshape_resolve(&data, &wanted, allow_zero != 0, &out, error);
    } else {
        tn_shape list = tn_op_shape(tn_op_input(node, 1));
        if (list.rank == 1 && list.dims[0] >= 0 && list.dims[0] <= TN_MAX_RANK) {
            out.rank = (int)list.dims[0];
            for (int i = 0; i < out.rank; i++)
                out.dims[i] = TN_DIM_UNKNOWN;
        }
    }
    return status == TN_OK ? tn_op_set_output(node, 0, node->inputs[0]->dtype, &out, error)
                           : status;
}

static int64_t product_of(const int64_t *dims, int from, int to)
{
    int64_t count;
    return tn_dims_count(to - from, dims + from, &count) ? count : TN_DIM_UNKNOWN;
}

tn_status tn_flatten_infer(tn_node *node, tn_error *error)
{
    tn_shape data = tn_op_shape(tn_op_input(node, 0));
    tn_shape out = {.rank = 2, .dims = {TN_DIM_UNKNOWN, TN_DIM_UNKNOWN}};
    int64_t axis;
    tn_status status = tn_node_int(node, "axis", 1, &axis, error);
    if (status != TN_OK)
        return status;
    if (data.rank >= 0) {
        if (axis < -data.rank || axis > data.rank)
            return tn_fail(error, TN_ERROR_MODEL, "axis %lld is outside a tensor of rank %d",
                           (long long)axis, data.rank);
        int split = (int)(axis < 0 ? axis + data.rank : axis);
        out.dims[0] = product_of(data.dims, 0, split);
        out.dims[1] = product_of(data.dims, split, data.rank);
    }
    return tn_op_set_output(node, 0, node->inputs[0]->dtype, &out, error);
}

/* Axes of Squeeze and Unsqueeze: an attribute below opset 13, an input from there on. */
static tn_status read_axes(const tn_node *node, tn_int_list *axes, tn_error *error)
{
    if (node->model->opset < 13)
        return tn_int_list_from_attribute(node, "axes", axes, error);
    return tn_int_list_from_input(node, 1, tn_op_constant(node, 1), "axes", axes, error);
}

tn_status tn_squeeze_infer(tn_node *node, tn_error *error)
{
    tn_shape data = tn_op_shape(tn_op_input(node, 0)), out = {.rank = TN_RANK_UNKNOWN};
    tn_int_list axes;
    int marks[TN_MAX_RANK];
    tn_status status = read_axes(node, &axes, error);
    if (status == TN_OK && axes.known && data.rank >= 0)
        status = tn_axes_mark(&axes, data.rank, marks, error);
    if (status != TN_OK)
        return status;
    if (axes.known && data.rank >= 0 && (axes.present || tn_shape_is_known(&data))) {
        out.rank = 0;
        for (int i = 0; i < data.rank; i++) {
            bool drop = axes.present ? marks[i] != 0 : data.dims[i] == 1;
            if (drop && !tn_dims_agree(data.dims[i], 1))
                return tn_fail(error, TN_ERROR_MODEL, "axis %d has size %lld: 1 expected", i,
                               (long long)data.dims[i]);
            if (!drop)
                out.dims[out.rank++] = data.dims[i];
        }
    }
    return tn_op_set_output(node, 0, node->inputs[0]->dtype, &out, error);
}

tn_status tn_unsqueeze_infer(tn_node *node, tn_error *error)
{
    tn_shape data = tn_op_shape(tn_op_input(node, 0)), out = {.rank = TN_RANK_UNKNOWN};
    tn_int_list axes;
    int marks[TN_MAX_RANK];
    tn_status status = read_axes(node, &axes, error);
    if (status != TN_OK)
        return status;
    if (!axes.present)
        return tn_fail(error, TN_ERROR_MODEL, "axes are missing");
    if (axes.known && data.rank >= 0) {
        if (data.rank + axes.count > TN_MAX_RANK)
            return tn_fail(error, TN_ERROR_MODEL, "the output has rank %d: at most %d expected",
                           data.rank + axes.count, TN_MAX_RANK);
        out.rank = data.rank + axes.count;
        status = tn_axes_mark(&axes, out.rank, marks, error);
        if (status != TN_OK)
            return status;
        for (int i = 0, from = 0; i < out.rank; i++)
            out.dims[i] = marks[i] ? 1 : data.dims[from++];
    }
    return tn_op_set_output(node, 0, node->inputs[0]->dtype, &out, error);
}
