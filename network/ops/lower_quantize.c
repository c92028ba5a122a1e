/* QuantizeLinear and DequantizeLinear of activations, per tensor or per axis (not blocked). */
#include "network/lowering.h"

#include <math.h>
#include <string.h>

static void range_of(tn_dtype type, float *low, float *high)
{
    bool is_unsigned = type == TN_UINT8 || type == TN_UINT16 || type == TN_UINT32 ||
                       type == TN_UINT4 || type == TN_UINT2;
    int bits = tn_dtype_bits(type) - !is_unsigned;
    *low = is_unsigned ? 0.0f : (float)-ldexp(1.0, bits);
    *high = (float)(ldexp(1.0, bits) - 1.0);
}

/* The integer type of the output: of the zero point, else output_dtype, else UINT8. */
static tn_status integer_type(const tn_node *node, bool has_zero, tn_dtype *type, tn_error *error)
{
    int64_t asked;
    tn_status status = tn_node_int(node, "output_dtype", 0, &asked, error);
    if (status != TN_OK)
        return status;
    *type = has_zero ? node->inputs[2]->dtype : asked ? (tn_dtype)asked : TN_UINT8;
    if (!tn_dtype_is_integer(*type) || tn_dtype_bits(*type) > 16)
        return tn_lower_unsupported(node, error, "this integer type");
    return TN_OK;
}

tn_status tn_lower_quantize(tn_plan *plan, const tn_node *node, tn_error *error)
{
    size_t src[3], dst;
    int64_t axis_value, block;
    bool zero = node->n_inputs > 2 && node->inputs[2];
    bool quantize = strcmp(node->type, "QuantizeLinear") == 0;
    tn_dtype type = TN_UINT8;
    tn_task task = {.verb = quantize ? TN_VERB_QUANTIZE : TN_VERB_DEQUANTIZE};
    tn_quantize_task *t = &task.quantize;
    tn_status status = tn_node_int(node, "axis", 1, &axis_value, error);
    if (status == TN_OK)
        status = tn_node_int(node, "block_size", 0, &block, error);
    if (status == TN_OK && block)
        return tn_lower_unsupported(node, error, "blocks");
    if (status == TN_OK && quantize)
        status = integer_type(node, zero, &type, error);
    if (status == TN_OK)
        status = tn_lower_input(plan, node->inputs[0], TN_LAYOUT_ANY, &src[0], error);
    for (size_t i = 1; i < (zero ? 3U : 2U) && status == TN_OK; i++)
        status = tn_lower_input(plan, node->inputs[i], TN_LAYOUT_PLAIN, &src[i], error);
    if (status == TN_OK)
        status = tn_lower_output(plan, node, 0,
                                 plan->values[src[0]].last ? TN_LAYOUT_LAST : TN_LAYOUT_PLAIN, &dst,
                                 error);
    if (status != TN_OK)
        return status;
    *t = (tn_quantize_task){1, 1, 1, zero, 0.0f, 0.0f};
    range_of(type, &t->low, &t->high);
    tn_extent extent = tn_lower_extent(plan, src[0]);
    int at = -1;
    if (plan->values[src[1]].count != 1) {
        status = tn_lower_resolve(node, axis_value, extent.rank, &at, error);
        if (status != TN_OK)
            return status;
        at = tn_lower_axis(plan, src[0], at);
    }
    for (int i = 0; i < extent.rank; i++)
        *(i < at ? &t->outer : i == at ? &t->axis : &t->inner) *= extent.dims[i];
    for (int i = 1; i < (zero ? 3 : 2); i++)
        if (plan->values[src[i]].count != t->axis)
            return tn_fail(error, TN_ERROR_MODEL,
                           "node %s: scale or zero point has %lld elements, not %lld",
                           tn_quote(tn_node_label(node)), (long long)plan->values[src[i]].count,
                           (long long)t->axis);
    return tn_lower_step(plan, node, &task, src, zero ? 3 : 2, dst, NULL, 0, error);
}
