/* Kernel, stride, dilation and padding of convolutions and pooling. */
#include "onnx_io/ops/window.h"

#include "core/checked.h"
#include "onnx_io/ops/shapes.h"

#include <string.h>

enum { LARGEST = INT32_MAX }; /* of any kernel, stride, dilation or pad: products fit in int64 */

/* The input that holds the weight; 0: pooling, which has none. */
static size_t weight_input(const tn_node *node)
{
    if (!strcmp(node->type, "QLinearConv"))
        return 3;
    return strstr(node->type, "Conv") ? 1 : 0;
}

/* Attribute `name`: `expected` values between low and LARGEST, or all `standard` when absent. */
static tn_status read_list(const tn_node *node, const char *name, int expected, int64_t low,
                           int64_t standard, int64_t *dst, tn_error *error)
{
    tn_int_list list;
    tn_status status = tn_int_list_from_attribute(node, name, &list, error);
    if (status != TN_OK)
        return status;
    if (list.count > 0 && list.count != expected)
        return tn_fail(error, TN_ERROR_MODEL, "attribute %s has %d values: %d expected", name,
                       list.count, expected);
    for (int i = 0; i < expected; i++) {
        dst[i] = list.count ? list.values[i] : standard;
        if (list.count && (dst[i] < low || dst[i] > LARGEST))
            return tn_fail(error, TN_ERROR_MODEL,
                           "attribute %s has value %lld: %lld to %d expected", name,
                           (long long)dst[i], (long long)low, LARGEST);
    }
    return TN_OK;
}

static tn_status read_kernel(const tn_node *node, const tn_shape *weight, tn_window *window,
                             tn_error *error)
{
    bool given = tn_node_has_attribute(node, "kernel_shape");
    tn_status status =
        read_list(node, "kernel_shape", window->spatial, 1, 1, window->kernel, error);
    if (status != TN_OK)
        return status;
    if (!given && !weight)
        return tn_fail(error, TN_ERROR_MODEL, "attribute kernel_shape is missing");
    for (int i = 0; weight && i < window->spatial; i++) {
        int64_t dim = weight->dims[i + 2];
        if (!given || window->kernel[i] == 0)
            window->kernel[i] = dim;
        if (window->kernel[i] != dim)
            return tn_fail(error, TN_ERROR_MODEL,
                           "attribute kernel_shape has %lld on spatial axis %d, the weight %lld",
                           (long long)window->kernel[i], i, (long long)dim);
    }
    for (int i = 0; i < window->spatial; i++)
        if (window->kernel[i] < 1 || window->kernel[i] > LARGEST)
            return tn_fail(error, TN_ERROR_MODEL, "kernel has size %lld on spatial axis %d",
                           (long long)window->kernel[i], i);
    return TN_OK;
}

static int64_t extent(const tn_window *window, int axis)
{
    return (window->kernel[axis] - 1) * window->dilation[axis] + 1;
}

/* Splits the padding SAME needs; the odd one goes to the end for SAME_UPPER. */
static void split_padding(tn_window *window, int axis, int64_t total, bool upper)
{
    total = total > 0 ? total : 0;
    window->pad_begin[axis] = upper ? total / 2 : total - total / 2;
    window->pad_end[axis] = total - window->pad_begin[axis];
}

static tn_status resolve_same(const tn_shape *data, bool upper, tn_window *window, tn_error *error)
{
    for (int i = 0; i < window->spatial; i++) {
        int64_t dim = data->dims[i + 2], out, total;
        if (dim == TN_DIM_UNKNOWN)
            continue;
        out = dim / window->stride[i] + (dim % window->stride[i] != 0);
        if (!tn_checked_mul_i64(out - 1, window->stride[i], &total) ||
            !tn_checked_add_i64(total, extent(window, i) - dim, &total))
            return tn_fail(error, TN_ERROR_MODEL, "spatial size %lld is too large", (long long)dim);
        split_padding(window, i, total, upper);
    }
    return TN_OK;
}

/* ConvTranspose: padding that gives `output_shape`, or stride x input for SAME. */
static tn_status resolve_transposed(const tn_node *node, const tn_shape *data, bool same,
                                    bool upper, tn_window *window, tn_error *error)
{
    tn_int_list wanted;
    tn_status status = tn_int_list_from_attribute(node, "output_shape", &wanted, error);
    if (status != TN_OK || (!same && !wanted.count))
        return status;
    if (wanted.count && wanted.count != window->spatial && wanted.count != window->spatial + 2)
        return tn_fail(error, TN_ERROR_MODEL, "attribute output_shape has %d values: %d expected",
                       wanted.count, window->spatial);
    for (int i = 0; i < window->spatial; i++) {
        int64_t dim = data->dims[i + 2], full, out;
        if (dim == TN_DIM_UNKNOWN)
            continue;
        if (dim > LARGEST)
            return tn_fail(error, TN_ERROR_MODEL, "spatial size %lld is too large", (long long)dim);
        full = (dim - 1) * window->stride[i] + window->output_padding[i] + extent(window, i);
        out = wanted.count ? wanted.values[wanted.count - window->spatial + i]
                           : dim * window->stride[i];
        if (out < 1 || out > LARGEST)
            return tn_fail(error, TN_ERROR_MODEL,
                           "output size %lld on spatial axis %d: 1 to %d "
                           "expected",
                           (long long)out, i, LARGEST);
        if (wanted.count && out > full) /* more than the windows cover: padding of the output */
            window->output_padding[i] += out - full;
        split_padding(window, i, full - out, upper);
    }
    return TN_OK;
}

static tn_status resolve_padding(const tn_node *node, const tn_shape *data, tn_window *window,
                                 tn_error *error)
{
    char mode[16];
    int64_t pads[2 * TN_MAX_SPATIAL];
    int spatial = window->spatial;
    bool transposed = !strcmp(node->type, "ConvTranspose");
    tn_status status = tn_node_string(node, "auto_pad", "NOTSET", mode, sizeof mode, error);
    if (status == TN_OK)
        status = read_list(node, "pads", 2 * spatial, 0, 0, pads, error);
    if (status != TN_OK)
        return status;
    bool upper = !strcmp(mode, "SAME_UPPER"), same = upper || !strcmp(mode, "SAME_LOWER");
    bool explicit_pads = !strcmp(mode, "NOTSET") || !mode[0];
    if (!explicit_pads && !same && strcmp(mode, "VALID") != 0)
        return tn_fail(error, TN_ERROR_MODEL,
                       "attribute auto_pad is %s: NOTSET, SAME_UPPER, SAME_LOWER or VALID expected",
                       tn_quote(mode));
    for (int i = 0; i < spatial; i++) {
        window->pad_begin[i] = explicit_pads ? pads[i] : 0;
        window->pad_end[i] = explicit_pads ? pads[spatial + i] : 0;
    }
    if (transposed)
        return resolve_transposed(node, data, same, upper, window, error);
    return same ? resolve_same(data, upper, window, error) : TN_OK;
}

/* Groups against the channels of weight and data. */
static tn_status check_group(const tn_node *node, const tn_shape *data, const tn_shape *weight,
                             int64_t group, tn_error *error)
{
    bool transposed = !strcmp(node->type, "ConvTranspose");
    int64_t channels = data->dims[1], rows = weight->dims[0], columns = weight->dims[1];
    int64_t expected;
    if (group < 1 || group > LARGEST)
        return tn_fail(error, TN_ERROR_MODEL, "attribute group is %lld: at least 1 expected",
                       (long long)group);
    if (rows % group != 0)
        return tn_fail(error, TN_ERROR_MODEL,
                       "group %lld does not divide the %lld %s channels of the weight",
                       (long long)group, (long long)rows, transposed ? "input" : "output");
    if (transposed)
        expected = rows;
    else if (!tn_checked_mul_i64(columns, group, &expected))
        return tn_fail(error, TN_ERROR_MODEL, "the weight has too many channels");
    if (channels != TN_DIM_UNKNOWN && channels != expected)
        return tn_fail(error, TN_ERROR_MODEL,
                       "the input has %lld channels, the weight with group %lld expects %lld",
                       (long long)channels, (long long)group, (long long)expected);
    return TN_OK;
}

static tn_status check_shapes(const tn_node *node, const tn_shape *data, const tn_shape *weight,
                              tn_error *error)
{
    if (data->rank < 3 || data->rank > TN_MAX_SPATIAL + 2)
        return tn_fail(error, TN_ERROR_MODEL,
                       "the input has rank %d: 3 to %d (batch, channels, space) expected",
                       data->rank, TN_MAX_SPATIAL + 2);
    if (weight_input(node) && weight->rank != data->rank)
        return tn_fail(error, TN_ERROR_MODEL,
                       "the weight has rank %d, the input %d: equal expected", weight->rank,
                       data->rank);
    if (weight_input(node) && !tn_shape_is_known(weight))
        return tn_fail(error, TN_ERROR_MODEL, "the shape of the weight is not known");
    return TN_OK;
}

tn_status tn_window_parse(const tn_node *node, tn_window *window, tn_error *error)
{
    size_t index = weight_input(node);
    tn_shape data = tn_op_shape(tn_op_input(node, 0));
    tn_shape weight = tn_op_shape(tn_op_input(node, index));
    tn_window out = {.group = 1};
    int64_t ceil_mode = 0, include = 0;
    tn_status status = check_shapes(node, &data, &weight, error);
    if (status != TN_OK)
        return status;
    out.spatial = data.rank - 2;
    if (index) {
        status = tn_node_int(node, "group", 1, &out.group, error);
        if (status == TN_OK)
            status = check_group(node, &data, &weight, out.group, error);
    } else {
        status = tn_node_int(node, "ceil_mode", 0, &ceil_mode, error);
        if (status == TN_OK)
            status = tn_node_int(node, "count_include_pad", 0, &include, error);
    }
    if (status == TN_OK)
        status = read_list(node, "strides", out.spatial, 1, 1, out.stride, error);
    if (status == TN_OK)
        status = read_list(node, "dilations", out.spatial, 1, 1, out.dilation, error);
    if (status == TN_OK)
        status = read_list(node, "output_padding", out.spatial, 0, 0, out.output_padding, error);
    if (status == TN_OK)
        status = read_kernel(node, index ? &weight : NULL, &out, error);
    if (status == TN_OK)
        status = resolve_padding(node, &data, &out, error);
    if (status != TN_OK)
        return status;
    out.ceil_mode = ceil_mode != 0;
    out.count_include_pad = include != 0;
    for (int i = 0; !index && i < out.spatial; i++)
        if (out.pad_begin[i] >= extent(&out, i) || out.pad_end[i] >= extent(&out, i))
            return tn_fail(error, TN_ERROR_MODEL,
                           "padding on spatial axis %d reaches the kernel's size", i);
    *window = out;
    return TN_OK;
}

static tn_status forward_size(const tn_window *window, int axis, int64_t dim, bool same,
                              int64_t *size, tn_error *error)
{
    int64_t stride = window->stride[axis], pads = window->pad_begin[axis] + window->pad_end[axis];
    int64_t span;
    if (same) { /* SAME_*: the padding may be less than none, when the stride exceeds the kernel */
        *size = dim / stride + (dim % stride != 0);
        return TN_OK;
    }
    if (!tn_checked_add_i64(dim, pads - extent(window, axis), &span) || span < 0)
        return tn_fail(
            error, TN_ERROR_MODEL,
            "a window of %lld does not fit into %lld + %lld (padding) on spatial axis %d",
            (long long)extent(window, axis), (long long)dim, (long long)pads, axis);
    *size = span / stride + 1 + (window->ceil_mode && span % stride != 0);
    /* The last window of ceil_mode must start inside the data or its leading padding. */
    if (window->ceil_mode && (*size - 1) * stride >= dim + window->pad_begin[axis])
        --*size;
    return TN_OK;
}

static tn_status transposed_size(const tn_window *window, int axis, int64_t dim, int64_t *size,
                                 tn_error *error)
{
    int64_t pads = window->pad_begin[axis] + window->pad_end[axis];
    if (dim < 1 || dim > LARGEST)
        return tn_fail(error, TN_ERROR_MODEL, "spatial axis %d has size %lld", axis,
                       (long long)dim);
    *size = (dim - 1) * window->stride[axis] + window->output_padding[axis] + extent(window, axis) -
            pads;
    if (*size < 1)
        return tn_fail(error, TN_ERROR_MODEL, "output size %lld on spatial axis %d is negative",
                       (long long)*size, axis);
    return TN_OK;
}

/* What is known when the weight's or the input's shape is not. */
static tn_status unknown_output(const tn_shape *data, tn_shape *shape, tn_error *error)
{
    if (data->rank >= 0 && (data->rank < 3 || data->rank > TN_MAX_SPATIAL + 2))
        return tn_fail(error, TN_ERROR_MODEL, "the input has rank %d: 3 to %d expected", data->rank,
                       TN_MAX_SPATIAL + 2);
    *shape = (tn_shape){.rank = data->rank};
    for (int i = 0; i < data->rank; i++)
        shape->dims[i] = i == 0 ? data->dims[0] : TN_DIM_UNKNOWN;
    return TN_OK;
}

tn_status tn_window_output(const tn_node *node, tn_shape *shape, tn_error *error)
{
    size_t index = weight_input(node);
    tn_shape data = tn_op_shape(tn_op_input(node, 0)), out = data;
    tn_shape weight = tn_op_shape(tn_op_input(node, index));
    bool transposed = !strcmp(node->type, "ConvTranspose");
    char mode[16];
    tn_window window;
    if (data.rank < 0 || (index && !tn_shape_is_known(&weight)))
        return unknown_output(&data, shape, error);
    tn_status status = tn_window_parse(node, &window, error);
    if (status == TN_OK)
        status = tn_node_string(node, "auto_pad", "NOTSET", mode, sizeof mode, error);
    if (status == TN_OK && index)
        out.dims[1] = transposed ? weight.dims[1] : weight.dims[0];
    if (status == TN_OK && transposed &&
        !tn_checked_mul_i64(weight.dims[1], window.group, &out.dims[1]))
        return tn_fail(error, TN_ERROR_MODEL, "the weight has too many channels");
    for (int i = 0; status == TN_OK && i < window.spatial; i++) {
        if (data.dims[i + 2] == TN_DIM_UNKNOWN)
            continue;
        status = transposed ? transposed_size(&window, i, data.dims[i + 2], &out.dims[i + 2], error)
                            : forward_size(&window, i, data.dims[i + 2], mode[0] == 'S',
                                           &out.dims[i + 2], error);
    }
    if (status == TN_OK)
        *shape = out;
    return status;
}
