/* QuantizeLinear, DequantizeLinear, DynamicQuantizeLinear: scales per tensor, per axis (opset 13)
 * or per block of an axis (opset 21). */
#include "core/memory.h"
#include "onnx_io/ops/elements.h"
#include "onnx_io/ops/functions.h"

#include <math.h>

typedef struct quantize_plan {
    int axis;
    int64_t block; /* elements of the axis that share a scale; 0: the scale is one for all */
} quantize_plan;

static tn_status check_scale(const tn_shape *data, const tn_shape *scale, const quantize_plan *plan,
                             tn_error *error)
{
    int64_t dim = data->dims[plan->axis];
    bool fits = scale->rank == data->rank;
    if (scale->rank == 1 && plan->block == 1) /* per axis */
        fits = tn_dims_agree(scale->dims[0], dim);
    else
        for (int i = 0; fits && i < data->rank; i++) {
            int64_t expected = data->dims[i];
            if (i == plan->axis && dim >= 0)
                expected = dim / plan->block + (dim % plan->block != 0);
            fits = tn_dims_agree(scale->dims[i], expected);
        }
    if (!fits)
        return tn_fail(error, TN_ERROR_MODEL,
                       "the scale's shape does not fit axis %d of size %lld in blocks of %lld",
                       plan->axis, (long long)dim, (long long)plan->block);
    return TN_OK;
}

/* A number: runtimes take [] and [1] alike. */
static bool has_one_element(const tn_shape *shape)
{
    return shape->rank == 0 || (shape->rank == 1 && shape->dims[0] == 1);
}

/* Shapes of data and scale may be unknown: then the plan is not complete and nothing is checked. */
static tn_status read_plan(const tn_node *node, const tn_shape *data, const tn_shape *scale,
                           const tn_shape *zero, quantize_plan *plan, tn_error *error)
{
    int64_t axis = 1, block = 0;
    *plan = (quantize_plan){0, 0};
    tn_status status = tn_node_int(node, "axis", 1, &axis, error);
    if (status == TN_OK)
        status = tn_node_int(node, "block_size", 0, &block, error);
    if (status != TN_OK || data->rank < 0 || scale->rank < 0)
        return status;
    if (block < 0)
        return tn_fail(error, TN_ERROR_MODEL, "attribute block_size is %lld", (long long)block);
    if (!has_one_element(scale) || !has_one_element(zero))
        for (int i = 0; zero->rank >= 0 && i < scale->rank; i++)
            if (zero->rank != scale->rank || !tn_dims_agree(zero->dims[i], scale->dims[i]))
                return tn_fail(error, TN_ERROR_MODEL, "scale and zero point differ in shape");
    if (scale->rank == 0 || (scale->rank == 1 && scale->dims[0] == 1 && block == 0))
        return TN_OK;
    if (node->model->opset < 13)
        return tn_fail(error, TN_ERROR_MODEL,
                       "the scale has rank %d: a scalar is expected below opset 13", scale->rank);
    status = tn_axis_resolve(axis, data->rank, &plan->axis, error);
    plan->block = block ? block : 1;
    return status == TN_OK ? check_scale(data, scale, plan, error) : status;
}

/* Checks the operands; the type that an attribute asks for, or UNDEFINED. */
static tn_status infer_type(const tn_node *node, int64_t *dtype, tn_error *error)
{
    quantize_plan plan;
    tn_shape data = tn_op_shape(tn_op_input(node, 0)), scale = tn_op_shape(tn_op_input(node, 1));
    tn_shape zero = tn_op_shape(tn_op_input(node, 2));
    tn_status status = read_plan(node, &data, &scale, &zero, &plan, error);
    if (status == TN_OK)
        status = tn_node_int(node, "output_dtype", TN_UNDEFINED, dtype, error);
    return status;
}

tn_status tn_quantize_infer(tn_node *node, tn_error *error)
{
    tn_shape shape = tn_op_shape(tn_op_input(node, 0));
    const tn_value *zero = tn_op_input(node, 2);
    int64_t dtype = TN_UNDEFINED;
    tn_status status = infer_type(node, &dtype, error);
    if (status != TN_OK)
        return status;
    if (zero)
        dtype = zero->dtype;
    else if (dtype == TN_UNDEFINED)
        dtype = TN_UINT8;
    return tn_op_set_output(node, 0, (tn_dtype)dtype, &shape, error);
}

tn_status tn_dequantize_infer(tn_node *node, tn_error *error)
{
    tn_shape shape = tn_op_shape(tn_op_input(node, 0));
    const tn_value *zero = tn_op_input(node, 2);
    int64_t dtype = TN_UNDEFINED;
    tn_status status = infer_type(node, &dtype, error);
    if (status != TN_OK)
        return status;
    tn_dtype own = node->inputs[0]->dtype;
    if (zero && zero->dtype != TN_UNDEFINED && own != TN_UNDEFINED && zero->dtype != own)
        return tn_fail(error, TN_ERROR_MODEL, "the zero point has type %s, the codes %s",
                       tn_dtype_name(zero->dtype), tn_dtype_name(own));
    if (dtype == TN_UNDEFINED)
        dtype = node->inputs[1]->dtype;
    return tn_op_set_output(node, 0, (tn_dtype)dtype, &shape, error);
}

tn_status tn_dynamic_quantize_infer(tn_node *node, tn_error *error)
{
    tn_shape shape = tn_op_shape(tn_op_input(node, 0)), scalar = {.rank = 0};
    tn_status status = tn_op_set_output(node, 0, TN_UINT8, &shape, error);
    if (status == TN_OK)
        status = tn_op_set_output(node, 1, TN_FLOAT, &scalar, error);
    return status == TN_OK ? tn_op_set_output(node, 2, TN_UINT8, &scalar, error) : status;
}

static tn_shape shape_of(const tn_tensor *tensor)
{
    tn_shape shape = {.rank = tensor ? tensor->rank : TN_RANK_UNKNOWN};
    for (int i = 0; i < shape.rank; i++)
        shape.dims[i] = tensor->dims[i];
    return shape;
}

/* One row of elements with one scale and zero point, or a scale per element (step 1). */
typedef struct quantize_row {
    int64_t first, count; /* elements of the data */
    int64_t scale_at;     /* of the first element */
    int scale_step;       /* 0 or 1 */
    double low, high;     /* QuantizeLinear's range of codes */
    const float *scale;
    const int64_t *zero; /* NULL: none */
} quantize_row;

typedef tn_status (*row_function)(const quantize_row *row, const tn_tensor *src, tn_tensor *dst,
                                  tn_error *error);

static tn_status dequantize_row(const quantize_row *row, const tn_tensor *src, tn_tensor *dst,
                                tn_error *error)
{
    int64_t codes[TN_LANE];
    float values[TN_LANE];
    tn_status status = TN_OK;
    for (int64_t done = 0; status == TN_OK && done < row->count; done += TN_LANE) {
        int64_t n = row->count - done < TN_LANE ? row->count - done : TN_LANE;
        status = tn_lane_load(src, row->first + done, n, TN_WORK_INT, codes, error);
        if (status != TN_OK)
            return status;
        if (row->scale_step) {
            const float *scale = row->scale + row->scale_at + done;
            const int64_t *zero = row->zero ? row->zero + row->scale_at + done : NULL;
            for (int64_t i = 0; i < n; i++)
                values[i] = (float)(codes[i] - (zero ? zero[i] : 0)) * scale[i];
        } else {
            float scale = row->scale[row->scale_at];
            int64_t zero = row->zero ? row->zero[row->scale_at] : 0;
            for (int64_t i = 0; i < n; i++)
                values[i] = (float)(codes[i] - zero) * scale;
        }
        status = tn_lane_store(dst, row->first + done, n, TN_WORK_FLOAT, values, error);
    }
    return status;
}

static tn_status quantize_codes(const quantize_row *row, const tn_tensor *src, tn_tensor *dst,
                                tn_error *error)
{
    int64_t codes[TN_LANE];
    float values[TN_LANE];
    tn_status status = TN_OK;
    for (int64_t done = 0; status == TN_OK && done < row->count; done += TN_LANE) {
        int64_t n = row->count - done < TN_LANE ? row->count - done : TN_LANE;
        status = tn_lane_load(src, row->first + done, n, TN_WORK_FLOAT, values, error);
        for (int64_t i = 0; status == TN_OK && i < n; i++) {
            int64_t k = row->scale_at + (row->scale_step ? done + i : 0);
            double code =
                (double)rintf(values[i] / row->scale[k]) + (row->zero ? (double)row->zero[k] : 0);
            code = !(code > row->low) ? row->low : code > row->high ? row->high : code;
            codes[i] = (int64_t)code;
        }
        if (status == TN_OK)
            status = tn_tensor_write_int64(dst, row->first + done, n, codes, error);
    }
    return status;
}

/* Calls `function` for rows in which the scale is constant or runs along with the data. */
static tn_status each_row(const quantize_plan *plan, const tn_tensor *src, int scale_rank,
                          quantize_row row, row_function function, tn_tensor *dst, tn_error *error)
{
    int64_t outer = 1, inner = 1, total = tn_tensor_count(src);
    tn_status status = TN_OK;
    if (plan->block == 0 || total == 0) {
        row.count = total;
        return total ? function(&row, src, dst, error) : TN_OK;
    }
    int64_t dim = src->dims[plan->axis], blocks = dim / plan->block + (dim % plan->block != 0);
    for (int i = 0; i < src->rank; i++)
        *(i < plan->axis ? &outer : &inner) *= i == plan->axis ? 1 : src->dims[i];
    bool per_axis = scale_rank == 1 && plan->block == 1;
    row.count = inner;
    row.scale_step = !per_axis;
    if (per_axis && inner == 1) { /* the axis is the last: scales run along with a row of it */
        for (int64_t o = 0; status == TN_OK && o < outer; o++, row.first += dim) {
            row.count = dim;
            row.scale_step = 1;
            status = function(&row, src, dst, error);
        }
        return status;
    }
    for (int64_t o = 0; o < outer; o++)
        for (int64_t k = 0; status == TN_OK && k < dim; k++, row.first += inner) {
            row.scale_at = per_axis ? k : (o * blocks + k / plan->block) * inner;
            status = function(&row, src, dst, error);
        }
    return status;
}

static tn_status load_parameters(const tn_tensor *scale, const tn_tensor *zero, quantize_row *row,
                                 float **scales, int64_t **zeros, tn_error *error)
{
    int64_t count = tn_tensor_count(scale);
    *scales = tn_alloc_array((size_t)count, sizeof **scales);
    *zeros = zero ? tn_alloc_array((size_t)count, sizeof **zeros) : NULL;
    if (!*scales || (zero && !*zeros))
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %lld scales", (long long)count);
    tn_status status = tn_tensor_read_float(scale, 0, count, *scales, error);
    if (status == TN_OK && zero)
        status = tn_tensor_read_int64(zero, 0, count, *zeros, error);
    row->scale = *scales;
    row->zero = *zeros;
    return status;
}

static tn_status evaluate(const tn_node *node, const tn_tensor *const *inputs,
                          row_function function, quantize_row row, tn_tensor *output,
                          tn_error *error)
{
    const tn_tensor *zero = node->n_inputs > 2 ? inputs[2] : NULL;
    tn_shape data = shape_of(inputs[0]), scale = shape_of(inputs[1]), zeros = shape_of(zero);
    float *scale_values = NULL;
    int64_t *zero_values = NULL;
    quantize_plan plan;
    tn_status status = read_plan(node, &data, &scale, &zeros, &plan, error);
    if (status == TN_OK && tn_tensor_count(inputs[1]) == 0 && tn_tensor_count(inputs[0]) > 0)
        return tn_fail(error, TN_ERROR_MODEL, "the scale is empty");
    if (status == TN_OK)
        status = load_parameters(inputs[1], zero, &row, &scale_values, &zero_values, error);
    if (status == TN_OK)
        status = tn_op_output_init(node, 0, output, error);
    if (status == TN_OK)
        status = each_row(&plan, inputs[0], scale.rank, row, function, output, error);
    tn_free(scale_values);
    tn_free(zero_values);
    return status;
}

static bool is_code(tn_dtype dtype)
{
    return tn_dtype_is_integer(dtype) && tn_dtype_bits(dtype) <= 32;
}

tn_status tn_dequantize_evaluate(const tn_node *node, const tn_tensor *const *inputs,
                                 tn_tensor *outputs, tn_error *error)
{
    const tn_value *value = tn_op_output(node, 0);
    if (!is_code(inputs[0]->dtype) || !value || tn_work_of(value->dtype) != TN_WORK_FLOAT ||
        tn_work_of(inputs[1]->dtype) != TN_WORK_FLOAT)
        return tn_fail(error, TN_ERROR_USAGE, "codes of type %s are not evaluated",
                       tn_dtype_name(inputs[0]->dtype));
    return evaluate(node, inputs, dequantize_row, (quantize_row){0}, &outputs[0], error);
}

tn_status tn_quantize_evaluate(const tn_node *node, const tn_tensor *const *inputs,
                               tn_tensor *outputs, tn_error *error)
{
    const tn_value *value = tn_op_output(node, 0);
    if (!value || !is_code(value->dtype) || tn_work_of(inputs[0]->dtype) != TN_WORK_FLOAT ||
        tn_work_of(inputs[1]->dtype) != TN_WORK_FLOAT)
        return tn_fail(error, TN_ERROR_USAGE, "values of type %s are not evaluated",
                       tn_dtype_name(inputs[0]->dtype));
    tn_dtype dtype = value->dtype;
    int bits = tn_dtype_bits(dtype);
    bool is_signed = dtype == TN_INT2 || dtype == TN_INT4 || dtype == TN_INT8 ||
                     dtype == TN_INT16 || dtype == TN_INT32;
    quantize_row row = {.low = is_signed ? -ldexp(1, bits - 1) : 0,
                        .high = ldexp(1, is_signed ? bits - 1 : bits) - 1};
    return evaluate(node, inputs, quantize_codes, row, &outputs[0], error);
}
