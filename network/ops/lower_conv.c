/* Conv (opset 1, 11, 22): 1-D runs as 2-D of height 1. */
#include "network/lowering.h"
#include "onnx_io/ops/op.h"

#include <string.h>

tn_status tn_lower_conv(tn_plan *plan, const tn_node *node, tn_error *error)
{
    tn_window window;
    size_t src, dst, params[2];
    bool bias = node->n_inputs > 2 && node->inputs[2];
    tn_status status = tn_window_parse(node, &window, error);
    if (status == TN_OK)
        status = tn_lower_input(plan, node->inputs[0], TN_LAYOUT_LAST, &src, error);
    if (status == TN_OK)
        status = tn_lower_param(plan, node, 1, &params[0], error);
    if (status == TN_OK && bias)
        status = tn_lower_param(plan, node, 2, &params[1], error);
    if (status == TN_OK)
        status = tn_lower_output(plan, node, 0, TN_LAYOUT_LAST, &dst, error);
    if (status != TN_OK)
        return status;
    const tn_plan_value *x = &plan->values[src], *y = &plan->values[dst];
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
