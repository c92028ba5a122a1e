/* LRN (opset 1, 13). */
#include "network/lowering.h"

tn_status tn_lower_lrn(tn_plan *plan, const tn_node *node, tn_error *error)
{
    size_t src, dst;
    tn_task task = {.verb = TN_VERB_LRN};
    tn_lrn_task *t = &task.lrn;
    tn_status status = tn_node_int(node, "size", 0, &t->size, error);
    if (status == TN_OK && t->size < 1)
        return tn_fail(error, TN_ERROR_MODEL, "node %s: LRN needs a size of at least 1",
                       tn_quote(tn_node_label(node)));
    if (status == TN_OK)
        status = tn_node_float(node, "alpha", 0.0001f, &t->alpha, error);
    if (status == TN_OK)
        status = tn_node_float(node, "beta", 0.75f, &t->beta, error);
    if (status == TN_OK)
        status = tn_node_float(node, "bias", 1.0f, &t->bias, error);
    if (status == TN_OK)
        status = tn_lower_input(plan, node->inputs[0], TN_LAYOUT_LAST, &src, error);
    if (status == TN_OK)
        status = tn_lower_output(plan, node, 0, TN_LAYOUT_LAST, &dst, error);
    if (status != TN_OK)
        return status;
    t->channels = plan->values[src].dims[1];
    t->rows = t->channels ? plan->values[src].count / t->channels : 0;
    return tn_lower_step(plan, node, &task, &src, 1, dst, NULL, 0, error);
}
