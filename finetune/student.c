/* How a student is made. */
#include "finetune/student.h"

#include <math.h>
#include <regex.h>
#include <stdio.h>
#include <string.h>

static tn_status create_teacher(tn_student *student, const tn_model *teacher, tn_error *error)
{
    const tn_train_options *options = student->options;
    const tn_value *input = student->graph->inputs[0]; /* perhaps not of the teacher's own size */
    tn_graph_options batch = {.batch = tn_train_rank_batch(options), .input_rank = input->rank - 1};
    for (int i = 0; i < batch.input_rank; i++)
        batch.input_dims[i] = input->dims[i + 1];
    tn_status status = tn_graph_create(teacher, &batch, &student->teacher_graph, error);
    if (status == TN_OK)
        status = tn_params_create(student->teacher_graph, options->device, &student->teacher_params,
                                  error);
    tn_plan_options inference = {.output = options->output,
                                 .precision = options->precision,
                                 .params = student->teacher_params};
    const char *logits = NULL;
    if (status == TN_OK) { /* the logits may be fused away: ask for them */
        const tn_value *output = tn_graph_output(student->teacher_graph, options->output);
        while (output->producer && (!strcmp(output->producer->type, "Softmax") ||
                                    !strcmp(output->producer->type, "LogSoftmax")))
            output = output->producer->inputs[0];
        logits = output->name;
        inference.taps = &logits;
        inference.n_taps = 1;
        status = tn_plan_create(student->teacher_graph, options->device, &inference,
                                &student->teacher, error);
    }
    tn_extent shape;
    if (status == TN_OK)
        status = tn_plan_shape(student->teacher, tn_plan_logits(student->teacher), &shape, error);
    if (status == TN_OK && (shape.rank < 2 || shape.dims[1] != student->classes))
        status = tn_fail(
            error, TN_ERROR_USAGE, "the distillation teacher has %lld classes, the network %lld",
            (long long)(shape.rank > 1 ? shape.dims[1] : 0), (long long)student->classes);
    if (status == TN_OK &&
        tn_extent_count(&shape) != tn_train_rank_batch(options) * student->classes)
        status = tn_fail(error, TN_ERROR_USAGE,
                         "the distillation teacher's logits are no list of %lld classes an image",
                         (long long)student->classes);
    if (status != TN_OK)
        tn_error_prepend(error, "distillation teacher");
    return status;
}

/* Latents at the weights of another model. */
static tn_status take_latents(tn_student *student, tn_error *error)
{
    tn_graph *graph = NULL;
    tn_layers layers = {0};
    tn_status status = tn_graph_create(student->options->latents, NULL, &graph, error);
    if (status == TN_OK)
        status = tn_layers_find(graph, &layers, error);
    for (size_t i = 0; status == TN_OK && i < student->latents.count; i++) {
        tn_latent *latent = &student->latents.item[i];
        const tn_layer *own = latent->layer, *found = NULL;
        for (size_t k = 0; k < layers.count; k++)
            if (!strcmp(layers.layer[k].weight->name, own->weight->name) ||
                (!found && !strcmp(tn_node_label(layers.layer[k].node), tn_node_label(own->node))))
                found = &layers.layer[k];
        if (!found || found->rows != own->rows || found->cols != own->cols)
            status = tn_fail(error, TN_ERROR_MODEL,
                             "the model of latent weights has no layer like %s of %lld x %lld",
                             tn_quote(tn_node_label(own->node)), (long long)own->rows,
                             (long long)own->cols);
        else
            status = tn_latent_set(latent, found, error);
    }
    tn_graph_destroy(graph);
    return status;
}

static bool matches(const regex_t *regex, const tn_param *param)
{
    return regexec(regex, param->name, 0, NULL, 0) == 0 ||
           (param->node && regexec(regex, tn_node_label(param->node), 0, NULL, 0) == 0);
}

static tn_status fail_unmatched(const tn_student *student, const char *pattern, tn_error *error)
{
    char names[600] = "";
    size_t used = 0;
    for (size_t i = 0; i < tn_params_count(student->params) && used < sizeof names; i++)
        used += (size_t)snprintf(names + used, sizeof names - used, "%s%s", i ? ", " : "",
                                 tn_quote(tn_params_at(student->params, i)->name));
    return tn_fail(error, TN_ERROR_USAGE,
                   "--freeze: %s matches nothing that is trained; there are %s%s",
                   tn_quote(pattern), names, used < sizeof names ? "" : " ...");
}

/* Freezes what a pattern matches, by the node's name or the tensor's. */
static tn_status freeze_matching(tn_student *student, const char *pattern, tn_error *error)
{
    regex_t regex;
    size_t found = 0;
    if (regcomp(&regex, pattern, REG_EXTENDED | REG_NOSUB))
        return tn_fail(error, TN_ERROR_USAGE, "--freeze: %s is no regular expression",
                       tn_quote(pattern));
    for (size_t i = 0; i < tn_params_count(student->params); i++) {
        tn_param *param = tn_params_at(student->params, i);
        const bool here = matches(&regex, param);
        found += here;
        param->frozen |= here;
    }
    regfree(&regex);
    return found > 0 ? TN_OK : fail_unmatched(student, pattern, error);
}

static bool is_batch_norm(const tn_param *param)
{
    return param->role == TN_PARAM_GAMMA || param->role == TN_PARAM_BETA;
}

static tn_status freeze_params(tn_student *student, tn_error *error)
{
    const tn_train_options *options = student->options;
    tn_status status = TN_OK;
    for (size_t i = 0; i < tn_params_count(student->params); i++) {
        tn_param *param = tn_params_at(student->params, i);
        param->frozen = is_batch_norm(param) && options->batch_norm == TN_BATCH_NORM_FREEZE;
    }
    for (size_t i = 0; i < options->n_frozen && status == TN_OK; i++)
        status = freeze_matching(student, options->frozen[i], error);
    return status;
}

static tn_latent *latent_of(tn_student *student, size_t param)
{
    for (size_t i = 0; i < student->latents.count; i++)
        if (student->latents.item[i].param == param)
            return &student->latents.item[i];
    return NULL;
}

static tn_status add_latent_slots(tn_student *student, tn_latent *latent, bool frozen,
                                  tn_error *error)
{
    const tn_train_options *options = student->options;
    tn_optimizer *optimizer = &student->optimizer;
    const char *name = latent->layer->weight->name;
    char text[sizeof((tn_slot *)NULL)->name];
    tn_status status = tn_optimizer_add(optimizer, name, latent->w, latent->dw,
                                        latent->weight.rows * latent->weight.cols, 1,
                                        (float)options->weight_decay, error);
    if (status == TN_OK)
        optimizer->slots[optimizer->n_slots - 1].frozen = frozen;
    /* Wp and Wn collect the gradients of all their weights; LSQ divides by sqrt(N Qp) itself, and
     * without the like TTQ's scales run away at the rate that suits the latents */
    double shared =
        (double)(latent->weight.rows * latent->weight.cols) / (double)latent->weight.n_scales;
    double rate = options->scale_lr / (latent->scheme.quantizer->two_scales ? sqrt(shared) : 1);
    const struct {
        const char *suffix;
        float *value, *gradient;
        bool used, trained;
    } scales[3] = {
        {"scale", latent->state.scale, latent->dscale, true, latent->trains_scale},
        {"scale_neg", latent->state.scale_neg, latent->dscale_neg,
         latent->scheme.quantizer->two_scales, latent->trains_scale},
        /* never trained, but a checkpoint must hold it */
        {"zero", latent->state.zero, latent->dscale, latent->scheme.quantizer->has_zero, false}};
    for (int i = 0; i < 3 && status == TN_OK; i++) {
        if (!scales[i].used)
            continue;
        tn_slot_name(scales[i].suffix, name, text, sizeof text);
        status = tn_optimizer_add(optimizer, text, scales[i].value, scales[i].gradient,
                                  latent->weight.n_scales, (float)rate, 0, error);
        if (status == TN_OK)
            optimizer->slots[optimizer->n_slots - 1].frozen = frozen || !scales[i].trained;
    }
    return status;
}

/* Every slot exists whether frozen or not, so that checkpoints of one network have one layout. */
static tn_status add_slots(tn_student *student, tn_error *error)
{
    for (size_t i = 0; i < tn_params_count(student->params); i++) {
        tn_param *param = tn_params_at(student->params, i);
        if (!param->trainable)
            continue;
        tn_status status;
        tn_latent *latent = latent_of(student, i);
        if (latent) {
            status = add_latent_slots(student, latent, param->frozen, error);
        } else {
            float rate = 1, decay = param->role == TN_PARAM_WEIGHT
                                        ? (float)student->options->weight_decay
                                        : 0;
            const tn_activation_range *range = tn_activation_steps_find(&student->steps, i);
            if (range)
                tn_activation_steps_rate(range, student->options, &rate, &decay);
            status = tn_optimizer_add(&student->optimizer, param->name, param->host,
                                      param->host_gradient, param->count, rate, decay, error);
            if (status == TN_OK) {
                tn_slot *slot = &student->optimizer.slots[student->optimizer.n_slots - 1];
                slot->frozen = param->frozen;
                slot->floor = range ? TN_LEAST_STEP : slot->floor;
            }
        }
        if (status != TN_OK)
            return status;
    }
    return TN_OK;
}

static tn_status create_plans(tn_student *student, tn_error *error)
{
    const tn_train_options *options = student->options;
    tn_plan_options training = {.training = true,
                                .loss = true,
                                .output = options->output,
                                .clip_steps = !strcmp(options->activation_scheme, "pact"),
                                .precision = options->precision,
                                .params = student->params};
    tn_status status =
        tn_plan_create(student->graph, options->device, &training, &student->plan, error);
    tn_plan_options inference = {.loss = true,
                                 .output = options->output,
                                 .precision = options->precision,
                                 .params = student->params};
    if (status == TN_OK)
        status =
            tn_plan_create(student->graph, options->device, &inference, &student->judge, error);
    tn_extent shape;
    if (status == TN_OK)
        status = tn_plan_shape(student->plan, tn_plan_logits(student->plan), &shape, error);
    if (status == TN_OK && shape.rank != 2)
        status = tn_fail(error, TN_ERROR_MODEL,
                         "output %s has rank %d: training needs logits [batch, classes]",
                         tn_quote(tn_plan_logits(student->plan)), shape.rank);
    if (status == TN_OK)
        student->classes = shape.dims[1];
    return status;
}

tn_status tn_student_create(const tn_model *model, const tn_model *teacher,
                            const tn_train_options *options, tn_student *out, tn_error *error)
{
    tn_student student = {.options = options};
    tn_graph_options batch = {.batch = tn_train_rank_batch(options)};
    tn_status status = TN_OK;
    if (options->activations) {
        status = tn_activation_steps_create(model, options->activations, &student.steps, error);
        model = student.steps.model;
    }
    if (status == TN_OK)
        status = tn_graph_create(model, &batch, &student.graph, error);
    if (status == TN_OK && options->output &&
        strcmp(tn_graph_output(student.graph, options->output)->name, options->output) != 0)
        status =
            tn_fail(error, TN_ERROR_USAGE, "the model has no output %s", tn_quote(options->output));
    bool plain = options->policy.scheme && !strcmp(options->policy.scheme, "float");
    if (status == TN_OK && !plain)
        status = tn_layers_select(student.graph, &options->policy, &student.layers, error);
    if (status == TN_OK)
        status = tn_params_create(student.graph, options->device, &student.params, error);
    if (status == TN_OK)
        status = freeze_params(&student, error);
    if (status == TN_OK)
        status = tn_activation_steps_bind(&student.steps, options, student.params, error);
    if (status == TN_OK)
        status = tn_running_statistics_create(student.params, &student.running, error);
    if (status == TN_OK)
        status = create_plans(&student, error);
    if (status == TN_OK)
        status = tn_params_mirror(student.params, error);
    if (status == TN_OK)
        status = tn_reduction_create(student.params, options->device, options->collective,
                                     options->batch_norm == TN_BATCH_NORM_TRAIN, &student.reduction,
                                     error);
    if (status == TN_OK)
        status = tn_latents_create(&student.layers, student.params, &student.latents, error);
    if (status == TN_OK && options->latents)
        status = take_latents(&student, error);
    if (status == TN_OK && teacher)
        status = create_teacher(&student, teacher, error);
    if (status != TN_OK)
        goto fail;
    student.optimizer =
        (tn_optimizer){.rule = {.kind = !strcmp(options->optimizer, "adam")    ? TN_OPTIMIZER_ADAM
                                        : !strcmp(options->optimizer, "adamw") ? TN_OPTIMIZER_ADAMW
                                                                               : TN_OPTIMIZER_SGD,
                                .momentum = (float)options->momentum,
                                .nesterov = !options->no_nesterov && options->momentum > 0,
                                .beta1 = 0.9f,
                                .beta2 = 0.999f,
                                .epsilon = 1e-8f},
                       .ema = (float)options->ema};
    status = add_slots(&student, error);
    if (status != TN_OK)
        goto fail;
    student.recorder = (tn_recorder){.device = options->device,
                                     .params = student.params,
                                     .reporter = options->reporter,
                                     .eager = options->eager};
    *out = student;
    status = tn_resident_create(options->device, out->params, &out->latents, &out->optimizer,
                                options->clip_norm, &out->resident, error);
    if (status != TN_OK)
        tn_student_done(out);
    return status;
fail:
    tn_student_done(&student);
    return status;
}

void tn_student_done(tn_student *student)
{
    tn_recorder_done(&student->recorder);
    tn_reduction_destroy(student->reduction);
    tn_resident_destroy(student->resident);
    tn_running_statistics_done(&student->running);
    tn_optimizer_done(&student->optimizer);
    tn_latents_done(&student->latents);
    tn_plan_destroy(student->teacher);
    tn_params_destroy(student->teacher_params);
    tn_graph_destroy(student->teacher_graph);
    tn_image_feed_destroy(student->feed);
    tn_plan_destroy(student->judge);
    tn_plan_destroy(student->plan);
    tn_params_destroy(student->params);
    tn_graph_destroy(student->graph);
    tn_activation_steps_done(&student->steps);
    *student = (tn_student){0};
}

tn_status tn_student_start(tn_student *student, const tn_conversion *start, tn_error *error)
{
    for (size_t i = 0; i < student->latents.count; i++) {
        tn_latent *latent = &student->latents.item[i];
        for (size_t k = 0; k < start->count; k++) {
            if (strcmp(start->item[k].layer->weight->name, latent->layer->weight->name))
                continue;
            tn_status status = tn_latent_start(latent, &start->item[k].weight, error);
            if (status != TN_OK)
                return status;
        }
    }
    tn_optimizer_start_averages(&student->optimizer);
    return TN_OK;
}
