#include "finetune/activation_steps.h"

#include "core/memory.h"

#include <math.h>
#include <string.h>

static tn_status copy_ranges(const tn_activations *from, tn_activations *to, tn_error *error)
{
    tn_activations copy = {.range = tn_alloc_zero(from->count + 1, sizeof *copy.range)};
    bool whole = copy.range != NULL;
    for (size_t i = 0; whole && i < from->count; i++) {
        copy.range[i] = from->range[i];
        copy.range[i].value = tn_strdup(from->range[i].value);
        whole = copy.range[i].value != NULL;
        copy.count++;
    }
    if (!whole) {
        tn_activations_done(&copy);
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for quantized activations");
    }
    *to = copy;
    return TN_OK;
}

tn_status tn_activation_steps_create(const tn_model *model, const tn_activations *ranges,
                                     tn_activation_steps *steps, tn_error *error)
{
    tn_activation_steps made = {0};
    tn_status status = copy_ranges(ranges, &made.ranges, error);
    if (status == TN_OK)
        status = tn_model_copy(model, &made.model, error);
    if (status == TN_OK)
        status = tn_activations_write(&made.ranges, made.model, error);
    if (status == TN_OK) {
        made.param = tn_alloc_array(made.ranges.count + 1, sizeof *made.param);
        if (!made.param)
            status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for quantized activations");
    }
    for (size_t i = 0; status == TN_OK && i < made.ranges.count; i++)
        made.param[i] = SIZE_MAX;
    if (status == TN_OK)
        *steps = made;
    else
        tn_activation_steps_done(&made);
    return status;
}

void tn_activation_steps_done(tn_activation_steps *steps)
{
    tn_activations_done(&steps->ranges);
    tn_model_destroy(steps->model);
    tn_free(steps->param);
    *steps = (tn_activation_steps){0};
}

/* The value a QuantizeLinear quantizes, or what the Clip before it does. */
static bool quantizes(const tn_node *node, const char *value)
{
    const tn_value *source = node->inputs[0];
    if (!strcmp(source->name, value))
        return true;
    return source->producer && !strcmp(source->producer->type, "Clip") &&
           !strcmp(source->producer->inputs[0]->name, value);
}

tn_status tn_activation_steps_bind(tn_activation_steps *steps, const tn_train_options *options,
                                   tn_params *params, tn_error *error)
{
    bool fixed = options->activation_scheme && !strcmp(options->activation_scheme, "fixed");
    for (size_t p = 0; p < tn_params_count(params); p++) {
        tn_param *param = tn_params_at(params, p);
        if (param->role != TN_PARAM_STEP)
            continue;
        bool asked = param->frozen; /* --freeze */
        param->frozen = true;
        for (size_t i = 0; i < steps->ranges.count; i++)
            if (steps->param[i] == SIZE_MAX &&
                quantizes(param->node, steps->ranges.range[i].value)) {
                steps->param[i] = p;
                param->frozen = fixed || asked;
                break;
            }
    }
    for (size_t i = 0; i < steps->ranges.count; i++)
        if (steps->param[i] == SIZE_MAX)
            return tn_fail(error, TN_ERROR_MODEL,
                           "value %s: nothing in the network reads it, so it cannot be quantized",
                           tn_quote(steps->ranges.range[i].value));
    return TN_OK;
}

const tn_activation_range *tn_activation_steps_find(const tn_activation_steps *steps, size_t param)
{
    for (size_t i = 0; i < steps->ranges.count; i++)
        if (steps->param[i] == param)
            return &steps->ranges.range[i];
    return NULL;
}

void tn_activation_steps_rate(const tn_activation_range *range, const tn_train_options *options,
                              float *rate, float *decay)
{
    *rate = (float)options->scale_lr;
    *decay = 0;
    if (!options->activation_scheme || strcmp(options->activation_scheme, "pact"))
        return;
    /* alpha = high * step: a step of size r dL/dalpha in alpha is one of r dL/dstep / high^2 here,
     * and of r / high where the optimizer norms gradients */
    double high = ldexp(1, range->bits) - 1 - (double)range->zero;
    double shrink = high > 1 ? 1 / high : 1;
    shrink *= strcmp(options->optimizer, "sgd") ? 1 : shrink;
    *rate = (float)(options->scale_lr * shrink);
    *decay = (float)(options->weight_decay / shrink);
}

void tn_activation_steps_constrain(const tn_activation_steps *steps, tn_params *params)
{
    for (size_t i = 0; i < steps->ranges.count; i++) {
        float *step = tn_params_at(params, steps->param[i])->host;
        if (!(*step >= TN_LEAST_STEP))
            *step = TN_LEAST_STEP;
    }
}

tn_status tn_activation_steps_export(const tn_activation_steps *steps, const tn_params *params,
                                     tn_activations *ranges, tn_error *error)
{
    tn_activations copy = {0};
    tn_status status = copy_ranges(&steps->ranges, &copy, error);
    for (size_t i = 0; status == TN_OK && i < copy.count; i++)
        status = tn_params_get(params, steps->param[i], &copy.range[i].scale, error);
    if (status == TN_OK)
        *ranges = copy;
    else
        tn_activations_done(&copy);
    return status;
}
