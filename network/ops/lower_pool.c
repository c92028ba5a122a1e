/* MaxPool, AveragePool, GlobalAveragePool, GlobalMaxPool. */
#include "network/lowering.h"
#include "onnx_io/ops/op.h"

#include <string.h>

tn_status tn_lower_pool(tn_plan *plan, const tn_node *node, tn_error *error)
{
    tn_window window;
    size_t src, dst;
    if (node->n_outputs > 1 && node->outputs[1] && node->outputs[1]->n_users)
        return tn_lower_unsupported(node, error, "indices");
    tn_status status = tn_window_parse(node, &window, error);
    if (status == TN_OK)
        status = tn_lower_input(plan, node->inputs[0], TN_LAYOUT_LAST, &src, error);
    if (status == TN_OK)
        status = tn_lower_output(plan, node, 0, TN_LAYOUT_LAST, &dst, error);
    if (status != TN_OK)
        return status;
    const tn_plan_value *x = &plan->values[src], *y = &plan->values[dst];
    tn_task task = {.verb = TN_VERB_POOL};
    tn_pool_task *t = &task.pool;
    t->spatial = window.spatial;
    t->max = strcmp(node->type, "MaxPool") == 0;
    t->count_include_pad = window.count_include_pad;
    t->batch = x->dims[0];
    t->channels = x->dims[1];
    for (int i = 0; i < window.spatial; i++) {
        t->in[i] = x->dims[2 + i];
        t->out[i] = y->dims[2 + i];
        t->kernel[i] = window.kernel[i];
        t->stride[i] = window.stride[i];
        t->dilation[i] = window.dilation[i];
        t->pad_begin[i] = window.pad_begin[i];
        t->pad_end[i] = window.pad_end[i];
    }
    return tn_lower_step(plan, node, &task, &src, 1, dst, NULL, 0, error);
}

tn_status tn_lower_global_pool(tn_plan *plan, const tn_node *node, tn_error *error)
{
    size_t src, dst;
    tn_status status = tn_lower_input(plan, node->inputs[0], TN_LAYOUT_LAST, &src, error);
    if (status == TN_OK)
        status = tn_lower_output(plan, node, 0, TN_LAYOUT_LAST, &dst, error);
    if (status != TN_OK)
        return status;
    const tn_plan_value *x = &plan->values[src];
    tn_task task = {.verb = TN_VERB_REDUCE};
    tn_reduce_task *t = &task.reduce;
    t->kind = strcmp(node->type, "GlobalMaxPool") == 0 ? TN_REDUCE_MAX : TN_REDUCE_MEAN;
    t->outer = x->dims[0];
    t->inner = x->rank > 1 ? x->dims[1] : 1;
    t->reduced = 1;
    for (int i = 2; i < x->rank; i++)
        t->reduced *= x->dims[i];
    return tn_lower_step(plan, node, &task, &src, 1, dst, NULL, 0, error);
}
