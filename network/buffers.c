/* Buffers of a plan: saving a run between two steps, and resuming it there. */
#include "network/lowering.h"

static tn_plan_buffer buffer_at(const tn_plan *plan, size_t value)
{
    const tn_plan_value *v = &plan->values[value];
    return (tn_plan_buffer){v->root, v->data, v->count, tn_plan_value_bytes(v), v->last};
}

static bool holds_activations(const tn_plan *plan, size_t value)
{
    return plan->values[value].root != TN_NONE &&
           plan->values[plan->values[value].root].param == TN_NONE;
}

size_t tn_plan_buffer_count(const tn_plan *plan)
{
    return plan->n_values;
}

bool tn_plan_value_buffer(const tn_plan *plan, const char *value, tn_plan_buffer *buffer)
{
    size_t index = 0;
    if (tn_plan_find_value(plan, value, &index, NULL) != TN_OK || !plan->values[index].data ||
        !holds_activations(plan, index))
        return false;
    *buffer = buffer_at(plan, index);
    return true;
}

bool tn_plan_step_buffer(const tn_plan *plan, size_t step, int source, tn_plan_buffer *buffer)
{
    const tn_plan_node *s = &plan->steps[step];
    if (source >= s->n_src)
        return false;
    size_t value = source < 0 ? s->dst : s->src[source];
    if (!holds_activations(plan, value))
        return false;
    *buffer = buffer_at(plan, value);
    return true;
}

bool tn_plan_step_reads(const tn_plan *plan, size_t step, const bool *marked)
{
    const tn_plan_node *s = &plan->steps[step];
    for (int i = 0; i < s->n_src; i++)
        if (holds_activations(plan, s->src[i]) && marked[plan->values[s->src[i]].root])
            return true;
    return false;
}

tn_status tn_plan_find_spans(tn_plan *plan, tn_error *error)
{
    plan->spans = tn_arena_array(&plan->arena, plan->n_values + 1, sizeof *plan->spans);
    if (!plan->spans)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    for (size_t s = 0; s < plan->n_steps; s++) {
        const tn_plan_node *step = &plan->steps[s];
        for (int k = 0; k < step->n_src; k++)
            plan->spans[plan->values[step->src[k]].root].read_before = s + 1;
        tn_plan_span *span = &plan->spans[plan->values[step->dst].root];
        span->first_write = span->written ? span->first_write : s;
        span->written = true;
    }
    for (size_t i = 0; i < plan->n_values; i++) /* outputs stay */
        if (plan->values[i].root != TN_NONE && plan->values[i].keep)
            plan->spans[plan->values[i].root].kept = true;
    return TN_OK;
}

size_t tn_plan_live(const tn_plan *plan, size_t step, tn_plan_buffer *buffers)
{
    size_t n = 0;
    for (size_t i = 0; i < plan->n_values; i++) {
        const tn_plan_value *v = &plan->values[i];
        const tn_plan_span *span = &plan->spans[i];
        if (v->root != i || v->param != TN_NONE || !v->data)
            continue;
        bool needed = span->read_before > step || (span->kept && span->written);
        if (needed && (!span->written || span->first_write < step))
            buffers[n++] = buffer_at(plan, i);
    }
    return n;
}
