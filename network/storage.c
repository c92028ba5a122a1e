/* What a plan stores as bf16, and values on their way between device memory and the host.
 *
 * In a plan of precision BF16 an activation, with its gradient, is stored as bf16 when every step
 * that touches it takes it so. What the caller reads or writes by name stays fp32: inputs, outputs,
 * taps, the logits, injections, gradients asked for; and all with keep_all or no_fusion.
 * The sum of the gradients that several readers give is rounded each time one adds to it. */
#include "core/bf16.h"
#include "network/lowering.h"

#include <string.h>

size_t tn_plan_value_bytes(const tn_plan_value *v)
{
    return (size_t)v->count * (v->bf16 ? sizeof(uint16_t) : sizeof(float));
}

/* --- the choice ------------------------------------------------------------------------------ */

static bool *stored(const tn_plan *plan, size_t value)
{
    return &plan->values[plan->values[value].root].bf16;
}

static bool may_be_bf16(const tn_plan_value *v)
{
    return v->param == TN_NONE && !v->keep && !v->keep_gradient && !v->inject;
}

static void set_flags(const tn_plan *plan, tn_plan_node *step)
{
    step->task.bf16_src = 0;
    for (int j = 0; j < step->n_src && j < 64; j++)
        step->task.bf16_src |= (uint64_t)*stored(plan, step->src[j]) << j;
    step->task.bf16_dst = *stored(plan, step->dst);
}

static bool accepted(const tn_plan *plan, const tn_task *task, uint64_t src, bool dst)
{
    tn_task asked = *task;
    asked.bf16_src = src;
    asked.bf16_dst = dst;
    return plan->device->type->supports(plan->device, &asked, NULL, 0);
}

/* The most that a step takes of what is bf16: all; else without one operand; else only one; else
 * nothing. */
static void most_accepted(const tn_plan *plan, const tn_plan_node *step, uint64_t *src, bool *dst)
{
    const uint64_t all = step->task.bf16_src;
    const bool write = step->task.bf16_dst;
    int n = step->n_src < 64 ? step->n_src : 64;
    *src = all;
    *dst = write;
    if (accepted(plan, &step->task, all, write))
        return;
    *dst = false;
    if (accepted(plan, &step->task, all, false))
        return;
    *dst = write;
    for (int j = 0; j < n; j++)
        if ((*src = all & ~((uint64_t)1 << j)) != all && accepted(plan, &step->task, *src, write))
            return;
    *src = 0;
    if (accepted(plan, &step->task, 0, write))
        return;
    *dst = false;
    for (int j = 0; j < n; j++)
        if ((*src = all & (uint64_t)1 << j) && accepted(plan, &step->task, *src, false))
            return;
    *src = 0;
}

/* Takes bf16 from the operands that a step refuses; whether there were any. */
static bool restrict_step(const tn_plan *plan, tn_plan_node *step)
{
    uint64_t src;
    bool dst, changed = false;
    for (int j = 64; j < step->n_src; j++) { /* no bit says so */
        changed = changed || *stored(plan, step->src[j]);
        *stored(plan, step->src[j]) = false;
    }
    set_flags(plan, step);
    most_accepted(plan, step, &src, &dst);
    changed = changed || src != step->task.bf16_src || dst != step->task.bf16_dst;
    for (int j = 0; j < step->n_src && j < 64; j++)
        if ((step->task.bf16_src & ~src) >> j & 1)
            *stored(plan, step->src[j]) = false;
    if (step->task.bf16_dst && !dst)
        *stored(plan, step->dst) = false;
    return changed;
}

void tn_plan_choose_storage(tn_plan *plan)
{
    bool changed =
        plan->precision == TN_PRECISION_BF16 && !plan->options.keep_all && !plan->options.no_fusion;
    size_t logits;
    if (!changed)
        return;
    for (size_t i = 0; i < plan->n_values; i++)
        plan->values[i].bf16 = plan->values[i].root == i && may_be_bf16(&plan->values[i]);
    if (tn_plan_find_value(plan, plan->logits, &logits, NULL) == TN_OK)
        *stored(plan, logits) = false; /* gradients can be injected there */
    while (changed) {                  /* each round takes bf16 from at least one value */
        changed = false;
        for (size_t i = 0; i < plan->n_steps; i++)
            changed = restrict_step(plan, &plan->steps[i]) || changed;
    }
    for (size_t i = 0; i < plan->n_steps; i++)
        set_flags(plan, &plan->steps[i]);
    for (size_t i = 0; i < plan->n_values; i++)
        if (plan->values[i].root != TN_NONE)
            plan->values[i].bf16 = *stored(plan, i);
}

/* --- between device and host ----------------------------------------------------------------- */

/* n, c, s of a channels-last value. */
static void border(const tn_plan_value *v, int64_t *n, int64_t *c, int64_t *s)
{
    *n = v->dims[0];
    *c = v->dims[1];
    *s = 1;
    for (int i = 2; i < v->rank; i++)
        *s *= v->dims[i];
}

/* Where element i, as it lies, is in the model's order. */
static int64_t model_index(const tn_plan_value *v, int64_t i)
{
    int64_t n, c, s;
    border(v, &n, &c, &s);
    int64_t image = i / (c * s), pixel = i % (c * s) / c, channel = i % c;
    return (image * c + channel) * s + pixel;
}

/* The plan's staging has room for any value in fp32, so twice for one in bf16. */
static tn_status fetch_bf16(const tn_plan *plan, const tn_plan_value *v, const float *data,
                            bool in_order, float *dst, tn_error *error)
{
    uint16_t *rounded = (uint16_t *)plan->staging;
    tn_status status =
        plan->device->type->download(plan->device, rounded, data, tn_plan_value_bytes(v), error);
    for (int64_t i = 0; i < v->count && status == TN_OK; i++)
        dst[in_order ? i : model_index(v, i)] = tn_bfloat16_to_float(rounded[i]);
    return status;
}

static tn_status store_bf16(const tn_plan *plan, const tn_plan_value *v, float *data,
                            const float *src, int64_t count, bool in_order, tn_error *error)
{
    uint16_t *rounded = (uint16_t *)plan->staging;
    for (int64_t i = 0; i < v->count; i++)
        rounded[i] = i < count ? tn_float_to_bfloat16(src[in_order ? i : model_index(v, i)]) : 0;
    return plan->device->type->upload(plan->device, data, rounded, tn_plan_value_bytes(v), error);
}

tn_status tn_plan_fetch(const tn_plan *plan, const tn_plan_value *v, const float *data, bool raw,
                        float *dst, tn_error *error)
{
    int64_t n, c, s;
    const bool in_order = raw || !v->last;
    if (v->bf16)
        return fetch_bf16(plan, v, data, in_order, dst, error);
    if (in_order)
        return plan->device->type->download(plan->device, dst, data, tn_plan_value_bytes(v), error);
    border(v, &n, &c, &s);
    return plan->device->type->export(plan->device, dst, data, n, c, s, error);
}

tn_status tn_plan_store(const tn_plan *plan, const tn_plan_value *v, float *data, const float *src,
                        int64_t count, bool raw, tn_error *error)
{
    const tn_device_class *type = plan->device->type;
    int64_t batch = v->rank ? v->dims[0] : 1, one = batch ? v->count / batch : 0, n, c, s;
    tn_status status = TN_OK;
    if (v->bf16)
        return store_bf16(plan, v, data, src, count * one, raw || !v->last, error);
    if (v->last && !raw) {
        border(v, &n, &c, &s);
        status = type->import(plan->device, data, src, count, c, s, error);
    } else {
        status =
            type->upload(plan->device, data, src, (size_t)(count * one) * sizeof(float), error);
    }
    if (status == TN_OK && count < batch)
        status = type->zero(plan->device, data + count * one,
                            (size_t)((batch - count) * one) * sizeof(float), error);
    return status;
}
