/* Concat, Slice, Split, Gather, Pad. */
#include "core/checked.h"
#include "network/lowering.h"

#include <string.h>

static tn_layout layout_of(const tn_plan *plan, size_t value)
{
    return plan->values[value].last ? TN_LAYOUT_LAST : TN_LAYOUT_PLAIN;
}

tn_status tn_lower_concat(tn_plan *plan, const tn_node *node, tn_error *error)
{
    size_t dst, n = node->n_inputs;
    int64_t axis_value;
    int axis, rank = node->outputs[0]->rank;
    tn_layout layout = TN_LAYOUT_PLAIN;
    size_t *src = tn_arena_array(&plan->arena, n, sizeof(size_t));
    int64_t *inner = tn_arena_array(&plan->arena, n, sizeof(int64_t));
    if (!src || !inner)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    for (size_t i = 0; i < n; i++)
        if (rank >= 3 && plan->last[node->inputs[i]->index] != TN_NONE)
            layout = TN_LAYOUT_LAST;
    tn_status status = tn_node_int(node, "axis", 1, &axis_value, error);
    if (status == TN_OK)
        status = tn_lower_resolve(node, axis_value, rank, &axis, error);
    for (size_t i = 0; i < n && status == TN_OK; i++)
        status = tn_lower_input(plan, node->inputs[i], layout, &src[i], error);
    if (status == TN_OK)
        status = tn_lower_output(plan, node, 0, layout, &dst, error);
    if (status != TN_OK)
        return status;
    tn_task task = {.verb = TN_VERB_CONCAT};
    task.concat = (tn_concat_task){(int)n, 1, inner};
    int at = tn_lower_axis(plan, dst, axis);
    tn_extent extent = tn_lower_extent(plan, dst);
    for (int i = 0; i < at; i++)
        task.concat.outer *= extent.dims[i];
    int64_t total = 0;
    for (size_t i = 0; i < n; i++)
        inner[i] = task.concat.outer ? plan->values[src[i]].count / task.concat.outer : 0;
    for (size_t i = 0; i < n; i++)
        total += inner[i] * task.concat.outer;
    if (total != plan->values[dst].count)
        return tn_fail(error, TN_ERROR_MODEL, "node %s: its inputs do not make up its output",
                       tn_quote(tn_node_label(node)));
    return tn_lower_step(plan, node, &task, src, (int)n, dst, NULL, 0, error);
}

static int64_t clamp(int64_t x, int64_t low, int64_t high)
{
    return x < low ? low : x > high ? high : x;
}

/* From the first element of every axis on, each one. */
static tn_task whole_slice(const tn_plan *plan, size_t src, size_t dst)
{
    tn_task task = {.verb = TN_VERB_SLICE};
    task.slice.src = tn_lower_extent(plan, src);
    task.slice.dst = tn_lower_extent(plan, dst);
    for (int i = 0; i < task.slice.src.rank; i++)
        task.slice.step[i] = 1;
    return task;
}

tn_status tn_lower_slice(tn_plan *plan, const tn_node *node, tn_error *error)
{
    enum { ROOM = 2 * TN_MAX_RANK };
    int64_t starts[ROOM], axes[ROOM], steps[ROOM];
    int n, n_axes, n_steps;
    bool has_starts, has_axes, has_steps;
    size_t src, dst;
    tn_status status = tn_lower_ints(node, 1, "starts", starts, &n, &has_starts, error);
    if (status == TN_OK)
        status = tn_lower_ints(node, 3, "axes", axes, &n_axes, &has_axes, error);
    if (status == TN_OK)
        status = tn_lower_ints(node, 4, "steps", steps, &n_steps, &has_steps, error);
    if (status == TN_OK)
        status = tn_lower_input(plan, node->inputs[0], TN_LAYOUT_ANY, &src, error);
    if (status == TN_OK)
        status = tn_lower_output(plan, node, 0, layout_of(plan, src), &dst, error);
    if (status != TN_OK)
        return status;
    tn_task task = whole_slice(plan, src, dst);
    for (int i = 0; i < n; i++) {
        int axis;
        status =
            tn_lower_resolve(node, has_axes ? axes[i] : i, plan->values[src].rank, &axis, error);
        if (status != TN_OK)
            return status;
        int64_t size = plan->values[src].dims[axis], step = has_steps ? steps[i] : 1;
        int64_t start = starts[i] < 0 ? starts[i] + size : starts[i];
        int at = tn_lower_axis(plan, src, axis);
        task.slice.step[at] = step;
        task.slice.start[at] = step > 0 ? clamp(start, 0, size) : clamp(start, 0, size - 1);
    }
    for (int i = 0; i < task.slice.src.rank; i++) { /* what is read lies inside */
        int64_t span = 0, end;
        if (!tn_checked_mul_i64(task.slice.dst.dims[i] - 1, task.slice.step[i], &span))
            span = INT64_MAX;
        if (__builtin_add_overflow(task.slice.start[i], span, &end) || task.slice.start[i] < 0 ||
            task.slice.start[i] >= task.slice.src.dims[i] || end < 0 ||
            end >= task.slice.src.dims[i])
            return tn_fail(error, TN_ERROR_MODEL, "node %s: its slice leaves its input",
                           tn_quote(tn_node_label(node)));
    }
    return tn_lower_step(plan, node, &task, &src, 1, dst, NULL, 0, error);
}

/* One slice for each part. */
tn_status tn_lower_split(tn_plan *plan, const tn_node *node, tn_error *error)
{
    int64_t axis_value, start = 0;
    int axis;
    size_t src;
    tn_status status = tn_node_int(node, "axis", 0, &axis_value, error);
    if (status == TN_OK)
        status = tn_lower_input(plan, node->inputs[0], TN_LAYOUT_ANY, &src, error);
    if (status == TN_OK)
        status = tn_lower_resolve(node, axis_value, plan->values[src].rank, &axis, error);
    for (size_t k = 0; status == TN_OK && k < node->n_outputs; k++) {
        size_t dst;
        if (!node->outputs[k])
            return tn_lower_unsupported(node, error, "a part without a name");
        status = tn_lower_output(plan, node, k, layout_of(plan, src), &dst, error);
        if (status != TN_OK)
            break;
        tn_task task = whole_slice(plan, src, dst);
        task.slice.start[tn_lower_axis(plan, src, axis)] = start;
        start += plan->values[dst].dims[axis];
        status = tn_lower_step(plan, node, &task, &src, 1, dst, NULL, 0, error);
    }
    if (status == TN_OK && start != plan->values[src].dims[axis])
        return tn_fail(error, TN_ERROR_MODEL, "node %s: its outputs do not make up its input",
                       tn_quote(tn_node_label(node)));
    return status;
}

/* First and step of the indices, which must be constant and evenly spaced: a slice in that case. */
static tn_status read_spacing(const tn_node *node, tn_plan *plan, int64_t size, int64_t *n,
                              int64_t *first, int64_t *step, tn_error *error)
{
    const tn_tensor *indices = node->inputs[1]->constant;
    if (!indices)
        return tn_lower_unsupported(node, error, "indices that are computed from its input");
    int64_t count = tn_tensor_count(indices);
    int64_t *list = tn_arena_array(&plan->arena, (size_t)count + 1, sizeof *list);
    if (!list)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    tn_status status = tn_tensor_read_int64(indices, 0, count, list, error);
    for (int64_t i = 0; status == TN_OK && i < count; i++) {
        if (list[i] < -size || list[i] >= size)
            status = tn_fail(error, TN_ERROR_MODEL, "node %s: index %lld of an axis of %lld",
                             tn_quote(tn_node_label(node)), (long long)list[i], (long long)size);
        else if (list[i] < 0)
            list[i] += size;
    }
    if (status != TN_OK)
        return status;
    *n = count;
    *first = count > 0 ? list[0] : 0;
    *step = count > 1 ? list[1] - list[0] : 1;
    for (int64_t i = 1; i < count; i++)
        if (*step == 0 || list[i] - list[i - 1] != *step)
            return tn_lower_unsupported(node, error, "indices that are not evenly spaced");
    return TN_OK;
}

/* A slice, and where the indices are no list, a view of it. */
tn_status tn_lower_gather(tn_plan *plan, const tn_node *node, tn_error *error)
{
    int64_t axis_value, n = 0, first = 0, step = 1;
    int axis;
    size_t src, dst;
    bool same_rank = node->inputs[1]->rank == 1;
    tn_status status = tn_node_int(node, "axis", 0, &axis_value, error);
    if (status == TN_OK)
        status = tn_lower_input(plan, node->inputs[0], same_rank ? TN_LAYOUT_ANY : TN_LAYOUT_PLAIN,
                                &src, error);
    if (status == TN_OK)
        status = tn_lower_resolve(node, axis_value, plan->values[src].rank, &axis, error);
    if (status == TN_OK)
        status = read_spacing(node, plan, plan->values[src].dims[axis], &n, &first, &step, error);
    if (status != TN_OK)
        return status;
    if (same_rank) {
        status = tn_lower_output(plan, node, 0, layout_of(plan, src), &dst, error);
    } else {
        int64_t dims[TN_MAX_RANK];
        int rank = plan->values[src].rank;
        memcpy(dims, plan->values[src].dims, (size_t)rank * sizeof *dims);
        dims[axis] = n;
        status = tn_lower_temporary(plan, rank, dims, false, &dst, error);
    }
    if (status != TN_OK)
        return status;
    tn_task task = whole_slice(plan, src, dst);
    task.slice.start[tn_lower_axis(plan, src, axis)] = first;
    task.slice.step[tn_lower_axis(plan, src, axis)] = step;
    status = tn_lower_step(plan, node, &task, &src, 1, dst, NULL, 0, error);
    return status == TN_OK && !same_rank ? tn_lower_view(plan, node, 0, dst, error) : status;
}

static tn_status pad_mode(const tn_node *node, tn_pad_mode *mode, tn_error *error)
{
    char name[16];
    tn_status status = tn_node_string(node, "mode", "constant", name, sizeof(name), error);
    if (status != TN_OK)
        return status;
    if (strcmp(name, "constant") == 0)
        *mode = TN_PAD_CONSTANT;
    else if (strcmp(name, "reflect") == 0)
        *mode = TN_PAD_REFLECT;
    else if (strcmp(name, "edge") == 0)
        *mode = TN_PAD_EDGE;
    else
        return tn_lower_unsupported(node, error, "this mode");
    return TN_OK;
}

tn_status tn_lower_pad(tn_plan *plan, const tn_node *node, tn_error *error)
{
    int64_t pads[2 * TN_MAX_RANK], axes[2 * TN_MAX_RANK];
    int n, n_axes;
    bool has_pads, has_axes;
    size_t src, dst;
    tn_task task = {.verb = TN_VERB_PAD};
    tn_status status = tn_lower_ints(node, 1, "pads", pads, &n, &has_pads, error);
    if (status == TN_OK)
        status = tn_lower_ints(node, 3, "axes", axes, &n_axes, &has_axes, error);
    if (status == TN_OK)
        status = pad_mode(node, &task.pad.mode, error);
    if (status == TN_OK)
        status = tn_lower_scalar(node, 2, "value", 0.0f, &task.pad.value, error);
    if (status == TN_OK)
        status = tn_lower_input(plan, node->inputs[0], TN_LAYOUT_ANY, &src, error);
    if (status == TN_OK)
        status = tn_lower_output(plan, node, 0, layout_of(plan, src), &dst, error);
    if (status != TN_OK)
        return status;
    task.pad.src = tn_lower_extent(plan, src);
    task.pad.dst = tn_lower_extent(plan, dst);
    for (int i = 0; i < n / 2; i++) {
        int axis;
        status =
            tn_lower_resolve(node, has_axes ? axes[i] : i, plan->values[src].rank, &axis, error);
        if (status != TN_OK)
            return status;
        task.pad.begin[tn_lower_axis(plan, src, axis)] = pads[i];
    }
    return tn_lower_step(plan, node, &task, &src, 1, dst, NULL, 0, error);
}
