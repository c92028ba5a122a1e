/* Conv (opset 1, 11, 22): 1-D runs as 2-D of height 1. */
#include "core/checked.h"
#include "network/lowering.h"
#include "onnx_io/ops/op.h"

#include <string.h>

/* Weight [O, I / group, k...] and bias [O], of the sizes the task is made for. */
static tn_status add_params(tn_plan *plan, const tn_node *node, const tn_window *window,
                            int64_t in_channels, int64_t out_channels, size_t *params,
                            tn_error *error)
{
    int64_t count = out_channels * (in_channels / window->group);
    if (in_channels % window->group || out_channels % window->group)
        return tn_fail(error, TN_ERROR_MODEL, "node %s: %lld and %lld channels in %lld groups",
                       tn_quote(tn_node_label(node)), (long long)in_channels,
                       (long long)out_channels, (long long)window->group);
    for (int i = 0; i < window->spatial; i++)
        if (!tn_checked_mul_i64(count, window->kernel[i], &count))
            return tn_fail(error, TN_ERROR_LIMIT, "a weight is too large");
    tn_status status = tn_lower_param(plan, node, 1, count, &params[0], error);
    if (status == TN_OK && node->n_inputs > 2 && node->inputs[2])
        status = tn_lower_param(plan, node, 2, out_channels, &params[1], error);
    return status;
}

tn_status tn_lower_conv(tn_plan *plan, const tn_node *node, tn_error *error)
{
    tn_window window;
    size_t src, dst, params[2];
    bool bias = node->n_inputs > 2 && node->inputs[2];
    tn_status status = tn_window_parse(node, &window, error);
    if (status == TN_OK)
        status = tn_lower_input(plan, node->inputs[0], TN_LAYOUT_LAST, &src, error);
    if (status == TN_OK)
        status = tn_lower_output(plan, node, 0, TN_LAYOUT_LAST, &dst, error);
    if (status != TN_OK)
        return status;
    const tn_plan_value *x = &plan->values[src], *y = &plan->values[dst];
    status = add_params(plan, node, &window, x->dims[1], y->dims[1], params, error);
    if (status != TN_OK)
        return status;
    int skip = window.spatial == 1;
    tn_task task = {.verb = TN_VERB_CONV};
    tn_conv_task *t = &task.conv;
    t->spatial = window.spatial + skip;
    t->batch = x->dims[0];
    t->in_channels = x->dims[1];
    t->out_channels = y->dims[1];
    t->group = window.group;
    t->bias = bias;
    t->in[0] = t->out[0] = t->kernel[0] = t->stride[0] = t->dilation[0] = 1;
    for (int i = 0; i < window.spatial; i++) {
        t->in[i + skip] = x->dims[2 + i];
        t->out[i + skip] = y->dims[2 + i];
        t->kernel[i + skip] = window.kernel[i];
        t->stride[i + skip] = window.stride[i];
        t->dilation[i + skip] = window.dilation[i];
        t->pad_begin[i + skip] = window.pad_begin[i];
        t->pad_end[i + skip] = window.pad_end[i];
    }
    return tn_lower_step(plan, node, &task, &src, 1, dst, params, bias ? 2 : 1, error);
}
