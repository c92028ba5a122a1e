/* Pad: attributes below opset 11, inputs from there on; axes from 18; mode wrap from 19. */
#include "core/checked.h"
#include "core/memory.h"
#include "onnx_io/ops/elements.h"
#include "onnx_io/ops/functions.h"

#include <string.h>

typedef enum pad_mode { PAD_CONSTANT, PAD_REFLECT, PAD_EDGE, PAD_WRAP } pad_mode;

typedef struct pad_plan {
    pad_mode mode;
    bool known;
    int64_t begin[TN_MAX_RANK], end[TN_MAX_RANK];
} pad_plan;

static tn_status read_mode(const tn_node *node, pad_mode *mode, tn_error *error)
{
    static const char *const names[] = {"constant", "reflect", "edge", "wrap"};
    char text[16];
    tn_status status = tn_node_string(node, "mode", "constant", text, sizeof text, error);
    if (status != TN_OK)
        return status;
    for (int i = 0; i < 4; i++)
        if (!strcmp(text, names[i])) {
            *mode = (pad_mode)i;
            return TN_OK;
        }
    return tn_fail(error, TN_ERROR_MODEL,
                   "attribute mode is %s: constant, reflect, edge or wrap "
                   "expected",
                   tn_quote(text));
}

static tn_status read_plan(const tn_node *node, const tn_tensor *const *inputs, int rank,
                           pad_plan *plan, tn_error *error)
{
    tn_int_list pads, axes = {.known = true};
    int marks[TN_MAX_RANK];
    bool as_input = node->model->opset >= 11;
    tn_status status = read_mode(node, &plan->mode, error);
    if (status == TN_OK)
        status = as_input ? tn_int_list_from_input(node, 1, inputs[1], "pads", &pads, error)
                          : tn_int_list_from_attribute(node, "pads", &pads, error);
    if (status == TN_OK && as_input)
        status = tn_int_list_from_input(node, 3, inputs[3], "axes", &axes, error);
    if (status != TN_OK)
        return status;
    plan->known = pads.known && axes.known;
    int expected = axes.present ? axes.count : rank;
    if (plan->known && pads.count != 2 * expected)
        return tn_fail(error, TN_ERROR_MODEL, "%d pads are given: %d expected", pads.count,
                       2 * expected);
    status = tn_axes_mark(&axes, rank, marks, error);
    for (int i = 0; status == TN_OK && plan->known && i < rank; i++) {
        int k = axes.present ? marks[i] - 1 : i;
        plan->begin[i] = k < 0 ? 0 : pads.values[k];
        plan->end[i] = k < 0 ? 0 : pads.values[expected + k];
    }
    return status;
}

/* Size of a padded axis; negative pads cut. */
static tn_status padded(const pad_plan *plan, int axis, int64_t dim, int64_t *size, tn_error *error)
{
    int64_t begin = plan->begin[axis], end = plan->end[axis];
    if (!tn_checked_add_i64(dim, begin, size) || !tn_checked_add_i64(*size, end, size) || *size < 0)
        return tn_fail(error, TN_ERROR_MODEL, "pads %lld and %lld do not fit axis %d of size %lld",
                       (long long)begin, (long long)end, axis, (long long)dim);
    bool needs_data = plan->mode != PAD_CONSTANT && (begin > 0 || end > 0);
    if (needs_data && (dim == 0 || (plan->mode == PAD_REFLECT && (begin >= dim || end >= dim))))
        return tn_fail(
            error, TN_ERROR_MODEL,
            "pads %lld and %lld exceed what mode reflect, edge or wrap can take from axis "
            "%d of size %lld",
            (long long)begin, (long long)end, axis, (long long)dim);
    return TN_OK;
}

tn_status tn_pad_infer(tn_node *node, tn_error *error)
{
    const tn_tensor *inputs[4];
    tn_shape data = tn_op_shape(tn_op_input(node, 0));
    pad_plan plan;
    if (data.rank < 0)
        return tn_op_set_output(node, 0, node->inputs[0]->dtype, &data, error);
    tn_op_constants(node, inputs, 4);
    tn_status status = read_plan(node, inputs, data.rank, &plan, error);
    for (int i = 0; status == TN_OK && i < data.rank; i++) {
        if (!plan.known)
            data.dims[i] = TN_DIM_UNKNOWN;
        else if (data.dims[i] >= 0)
            status = padded(&plan, i, data.dims[i], &data.dims[i], error);
    }
    return status == TN_OK ? tn_op_set_output(node, 0, node->inputs[0]->dtype, &data, error)
                           : status;
}

/* Fills the output with the padding constant; zeros are there already. */
static tn_status fill(const tn_node *node, const tn_tensor *value, tn_tensor *output,
                      tn_error *error)
{
    tn_block block = {.rank = 1, .dims = {tn_tensor_count(output)}, .dst_stride = {1}};
    float attribute = 0;
    if (value)
        return value->dtype == output->dtype && tn_tensor_count(value) == 1
                   ? tn_block_copy(&block, value, output, error)
                   : tn_fail(error, TN_ERROR_MODEL, "the padding value is no scalar of the type %s",
                             tn_dtype_name(output->dtype));
    if (node->model->opset >= 11)
        return TN_OK;
    tn_status status = tn_node_float(node, "value", 0.0f, &attribute, error);
    if (status != TN_OK || (attribute == 0 && !tn_dtype_is_float(output->dtype)))
        return status;
    tn_tensor scalar;
    double wide = (double)attribute;
    status = tn_tensor_init(&scalar, output->dtype, 0, NULL, error);
    if (status != TN_OK)
        return status;
    status = tn_tensor_write_double(&scalar, 0, 1, &wide, error);
    if (status == TN_OK)
        status = tn_block_copy(&block, &scalar, output, error);
    tn_tensor_done(&scalar);
    return status;
}

/* Where element `at` of the padded axis comes from. */
static int64_t source_index(pad_mode mode, int64_t at, int64_t dim)
{
    if (mode == PAD_EDGE)
        return at < 0 ? 0 : at >= dim ? dim - 1 : at;
    if (mode == PAD_REFLECT)
        return at < 0 ? -at : at >= dim ? 2 * (dim - 1) - at : at;
    at %= dim;
    return at < 0 ? at + dim : at;
}

static tn_status pad_constant(const pad_plan *plan, const tn_tensor *src, tn_tensor *dst,
                              tn_error *error)
{
    tn_block block = {.rank = src->rank};
    tn_strides_of(src->rank, src->dims, block.src_stride);
    tn_strides_of(dst->rank, dst->dims, block.dst_stride);
    for (int i = 0; i < src->rank; i++) {
        int64_t cut_begin = plan->begin[i] < 0 ? -plan->begin[i] : 0;
        int64_t cut_end = plan->end[i] < 0 ? -plan->end[i] : 0;
        block.dims[i] = src->dims[i] - cut_begin - cut_end;
        if (block.dims[i] <= 0)
            return TN_OK;
        block.src_offset += cut_begin * block.src_stride[i];
        block.dst_offset += (plan->begin[i] > 0 ? plan->begin[i] : 0) * block.dst_stride[i];
    }
    return tn_block_copy(&block, src, dst, error);
}

/* reflect, edge, wrap: element by element. */
static tn_status pad_from_data(const pad_plan *plan, const tn_tensor *src, tn_tensor *dst,
                               tn_error *error)
{
    int64_t strides[TN_MAX_RANK], index[TN_MAX_RANK] = {0}, count = tn_tensor_count(dst);
    tn_strides_of(src->rank, src->dims, strides);
    tn_status status = TN_OK;
    for (int64_t at = 0; status == TN_OK && at < count; at++) {
        tn_block block = {.rank = 0, .dst_offset = at};
        for (int i = 0; i < src->rank; i++)
            block.src_offset +=
                strides[i] * source_index(plan->mode, index[i] - plan->begin[i], src->dims[i]);
        status = tn_block_copy(&block, src, dst, error);
        for (int i = dst->rank - 1; i >= 0 && ++index[i] == dst->dims[i]; i--)
            index[i] = 0;
    }
    return status;
}

tn_status tn_pad_evaluate(const tn_node *node, const tn_tensor *const *inputs, tn_tensor *outputs,
                          tn_error *error)
{
    const tn_tensor *given[4] = {NULL};
    pad_plan plan = {0};
    for (size_t i = 0; i < node->n_inputs && i < 4; i++)
        given[i] = inputs[i];
    tn_status status = read_plan(node, given, inputs[0]->rank, &plan, error);
    if (status == TN_OK)
        status = tn_op_output_init(node, 0, &outputs[0], error);
    if (status != TN_OK || tn_tensor_count(&outputs[0]) == 0)
        return status;
    if (plan.mode != PAD_CONSTANT)
        return pad_from_data(&plan, inputs[0], &outputs[0], error);
    status = fill(node, given[2], &outputs[0], error);
    return status == TN_OK ? pad_constant(&plan, inputs[0], &outputs[0], error) : status;
}
