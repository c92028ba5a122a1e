/* ReduceMean, ReduceSum, ReduceMax; Softmax, LogSoftmax. */
#include "network/lowering.h"

#include <string.h>

/* Marks the reduced axes of the model. */
static tn_status reduced_axes(const tn_node *node, int rank, bool *reduced, tn_error *error)
{
    int64_t axes[2 * TN_MAX_RANK], keep_all;
    int n, axis;
    bool present;
    memset(reduced, 0, TN_MAX_RANK * sizeof(bool));
    tn_status status = tn_lower_ints(node, 1, "axes", axes, &n, &present, error);
    if (status == TN_OK)
        status = tn_node_int(node, "noop_with_empty_axes", 0, &keep_all, error);
    for (int i = 0; i < n && status == TN_OK; i++) {
        status = tn_lower_resolve(node, axes[i], rank, &axis, error);
        if (status == TN_OK)
            reduced[axis] = true;
    }
    if (status == TN_OK && n == 0 && !keep_all)
        for (int i = 0; i < rank; i++)
            reduced[i] = true;
    return status;
}

/* One step that reduces the physical axes [first, last) of `from`; dims become 1. */
static tn_status reduce_run(tn_plan *plan, const tn_node *node, size_t from, int first, int last,
                            size_t *to, tn_error *error)
{
    tn_task task = {.verb = TN_VERB_REDUCE};
    tn_extent extent = tn_lower_extent(plan, from);
    int64_t dims[TN_MAX_RANK];
    task.reduce = (tn_reduce_task){strcmp(node->type, "ReduceMean") == 0  ? TN_REDUCE_MEAN
                                   : strcmp(node->type, "ReduceSum") == 0 ? TN_REDUCE_SUM
                                                                          : TN_REDUCE_MAX,
                                   1, 1, 1};
    for (int i = 0; i < extent.rank; i++) {
        int at = tn_lower_axis(plan, from, i);
        int64_t *part = at < first  ? &task.reduce.outer
                        : at < last ? &task.reduce.reduced
                                    : &task.reduce.inner;
        *part *= extent.dims[at];
        dims[i] = at >= first && at < last ? 1 : extent.dims[at];
    }
    tn_status status =
        tn_lower_temporary(plan, extent.rank, dims, plan->values[from].last, to, error);
    return status == TN_OK ? tn_lower_step(plan, node, &task, &from, 1, *to, NULL, 0, error)
                           : status;
}

tn_status tn_lower_reduce(tn_plan *plan, const tn_node *node, tn_error *error)
{
    bool reduced[TN_MAX_RANK], physical[TN_MAX_RANK] = {false};
    size_t at;
    int rank = node->inputs[0]->rank;
    tn_status status = reduced_axes(node, rank, reduced, error);
    if (status == TN_OK)
        status = tn_lower_input(plan, node->inputs[0], reduced[0] ? TN_LAYOUT_PLAIN : TN_LAYOUT_ANY,
                                &at, error);
    if (status != TN_OK)
        return status;
    for (int i = 0; i < rank; i++)
        physical[tn_lower_axis(plan, at, i)] = reduced[i];
    for (int last = rank; last > 0 && status == TN_OK; last--) {
        int first = last;
        while (first > 0 && physical[first - 1])
            first--;
        if (first < last)
            status = reduce_run(plan, node, at, first, last, &at, error);
        last = first < last ? first + 1 : last;
    }
    if (status != TN_OK)
        return status;
    const tn_value *out = node->outputs[0];
    bool last = plan->values[at].last;
    if (out->rank < rank) /* without the axes what lies channels-last may lie plain */
        last = last && !reduced[1] && out->rank >= 3;
    size_t view;
    status = tn_lower_alias(plan, at, out->rank, out->dims, last, &view, error);
    return status == TN_OK ? tn_lower_view(plan, node, 0, view, error) : status;
}

/* Opset 13 on: one axis; before: all axes from `axis` on together. */
tn_status tn_lower_softmax(tn_plan *plan, const tn_node *node, tn_error *error)
{
    bool old = node->model->opset < 13;
    int64_t axis_value;
    int axis;
    size_t src, dst;
    tn_task task = {.verb = TN_VERB_SOFTMAX};
    tn_status status = tn_node_int(node, "axis", old ? 1 : -1, &axis_value, error);
    if (status == TN_OK)
        status = tn_lower_resolve(node, axis_value, node->inputs[0]->rank, &axis, error);
    if (status == TN_OK)
        status = tn_lower_input(plan, node->inputs[0], old ? TN_LAYOUT_PLAIN : TN_LAYOUT_ANY, &src,
                                error);
    if (status == TN_OK)
        status = tn_lower_output(
            plan, node, 0, plan->values[src].last ? TN_LAYOUT_LAST : TN_LAYOUT_PLAIN, &dst, error);
    if (status != TN_OK)
        return status;
    tn_extent extent = tn_lower_extent(plan, src);
    int at = tn_lower_axis(plan, src, axis);
    task.softmax = (tn_softmax_task){1, 1, 1, strcmp(node->type, "LogSoftmax") == 0};
    for (int i = 0; i < extent.rank; i++) {
        int64_t *part = i < at           ? &task.softmax.outer
                        : i == at || old ? &task.softmax.axis
                                         : &task.softmax.inner;
        *part *= extent.dims[i];
    }
    return tn_lower_step(plan, node, &task, &src, 1, dst, NULL, 0, error);
}
