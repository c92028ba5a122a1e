#include "network/plan.h"

#include "core/memory.h"
#include "network/lowering.h"

#include <string.h>

/* --- options --------------------------------------------------------------------------------- */

static bool listed(const char *const *names, size_t n, const char *name)
{
    for (size_t i = 0; i < n; i++)
        if (strcmp(names[i], name) == 0)
            return true;
    return false;
}

static tn_status check_names(const tn_graph *graph, const char *const *names, size_t n,
                             const char *what, tn_error *error)
{
    for (size_t i = 0; i < n; i++)
        if (!tn_graph_value(graph, names[i]))
            return tn_fail(error, TN_ERROR_USAGE, "%s %s: the network has no value of that name",
                           what, tn_quote(names[i]));
    return TN_OK;
}

static tn_status check_options(tn_plan *plan, tn_error *error)
{
    const tn_plan_options *o = &plan->options;
    if (o->precision == TN_PRECISION_BF16 && !plan->device->bf16 && !plan->device->bf16_runs)
        return tn_fail(
            error, TN_ERROR_USAGE,
            "bf16 needs a processor with AMX or AVX-512 BF16, or a GPU: %s has none; use precision "
            "fp32 or auto",
            plan->device->summary);
    if (o->precision == TN_PRECISION_TF32 && !plan->device->tf32_runs)
        return tn_fail(error, TN_ERROR_USAGE,
                       "tf32 is not supported on %s: it needs a GPU; use precision fp32 or auto",
                       plan->device->summary);
    plan->precision = o->precision != TN_PRECISION_AUTO ? o->precision
                      : plan->device->bf16              ? TN_PRECISION_BF16
                                                        : TN_PRECISION_FP32;
    if (!o->training && (o->n_injections || o->n_gradients || o->input_gradient))
        return tn_fail(error, TN_ERROR_USAGE, "gradients need a training plan");
    tn_status status = check_names(plan->graph, o->taps, o->n_taps, "tap", error);
    if (status == TN_OK)
        status = check_names(plan->graph, o->injections, o->n_injections, "injection", error);
    if (status == TN_OK)
        status = check_names(plan->graph, o->gradients, o->n_gradients, "gradient", error);
    return status;
}

/* Options point into the caller's memory: after creation only flags are used. */
static void forget_lists(tn_plan_options *o)
{
    o->taps = o->injections = o->gradients = NULL;
    o->n_taps = o->n_injections = o->n_gradients = 0;
    o->params = NULL;
    o->output = NULL;
}

/* --- creation -------------------------------------------------------------------------------- */

/* Behind an output: Softmax and what only reshapes before or after it. */
static const char *find_logits(const tn_graph *graph, const char *output)
{
    if (graph->n_outputs == 0)
        return "";
    const tn_value *out = tn_graph_output(graph, output), *at = out;
    while (at->producer) {
        const char *type = at->producer->type;
        bool softmax = strcmp(type, "Softmax") == 0 || strcmp(type, "LogSoftmax") == 0;
        bool reshaping = strcmp(type, "Reshape") == 0 || strcmp(type, "Identity") == 0 ||
                         strcmp(type, "Flatten") == 0 || strcmp(type, "Squeeze") == 0;
        if (!softmax && !reshaping)
            return out->name;
        at = at->producer->inputs[0];
        if (softmax)
            return at->name;
    }
    return out->name;
}

static void mark_values(tn_plan *plan, const tn_plan_options *o)
{
    for (size_t i = 0; i < plan->n_values; i++) {
        tn_plan_value *v = &plan->values[i];
        if (!v->value)
            continue;
        if (listed(o->injections, o->n_injections, v->value->name))
            v->inject = plan->values[v->root].inject = true;
        if (listed(o->gradients, o->n_gradients, v->value->name))
            v->keep_gradient = plan->values[v->root].keep_gradient = true;
        if (o->loss && strcmp(plan->logits, v->value->name) == 0)
            v->keep = plan->values[v->root].keep = true;
    }
}

/* The logits as plain [batch, classes], by a view where they have axes of size 1 behind. */
static tn_status find_loss_value(tn_plan *plan, tn_error *error)
{
    const tn_value *logits = tn_graph_value(plan->graph, plan->logits);
    size_t index;
    tn_status status = tn_lower_input(plan, logits, TN_LAYOUT_PLAIN, &index, error);
    if (status != TN_OK)
        return status;
    tn_plan_value v = plan->values[index];
    if (v.rank < 2 || v.dims[0] != plan->batch || v.count != v.dims[0] * v.dims[1] || v.count == 0)
        return tn_fail(error, TN_ERROR_MODEL,
                       "output %s is no classifier's: [%lld, classes] is expected",
                       tn_quote(plan->logits), (long long)plan->batch);
    return tn_lower_alias(plan, index, 2, v.dims, false, &plan->loss_value, error);
}

static tn_status check_batch(tn_plan *plan, tn_error *error)
{
    plan->batch = 1;
    if (plan->graph->n_inputs == 0)
        return tn_fail(error, TN_ERROR_MODEL, "the network has no input");
    const tn_value *input = plan->graph->inputs[0];
    if (input->rank > 0 && input->dims[0] > 0)
        plan->batch = input->dims[0];
    return TN_OK;
}

static tn_status build(tn_plan *plan, const tn_plan_options *o, tn_error *error)
{
    int64_t most = 1;
    tn_status status = check_options(plan, error);
    if (status == TN_OK)
        status = check_batch(plan, error);
    if (status == TN_OK && !plan->params) {
        plan->owns_params = true;
        status = tn_params_create(plan->graph, plan->device, &plan->params, error);
    }
    if (status == TN_OK && o->training)
        status = tn_params_place_gradients(plan->params, error);
    plan->logits = find_logits(plan->graph, o->output);
    if (status == TN_OK)
        status = tn_plan_lower(plan, error);
    if (status == TN_OK && o->loss)
        status = find_loss_value(plan, error);
    if (status != TN_OK)
        return status;
    mark_values(plan, o);
    if (!o->no_fusion)
        status = tn_plan_fuse(plan, error);
    if (status == TN_OK)
        status = tn_plan_place(plan, error);
    if (status == TN_OK)
        status = tn_plan_find_spans(plan, error);
    if (status == TN_OK)
        status = tn_plan_set_dropout(plan, 0, 0, 0, error);
    if (status != TN_OK)
        return status;
    for (size_t i = 0; i < plan->n_values; i++)
        most = plan->values[i].count > most ? plan->values[i].count : most;
    plan->staging = tn_alloc_array((size_t)most, sizeof(float));
    plan->param_written = tn_alloc_zero(tn_params_count(plan->params) + 1, sizeof(bool));
    if (!plan->staging || !plan->param_written)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    return TN_OK;
}

tn_status tn_plan_create(const tn_graph *graph, tn_device *device, const tn_plan_options *options,
                         tn_plan **plan, tn_error *error)
{
    tn_plan *p = tn_alloc_zero(1, sizeof(*p));
    if (!p)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    tn_arena_init(&p->arena);
    p->graph = graph;
    p->device = device;
    if (options)
        p->options = *options;
    p->params = p->options.params;
    tn_status status = build(p, &p->options, error);
    forget_lists(&p->options);
    if (status != TN_OK)
        tn_plan_destroy(p);
    else
        *plan = p;
    return status;
}

void tn_plan_destroy(tn_plan *plan)
{
    if (!plan)
        return;
    for (size_t i = 0; i < plan->n_steps; i++)
        tn_kernel_destroy(plan->steps[i].kernel);
    tn_kernel_destroy(plan->loss);
    plan->device->type->release(plan->device, plan->memory);
    if (plan->owns_params)
        tn_params_destroy(plan->params);
    tn_free(plan->values);
    tn_free(plan->steps);
    tn_free(plan->staging);
    tn_free(plan->param_written);
    tn_arena_done(&plan->arena);
    tn_free(plan);
}

/* --- questions ------------------------------------------------------------------------------- */

tn_params *tn_plan_params(const tn_plan *plan)
{
    return plan->params;
}

int64_t tn_plan_batch(const tn_plan *plan)
{
    return plan->batch;
}

tn_precision tn_plan_precision(const tn_plan *plan)
{
    return plan->precision;
}

const char *tn_plan_input(const tn_plan *plan, size_t i)
{
    return i < plan->graph->n_inputs ? plan->graph->inputs[i]->name : NULL;
}

const char *tn_plan_output(const tn_plan *plan, size_t i)
{
    return i < plan->graph->n_outputs ? plan->graph->outputs[i]->name : NULL;
}

const char *tn_plan_logits(const tn_plan *plan)
{
    return plan->logits;
}

size_t tn_plan_step_count(const tn_plan *plan)
{
    return plan->n_steps;
}

static const char *value_name(const tn_plan *plan, size_t value)
{
    if (plan->values[value].value)
        return plan->values[value].value->name;
    size_t root = plan->values[value].root; /* a view inside the plan: any name of the memory */
    for (size_t i = 0; i < plan->n_values; i++)
        if (plan->values[i].root == root && plan->values[i].value)
            return plan->values[i].value->name;
    return "";
}

tn_status tn_plan_step_at(const tn_plan *plan, size_t i, tn_plan_step *step, tn_error *error)
{
    if (i >= plan->n_steps)
        return tn_fail(error, TN_ERROR_USAGE, "step %zu of %zu", i, plan->n_steps);
    const tn_plan_node *s = &plan->steps[i];
    bool weighted = s->task.verb == TN_VERB_CONV || s->task.verb == TN_VERB_GEMM;
    *step = (tn_plan_step){.node = s->node,
                           .label = s->node ? tn_node_label(s->node) : "",
                           .type = s->node ? s->node->type : "",
                           .verb = s->task.verb,
                           .fused = s->fused,
                           .kernel = s->kernel->name,
                           .flops = s->flops,
                           .input = s->n_src ? value_name(plan, s->src[0]) : "",
                           .output = value_name(plan, s->dst),
                           .weight = SIZE_MAX,
                           .bias = SIZE_MAX};
    for (int j = 0; j < s->n_params && weighted; j++) {
        tn_param_role role = tn_params_at(plan->params, s->params[j])->role;
        if (role == TN_PARAM_WEIGHT && j == 0)
            step->weight = s->params[j];
        else if (j == 1 && !(s->task.verb == TN_VERB_CONV && !s->task.conv.bias))
            step->bias = s->params[j];
    }
    return TN_OK;
}

size_t tn_plan_step_of_node(const tn_plan *plan, const char *label)
{
    for (size_t i = 0; i < plan->graph->n_nodes; i++)
        if (strcmp(tn_node_label(plan->graph->nodes[i]), label) == 0)
            return plan->step_of_node[i];
    return SIZE_MAX;
}

size_t tn_plan_step_of_value(const tn_plan *plan, const char *value)
{
    const tn_value *v = tn_graph_value(plan->graph, value);
    if (!v)
        return SIZE_MAX;
    for (size_t i = 0; i < plan->n_steps; i++) {
        size_t root = plan->values[plan->steps[i].dst].root;
        for (int which = 0; which < 2; which++) {
            size_t index = which ? plan->last[v->index] : plan->plain[v->index];
            if (index != TN_NONE && plan->values[index].root == root)
                return i;
        }
    }
    return SIZE_MAX;
}

tn_plan_memory tn_plan_memory_get(const tn_plan *plan)
{
    tn_plan_memory memory = plan->sizes;
    int64_t gradients;
    tn_params_gradients(plan->params, &gradients);
    memory.parameters = (size_t)gradients * sizeof(float);
    for (size_t i = 0; i < tn_params_count(plan->params); i++)
        memory.parameters += (size_t)tn_params_at(plan->params, i)->count * sizeof(float);
    return memory;
}
