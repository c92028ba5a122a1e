/* BatchNormalization (opset 7, 9, 14, 15), one output. */
#include "network/lowering.h"

tn_status tn_lower_batch_norm(tn_plan *plan, const tn_node *node, tn_error *error)
{
    size_t src, dst, params[4];
    tn_task task = {.verb = TN_VERB_BATCH_NORM};
    for (size_t k = 1; k < node->n_outputs; k++)
        if (node->outputs[k] && (node->outputs[k]->n_users || node->outputs[k]->is_output))
            return tn_lower_unsupported(node, error, "its statistics as outputs");
    tn_status status = tn_node_float(node, "epsilon", 1e-5f, &task.batch_norm.epsilon, error);
    if (status == TN_OK)
        status = tn_lower_input(plan, node->inputs[0], TN_LAYOUT_LAST, &src, error);
    if (status != TN_OK)
        return status;
    int64_t channels = plan->values[src].rank > 1 ? plan->values[src].dims[1] : 1;
    for (size_t i = 0; i < 4 && status == TN_OK; i++)
        status = tn_lower_param(plan, node, i + 1, channels, &params[i], error);
    if (status == TN_OK)
        status = tn_lower_output(plan, node, 0, TN_LAYOUT_LAST, &dst, error);
    if (status != TN_OK)
        return status;
    const tn_plan_value *x = &plan->values[src];
    task.batch_norm.channels = channels;
    task.batch_norm.rows = x->count / channels;
    return tn_lower_step(plan, node, &task, &src, 1, dst, params, 4, error);
}
