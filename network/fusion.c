/* Merges steps: slices of slices; concatenations of concatenations; BN into the convolution before
 * it (its weights) or with the Concat before it; the Add of a bias into the MatMul before it; Relu
 * or another function and the residual Add into the step that computes their operand, where the
 * device says it can; BN and the quantization of its result. A merged step stands where the last of
 * its nodes stood. QuantizeLinear and DequantizeLinear with one step become one. */
#include "network/lowering.h"

#include "core/memory.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

typedef struct uses {
    size_t *reader;  /* the step that reads a root, when it is the only one */
    size_t *writer;  /* step that computes a root */
    uint32_t *count; /* reads by steps, counted through views */
    uint32_t *views;
} uses;

static void count_uses(const tn_plan *plan, const uses *u)
{
    for (size_t i = 0; i < plan->n_values; i++) {
        u->writer[i] = u->reader[i] = TN_NONE;
        u->count[i] = u->views[i] = 0;
    }
    for (size_t i = 0; i < plan->n_values; i++)
        if (plan->values[i].root != i && plan->values[i].root != TN_NONE)
            u->views[plan->values[i].root]++;
    for (size_t i = 0; i < plan->n_steps; i++) {
        const tn_plan_node *step = &plan->steps[i];
        if (step->dead)
            continue;
        u->writer[plan->values[step->dst].root] = i;
        for (int j = 0; j < step->n_src; j++) {
            size_t root = plan->values[step->src[j]].root;
            u->reader[root] = i;
            u->count[root]++;
        }
    }
}

/* Whether a value may disappear: read once, as it is, by a step. */
static bool is_private(const tn_plan *plan, const uses *u, size_t value)
{
    const tn_plan_value *v = &plan->values[value];
    return v->root == value && u->count[value] == 1 && u->views[value] == 0 && !v->keep &&
           !v->keep_gradient && !v->inject && v->param == TN_NONE;
}

static bool supported(const tn_plan *plan, const tn_task *task)
{
    return plan->device->type->supports(plan->device, task, NULL, 0);
}

/* `first` takes over `second`'s result and place. */
static void merge(tn_plan *plan, size_t first, size_t second, const tn_task *task)
{
    tn_plan_node *a = &plan->steps[first], *b = &plan->steps[second];
    size_t used = strlen(a->fused);
    tn_plan_node merged = *a;
    merged.task = *task;
    merged.dst = b->dst;
    merged.flops += b->flops;
    snprintf(merged.fused + used, sizeof(merged.fused) - used, "%s%s%s%s", used ? "+" : "",
             b->node->type, b->fused[0] ? "+" : "", b->fused);
    for (size_t i = 0; i < plan->graph->n_nodes; i++)
        if (plan->step_of_node[i] == first)
            plan->step_of_node[i] = second;
    plan->values[a->dst].root = TN_NONE; /* gone */
    a->dead = true;
    *b = merged;
}

static bool set_function(tn_task *task, const tn_unary_task *f)
{
    switch (task->verb) {
    case TN_VERB_CONV:
        if (task->conv.function != TN_FUNCTION_NONE)
            return false;
        task->conv.function = f->function;
        task->conv.a = f->a;
        task->conv.b = f->b;
        return true;
    case TN_VERB_GEMM:
        if (task->gemm.function != TN_FUNCTION_NONE)
            return false;
        task->gemm.function = f->function;
        task->gemm.a = f->a;
        task->gemm.b = f->b;
        return true;
    case TN_VERB_BATCH_NORM:
        if (task->batch_norm.function != TN_FUNCTION_NONE)
            return false;
        task->batch_norm.function = f->function;
        task->batch_norm.a = f->a;
        task->batch_norm.b = f->b;
        return true;
    case TN_VERB_BINARY:
        if (task->binary.function != TN_FUNCTION_NONE || f->function != TN_FUNCTION_RELU)
            return false;
        task->binary.function = f->function;
        return true;
    default:
        return false;
    }
}

static bool fuse_function(tn_plan *plan, const uses *u, size_t at)
{
    const tn_plan_node *step = &plan->steps[at];
    size_t before = u->writer[step->src[0]];
    if (step->task.verb != TN_VERB_UNARY || !is_private(plan, u, step->src[0]) || before == TN_NONE)
        return false;
    tn_task task = plan->steps[before].task;
    if (plan->values[step->dst].last != plan->values[step->src[0]].last ||
        !set_function(&task, &step->task.unary) || !supported(plan, &task))
        return false;
    merge(plan, before, at, &task);
    return true;
}

static bool fuse_batch_norm(tn_plan *plan, const uses *u, size_t at)
{
    const tn_plan_node *step = &plan->steps[at];
    size_t before = u->writer[step->src[0]];
    if (step->task.verb != TN_VERB_BATCH_NORM || plan->options.separate_bn ||
        plan->options.training || step->task.batch_norm.residual ||
        !is_private(plan, u, step->src[0]) || before == TN_NONE)
        return false;
    const tn_plan_node *conv = &plan->steps[before];
    tn_task task = conv->task;
    if (task.verb != TN_VERB_CONV || task.conv.fold || task.conv.residual ||
        task.conv.function != TN_FUNCTION_NONE)
        return false;
    task.conv.fold = true;
    task.conv.epsilon = step->task.batch_norm.epsilon;
    task.conv.function = step->task.batch_norm.function;
    task.conv.a = step->task.batch_norm.a;
    task.conv.b = step->task.batch_norm.b;
    if (!supported(plan, &task))
        return false;
    size_t params[4];
    memcpy(params, step->params, sizeof(params));
    merge(plan, before, at, &task);
    tn_plan_node *merged = &plan->steps[at];
    for (int i = 0; i < 4; i++)
        merged->params[merged->n_params++] = params[i];
    return true;
}

/* A slice of a slice, as exporters write one of two axes. */
static bool fuse_slice(tn_plan *plan, const uses *u, size_t at)
{
    const tn_plan_node *step = &plan->steps[at];
    size_t before = u->writer[step->src[0]];
    if (step->task.verb != TN_VERB_SLICE || !is_private(plan, u, step->src[0]) ||
        before == TN_NONE || plan->steps[before].task.verb != TN_VERB_SLICE)
        return false;
    const tn_slice_task *first = &plan->steps[before].task.slice;
    tn_task task = step->task;
    task.slice.src = first->src;
    for (int i = 0; i < first->src.rank; i++) {
        task.slice.start[i] = first->start[i] + step->task.slice.start[i] * first->step[i];
        task.slice.step[i] = first->step[i] * step->task.slice.step[i];
    }
    if (first->dst.rank != step->task.slice.src.rank || !supported(plan, &task))
        return false;
    merge(plan, before, at, &task);
    return true;
}

/* --- concatenations ----------------------------------------------------------------------------
 */

static bool takes_parts(const tn_plan *plan, const tn_plan_node *norm, const tn_concat_task *concat)
{
    tn_task task = norm->task;
    int64_t channels = 0;
    for (int i = 0; i < concat->n; i++)
        channels += concat->inner[i];
    task.batch_norm.n_parts = concat->n;
    task.batch_norm.parts = concat->inner;
    return concat->outer == task.batch_norm.rows && channels == task.batch_norm.channels &&
           !task.batch_norm.residual && supported(plan, &task);
}

/* Whether nobody needs the concatenation as a whole: BN takes its parts, others go on from it. */
static bool only_parts_are_read(const tn_plan *plan, const uses *u, size_t value)
{
    const tn_plan_value *v = &plan->values[value];
    size_t normed = 0;
    if (v->root != value || u->views[value] || v->keep || v->keep_gradient || v->inject ||
        u->writer[value] == TN_NONE || plan->steps[u->writer[value]].task.verb != TN_VERB_CONCAT)
        return false;
    for (size_t i = 0; i < plan->n_steps; i++)
        for (int j = 0; j < plan->steps[i].n_src; j++) {
            const tn_plan_node *reader = &plan->steps[i];
            if (reader->dead || plan->values[reader->src[j]].root != value)
                continue;
            bool norm = reader->task.verb == TN_VERB_BATCH_NORM;
            if (norm ? !takes_parts(plan, reader, &plan->steps[u->writer[value]].task.concat)
                     : reader->task.verb != TN_VERB_CONCAT)
                return false;
            normed += norm;
        }
    return normed > 0;
}

/* The concatenation behind source j of the one at `at`, when that can take its parts instead. */
static const tn_plan_node *nested_concat(const tn_plan *plan, const uses *u, size_t at, int j)
{
    const tn_concat_task *outer = &plan->steps[at].task.concat;
    if (!only_parts_are_read(plan, u, plan->steps[at].src[j]))
        return NULL;
    const tn_plan_node *inner = &plan->steps[u->writer[plan->steps[at].src[j]]];
    int64_t width = 0;
    for (int i = 0; i < inner->task.concat.n; i++)
        width += inner->task.concat.inner[i];
    return inner->task.concat.outer == outer->outer && width == outer->inner[j] ? inner : NULL;
}

/* x = Concat(x, new), again and again, as dense networks are written too: each becomes one of all
 * parts, so that BN can take them. At most 64: as many as can be stored as bf16. */
static tn_status flatten_concat(tn_plan *plan, const uses *u, size_t at, tn_error *error)
{
    enum { MOST = 64 };
    tn_plan_node *step = &plan->steps[at];
    size_t sources[MOST];
    int64_t widths[MOST];
    int n = 0;
    if (step->dead || step->task.verb != TN_VERB_CONCAT || plan->options.separate_bn)
        return TN_OK;
    for (int j = 0; j < step->n_src; j++) {
        const tn_plan_node *inner = nested_concat(plan, u, at, j);
        int parts = inner ? inner->n_src : 1;
        if (n + parts > MOST)
            return TN_OK;
        for (int i = 0; i < parts; i++, n++) {
            sources[n] = inner ? inner->src[i] : step->src[j];
            widths[n] = inner ? inner->task.concat.inner[i] : step->task.concat.inner[j];
        }
    }
    if (n == step->n_src)
        return TN_OK;
    size_t *src = tn_arena_array(&plan->arena, (size_t)n, sizeof(size_t));
    int64_t *inner = tn_arena_array(&plan->arena, (size_t)n, sizeof(int64_t));
    if (!src || !inner)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    memcpy(src, sources, (size_t)n * sizeof(size_t));
    memcpy(inner, widths, (size_t)n * sizeof(int64_t));
    step->src = src;
    step->n_src = step->task.concat.n = n;
    step->task.concat.inner = inner;
    return TN_OK;
}

/* BN of a concatenation along the channels reads its parts where they are. */
static bool fuse_concat(tn_plan *plan, const uses *u, size_t at)
{
    const tn_plan_node *step = &plan->steps[at];
    size_t before = u->writer[step->src[0]];
    if (step->task.verb != TN_VERB_BATCH_NORM || plan->options.separate_bn ||
        step->task.batch_norm.residual || !is_private(plan, u, step->src[0]) || before == TN_NONE ||
        plan->steps[before].task.verb != TN_VERB_CONCAT)
        return false;
    const tn_concat_task *concat = &plan->steps[before].task.concat;
    if (!takes_parts(plan, step, concat))
        return false;
    tn_task task = step->task;
    task.batch_norm.n_parts = concat->n;
    task.batch_norm.parts = concat->inner;
    size_t params[4];
    memcpy(params, step->params, sizeof(params));
    merge(plan, before, at, &task);
    tn_plan_node *merged = &plan->steps[at];
    memcpy(merged->params, params, sizeof(params));
    merged->n_params = 4;
    return true;
}

static bool same_extent(const tn_extent *a, const tn_extent *b)
{
    return a->rank == b->rank && memcmp(a->dims, b->dims, (size_t)a->rank * sizeof(int64_t)) == 0;
}

/* Takes the Add at `at` into the step that computes its operand `which`. */
static bool fuse_residual_into(tn_plan *plan, const uses *u, size_t at, int which, tn_error *error,
                               tn_status *status)
{
    const tn_plan_node *add = &plan->steps[at];
    size_t operand = add->src[which], other = add->src[1 - which], before = u->writer[operand];
    if (!is_private(plan, u, operand) || before == TN_NONE)
        return false;
    tn_task task = plan->steps[before].task;
    if (task.verb == TN_VERB_CONV && !task.conv.residual &&
        task.conv.function == TN_FUNCTION_NONE) {
        task.conv.residual = true;
        task.conv.function = add->task.binary.function;
    } else if (task.verb == TN_VERB_BATCH_NORM && !task.batch_norm.residual &&
               task.batch_norm.function == TN_FUNCTION_NONE) {
        task.batch_norm.residual = true;
        task.batch_norm.function = add->task.binary.function;
    } else {
        return false;
    }
    if (!supported(plan, &task))
        return false;
    size_t *src = tn_arena_array(&plan->arena, 2, sizeof(size_t));
    if (!src) {
        *status = tn_fail(error, TN_ERROR_LIMIT, "out of memory");
        return false;
    }
    src[0] = plan->steps[before].src[0];
    src[1] = other;
    merge(plan, before, at, &task);
    plan->steps[at].src = src;
    plan->steps[at].n_src = 2;
    return true;
}

static bool fuse_residual(tn_plan *plan, const uses *u, size_t at, tn_error *error,
                          tn_status *status)
{
    const tn_plan_node *add = &plan->steps[at];
    const tn_binary_task *t = &add->task.binary;
    if (add->task.verb != TN_VERB_BINARY || t->kind != TN_BINARY_ADD ||
        !same_extent(&t->a, &t->dst) || !same_extent(&t->b, &t->dst) || add->src[0] == add->src[1])
        return false;
    /* the operand computed last: the other one is then there in time */
    size_t a = u->writer[plan->values[add->src[0]].root];
    size_t b = u->writer[plan->values[add->src[1]].root];
    int later = b != TN_NONE && (a == TN_NONE || b > a);
    return fuse_residual_into(plan, u, at, later, error, status) ||
           (*status == TN_OK && fuse_residual_into(plan, u, at, 1 - later, error, status));
}

/* MatMul and the Add of a bias [n] are what Gemm is, bit for bit: a packed model may say Gemm. */
static bool fuse_bias_into(tn_plan *plan, const uses *u, size_t at, int which)
{
    const tn_plan_node *add = &plan->steps[at];
    const tn_extent *bias = which ? &add->task.binary.a : &add->task.binary.b;
    size_t product = add->src[which], before = u->writer[product];
    size_t param = plan->values[plan->values[add->src[1 - which]].root].param; /* behind a view */
    if (param == TN_NONE || !is_private(plan, u, product) || before == TN_NONE)
        return false;
    tn_task task = plan->steps[before].task;
    tn_gemm_task *gemm = &task.gemm;
    if (task.verb != TN_VERB_GEMM || gemm->batch != 1 || gemm->has_c || !gemm->const_b ||
        gemm->function != TN_FUNCTION_NONE || bias->dims[0] != 1 || bias->dims[1] != gemm->n)
        return false;
    gemm->has_c = gemm->const_c = true;
    gemm->c_rows = 1;
    gemm->c_cols = gemm->n;
    gemm->beta = 1.0f;
    gemm->function = add->task.binary.function;
    if (!supported(plan, &task))
        return false;
    merge(plan, before, at, &task);
    tn_plan_node *merged = &plan->steps[at];
    merged->params[merged->n_params++] = param;
    return true;
}

static bool fuse_bias(tn_plan *plan, const uses *u, size_t at)
{
    const tn_plan_node *add = &plan->steps[at];
    return add->task.verb == TN_VERB_BINARY && add->task.binary.kind == TN_BINARY_ADD &&
           add->task.binary.dst.rank == 2 &&
           (fuse_bias_into(plan, u, at, 0) || fuse_bias_into(plan, u, at, 1));
}

/* --- QuantizeLinear, DequantizeLinear ----------------------------------------------------------
 */

static tn_status constant_of(const tn_plan *plan, size_t value, float *number, tn_error *error)
{
    const tn_param *param = tn_params_at(plan->params, plan->values[value].param);
    const tn_value *constant = tn_graph_value(plan->graph, param->name);
    return tn_tensor_read_float(constant->constant, 0, 1, number, error);
}

static size_t param_of(const tn_plan *plan, const tn_plan_node *step, int src)
{
    return src < step->n_src ? plan->values[step->src[src]].param : TN_NONE;
}

/* Whether `at` is a DequantizeLinear that undoes the QuantizeLinear before it, with one step. */
static bool is_pair(const tn_plan *plan, const uses *u, size_t at)
{
    const tn_plan_node *second = &plan->steps[at];
    if (second->task.verb != TN_VERB_DEQUANTIZE || second->task.quantize.axis != 1 ||
        !is_private(plan, u, second->src[0]) || u->writer[second->src[0]] == TN_NONE)
        return false;
    const tn_plan_node *first = &plan->steps[u->writer[second->src[0]]];
    return first->task.verb == TN_VERB_QUANTIZE && first->task.quantize.axis == 1 &&
           param_of(plan, first, 1) != TN_NONE &&
           param_of(plan, first, 1) == param_of(plan, second, 1) &&
           param_of(plan, first, 2) == param_of(plan, second, 2) && first->n_src == second->n_src &&
           (first->n_src < 3 || param_of(plan, first, 2) != TN_NONE);
}

/* A Clip to values of codes, fewer than the type has, leaves those codes: the step's width. Any
 * other stays a step of its own. */
static bool take_clip(const tn_plan_node *clip, float step, tn_fake_quantize_task *t)
{
    const tn_unary_task *c = &clip->task.unary;
    float low = rintf(c->a / step), high = rintf(c->b / step);
    if (clip->task.verb != TN_VERB_UNARY || c->function != TN_FUNCTION_CLIP || low * step != c->a ||
        high * step != c->b || low < t->low || high > t->high || low > high ||
        (low == t->low && high == t->high))
        return false;
    t->low = low;
    t->high = high;
    return true;
}

/* [Clip,] QuantizeLinear and DequantizeLinear become one step, whose own step can be trained. */
static tn_status fuse_quantization(tn_plan *plan, const uses *u, size_t at, tn_error *error)
{
    float step = 1.0f, zero = 0.0f;
    if (!is_pair(plan, u, at))
        return TN_OK;
    size_t first = u->writer[plan->steps[at].src[0]];
    tn_plan_node *q = &plan->steps[first];
    tn_status status = constant_of(plan, q->src[1], &step, error);
    if (status == TN_OK && q->n_src > 2)
        status = constant_of(plan, q->src[2], &zero, error);
    if (status != TN_OK)
        return status;
    int64_t count = q->task.quantize.outer * q->task.quantize.inner;
    tn_task task = {.verb = TN_VERB_FAKE_QUANTIZE, .precision = q->task.precision};
    tn_fake_quantize_task *t = &task.fake_quantize;
    *t = (tn_fake_quantize_task){.count = count,
                                 .low = q->task.quantize.low - zero,
                                 .high = q->task.quantize.high - zero,
                                 .clip_only = plan->options.clip_steps};
    size_t before = is_private(plan, u, q->src[0]) ? u->writer[q->src[0]] : TN_NONE;
    bool clips = before != TN_NONE && take_clip(&plan->steps[before], step, t);
    double features = (double)count / (double)(plan->batch > 0 ? plan->batch : 1);
    double most = t->high > 1.0f ? (double)t->high : 1.0;
    t->step_factor = t->clip_only ? 1.0f : (float)(1.0 / sqrt(features * most));
    task.backward = plan->options.training;
    if (!supported(plan, &task))
        return TN_OK;
    size_t param = param_of(plan, q, 1);
    merge(plan, first, at, &task);
    if (clips)
        merge(plan, before, at, &task);
    tn_plan_node *merged = &plan->steps[at];
    merged->n_src = 1;
    merged->params[0] = param;
    merged->n_params = 1;
    return TN_OK;
}

/* BN makes the codes that are all anybody reads of its result. */
static bool fuse_codes(tn_plan *plan, const uses *u, size_t at)
{
    const tn_plan_node *step = &plan->steps[at];
    size_t before = u->writer[step->src[0]];
    if (step->task.verb != TN_VERB_FAKE_QUANTIZE || !is_private(plan, u, step->src[0]) ||
        before == TN_NONE || plan->steps[before].task.verb != TN_VERB_BATCH_NORM ||
        plan->values[step->dst].last != plan->values[step->src[0]].last)
        return false;
    tn_task task = plan->steps[before].task;
    size_t param = step->params[0];
    task.batch_norm.codes = true;
    task.batch_norm.quantize = step->task.fake_quantize;
    if (!supported(plan, &task))
        return false;
    merge(plan, before, at, &task);
    tn_plan_node *merged = &plan->steps[at];
    merged->params[merged->n_params++] = param;
    return true;
}

/* Dead steps out; step_of_node follows. */
static void compact(tn_plan *plan)
{
    size_t n = 0;
    for (size_t i = 0; i < plan->n_steps; i++) {
        if (plan->steps[i].dead)
            continue;
        for (size_t j = 0; j < plan->graph->n_nodes && n != i; j++)
            if (plan->step_of_node[j] == i)
                plan->step_of_node[j] = n;
        plan->steps[n++] = plan->steps[i];
    }
    plan->n_steps = n;
}

tn_status tn_plan_fuse(tn_plan *plan, tn_error *error)
{
    tn_status status = TN_OK;
    uses u = {tn_alloc_array(plan->n_values + 1, sizeof(size_t)),
              tn_alloc_array(plan->n_values + 1, sizeof(size_t)),
              tn_alloc_array(plan->n_values + 1, sizeof(uint32_t)),
              tn_alloc_array(plan->n_values + 1, sizeof(uint32_t))};
    if (!u.reader || !u.writer || !u.count || !u.views) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory");
        goto done;
    }
    count_uses(plan, &u);
    for (size_t at = 0; at < plan->n_steps && status == TN_OK; at++)
        status = fuse_quantization(plan, &u, at, error);
    count_uses(plan, &u);
    for (size_t at = 0; at < plan->n_steps && status == TN_OK; at++)
        status = flatten_concat(plan, &u, at, error);
    count_uses(plan, &u);
    for (size_t at = 0; at < plan->n_steps && status == TN_OK; at++) {
        if (plan->steps[at].dead || plan->steps[at].n_src == 0)
            continue;
        if (fuse_batch_norm(plan, &u, at) || fuse_concat(plan, &u, at) ||
            fuse_slice(plan, &u, at) || fuse_bias(plan, &u, at) ||
            fuse_residual(plan, &u, at, error, &status) || fuse_function(plan, &u, at) ||
            fuse_codes(plan, &u, at))
            u.writer[plan->values[plan->steps[at].dst].root] = at;
    }
    if (status == TN_OK)
        compact(plan);
done:
    tn_free(u.reader);
    tn_free(u.writer);
    tn_free(u.count);
    tn_free(u.views);
    return status;
}
