/* Slice: bounds are attributes below opset 10, inputs from there on. */
#include "onnx_io/ops/elements.h"
#include "onnx_io/ops/functions.h"

typedef struct slice_plan {
    bool known[TN_MAX_RANK]; /* whether this axis' numbers are */
    int64_t start[TN_MAX_RANK], step[TN_MAX_RANK], count[TN_MAX_RANK];
} slice_plan;

typedef struct slice_bounds {
    tn_int_list starts, ends, axes, steps;
} slice_bounds;

static tn_status read_bounds(const tn_node *node, const tn_tensor *const *inputs, slice_bounds *b,
                             tn_error *error)
{
    tn_status status;
    if (node->model->opset < 10) {
        b->steps = (tn_int_list){.known = true};
        status = tn_int_list_from_attribute(node, "starts", &b->starts, error);
        if (status == TN_OK)
            status = tn_int_list_from_attribute(node, "ends", &b->ends, error);
        return status == TN_OK ? tn_int_list_from_attribute(node, "axes", &b->axes, error) : status;
    }
    status = tn_int_list_from_input(node, 1, inputs[1], "starts", &b->starts, error);
    if (status == TN_OK)
        status = tn_int_list_from_input(node, 2, inputs[2], "ends", &b->ends, error);
    if (status == TN_OK)
        status = tn_int_list_from_input(node, 3, inputs[3], "axes", &b->axes, error);
    if (status == TN_OK)
        status = tn_int_list_from_input(node, 4, inputs[4], "steps", &b->steps, error);
    return status;
}

static int64_t clamp(int64_t value, int64_t low, int64_t high)
{
    return value < low ? low : value > high ? high : value;
}

/* Start, step and number of elements on one axis of `dim` elements. */
static tn_status slice_axis(int64_t dim, int64_t start, int64_t end, int64_t step, int64_t *first,
                            int64_t *by, int64_t *count, tn_error *error)
{
    if (step == 0)
        return tn_fail(error, TN_ERROR_MODEL, "a step is 0");
    if (start < 0)
        start += dim;
    if (step < 0 && (end == INT32_MAX || end == INT64_MAX))
        end = -1; /* "to the end" backwards too: the standard has nothing, runtimes do this */
    else if (end < 0)
        end += dim;
    uint64_t stride = step > 0 ? (uint64_t)step : 0 - (uint64_t)step, span;
    if (step > 0) {
        start = clamp(start, 0, dim);
        end = clamp(end, 0, dim);
        span = end > start ? (uint64_t)(end - start) : 0;
    } else {
        start = clamp(start, 0, dim > 0 ? dim - 1 : -1); /* the standard's words; numpy has -1 */
        end = clamp(end, -1, dim - 1);
        span = dim > 0 && start > end ? (uint64_t)(start - end) : 0;
    }
    *count = (int64_t)(span / stride + (span % stride != 0));
    *first = *count ? start : 0;
    *by = *count > 1 ? step : 1;
    return TN_OK;
}

static tn_status slice_resolve(const slice_bounds *b, const tn_shape *data, slice_plan *plan,
                               tn_error *error)
{
    int marks[TN_MAX_RANK];
    tn_int_list axes = b->axes;
    if (b->starts.known && b->ends.known && b->starts.count != b->ends.count)
        return tn_fail(error, TN_ERROR_MODEL, "%d starts and %d ends: equal numbers expected",
                       b->starts.count, b->ends.count);
    if (!axes.present && b->starts.known) {
        axes.count = b->starts.count < TN_MAX_RANK + 1 ? b->starts.count : TN_MAX_RANK + 1;
        for (int i = 0; i < axes.count; i++)
            axes.values[i] = i;
    }
    bool know_axes = axes.present ? axes.known : b->starts.known;
    bool know_rest = b->starts.known && b->ends.known && b->steps.known;
    if ((b->starts.known && know_axes && axes.count != b->starts.count) ||
        (b->steps.present && b->steps.known && b->starts.known &&
         b->steps.count != b->starts.count))
        return tn_fail(error, TN_ERROR_MODEL, "starts, axes and steps differ in number");
    tn_status status = tn_axes_mark(&axes, data->rank, marks, error);
    for (int i = 0; status == TN_OK && i < data->rank; i++) {
        bool whole = know_axes && !marks[i];
        plan->start[i] = 0;
        plan->step[i] = 1;
        plan->count[i] = whole ? data->dims[i] : TN_DIM_UNKNOWN;
        plan->known[i] = plan->count[i] >= 0;
        if (whole || !know_axes || !know_rest || data->dims[i] < 0)
            continue;
        int k = marks[i] - 1;
        plan->known[i] = true;
        status = slice_axis(data->dims[i], b->starts.values[k], b->ends.values[k],
                            b->steps.present ? b->steps.values[k] : 1, &plan->start[i],
                            &plan->step[i], &plan->count[i], error);
    }
    return status;
}

tn_status tn_slice_infer(tn_node *node, tn_error *error)
{
    const tn_tensor *inputs[5];
    tn_shape data = tn_op_shape(tn_op_input(node, 0));
    slice_bounds bounds;
    slice_plan plan;
    tn_op_constants(node, inputs, 5);
    tn_status status = read_bounds(node, inputs, &bounds, error);
    if (status == TN_OK && data.rank >= 0)
        status = slice_resolve(&bounds, &data, &plan, error);
    for (int i = 0; status == TN_OK && i < data.rank; i++)
        data.dims[i] = plan.count[i];
    return status == TN_OK ? tn_op_set_output(node, 0, node->inputs[0]->dtype, &data, error)
                           : status;
}

tn_status tn_slice_evaluate(const tn_node *node, const tn_tensor *const *inputs, tn_tensor *outputs,
                            tn_error *error)
{
    const tn_tensor *given[5] = {NULL};
    tn_shape data = {.rank = inputs[0]->rank};
    slice_bounds bounds;
    slice_plan plan;
    tn_block block = {.rank = data.rank};
    for (size_t i = 0; i < node->n_inputs && i < 5; i++)
        given[i] = inputs[i];
    for (int i = 0; i < data.rank; i++)
        data.dims[i] = inputs[0]->dims[i];
    tn_status status = read_bounds(node, given, &bounds, error);
    if (status == TN_OK)
        status = slice_resolve(&bounds, &data, &plan, error);
    if (status == TN_OK)
        status = tn_op_output_init(node, 0, &outputs[0], error);
    if (status != TN_OK)
        return status;
    tn_strides_of(data.rank, data.dims, block.src_stride);
    tn_strides_of(data.rank, plan.count, block.dst_stride);
    for (int i = 0; i < data.rank; i++) {
        block.dims[i] = plan.count[i];
        block.src_offset += plan.start[i] * block.src_stride[i];
        block.src_stride[i] *= plan.step[i];
    }
    return tn_block_copy(&block, inputs[0], &outputs[0], error);
}
