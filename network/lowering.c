#include "network/lowering.h"

#include "core/memory.h"
#include "onnx_io/ops/op.h"

#include <stdio.h>
#include <string.h>

static const struct {
    const char *type;
    tn_lower *lower;
} table[] = {
    {"Conv", tn_lower_conv},
    {"Gemm", tn_lower_gemm},
    {"MatMul", tn_lower_matmul},
    {"BatchNormalization", tn_lower_batch_norm},
    {"MaxPool", tn_lower_pool},
    {"AveragePool", tn_lower_pool},
    {"GlobalAveragePool", tn_lower_global_pool},
    {"GlobalMaxPool", tn_lower_global_pool},
    {"Relu", tn_lower_unary},
    {"LeakyRelu", tn_lower_unary},
    {"Sigmoid", tn_lower_unary},
    {"HardSigmoid", tn_lower_unary},
    {"HardSwish", tn_lower_unary},
    {"Tanh", tn_lower_unary},
    {"Elu", tn_lower_unary},
    {"Softplus", tn_lower_unary},
    {"Exp", tn_lower_unary},
    {"Log", tn_lower_unary},
    {"Sqrt", tn_lower_unary},
    {"Abs", tn_lower_unary},
    {"Neg", tn_lower_unary},
    {"Reciprocal", tn_lower_unary},
    {"Erf", tn_lower_unary},
    {"Floor", tn_lower_unary},
    {"Ceil", tn_lower_unary},
    {"Round", tn_lower_unary},
    {"Clip", tn_lower_clip},
    {"Cast", tn_lower_cast},
    {"Add", tn_lower_binary},
    {"Sub", tn_lower_binary},
    {"Mul", tn_lower_binary},
    {"Div", tn_lower_binary},
    {"Pow", tn_lower_binary},
    {"PRelu", tn_lower_binary},
    {"Sum", tn_lower_sum},
    {"Max", tn_lower_sum},
    {"Min", tn_lower_sum},
    {"Concat", tn_lower_concat},
    {"Slice", tn_lower_slice},
    {"Split", tn_lower_split},
    {"Gather", tn_lower_gather},
    {"Pad", tn_lower_pad},
    {"Transpose", tn_lower_transpose},
    {"Reshape", tn_lower_reshape},
    {"Flatten", tn_lower_reshape},
    {"Squeeze", tn_lower_reshape},
    {"Unsqueeze", tn_lower_reshape},
    {"Identity", tn_lower_identity},
    {"Dropout", tn_lower_dropout},
    {"ReduceMean", tn_lower_reduce},
    {"ReduceSum", tn_lower_reduce},
    {"ReduceMax", tn_lower_reduce},
    {"Softmax", tn_lower_softmax},
    {"LogSoftmax", tn_lower_softmax},
    {"LRN", tn_lower_lrn},
    {"QuantizeLinear", tn_lower_quantize},
    {"DequantizeLinear", tn_lower_quantize},
};

tn_lower *tn_lowering_find(const tn_node *node)
{
    if (node->domain[0] && strcmp(node->domain, "ai.onnx") != 0)
        return NULL;
    for (size_t i = 0; i < sizeof(table) / sizeof(table[0]); i++)
        if (strcmp(table[i].type, node->type) == 0)
            return table[i].lower;
    return NULL;
}

tn_status tn_lower_unsupported(const tn_node *node, tn_error *error, const char *what)
{
    tn_status status =
        tn_fail(error, TN_ERROR_MODEL, "node %s: %s with %s is not supported on devices",
                tn_quote(tn_node_label(node)), node->type, what);
    tn_error_note_node(error, tn_node_label(node));
    return status;
}

static tn_status no_memory(tn_error *error)
{
    return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
}

/* --- values ---------------------------------------------------------------------------------- */

/* Of one value: what no machine has, so that sums over all values and workspaces cannot wrap. */
static const size_t most_bytes = (size_t)1 << 46;

static tn_status new_value(tn_plan *plan, size_t *index, tn_error *error)
{
    if (plan->n_values == plan->values_capacity) {
        size_t capacity = plan->values_capacity ? 2 * plan->values_capacity : 256;
        tn_plan_value *grown = tn_realloc(plan->values, capacity * sizeof(*grown));
        if (!grown)
            return no_memory(error);
        plan->values = grown;
        plan->values_capacity = capacity;
    }
    *index = plan->n_values++;
    tn_plan_value *v = &plan->values[*index];
    memset(v, 0, sizeof(*v));
    v->root = *index;
    v->param = TN_NONE;
    return TN_OK;
}

tn_status tn_lower_temporary(tn_plan *plan, int rank, const int64_t *dims, bool last, size_t *index,
                             tn_error *error)
{
    int64_t count;
    size_t bytes;
    if (!tn_dims_count(rank, dims, &count) || !tn_dtype_bytes(TN_FLOAT, (uint64_t)count, &bytes) ||
        bytes > most_bytes)
        return tn_fail(error, TN_ERROR_LIMIT, "a value is too large");
    if (count == 0)
        return tn_fail(error, TN_ERROR_MODEL,
                       "values without elements are not supported on devices");
    tn_status status = new_value(plan, index, error);
    if (status != TN_OK)
        return status;
    tn_plan_value *v = &plan->values[*index];
    v->rank = rank;
    memcpy(v->dims, dims, (size_t)rank * sizeof(int64_t));
    v->last = last && rank >= 3;
    v->count = count;
    return TN_OK;
}

tn_status tn_lower_alias(tn_plan *plan, size_t of, int rank, const int64_t *dims, bool last,
                         size_t *index, tn_error *error)
{
    tn_status status = tn_lower_temporary(plan, rank, dims, last, index, error);
    if (status == TN_OK)
        plan->values[*index].root = plan->values[of].root;
    return status;
}

static void map_value(tn_plan *plan, const tn_value *value, size_t index)
{
    tn_plan_value *v = &plan->values[index];
    v->value = value;
    (v->last ? plan->last : plan->plain)[value->index] = index;
}

static bool dims_known(const tn_value *value)
{
    int64_t count;
    return value->rank >= 0 && tn_dims_count(value->rank, value->dims, &count);
}

static tn_status unknown_shape(const tn_value *value, tn_error *error)
{
    return tn_fail(error, TN_ERROR_MODEL,
                   "the shape of %s is not known before the network runs: a plan needs it",
                   tn_quote(value->name));
}

tn_status tn_lower_output(tn_plan *plan, const tn_node *node, size_t k, tn_layout layout,
                          size_t *index, tn_error *error)
{
    const tn_value *value = node->outputs[k];
    if (!dims_known(value))
        return unknown_shape(value, error);
    tn_status status =
        tn_lower_temporary(plan, value->rank, value->dims, layout == TN_LAYOUT_LAST, index, error);
    if (status == TN_OK)
        map_value(plan, value, *index);
    return status;
}

tn_status tn_lower_view(tn_plan *plan, const tn_node *node, size_t k, size_t of, tn_error *error)
{
    const tn_value *value = node->outputs[k];
    size_t index;
    if (!dims_known(value))
        return unknown_shape(value, error);
    tn_status status =
        tn_lower_alias(plan, of, value->rank, value->dims, plan->values[of].last, &index, error);
    if (status != TN_OK)
        return status;
    if (plan->values[index].count != plan->values[of].count)
        return tn_fail(error, TN_ERROR_MODEL, "node %s: its input and output differ in size",
                       tn_quote(tn_node_label(node)));
    map_value(plan, value, index);
    return TN_OK;
}

/* Whether plain and channels-last are the same bytes. */
static bool layouts_agree(const tn_plan_value *v)
{
    int64_t space = 1;
    for (int i = 2; i < v->rank; i++)
        space *= v->dims[i];
    return v->rank < 3 || v->dims[1] == 1 || space == 1;
}

/* The same tensor in the other layout: a view or a transposition. */
static tn_status convert(tn_plan *plan, const tn_node *node, size_t from, size_t *index,
                         tn_error *error)
{
    tn_plan_value v = plan->values[from];
    if (layouts_agree(&v))
        return tn_lower_alias(plan, from, v.rank, v.dims, !v.last, index, error);
    tn_status status = tn_lower_temporary(plan, v.rank, v.dims, !v.last, index, error);
    if (status != TN_OK)
        return status;
    tn_task task = {.verb = TN_VERB_TRANSPOSE};
    task.transpose.src = tn_lower_extent(plan, from);
    for (int i = 0; i < v.rank; i++) {
        if (v.last)
            task.transpose.permutation[i] = i == 0 ? 0 : i == 1 ? v.rank - 1 : i - 1;
        else
            task.transpose.permutation[i] = i == 0 ? 0 : i == v.rank - 1 ? 1 : i + 1;
    }
    return tn_lower_step(plan, node, &task, &from, 1, *index, NULL, 0, error);
}

/* The value over a constant's parameter. */
static tn_status constant_value(tn_plan *plan, const tn_value *value, size_t *index,
                                tn_error *error)
{
    size_t param = tn_params_find(plan->params, value->name);
    if (param == TN_NONE)
        return tn_fail(error, TN_ERROR_MODEL, "constant %s cannot be read by a device",
                       tn_quote(value->name));
    const tn_param *p = tn_params_at(plan->params, param);
    tn_status status = tn_lower_temporary(plan, p->rank, p->dims, false, index, error);
    if (status != TN_OK)
        return status;
    plan->values[*index].param = param;
    map_value(plan, value, *index);
    return TN_OK;
}

tn_status tn_lower_input(tn_plan *plan, const tn_value *value, tn_layout layout, size_t *index,
                         tn_error *error)
{
    size_t plain = plan->plain[value->index], last = plan->last[value->index];
    tn_status status = TN_OK;
    if (plain == TN_NONE && last == TN_NONE) {
        if (!value->constant)
            return tn_fail(error, TN_ERROR_MODEL, "value %s is not computed by anything before it",
                           tn_quote(value->name));
        status = constant_value(plan, value, &plain, error);
        if (status != TN_OK)
            return status;
    }
    bool narrow = value->rank < 3;
    size_t have = plain == TN_NONE ? last : last == TN_NONE ? plain : plain < last ? plain : last;
    if (layout == TN_LAYOUT_ANY || (narrow && plain != TN_NONE)) {
        *index = have;
        return TN_OK;
    }
    size_t wanted = layout == TN_LAYOUT_LAST ? last : plain;
    if (wanted == TN_NONE) {
        status = convert(plan, value->producer, have, &wanted, error);
        if (status != TN_OK)
            return status;
        map_value(plan, value, wanted);
    }
    *index = wanted;
    return TN_OK;
}

tn_status tn_lower_operand(tn_plan *plan, const tn_value *value, int rank, tn_layout layout,
                           size_t *index, tn_error *error)
{
    int64_t dims[TN_MAX_RANK];
    size_t from = 0;
    if (value->rank == rank)
        return tn_lower_input(plan, value, layout, index, error);
    tn_status status = tn_lower_input(plan, value, TN_LAYOUT_PLAIN, &from, error);
    if (status != TN_OK)
        return status;
    int own = plan->values[from].rank;
    for (int i = 0; i < rank; i++)
        dims[i] = i < rank - own ? 1 : plan->values[from].dims[i - (rank - own)];
    status = tn_lower_alias(plan, from, rank, dims, false, index, error);
    if (status == TN_OK && layout == TN_LAYOUT_LAST && rank >= 3)
        status = convert(plan, value->producer, *index, index, error);
    return status;
}

tn_status tn_lower_param(tn_plan *plan, const tn_node *node, size_t input, int64_t count,
                         size_t *param, tn_error *error)
{
    const tn_value *value = node->inputs[input];
    size_t found = value->constant ? tn_params_find(plan->params, value->name) : TN_NONE;
    if (found == TN_NONE)
        return tn_lower_unsupported(node, error, "weights that are computed from its input");
    int64_t have = tn_params_at(plan->params, found)->count;
    if (have != count)
        return tn_fail(error, TN_ERROR_MODEL, "node %s: input %zu (%s) has %lld elements, not %lld",
                       tn_quote(tn_node_label(node)), input, tn_quote(value->name), (long long)have,
                       (long long)count);
    *param = found;
    return TN_OK;
}

tn_extent tn_lower_extent(const tn_plan *plan, size_t value)
{
    const tn_plan_value *v = &plan->values[value];
    tn_extent extent = {.rank = v->rank};
    for (int i = 0; i < v->rank; i++)
        extent.dims[tn_lower_axis(plan, value, i)] = v->dims[i];
    return extent;
}

int tn_lower_axis(const tn_plan *plan, size_t value, int axis)
{
    const tn_plan_value *v = &plan->values[value];
    if (!v->last || axis == 0)
        return axis;
    return axis == 1 ? v->rank - 1 : axis - 1;
}

/* --- steps ----------------------------------------------------------------------------------- */

tn_status tn_lower_step(tn_plan *plan, const tn_node *node, const tn_task *task, const size_t *src,
                        int n_src, size_t dst, const size_t *params, int n_params, tn_error *error)
{
    if (plan->n_steps == plan->steps_capacity) {
        size_t capacity = plan->steps_capacity ? 2 * plan->steps_capacity : 128;
        tn_plan_node *grown = tn_realloc(plan->steps, capacity * sizeof(*grown));
        if (!grown)
            return no_memory(error);
        plan->steps = grown;
        plan->steps_capacity = capacity;
    }
    tn_plan_node *step = &plan->steps[plan->n_steps];
    memset(step, 0, sizeof(*step));
    step->task = *task;
    step->task.precision = plan->precision;
    step->task.backward = plan->options.training;
    step->node = node;
    step->dst = dst;
    step->n_src = n_src;
    step->n_params = n_params;
    step->src = tn_arena_array(&plan->arena, (size_t)n_src + 1, sizeof(size_t));
    if (!step->src)
        return no_memory(error);
    memcpy(step->src, src, (size_t)n_src * sizeof(size_t));
    if (n_params)
        memcpy(step->params, params, (size_t)n_params * sizeof(size_t));
    if (node && node->op && node->op->flops) {
        int64_t flops = node->op->flops(node);
        step->flops = flops > 0 ? flops : 0;
    }
    plan->n_steps++;
    return TN_OK;
}

/* --- the whole graph ------------------------------------------------------------------------- */

static bool wanted(const tn_plan *plan, const tn_value *value)
{
    if (value->is_output)
        return true;
    for (size_t i = 0; i < plan->options.n_taps; i++)
        if (strcmp(plan->options.taps[i], value->name) == 0)
            return true;
    return false;
}

/* Marks the nodes that wanted values need. */
static void mark_needed(const tn_plan *plan, bool *needed)
{
    const tn_graph *graph = plan->graph;
    for (size_t i = graph->n_nodes; i-- > 0;) {
        const tn_node *node = graph->nodes[i];
        for (size_t k = 0; k < node->n_outputs && !needed[i]; k++) {
            const tn_value *out = node->outputs[k];
            needed[i] = out && wanted(plan, out);
            for (size_t u = 0; out && u < out->n_users && !needed[i]; u++)
                needed[i] = needed[out->users[u]->index] && !out->users[u]->folded;
        }
        if (node->folded)
            needed[i] = false;
    }
}

/* All unsupported operators in one error. */
static tn_status check_supported(const tn_plan *plan, const bool *needed, tn_error *error)
{
    char list[1200] = "";
    size_t used = 0, count = 0;
    for (size_t i = 0; i < plan->graph->n_nodes; i++) {
        const tn_node *node = plan->graph->nodes[i];
        if (!needed[i] || tn_lowering_find(node))
            continue;
        if (used + 160 < sizeof(list))
            used += (size_t)snprintf(list + used, sizeof(list) - used, "%snode %.60s: %.40s%s%.40s",
                                     count ? "; " : "", tn_quote(tn_node_label(node)), node->domain,
                                     node->domain[0] ? "." : "", node->type);
        count++;
    }
    if (count == 0)
        return TN_OK;
    return tn_fail(error, TN_ERROR_MODEL, "%zu operator%s not supported on devices: %s; a conversion without images needs "
                   "no device",
                   count, count == 1 ? " is" : "s are", list);
}

static tn_status lower_inputs(tn_plan *plan, tn_error *error)
{
    for (size_t i = 0; i < plan->graph->n_inputs; i++) {
        const tn_value *value = plan->graph->inputs[i];
        size_t index;
        if (!dims_known(value))
            return unknown_shape(value, error);
        tn_status status =
            tn_lower_temporary(plan, value->rank, value->dims, value->rank >= 3, &index, error);
        if (status != TN_OK)
            return status;
        map_value(plan, value, index);
        plan->values[index].keep = true;
    }
    return TN_OK;
}

/* Lowerings rely on required operands, and on all of those that take any number. */
static tn_status check_operands(const tn_node *node, tn_error *error)
{
    bool any_number = node->op && node->op->max_inputs > 16;
    size_t required = node->op ? (size_t)node->op->min_inputs : 1;
    bool present = node->op && node->n_inputs >= required && node->n_outputs && node->outputs[0];
    for (size_t i = 0; i < node->n_inputs && present; i++)
        present = node->inputs[i] || (i >= required && !any_number);
    return present ? TN_OK
                   : tn_lower_unsupported(node, error, "an operand left out, or in this opset");
}

static tn_status lower_nodes(tn_plan *plan, const bool *needed, tn_error *error)
{
    for (size_t i = 0; i < plan->graph->n_nodes; i++) {
        const tn_node *node = plan->graph->nodes[i];
        size_t first = plan->n_steps;
        if (!needed[i])
            continue;
        tn_status status = check_operands(node, error);
        if (status == TN_OK)
            status = tn_lowering_find(node)(plan, node, error);
        if (status != TN_OK) {
            tn_error_note_node(error, tn_node_label(node));
            return status;
        }
        for (size_t k = 1; k < node->n_outputs; k++)
            if (node->outputs[k] && node->outputs[k]->n_users &&
                plan->plain[node->outputs[k]->index] == TN_NONE &&
                plan->last[node->outputs[k]->index] == TN_NONE)
                return tn_lower_unsupported(node, error, "more than one output");
        if (plan->n_steps > first)
            plan->step_of_node[i] = plan->n_steps - 1;
        for (size_t s = first + 1; s < plan->n_steps; s++)
            plan->steps[s - 1].flops = 0; /* counted once */
    }
    return TN_OK;
}

/* Outputs that are inputs or constants have no value yet. */
static tn_status mark_kept(tn_plan *plan, tn_error *error)
{
    for (size_t i = 0; i < plan->graph->n_values; i++) {
        const tn_value *value = plan->graph->values[i];
        size_t index;
        if (!wanted(plan, value))
            continue;
        if (plan->plain[i] == TN_NONE && plan->last[i] == TN_NONE && !value->constant)
            continue;
        tn_status status = tn_lower_input(plan, value, TN_LAYOUT_ANY, &index, error);
        if (status != TN_OK)
            return status;
        plan->values[plan->values[index].root].keep = true;
        plan->values[index].keep = true;
    }
    return TN_OK;
}

tn_status tn_plan_lower(tn_plan *plan, tn_error *error)
{
    const tn_graph *graph = plan->graph;
    bool *needed = tn_arena_array(&plan->arena, graph->n_nodes + 1, sizeof(bool));
    plan->plain = tn_arena_array(&plan->arena, graph->n_values + 1, sizeof(size_t));
    plan->last = tn_arena_array(&plan->arena, graph->n_values + 1, sizeof(size_t));
    plan->step_of_node = tn_arena_array(&plan->arena, graph->n_nodes + 1, sizeof(size_t));
    if (!needed || !plan->plain || !plan->last || !plan->step_of_node)
        return no_memory(error);
    for (size_t i = 0; i < graph->n_values; i++)
        plan->plain[i] = plan->last[i] = TN_NONE;
    for (size_t i = 0; i < graph->n_nodes; i++)
        plan->step_of_node[i] = TN_NONE;
    mark_needed(plan, needed);
    tn_status status = check_supported(plan, needed, error);
    if (status == TN_OK)
        status = lower_inputs(plan, error);
    if (status == TN_OK)
        status = lower_nodes(plan, needed, error);
    if (status == TN_OK)
        status = mark_kept(plan, error);
    return status;
}
