/* Elementwise functions of two operands with broadcasting, and Sum, Max, Min of many. */
#include "network/lowering.h"

#include <string.h>

static const struct {
    const char *type;
    tn_binary_kind kind;
} kinds[] = {
    {"Add", TN_BINARY_ADD}, {"Sub", TN_BINARY_SUB}, {"Mul", TN_BINARY_MUL},
    {"Div", TN_BINARY_DIV}, {"Pow", TN_BINARY_POW}, {"PRelu", TN_BINARY_PRELU},
    {"Sum", TN_BINARY_ADD}, {"Max", TN_BINARY_MAX}, {"Min", TN_BINARY_MIN},
};

static tn_binary_kind kind_of(const tn_node *node)
{
    size_t i = 0;
    while (strcmp(kinds[i].type, node->type) != 0)
        i++;
    return kinds[i].kind;
}

/* Channels-last as soon as one operand of the result's rank lies so. */
static tn_layout choose_layout(const tn_plan *plan, const tn_node *node, int rank)
{
    for (size_t i = 0; i < node->n_inputs; i++) {
        const tn_value *value = node->inputs[i];
        if (value->rank == rank && plan->last[value->index] != TN_NONE)
            return TN_LAYOUT_LAST;
    }
    return TN_LAYOUT_PLAIN;
}

static tn_status add_step(tn_plan *plan, const tn_node *node, const size_t src[2], size_t dst,
                          tn_error *error)
{
    tn_task task = {.verb = TN_VERB_BINARY};
    task.binary.kind = kind_of(node);
    task.binary.a = tn_lower_extent(plan, src[0]);
    task.binary.b = tn_lower_extent(plan, src[1]);
    task.binary.dst = tn_lower_extent(plan, dst);
    for (int i = 0; i < task.binary.dst.rank; i++) {
        int64_t d = task.binary.dst.dims[i], a = task.binary.a.dims[i], b = task.binary.b.dims[i];
        if ((a != d && a != 1) || (b != d && b != 1))
            return tn_fail(error, TN_ERROR_MODEL, "node %s: its operands do not broadcast",
                           tn_quote(tn_node_label(node)));
    }
    return tn_lower_step(plan, node, &task, src, 2, dst, NULL, 0, error);
}

tn_status tn_lower_binary(tn_plan *plan, const tn_node *node, tn_error *error)
{
    size_t src[2], dst;
    int rank = node->outputs[0]->rank;
    tn_layout layout = choose_layout(plan, node, rank);
    tn_status status = tn_lower_operand(plan, node->inputs[0], rank, layout, &src[0], error);
    if (status == TN_OK)
        status = tn_lower_operand(plan, node->inputs[1], rank, layout, &src[1], error);
    if (status == TN_OK)
        status = tn_lower_output(plan, node, 0, layout, &dst, error);
    return status == TN_OK ? add_step(plan, node, src, dst, error) : status;
}

tn_status tn_lower_sum(tn_plan *plan, const tn_node *node, tn_error *error)
{
    size_t src[2], dst;
    const tn_value *out = node->outputs[0];
    tn_layout layout = choose_layout(plan, node, out->rank);
    if (node->n_inputs == 1)
        return tn_lower_identity(plan, node, error);
    tn_status status = tn_lower_operand(plan, node->inputs[0], out->rank, layout, &src[0], error);
    for (size_t i = 1; i < node->n_inputs && status == TN_OK; i++) {
        status = tn_lower_operand(plan, node->inputs[i], out->rank, layout, &src[1], error);
        if (status != TN_OK)
            break;
        if (i + 1 == node->n_inputs) {
            status = tn_lower_output(plan, node, 0, layout, &dst, error);
        } else { /* what the operands so far broadcast to */
            int64_t dims[TN_MAX_RANK];
            for (int d = 0; d < out->rank; d++) {
                int64_t a = plan->values[src[0]].dims[d], b = plan->values[src[1]].dims[d];
                dims[d] = a == 1 ? b : a;
            }
            status =
                tn_lower_temporary(plan, out->rank, dims, layout == TN_LAYOUT_LAST, &dst, error);
        }
        if (status == TN_OK)
            status = add_step(plan, node, src, dst, error);
        src[0] = dst;
    }
    return status;
}
