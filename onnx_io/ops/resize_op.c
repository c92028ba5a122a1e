/* Resize and Upsample: shapes. Scales are an attribute of Upsample 7, an input from 9 on; Resize
 * takes scales or sizes, from opset 18 on for chosen axes. */
#include "onnx_io/ops/functions.h"
#include "onnx_io/ops/shapes.h"

#include <math.h>
#include <string.h>

typedef struct resize_plan {
    bool known;
    int count; /* of values */
    float scales[TN_MAX_RANK];
    int64_t sizes[TN_MAX_RANK];
    bool by_size;
} resize_plan;

static tn_status read_scales(const tn_tensor *tensor, resize_plan *plan, tn_error *error)
{
    int64_t count = tn_tensor_count(tensor);
    if (tensor->rank != 1 || count > TN_MAX_RANK || !tn_dtype_is_float(tensor->dtype))
        return tn_fail(error, TN_ERROR_MODEL, "scales are no list of at most %d floats",
                       TN_MAX_RANK);
    plan->known = true;
    plan->count = (int)count;
    return tn_tensor_read_float(tensor, 0, count, plan->scales, error);
}

static tn_status read_sizes(const tn_tensor *tensor, resize_plan *plan, tn_error *error)
{
    tn_int_list list;
    tn_status status = tn_int_list_from_tensor(tensor, "sizes", &list, error);
    if (status != TN_OK)
        return status;
    if (list.count > TN_MAX_RANK)
        return tn_fail(error, TN_ERROR_MODEL, "%d sizes are given", list.count);
    plan->known = true;
    plan->count = list.count;
    for (int i = 0; i < list.count; i++)
        plan->sizes[i] = list.values[i];
    return TN_OK;
}

static tn_status read_attribute_scales(const tn_node *node, resize_plan *plan, tn_error *error)
{
    for (size_t i = 0; node->proto && i < node->proto->n_attribute; i++) {
        const Onnx__AttributeProto *a = node->proto->attribute[i];
        if (strcmp(tn_text(a->name), "scales") != 0)
            continue;
        if (a->n_floats > TN_MAX_RANK)
            return tn_fail(error, TN_ERROR_MODEL, "attribute scales has %zu values", a->n_floats);
        plan->known = true;
        plan->count = (int)a->n_floats;
        for (int k = 0; k < plan->count; k++)
            plan->scales[k] = a->floats[k];
        return TN_OK;
    }
    return tn_fail(error, TN_ERROR_MODEL, "attribute scales is missing");
}

static tn_status read_plan(const tn_node *node, resize_plan *plan, tn_error *error)
{
    bool upsample = !strcmp(node->type, "Upsample");
    size_t at = upsample || node->model->opset < 11 ? 1 : 2;
    *plan = (resize_plan){0};
    if (upsample && node->model->opset < 9)
        return read_attribute_scales(node, plan, error);
    const tn_tensor *scales = tn_op_constant(node, at), *sizes = tn_op_constant(node, 3);
    if (tn_op_input(node, 3)) {
        plan->by_size = true;
        return sizes ? read_sizes(sizes, plan, error) : TN_OK;
    }
    return scales ? read_scales(scales, plan, error) : TN_OK;
}

static tn_status scaled(int64_t dim, float scale, int64_t *size, tn_error *error)
{
    float wanted = floorf((float)dim * scale);
    if (!(scale > 0) || !(wanted < 0x1p53f))
        return tn_fail(error, TN_ERROR_MODEL, "scale %g is not possible", (double)scale);
    *size = (int64_t)wanted;
    return TN_OK;
}

tn_status tn_resize_infer(tn_node *node, tn_error *error)
{
    tn_shape out = tn_op_shape(tn_op_input(node, 0));
    resize_plan plan;
    tn_int_list axes = {.known = true};
    int marks[TN_MAX_RANK];
    char policy[16] = "stretch", mode[32] = "half_pixel";
    tn_status status = read_plan(node, &plan, error);
    if (status == TN_OK && node->model->opset >= 18)
        status = tn_int_list_from_attribute(node, "axes", &axes, error);
    if (status == TN_OK && node->model->opset >= 18)
        status = tn_node_string(node, "keep_aspect_ratio_policy", "stretch", policy, sizeof policy,
                                error);
    if (status == TN_OK && node->model->opset >= 11)
        status =
            tn_node_string(node, "coordinate_transformation_mode", mode, mode, sizeof mode, error);
    if (status == TN_OK && out.rank >= 0)
        status = tn_axes_mark(&axes, out.rank, marks, error);
    if (status != TN_OK)
        return status;
    bool plain = !strcmp(policy, "stretch") && strcmp(mode, "tf_crop_and_resize") != 0;
    if (plan.known && out.rank >= 0 && plan.count != (axes.present ? axes.count : out.rank))
        return tn_fail(error, TN_ERROR_MODEL, "%d scales or sizes are given for rank %d",
                       plan.count, out.rank);
    for (int i = 0; status == TN_OK && i < out.rank; i++) {
        int k = axes.present ? marks[i] - 1 : i;
        if (k < 0)
            continue;
        if (!plan.known || !plain)
            out.dims[i] = TN_DIM_UNKNOWN;
        else if (plan.by_size)
            out.dims[i] = plan.sizes[k];
        else if (out.dims[i] >= 0)
            status = scaled(out.dims[i], plan.scales[k], &out.dims[i], error);
        else if (plan.scales[k] != 1.0f)
            out.dims[i] = TN_DIM_UNKNOWN;
    }
    return status == TN_OK ? tn_op_set_output(node, 0, node->inputs[0]->dtype, &out, error)
                           : status;
}
