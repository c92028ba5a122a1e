/* Running a plan: values in and out, forward, loss, backward. */
#include "core/memory.h"
#include "network/lowering.h"

#include <string.h>

/* --- values ---------------------------------------------------------------------------------- */

tn_status tn_plan_find_value(const tn_plan *plan, const char *name, size_t *index, tn_error *error)
{
    const tn_value *value = tn_graph_value(plan->graph, name);
    size_t plain = value ? plan->plain[value->index] : TN_NONE;
    size_t last = value ? plan->last[value->index] : TN_NONE;
    if (!value)
        return tn_fail(error, TN_ERROR_USAGE, "the network has no value %s", tn_quote(name));
    if (plain != TN_NONE && plan->values[plain].root == TN_NONE)
        plain = TN_NONE;
    if (last != TN_NONE && plan->values[last].root == TN_NONE)
        last = TN_NONE;
    if (plain == TN_NONE && last == TN_NONE)
        return tn_fail(error, TN_ERROR_USAGE,
                       "value %s is not there while the plan runs (folded, or fused into another "
                       "step): name it as a tap",
                       tn_quote(name));
    *index = last == TN_NONE ? plain : plain == TN_NONE ? last : plain < last ? plain : last;
    return TN_OK;
}

tn_status tn_plan_shape(const tn_plan *plan, const char *value, tn_extent *shape, tn_error *error)
{
    size_t index = 0;
    tn_status status = tn_plan_find_value(plan, value, &index, error);
    if (status != TN_OK)
        return status;
    shape->rank = plan->values[index].rank;
    memcpy(shape->dims, plan->values[index].dims, sizeof(shape->dims));
    return TN_OK;
}

static tn_status write_input(tn_plan *plan, size_t input, const float *src, int64_t count,
                             bool channels_last, tn_error *error)
{
    size_t index = 0;
    if (input >= plan->graph->n_inputs)
        return tn_fail(error, TN_ERROR_USAGE, "input %zu of %zu", input, plan->graph->n_inputs);
    tn_status status = tn_plan_find_value(plan, plan->graph->inputs[input]->name, &index, error);
    if (status != TN_OK)
        return status;
    const tn_plan_value *v = &plan->values[index];
    int64_t batch = v->rank ? v->dims[0] : 1;
    if (count < 0 || count > batch)
        return tn_fail(error, TN_ERROR_USAGE, "%lld samples for a plan of batch %lld",
                       (long long)count, (long long)batch);
    return tn_plan_store(plan, v, v->data, src, count, channels_last, error);
}

tn_status tn_plan_write_input(tn_plan *plan, size_t input, const float *src, int64_t count,
                              tn_error *error)
{
    return write_input(plan, input, src, count, false, error);
}

tn_status tn_plan_write_images(tn_plan *plan, size_t input, const float *nhwc, int64_t count,
                               tn_error *error)
{
    const tn_value *value = input < plan->graph->n_inputs ? plan->graph->inputs[input] : NULL;
    bool in_order = value && tn_input_channels_last(value->rank, value->dims);
    return write_input(plan, input, nhwc, count, !in_order, error);
}

float *tn_plan_input_buffer(tn_plan *plan, size_t input)
{
    size_t index = 0;
    if (input >= plan->graph->n_inputs ||
        tn_plan_find_value(plan, plan->graph->inputs[input]->name, &index, NULL) != TN_OK)
        return NULL;
    return plan->values[index].data;
}

tn_status tn_plan_read(tn_plan *plan, const char *value, float *nchw, tn_error *error)
{
    size_t index = 0;
    tn_status status = tn_plan_find_value(plan, value, &index, error);
    if (status != TN_OK)
        return status;
    const tn_plan_value *v = &plan->values[index];
    if (!v->data)
        return tn_fail(error, TN_ERROR_USAGE, "value %s is not computed by this plan",
                       tn_quote(value));
    return tn_plan_fetch(plan, v, v->data, false, nchw, error);
}

tn_status tn_plan_raw(tn_plan *plan, const char *value, const float **data, bool *channels_last,
                      tn_error *error)
{
    size_t index = 0;
    tn_status status = tn_plan_find_value(plan, value, &index, error);
    if (status != TN_OK)
        return status;
    if (plan->values[index].bf16)
        return tn_fail(error, TN_ERROR_USAGE,
                       "value %s is stored as bf16: name it among the plan's taps",
                       tn_quote(value));
    *data = plan->values[index].data;
    *channels_last = plan->values[index].last;
    return TN_OK;
}

tn_status tn_plan_write_value(tn_plan *plan, const char *value, const float *nchw, tn_error *error)
{
    size_t index = 0;
    tn_status status = tn_plan_find_value(plan, value, &index, error);
    if (status != TN_OK)
        return status;
    const tn_plan_value *v = &plan->values[index];
    if (!v->data || v->param != TN_NONE)
        return tn_fail(error, TN_ERROR_USAGE, "value %s cannot be written", tn_quote(value));
    return tn_plan_store(plan, v, v->data, nchw, v->rank ? v->dims[0] : 1, false, error);
}

/* --- forward --------------------------------------------------------------------------------- */

static void param_pointers(const tn_plan *plan, const tn_plan_node *step,
                           const float *pointers[TN_STEP_PARAMS])
{
    for (int i = 0; i < step->n_params; i++)
        pointers[i] = tn_params_at(plan->params, step->params[i])->data;
}

static tn_status pack(tn_plan *plan, tn_plan_node *step, const tn_arguments *args, tn_error *error)
{
    uint64_t version = 0;
    if (!step->kernel->type->pack)
        return TN_OK;
    for (int i = 0; i < step->n_params; i++)
        version += tn_params_at(plan->params, step->params[i])->version;
    if (version == step->packed)
        return TN_OK;
    tn_status status = step->kernel->type->pack(step->kernel, args, error);
    if (status == TN_OK)
        step->packed = version;
    return status;
}

static bool uses_batch_statistics(tn_run_mode mode)
{
    return mode == TN_RUN_TRAINING || mode == TN_RUN_BATCH_STATISTICS;
}

/* BN: how running statistics move. */
static tn_status set_statistics(const tn_plan *plan, const tn_plan_node *step, tn_run_mode mode,
                                tn_arguments *args, tn_error *error)
{
    args->training = uses_batch_statistics(mode);
    args->keep = 1.0f;
    if (step->task.verb != TN_VERB_BATCH_NORM || !uses_batch_statistics(mode))
        return TN_OK;
    args->running_mean = tn_params_at(plan->params, step->params[2])->data;
    args->running_var = tn_params_at(plan->params, step->params[3])->data;
    if (mode != TN_RUN_TRAINING)
        return TN_OK;
    args->keep = plan->options.bn_momentum;
    if (args->keep > 0.0f)
        return TN_OK;
    return tn_node_float(step->node, "momentum", 0.9f, &args->keep, error);
}

static tn_status forward_step(tn_plan *plan, tn_plan_node *step, tn_run_mode mode, tn_error *error)
{
    const float *params[TN_STEP_PARAMS];
    tn_arguments args = {.src = step->src_data,
                         .dst = plan->values[step->dst].data,
                         .params = params,
                         .drop = mode == TN_RUN_TRAINING || mode == TN_RUN_FROZEN_STATISTICS,
                         .draw = plan->draw,
                         .saved = step->saved,
                         .state = step->state,
                         .workspace = plan->workspace};
    param_pointers(plan, step, params);
    tn_status status = pack(plan, step, &args, error);
    if (status == TN_OK)
        status = set_statistics(plan, step, mode, &args, error);
    if (status == TN_OK)
        status = step->kernel->type->forward(step->kernel, &args, error);
    if (status == TN_OK && args.keep < 1.0f) {
        tn_params_touch(plan->params, step->params[2]);
        tn_params_touch(plan->params, step->params[3]);
    }
    return status;
}

static tn_status in_step(tn_status status, const tn_plan_node *step, tn_error *error)
{
    if (status != TN_OK && step->node)
        tn_error_prepend(error, "node %s", tn_quote(tn_node_label(step->node)));
    return status;
}

static void clear_gradients(tn_plan *plan)
{
    for (size_t i = 0; i < plan->n_values; i++)
        plan->values[i].gradient_live = plan->values[i].gradient_valid = false;
}

tn_status tn_plan_set_dropout(tn_plan *plan, uint64_t seed, uint32_t epoch, uint64_t sample,
                              tn_error *error)
{
    const tn_draw draw = {.seed = seed, .sample = sample, .epoch = epoch};
    if (!plan->draw)
        return TN_OK;
    return plan->device->type->upload(plan->device, plan->draw, &draw, sizeof(draw), error);
}

tn_status tn_plan_forward(tn_plan *plan, tn_run_mode mode, size_t first, size_t last,
                          tn_error *error)
{
    last = last < plan->n_steps ? last : plan->n_steps;
    if (uses_batch_statistics(mode) && !plan->options.training && !plan->options.separate_bn &&
        !plan->options.no_fusion)
        return tn_fail(error, TN_ERROR_USAGE,
                       "batch statistics need a plan that keeps BN steps: training or separate_bn");
    if (plan->options.training)
        clear_gradients(plan);
    for (size_t i = first; i < last; i++) {
        tn_status status = forward_step(plan, &plan->steps[i], mode, error);
        if (status != TN_OK)
            return in_step(status, &plan->steps[i], error);
    }
    return TN_OK;
}

tn_status tn_plan_batch_statistics(tn_plan *plan, size_t step, float *mean, float *variance,
                                   tn_error *error)
{
    if (step >= plan->n_steps || plan->steps[step].task.verb != TN_VERB_BATCH_NORM)
        return tn_fail(error, TN_ERROR_USAGE, "step %zu is no batch norm", step);
    const tn_plan_node *s = &plan->steps[step];
    const float *saved = s->saved;
    int64_t channels = s->task.batch_norm.channels;
    size_t bytes = (size_t)channels * sizeof(float);
    tn_status status = plan->device->type->download(plan->device, mean, saved, bytes, error);
    return status == TN_OK ? plan->device->type->download(plan->device, variance,
                                                          saved + 2 * channels, bytes, error)
                           : status;
}

/* --- loss ------------------------------------------------------------------------------------ */

tn_status tn_plan_set_targets(tn_plan *plan, const tn_loss_options *o, tn_error *error)
{
    const tn_device_class *type = plan->device->type;
    if (!plan->loss)
        return tn_fail(error, TN_ERROR_USAGE, "the plan was made without a loss");
    if (o->count < 1 || o->count > plan->batch)
        return tn_fail(error, TN_ERROR_USAGE, "%lld samples for a plan of batch %lld",
                       (long long)o->count, (long long)plan->batch);
    int64_t classes = plan->values[plan->loss_value].dims[1];
    tn_status status = TN_OK;
    size_t bytes = (size_t)o->count * sizeof(int32_t);
    for (int64_t i = 0; o->labels && i < o->count; i++) {
        int32_t most = o->partners && o->partners[i] > o->labels[i] ? o->partners[i] : o->labels[i];
        if (most >= classes)
            return tn_fail(error, TN_ERROR_DATA, "label %d, but the network has %lld classes",
                           (int)most, (long long)classes);
    }
    if (o->labels)
        status = type->upload(plan->device, plan->labels, o->labels, bytes, error);
    if (status == TN_OK && o->partners)
        status = type->upload(plan->device, plan->partners, o->partners, bytes, error);
    if (status == TN_OK && o->partners)
        status =
            type->upload(plan->device, plan->mix, o->mix, (size_t)o->count * sizeof(float), error);
    if (status == TN_OK && o->teacher)
        status = type->upload(plan->device, plan->teacher, o->teacher,
                              (size_t)(o->count * classes) * sizeof(float), error);
    return status;
}

tn_status tn_plan_compute_loss(tn_plan *plan, const tn_loss_options *options, tn_error *error)
{
    tn_plan_value *root = &plan->values[plan->values[plan->loss_value].root];
    const float *src[2] = {root->data, options->teacher ? plan->teacher : options->teacher_data};
    float *dsrc[1] = {plan->options.training && root->needs_gradient ? root->gradient : NULL};
    bool accumulate[1] = {false};
    tn_arguments args = {.src = src,
                         .dst = plan->loss_result,
                         .dsrc = dsrc,
                         .accumulate = accumulate,
                         .workspace = plan->workspace,
                         .labels = options->labels ? plan->labels : NULL,
                         .partners = options->partners ? plan->partners : NULL,
                         .mix = options->partners ? plan->mix : NULL,
                         .count = options->count,
                         .scale =
                             options->scale != 0.0f ? options->scale : 1.0f / (float)options->count,
                         .smoothing = options->smoothing,
                         .temperature = options->temperature,
                         .weight = options->weight};
    clear_gradients(plan);
    tn_status status = plan->loss->type->forward(plan->loss, &args, error);
    root->gradient_live = root->gradient_valid = status == TN_OK && dsrc[0] != NULL;
    return status;
}

const float *tn_plan_loss_sums(const tn_plan *plan)
{
    return plan->loss_result;
}

tn_status tn_plan_read_loss(tn_plan *plan, tn_loss_result *result, tn_error *error)
{
    float sums[4];
    tn_status status =
        plan->device->type->download(plan->device, sums, plan->loss_result, sizeof(sums), error);
    if (status == TN_OK)
        *result = (tn_loss_result){.loss = (double)sums[0],
                                   .top1 = (int64_t)sums[1],
                                   .top5 = (int64_t)sums[2],
                                   .cross_entropy = (double)sums[3]};
    return status;
}

tn_status tn_plan_loss(tn_plan *plan, const tn_loss_options *options, tn_loss_result *result,
                       tn_error *error)
{
    tn_loss_result unread;
    tn_status status = tn_plan_set_targets(plan, options, error);
    if (status == TN_OK)
        status = tn_plan_compute_loss(plan, options, error);
    return status == TN_OK ? tn_plan_read_loss(plan, result ? result : &unread, error) : status;
}

/* --- backward -------------------------------------------------------------------------------- */

static tn_status inject(tn_plan *plan, const char *value, const float *gradient, bool raw,
                        tn_error *error)
{
    size_t index = 0;
    tn_status status = tn_plan_find_value(plan, value, &index, error);
    if (status != TN_OK)
        return status;
    const tn_plan_value *v = &plan->values[index];
    tn_plan_value *root = &plan->values[v->root];
    bool allowed = v->inject || plan->options.keep_all || (v->value && v->value->is_output) ||
                   strcmp(value, plan->logits) == 0;
    if (!plan->options.training || !allowed)
        return tn_fail(error, TN_ERROR_USAGE,
                       "a gradient cannot be injected at %s: name it among the plan's injections",
                       tn_quote(value));
    if (!root->gradient)
        return TN_OK;          /* nothing before it is trained */
    if (root->gradient_live) { /* on the host: rare */
        float *sum = plan->staging;
        status = tn_plan_fetch(plan, v, root->gradient, raw, sum, error);
        for (int64_t i = 0; i < v->count && status == TN_OK; i++)
            sum[i] += gradient[i];
        gradient = sum;
    }
    if (status == TN_OK)
        status =
            tn_plan_store(plan, v, root->gradient, gradient, v->rank ? v->dims[0] : 1, raw, error);
    if (status == TN_OK)
        root->gradient_live = root->gradient_valid = true;
    return status;
}

tn_status tn_plan_inject(tn_plan *plan, const char *value, const float *nchw, tn_error *error)
{
    return inject(plan, value, nchw, false, error);
}

tn_status tn_plan_inject_raw(tn_plan *plan, const char *value, const float *gradient,
                             tn_error *error)
{
    return inject(plan, value, gradient, true, error);
}

static tn_status zero_params(tn_plan *plan, const tn_plan_node *step, tn_error *error)
{
    tn_status status = TN_OK;
    for (int i = 0; i < step->n_params && status == TN_OK; i++) {
        const tn_param *p = tn_params_at(plan->params, step->params[i]);
        if (!p->gradient || p->frozen || plan->param_written[step->params[i]])
            continue;
        status = plan->device->type->zero(plan->device, p->gradient,
                                          (size_t)p->count * sizeof(float), error);
        plan->param_written[step->params[i]] = true;
    }
    return status;
}

/* A source whose memory is a parameter. */
static float *param_gradient(tn_plan *plan, size_t param, bool accumulate, bool *add)
{
    const tn_param *p = tn_params_at(plan->params, param);
    if (!p->gradient || p->frozen)
        return NULL;
    *add = accumulate || plan->param_written[param];
    plan->param_written[param] = true;
    return p->gradient;
}

static bool set_sources(tn_plan *plan, tn_plan_node *step, bool accumulate)
{
    bool any = false;
    for (int j = 0; j < step->n_src; j++) {
        tn_plan_value *root = &plan->values[plan->values[step->src[j]].root];
        step->src_gradient[j] = NULL;
        step->accumulate[j] = root->gradient_live;
        if (root->param != TN_NONE)
            step->src_gradient[j] =
                param_gradient(plan, root->param, accumulate, &step->accumulate[j]);
        else if (root->needs_gradient)
            step->src_gradient[j] = root->gradient;
        any = any || step->src_gradient[j];
        if (step->src_gradient[j] && root->param == TN_NONE)
            root->gradient_live = root->gradient_valid = true;
    }
    return any;
}

static tn_status backward_step(tn_plan *plan, tn_plan_node *step, bool accumulate, tn_error *error)
{
    tn_plan_value *dst = &plan->values[plan->values[step->dst].root];
    const float *params[TN_STEP_PARAMS];
    float *dparams[TN_STEP_PARAMS] = {NULL};
    bool add = accumulate, wanted = false;
    if (!step->backward)
        return TN_OK;
    if (!dst->gradient_live)
        return accumulate ? TN_OK : zero_params(plan, step, error);
    for (int i = 0; i < step->n_params; i++) {
        const tn_param *p = tn_params_at(plan->params, step->params[i]);
        dparams[i] = p->frozen ? NULL : p->gradient;
        wanted = wanted || dparams[i];
        if (dparams[i] && plan->param_written[step->params[i]])
            add = true;
    }
    /* a kernel adds to all of its parameters or to none: those not written yet start at 0 */
    if (add && !accumulate) {
        tn_status status = zero_params(plan, step, error);
        if (status != TN_OK)
            return status;
    }
    for (int i = 0; i < step->n_params; i++)
        if (dparams[i])
            plan->param_written[step->params[i]] = true;
    wanted = set_sources(plan, step, accumulate) || wanted;
    dst->gradient_live = false;
    if (!wanted)
        return TN_OK;
    tn_arguments args = {.src = step->src_data,
                         .dst = plan->values[step->dst].data,
                         .params = params,
                         .ddst = dst->gradient,
                         .dsrc = step->src_gradient,
                         .accumulate = step->accumulate,
                         .dparams = dparams,
                         .accumulate_params = add,
                         .saved = step->saved,
                         .state = step->state,
                         .workspace = plan->workspace};
    param_pointers(plan, step, params);
    return step->kernel->type->backward(step->kernel, &args, error);
}

tn_status tn_plan_backward(tn_plan *plan, size_t first, size_t last, bool accumulate,
                           tn_error *error)
{
    last = last < plan->n_steps ? last : plan->n_steps;
    if (!plan->options.training)
        return tn_fail(error, TN_ERROR_USAGE, "backward needs a training plan");
    memset(plan->param_written, 0, tn_params_count(plan->params) * sizeof(bool));
    for (size_t i = last; i-- > first;) {
        tn_status status = backward_step(plan, &plan->steps[i], accumulate, error);
        if (status != TN_OK)
            return in_step(status, &plan->steps[i], error);
    }
    return TN_OK;
}

tn_status tn_plan_read_gradient(tn_plan *plan, const char *value, float *nchw, tn_error *error)
{
    size_t index = 0;
    tn_status status = tn_plan_find_value(plan, value, &index, error);
    if (status != TN_OK)
        return status;
    const tn_plan_value *v = &plan->values[index], *root = &plan->values[v->root];
    bool kept = v->keep_gradient || plan->options.keep_all ||
                (plan->options.input_gradient && v->value && v->value->is_input);
    if (!plan->options.training || !kept)
        return tn_fail(error, TN_ERROR_USAGE,
                       "the gradient of %s is not kept: name it among the plan's gradients",
                       tn_quote(value));
    if (!root->gradient || !root->gradient_valid) {
        memset(nchw, 0, (size_t)v->count * sizeof(float));
        return TN_OK;
    }
    return tn_plan_fetch(plan, v, root->gradient, false, nchw, error);
}
