/* Reshape, Flatten, Squeeze, Unsqueeze: views of the plain layout; Transpose: a view where only
 * axes of size 1 move. */
#include "network/lowering.h"

#include <string.h>

tn_status tn_lower_reshape(tn_plan *plan, const tn_node *node, tn_error *error)
{
    size_t src;
    tn_status status = tn_lower_input(plan, node->inputs[0], TN_LAYOUT_PLAIN, &src, error);
    return status == TN_OK ? tn_lower_view(plan, node, 0, src, error) : status;
}

static bool moves_nothing(const tn_transpose_task *t)
{
    int before = -1;
    for (int i = 0; i < t->src.rank; i++) {
        if (t->src.dims[t->permutation[i]] == 1)
            continue;
        if (t->permutation[i] < before)
            return false;
        before = t->permutation[i];
    }
    return true;
}

tn_status tn_lower_transpose(tn_plan *plan, const tn_node *node, tn_error *error)
{
    const int64_t *perm;
    size_t n, src, dst;
    tn_task task = {.verb = TN_VERB_TRANSPOSE};
    tn_status status = tn_node_ints(node, "perm", &perm, &n, error);
    if (status == TN_OK)
        status = tn_lower_input(plan, node->inputs[0], TN_LAYOUT_ANY, &src, error);
    if (status != TN_OK)
        return status;
    int rank = plan->values[src].rank;
    task.transpose.src = tn_lower_extent(plan, src);
    for (int i = 0; i < rank; i++) {
        int axis;
        status = tn_lower_resolve(node, perm ? perm[i] : rank - 1 - i, rank, &axis, error);
        if (status != TN_OK)
            return status;
        task.transpose.permutation[i] = tn_lower_axis(plan, src, axis);
    }
    if (moves_nothing(&task.transpose)) {
        size_t plain;
        status = tn_lower_alias(plan, src, node->outputs[0]->rank, node->outputs[0]->dims, false,
                                &plain, error);
        return status == TN_OK ? tn_lower_view(plan, node, 0, plain, error) : status;
    }
    status = tn_lower_output(plan, node, 0, TN_LAYOUT_PLAIN, &dst, error);
    return status == TN_OK ? tn_lower_step(plan, node, &task, &src, 1, dst, NULL, 0, error)
                           : status;
}
