#include "onnx_io/ops/shapes.h"

#include "core/checked.h"

void tn_op_constants(const tn_node *node, const tn_tensor **inputs, size_t n)
{
    for (size_t i = 0; i < n; i++)
        inputs[i] = tn_op_constant(node, i);
}

tn_shape tn_op_shape(const tn_value *value)
{
    tn_shape shape = {.rank = TN_RANK_UNKNOWN};
    if (value && value->rank >= 0 && value->rank <= TN_MAX_RANK) {
        shape.rank = value->rank;
        for (int i = 0; i < shape.rank; i++)
            shape.dims[i] = value->dims[i];
    }
    return shape;
}

bool tn_shape_is_known(const tn_shape *shape)
{
    for (int i = 0; i < shape->rank; i++)
        if (shape->dims[i] < 0)
            return false;
    return shape->rank >= 0;
}

int64_t tn_shape_count(const tn_shape *shape)
{
    int64_t count;
    return shape->rank >= 0 && tn_dims_count(shape->rank, shape->dims, &count) ? count
                                                                               : TN_DIM_UNKNOWN;
}

tn_status tn_op_set_output(tn_node *node, size_t k, tn_dtype dtype, const tn_shape *shape,
                           tn_error *error)
{
    tn_value *value = tn_op_output(node, k);
    if (!value)
        return TN_OK;
    if (shape->rank > TN_MAX_RANK)
        return tn_fail(error, TN_ERROR_MODEL, "output %zu has rank %d: at most %d are supported", k,
                       shape->rank, TN_MAX_RANK);
    int64_t count = 1;
    for (int i = 0; i < shape->rank; i++) {
        int64_t dim = shape->dims[i];
        if (dim < 0 && dim != TN_DIM_UNKNOWN)
            return tn_fail(error, TN_ERROR_MODEL, "output %zu has negative dimension %lld", k,
                           (long long)dim);
        if (dim > 0 && !tn_checked_mul_i64(count, dim, &count))
            return tn_fail(error, TN_ERROR_MODEL, "output %zu has more elements than 2^63", k);
    }
    value->dtype = dtype;
    value->rank = shape->rank;
    for (int i = 0; i < shape->rank; i++)
        value->dims[i] = shape->dims[i];
    return TN_OK;
}

tn_status tn_op_set_like(tn_node *node, size_t k, const tn_value *value, tn_error *error)
{
    tn_shape shape = tn_op_shape(value);
    return tn_op_set_output(node, k, value ? value->dtype : TN_UNDEFINED, &shape, error);
}

tn_status tn_axis_resolve(int64_t axis, int rank, int *resolved, tn_error *error)
{
    if (axis < -(int64_t)rank || axis >= rank)
        return tn_fail(error, TN_ERROR_MODEL, "axis %lld is outside a tensor of rank %d",
                       (long long)axis, rank);
    *resolved = (int)(axis < 0 ? axis + rank : axis);
    return TN_OK;
}

tn_status tn_axes_mark(const tn_int_list *axes, int rank, int marks[TN_MAX_RANK], tn_error *error)
{
    for (int i = 0; i < TN_MAX_RANK; i++)
        marks[i] = 0;
    for (int i = 0; i < axes->count; i++) {
        int axis = 0;
        tn_status status = tn_axis_resolve(axes->values[i], rank, &axis, error);
        if (status != TN_OK)
            return status;
        if (marks[axis])
            return tn_fail(error, TN_ERROR_MODEL, "axis %d is given twice", axis);
        marks[axis] = i + 1;
    }
    return TN_OK;
}

bool tn_dims_agree(int64_t a, int64_t b)
{
    return a == b || a < 0 || b < 0;
}

static bool broadcast_dim(int64_t a, int64_t b, int64_t *result)
{
    if (a == 1 || b == 1)
        *result = a == 1 ? b : a;
    else if (a < 0 || b < 0)
        *result = a < 0 ? b : a; /* unknown with a known size other than 1: it must be that size */
    else if (a == b)
        *result = a;
    else
        return false;
    return true;
}

tn_status tn_shape_broadcast(const tn_shape *a, const tn_shape *b, tn_shape *result,
                             tn_error *error)
{
    tn_shape out = {.rank = TN_RANK_UNKNOWN};
    if (a->rank >= 0 && b->rank >= 0) {
        out.rank = a->rank > b->rank ? a->rank : b->rank;
        for (int i = 0; i < out.rank; i++) {
            int ia = i - (out.rank - a->rank), ib = i - (out.rank - b->rank);
            int64_t da = ia < 0 ? 1 : a->dims[ia], db = ib < 0 ? 1 : b->dims[ib];
            if (!broadcast_dim(da, db, &out.dims[i]))
                return tn_fail(error, TN_ERROR_MODEL,
                               "dimensions %lld and %lld on axis %d do not broadcast",
                               (long long)da, (long long)db, i);
        }
    }
    *result = out;
    return TN_OK;
}

tn_status tn_int_list_from_tensor(const tn_tensor *tensor, const char *what, tn_int_list *list,
                                  tn_error *error)
{
    if (tensor->dtype != TN_INT64 && tensor->dtype != TN_INT32)
        return tn_fail(error, TN_ERROR_MODEL, "%s have type %s: INT64 or INT32 expected", what,
                       tn_dtype_name(tensor->dtype));
    int64_t count = tn_tensor_count(tensor);
    if (tensor->rank > 1 || count > TN_INT_LIST_MAX)
        return tn_fail(error, TN_ERROR_MODEL,
                       "%s have rank %d and %lld elements: a list of at most %d is expected", what,
                       tensor->rank, (long long)count, TN_INT_LIST_MAX);
    tn_int_list out = {.present = true, .known = true, .count = (int)count};
    tn_status status = tn_tensor_read_int64(tensor, 0, count, out.values, error);
    if (status == TN_OK)
        *list = out;
    return status;
}

tn_status tn_int_list_from_attribute(const tn_node *node, const char *name, tn_int_list *list,
                                     tn_error *error)
{
    const int64_t *values;
    size_t count;
    tn_status status = tn_node_ints(node, name, &values, &count, error);
    if (status != TN_OK)
        return status;
    if (count > TN_INT_LIST_MAX)
        return tn_fail(error, TN_ERROR_MODEL, "attribute %s has %zu values: at most %d expected",
                       name, count, TN_INT_LIST_MAX);
    *list = (tn_int_list){
        .present = tn_node_has_attribute(node, name), .known = true, .count = (int)count};
    for (size_t i = 0; i < count; i++)
        list->values[i] = values[i];
    return TN_OK;
}

tn_status tn_int_list_from_input(const tn_node *node, size_t index, const tn_tensor *tensor,
                                 const char *what, tn_int_list *list, tn_error *error)
{
    if (tensor)
        return tn_int_list_from_tensor(tensor, what, list, error);
    bool present = tn_op_input(node, index) != NULL;
    *list = (tn_int_list){.present = present, .known = !present};
    return TN_OK;
}
