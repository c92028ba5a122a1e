/* When each buffer is needed, and where it lies: times are 0 .. n-1 for the steps of the forward
 * pass, n for the loss, n + 1 + (n - 1 - i) for the backward of step i, and `end` for what stays
 * readable. Buffers whose times do not meet may share memory. */
#include "network/lowering.h"

#include "core/memory.h"

#include <stdlib.h>
#include <string.h>

enum { ALIGN = 256 };

typedef struct buffer {
    size_t bytes, offset;
    size_t first, last; /* times, inclusive */
    void **owner;       /* gets the address */
} buffer;

typedef struct placement {
    tn_plan *plan;
    buffer *buffers;
    size_t n, capacity;
    size_t end;
} placement;

static size_t round_up(size_t bytes)
{
    return (bytes + ALIGN - 1) / ALIGN * ALIGN;
}

static size_t backward_time(const placement *p, size_t step)
{
    return 2 * p->plan->n_steps - step;
}

static tn_status add_buffer(placement *p, size_t bytes, size_t first, size_t last, void **owner,
                            tn_error *error)
{
    if (p->n == p->capacity) {
        size_t capacity = p->capacity ? 2 * p->capacity : 256;
        buffer *grown = tn_realloc(p->buffers, capacity * sizeof(*grown));
        if (!grown)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
        p->buffers = grown;
        p->capacity = capacity;
    }
    if (p->plan->options.keep_all) {
        first = 0;
        last = p->end;
    }
    p->buffers[p->n++] = (buffer){round_up(bytes), 0, first, last, owner};
    return TN_OK;
}

/* --- which gradients there are --------------------------------------------------------------- */

static bool is_trainable(const tn_plan *plan, size_t param)
{
    return param != TN_NONE && tn_params_at(plan->params, param)->trainable;
}

static bool is_input(const tn_plan *plan, const tn_plan_value *v)
{
    (void)plan;
    return v->value && v->value->is_input && !v->value->constant;
}

static void find_gradients(tn_plan *plan)
{
    if (!plan->options.training)
        return;
    for (size_t i = 0; i < plan->n_values; i++) {
        tn_plan_value *v = &plan->values[i];
        if (v->root != i)
            continue;
        v->needs_gradient =
            is_trainable(plan, v->param) ||
            ((plan->options.input_gradient || v->keep_gradient) && is_input(plan, v));
    }
    for (size_t i = 0; i < plan->n_steps; i++) {
        tn_plan_node *step = &plan->steps[i];
        for (int j = 0; j < step->n_params; j++)
            step->backward = step->backward || is_trainable(plan, step->params[j]);
        for (int j = 0; j < step->n_src; j++)
            step->backward =
                step->backward || plan->values[plan->values[step->src[j]].root].needs_gradient;
        tn_plan_value *dst = &plan->values[plan->values[step->dst].root];
        dst->needs_gradient =
            dst->needs_gradient || step->backward || dst->keep_gradient || dst->inject;
    }
}

/* --- kernels --------------------------------------------------------------------------------- */

static tn_status prepare_step(tn_plan *plan, tn_plan_node *step, tn_error *error)
{
    tn_status status = plan->device->type->prepare(plan->device, &step->task, &step->kernel, error);
    if (status == TN_OK && step->backward && !step->kernel->type->backward)
        status = tn_fail(error, TN_ERROR_MODEL,
                         "%s has no gradient on %s: it can be run but not trained through",
                         step->node->type, plan->device->id);
    if (status != TN_OK && step->node) {
        tn_error_prepend(error, "node %s", tn_quote(tn_node_label(step->node)));
        tn_error_note_node(error, tn_node_label(step->node));
        return status;
    }
    size_t n = (size_t)step->n_src + 1;
    step->src_data = tn_arena_array(&plan->arena, n, sizeof(float *));
    step->src_gradient = tn_arena_array(&plan->arena, n, sizeof(float *));
    step->accumulate = tn_arena_array(&plan->arena, n, sizeof(bool));
    if (!step->src_data || !step->src_gradient || !step->accumulate)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    return status;
}

static tn_status prepare_loss(tn_plan *plan, tn_error *error)
{
    const tn_plan_value *v = &plan->values[plan->loss_value];
    tn_task task = {.verb = TN_VERB_LOSS, .precision = TN_PRECISION_FP32};
    task.backward = plan->options.training;
    task.loss = (tn_loss_task){v->dims[0], v->dims[1]};
    return plan->device->type->prepare(plan->device, &task, &plan->loss, error);
}

/* --- lifetimes ------------------------------------------------------------------------------- */

typedef struct life {
    size_t first, last, gradient_first, gradient_last;
    bool written, gradient;
} life;

static void extend(life *l, size_t time)
{
    l->first = time < l->first ? time : l->first;
    l->last = time > l->last ? time : l->last;
    l->written = true;
}

static void extend_gradient(life *l, size_t time)
{
    l->gradient_first = time < l->gradient_first ? time : l->gradient_first;
    l->gradient_last = time > l->gradient_last ? time : l->gradient_last;
    l->gradient = true;
}

static void live_in_steps(const placement *p, life *lives)
{
    const tn_plan *plan = p->plan;
    for (size_t i = 0; i < plan->n_steps; i++) {
        const tn_plan_node *step = &plan->steps[i];
        size_t dst = plan->values[step->dst].root, back = backward_time(p, i);
        extend(&lives[dst], i);
        if (step->backward && step->kernel->reads_dst)
            extend(&lives[dst], back);
        if (step->backward)
            extend_gradient(&lives[dst], back);
        for (int j = 0; j < step->n_src; j++) {
            size_t src = plan->values[step->src[j]].root;
            extend(&lives[src], i);
            if (step->backward && step->kernel->reads_src)
                extend(&lives[src], back);
            if (step->backward && plan->values[src].needs_gradient)
                extend_gradient(&lives[src], back);
        }
    }
}

static void live_in_plan(const placement *p, life *lives)
{
    const tn_plan *plan = p->plan;
    size_t loss_time = plan->n_steps;
    for (size_t i = 0; i < plan->n_values; i++) {
        const tn_plan_value *v = &plan->values[i];
        if (v->root == TN_NONE)
            continue;
        life *l = &lives[v->root];
        if (v->keep) {
            extend(l, is_input(plan, v) ? 0 : l->first);
            extend(l, p->end);
        }
        if (!plan->values[v->root].needs_gradient)
            continue;
        if (v->inject || (v->value && v->value->is_output))
            extend_gradient(l, loss_time);
        if (v->keep_gradient || (is_input(plan, v) && plan->options.input_gradient)) {
            extend_gradient(l, loss_time + 1);
            extend_gradient(l, p->end);
        }
        if (plan->options.keep_all)
            extend_gradient(l, loss_time);
    }
    if (plan->loss) {
        extend(&lives[plan->values[plan->loss_value].root], loss_time);
        if (plan->values[plan->values[plan->loss_value].root].needs_gradient)
            extend_gradient(&lives[plan->values[plan->loss_value].root], loss_time);
    }
}

static tn_status add_values(placement *p, const life *lives, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; i < p->plan->n_values && status == TN_OK; i++) {
        tn_plan_value *v = &p->plan->values[i];
        const life *l = &lives[i];
        if (v->root != i)
            continue;
        size_t bytes = tn_plan_value_bytes(v);
        if (v->param != TN_NONE) {
            v->data = tn_params_at(p->plan->params, v->param)->data;
            v->gradient = tn_params_at(p->plan->params, v->param)->gradient;
            continue;
        }
        if (l->written)
            status = add_buffer(p, bytes, l->first, l->last, (void **)&v->data, error);
        if (status == TN_OK && l->gradient && v->needs_gradient)
            status = add_buffer(p, bytes, l->gradient_first, l->gradient_last,
                                (void **)&v->gradient, error);
    }
    return status;
}

static tn_status add_saved(placement *p, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; i < p->plan->n_steps && status == TN_OK; i++) {
        tn_plan_node *step = &p->plan->steps[i];
        size_t last = step->task.verb == TN_VERB_BATCH_NORM ? p->end /* statistics are readable */
                      : step->backward                      ? backward_time(p, i)
                                                            : i;
        if (step->kernel->saved_bytes)
            status = add_buffer(p, step->kernel->saved_bytes, i, last, &step->saved, error);
    }
    return status;
}

/* --- offsets --------------------------------------------------------------------------------- */

static int by_size(const void *a, const void *b)
{
    const buffer *x = a, *y = b;
    if (x->bytes != y->bytes)
        return x->bytes < y->bytes ? 1 : -1;
    return x->first != y->first ? (x->first < y->first ? -1 : 1)
                                : (x->owner < y->owner ? -1 : x->owner > y->owner);
}

static int by_offset(const void *a, const void *b)
{
    const buffer *x = *(buffer *const *)a, *y = *(buffer *const *)b;
    return x->offset < y->offset ? -1 : x->offset > y->offset;
}

/* Largest first, each at the lowest offset where nothing of its time lies. */
static tn_status place(placement *p, size_t *total, tn_error *error)
{
    buffer **near = tn_alloc_array(p->n + 1, sizeof(*near));
    if (!near)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    qsort(p->buffers, p->n, sizeof(buffer), by_size);
    *total = 0;
    for (size_t i = 0; i < p->n; i++) {
        buffer *b = &p->buffers[i];
        size_t n = 0, at = 0;
        for (size_t j = 0; j < i; j++)
            if (p->buffers[j].first <= b->last && b->first <= p->buffers[j].last)
                near[n++] = &p->buffers[j];
        qsort(near, n, sizeof(*near), by_offset);
        for (size_t j = 0; j < n; j++) {
            if (near[j]->offset >= at + b->bytes)
                break;
            if (near[j]->offset + near[j]->bytes > at)
                at = near[j]->offset + near[j]->bytes;
        }
        b->offset = at;
        *total = at + b->bytes > *total ? at + b->bytes : *total;
    }
    tn_free(near);
    return TN_OK;
}

/* [values][state ...][workspace][draw][loss: result, labels, partners, mix, teacher] */
static tn_status allocate(placement *p, size_t values, tn_error *error)
{
    tn_plan *plan = p->plan;
    size_t packed = 0, workspace = 0, loss = 0, draw = 0;
    for (size_t i = 0; i < plan->n_steps; i++) {
        const tn_kernel *k = plan->steps[i].kernel;
        if (plan->steps[i].task.verb == TN_VERB_DROPOUT && plan->options.training)
            draw = round_up(sizeof(tn_draw));
        packed += round_up(k->state_bytes);
        workspace = k->workspace_bytes > workspace ? k->workspace_bytes : workspace;
    }
    const tn_plan_value *logits = plan->loss ? &plan->values[plan->loss_value] : NULL;
    if (logits) {
        size_t bytes = plan->loss->workspace_bytes;
        workspace = bytes > workspace ? bytes : workspace;
        loss = round_up(4 * sizeof(float)) + 2 * round_up((size_t)plan->batch * sizeof(int32_t)) +
               round_up((size_t)plan->batch * sizeof(float)) +
               round_up((size_t)logits->count * sizeof(float));
    }
    workspace = round_up(workspace);
    plan->sizes.values = values + loss + draw;
    plan->sizes.workspace = workspace;
    plan->sizes.packed = packed;
    plan->sizes.arena = values + packed + workspace + loss + draw;
    plan->memory = plan->device->type->alloc(plan->device, plan->sizes.arena);
    if (!plan->memory)
        return tn_fail(error, tn_device_memory_status(plan->device),
                       "the network needs %.1f MB on %s for batch %lld, more than there is: use a "
                       "smaller batch",
                       (double)plan->sizes.arena / 1e6, plan->device->id, (long long)plan->batch);
    char *at = (char *)plan->memory + values;
    for (size_t i = 0; i < p->n; i++) {
        *p->buffers[i].owner = (char *)plan->memory + p->buffers[i].offset;
        plan->sizes.without_reuse += p->buffers[i].bytes;
    }
    for (size_t i = 0; i < plan->n_steps; i++) {
        plan->steps[i].state = at;
        at += round_up(plan->steps[i].kernel->state_bytes);
    }
    plan->workspace = at;
    at += workspace;
    plan->draw = draw > 0 ? (tn_draw *)(void *)at : NULL;
    at += draw;
    if (logits) {
        plan->loss_result = (float *)at;
        at += round_up(4 * sizeof(float));
        plan->labels = (int32_t *)at;
        at += round_up((size_t)plan->batch * sizeof(int32_t));
        plan->partners = (int32_t *)at;
        at += round_up((size_t)plan->batch * sizeof(int32_t));
        plan->mix = (float *)at;
        at += round_up((size_t)plan->batch * sizeof(float));
        plan->teacher = (float *)at;
    }
    return TN_OK;
}

static tn_status place_all(placement *p, life *lives, tn_error *error)
{
    tn_plan *plan = p->plan;
    size_t values = 0;
    for (size_t i = 0; i < plan->n_values; i++) {
        lives[i] = (life){SIZE_MAX, 0, SIZE_MAX, 0, false, false};
        if (is_input(plan, &plan->values[i]))
            extend(&lives[i], 0);
    }
    live_in_steps(p, lives);
    live_in_plan(p, lives);
    tn_status status = add_values(p, lives, error);
    if (status == TN_OK)
        status = add_saved(p, error);
    if (status == TN_OK)
        status = place(p, &values, error);
    if (status == TN_OK)
        status = allocate(p, values, error);
    for (size_t i = 0; i < plan->n_values && status == TN_OK; i++) {
        tn_plan_value *v = &plan->values[i];
        if (v->root != i && v->root != TN_NONE) {
            v->data = plan->values[v->root].data;
            v->gradient = plan->values[v->root].gradient;
        }
    }
    return status;
}

tn_status tn_plan_place(tn_plan *plan, tn_error *error)
{
    placement p = {.plan = plan, .end = 2 * plan->n_steps + 2};
    tn_status status = TN_OK;
    find_gradients(plan);
    for (size_t i = 0; i < plan->n_steps; i++)
        plan->steps[i].task.backward = plan->steps[i].backward;
    tn_plan_choose_storage(plan);
    for (size_t i = 0; i < plan->n_steps && status == TN_OK; i++)
        status = prepare_step(plan, &plan->steps[i], error);
    if (status == TN_OK && plan->options.loss)
        status = prepare_loss(plan, error);
    if (status != TN_OK)
        return status;
    life *lives = tn_alloc_array(plan->n_values + 1, sizeof(*lives));
    status = lives ? place_all(&p, lives, error) : tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    for (size_t i = 0; i < plan->n_steps && status == TN_OK; i++)
        for (int j = 0; j < plan->steps[i].n_src; j++)
            plan->steps[i].src_data[j] = plan->values[plan->steps[i].src[j]].data;
    tn_free(lives);
    tn_free(p.buffers);
    return status;
}
