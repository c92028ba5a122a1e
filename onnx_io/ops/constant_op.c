/* Constant, ConstantOfShape, Range, Expand: values out of little. Expand's elements are copied
 * beside the other broadcasts in binary_op.c. */
#include "core/checked.h"
#include "onnx_io/ops/elements.h"
#include "onnx_io/ops/functions.h"

#include <math.h>
#include <string.h>

static const Onnx__AttributeProto *find_attribute(const tn_node *node, const char *name)
{
    for (size_t i = 0; node->proto && i < node->proto->n_attribute; i++)
        if (!strcmp(tn_text(node->proto->attribute[i]->name), name))
            return node->proto->attribute[i];
    return NULL;
}

/* The tensor an attribute holds; NULL when it is absent or holds none. */
static const Onnx__TensorProto *tensor_attribute(const tn_node *node, const char *name)
{
    const Onnx__AttributeProto *attribute = find_attribute(node, name);
    return attribute ? attribute->t : NULL;
}

/* Type and shape of a Constant from whichever value attribute it has; UNDEFINED for sparse ones. */
static tn_status constant_shape(const tn_node *node, tn_dtype *dtype, tn_shape *shape,
                                tn_error *error)
{
    static const struct {
        const char *name;
        tn_dtype dtype;
        bool list;
    } forms[] = {{"value_float", TN_FLOAT, false},   {"value_floats", TN_FLOAT, true},
                 {"value_int", TN_INT64, false},     {"value_ints", TN_INT64, true},
                 {"value_string", TN_STRING, false}, {"value_strings", TN_STRING, true}};
    const Onnx__TensorProto *value = tensor_attribute(node, "value");
    *shape = (tn_shape){.rank = TN_RANK_UNKNOWN};
    *dtype = TN_UNDEFINED;
    if (value) {
        if (value->n_dims > TN_MAX_RANK)
            return tn_fail(error, TN_ERROR_MODEL, "the value has rank %zu: at most %d expected",
                           value->n_dims, TN_MAX_RANK);
        *dtype = (tn_dtype)value->data_type;
        shape->rank = (int)value->n_dims;
        for (int i = 0; i < shape->rank; i++) {
            shape->dims[i] = value->dims[i];
            if (shape->dims[i] < 0)
                return tn_fail(error, TN_ERROR_MODEL, "the value has dimension %lld",
                               (long long)shape->dims[i]);
        }
        return TN_OK;
    }
    for (size_t i = 0; i < sizeof forms / sizeof *forms; i++) {
        const Onnx__AttributeProto *a = find_attribute(node, forms[i].name);
        if (!a)
            continue;
        *dtype = forms[i].dtype;
        shape->rank = forms[i].list;
        shape->dims[0] = (int64_t)(a->n_floats + a->n_ints + a->n_strings);
        return TN_OK;
    }
    return find_attribute(node, "sparse_value")
               ? TN_OK
               : tn_fail(error, TN_ERROR_MODEL, "the value is missing");
}

tn_status tn_constant_infer(tn_node *node, tn_error *error)
{
    tn_dtype dtype;
    tn_shape shape;
    tn_status status = constant_shape(node, &dtype, &shape, error);
    return status == TN_OK ? tn_op_set_output(node, 0, dtype, &shape, error) : status;
}

tn_status tn_constant_evaluate(const tn_node *node, const tn_tensor *const *inputs,
                               tn_tensor *outputs, tn_error *error)
{
    (void)inputs;
    const Onnx__TensorProto *value = tensor_attribute(node, "value");
    if (value)
        return tn_model_tensor(node->model, value, &outputs[0], error);
    tn_status status = tn_op_output_init(node, 0, &outputs[0], error);
    if (status != TN_OK)
        return status;
    const Onnx__AttributeProto *a;
    size_t bytes = outputs[0].bytes;
    if ((a = find_attribute(node, "value_float")) != NULL)
        memcpy(outputs[0].data, &a->f, bytes);
    else if ((a = find_attribute(node, "value_int")) != NULL)
        memcpy(outputs[0].data, &a->i, bytes);
    else if ((a = find_attribute(node, "value_floats")) != NULL && bytes)
        memcpy(outputs[0].data, a->floats, bytes);
    else if ((a = find_attribute(node, "value_ints")) != NULL && bytes)
        memcpy(outputs[0].data, a->ints, bytes);
    return TN_OK;
}

/* Dimensions given as a list input; unknown ones where it is not constant. */
static tn_status shape_from_input(const tn_node *node, size_t index, tn_shape *shape,
                                  tn_error *error)
{
    tn_int_list list;
    tn_status status = tn_int_list_from_input(node, index, tn_op_constant(node, index),
                                              "shape values", &list, error);
    if (status != TN_OK)
        return status;
    tn_shape input = tn_op_shape(tn_op_input(node, index));
    int64_t rank = list.known ? list.count : input.rank == 1 ? input.dims[0] : TN_RANK_UNKNOWN;
    if (rank > TN_MAX_RANK)
        return tn_fail(error, TN_ERROR_MODEL, "the shape has %lld axes: at most %d are supported",
                       (long long)rank, TN_MAX_RANK);
    *shape = (tn_shape){.rank = rank < 0 ? TN_RANK_UNKNOWN : (int)rank};
    for (int i = 0; i < shape->rank; i++) {
        shape->dims[i] = list.known ? list.values[i] : TN_DIM_UNKNOWN;
        if (list.known && shape->dims[i] < 0)
            return tn_fail(error, TN_ERROR_MODEL, "the shape holds %lld",
                           (long long)shape->dims[i]);
    }
    return TN_OK;
}

tn_status tn_constant_of_shape_infer(tn_node *node, tn_error *error)
{
    const Onnx__TensorProto *value = tensor_attribute(node, "value");
    tn_shape shape;
    tn_status status = shape_from_input(node, 0, &shape, error);
    tn_dtype dtype = value ? (tn_dtype)value->data_type : TN_FLOAT;
    return status == TN_OK ? tn_op_set_output(node, 0, dtype, &shape, error) : status;
}

tn_status tn_constant_of_shape_evaluate(const tn_node *node, const tn_tensor *const *inputs,
                                        tn_tensor *outputs, tn_error *error)
{
    (void)inputs;
    const Onnx__TensorProto *proto = tensor_attribute(node, "value");
    tn_tensor value = {0};
    tn_status status = tn_op_output_init(node, 0, &outputs[0], error);
    if (status != TN_OK || !proto)
        return status;
    status = tn_model_tensor(node->model, proto, &value, error);
    if (status != TN_OK)
        return status;
    if (tn_tensor_count(&value) != 1) {
        status = tn_fail(error, TN_ERROR_MODEL, "attribute value has %lld elements: 1 expected",
                         (long long)tn_tensor_count(&value));
    } else {
        tn_block block = {.rank = 1, .dims = {tn_tensor_count(&outputs[0])}, .dst_stride = {1}};
        status = tn_block_copy(&block, &value, &outputs[0], error);
    }
    tn_tensor_done(&value);
    return status;
}

tn_status tn_expand_infer(tn_node *node, tn_error *error)
{
    tn_shape data = tn_op_shape(tn_op_input(node, 0)), wanted, out;
    tn_status status = shape_from_input(node, 1, &wanted, error);
    if (status == TN_OK)
        status = tn_shape_broadcast(&data, &wanted, &out, error);
    if (status != TN_OK)
        return status;
    if (!tn_op_constant(node, 1)) /* an unknown size may broadcast a known one */
        for (int i = 0; i < out.rank; i++)
            out.dims[i] = out.dims[i] == 1 ? TN_DIM_UNKNOWN : out.dims[i];
    return tn_op_set_output(node, 0, node->inputs[0]->dtype, &out, error);
}

/* start, limit, delta of a Range as doubles, and the number of elements. */
static tn_status range_read(const tn_tensor *const *inputs, double *start, double *delta,
                            int64_t *count, tn_error *error)
{
    double values[3];
    for (int i = 0; i < 3; i++) {
        if (tn_tensor_count(inputs[i]) != 1)
            return tn_fail(error, TN_ERROR_MODEL, "input %d has %lld elements: a scalar expected",
                           i, (long long)tn_tensor_count(inputs[i]));
        tn_status status = tn_tensor_read_double(inputs[i], 0, 1, &values[i], error);
        if (status != TN_OK)
            return status;
    }
    double steps = ceil((values[1] - values[0]) / values[2]);
    if (values[2] == 0 || !(fabs(steps) < 0x1p53))
        return tn_fail(error, TN_ERROR_MODEL, "a range from %g to %g in steps of %g has no length",
                       values[0], values[1], values[2]);
    *start = values[0];
    *delta = values[2];
    *count = steps > 0 ? (int64_t)steps : 0;
    return TN_OK;
}

tn_status tn_range_infer(tn_node *node, tn_error *error)
{
    const tn_tensor *inputs[3];
    tn_shape shape = {.rank = 1, .dims = {TN_DIM_UNKNOWN}};
    double start, delta;
    tn_status status = TN_OK;
    tn_op_constants(node, inputs, 3);
    if (inputs[0] && inputs[1] && inputs[2])
        status = range_read(inputs, &start, &delta, &shape.dims[0], error);
    return status == TN_OK ? tn_op_set_output(node, 0, node->inputs[0]->dtype, &shape, error)
                           : status;
}

tn_status tn_range_evaluate(const tn_node *node, const tn_tensor *const *inputs, tn_tensor *outputs,
                            tn_error *error)
{
    double start, delta;
    int64_t count;
    tn_status status = range_read(inputs, &start, &delta, &count, error);
    if (status == TN_OK)
        status = tn_op_output_init(node, 0, &outputs[0], error);
    bool single = inputs[0]->dtype == TN_FLOAT;
    for (int64_t i = 0; status == TN_OK && i < count; i++) {
        double value = start + (double)i * delta;
        if (single)
            value = (double)((float)start + (float)i * (float)delta);
        status = tn_tensor_write_double(&outputs[0], i, 1, &value, error);
    }
    return status;
}
