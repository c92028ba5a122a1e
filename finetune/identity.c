#include "finetune/identity.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

static void hex(XXH3_state_t *hash, char *text)
{
    XXH128_hash_t digest = XXH3_128bits_digest(hash);
    snprintf(text, 33, "%016" PRIx64 "%016" PRIx64, (uint64_t)digest.high64,
             (uint64_t)digest.low64);
}

static void add_text(XXH3_state_t *hash, const char *text)
{
    text = text ? text : "\1"; /* absent is not empty */
    XXH3_128bits_update(hash, text, strlen(text) + 1);
}

static void add_number(XXH3_state_t *hash, double number)
{
    XXH3_128bits_update(hash, &number, sizeof number);
}

static void add_policy(XXH3_state_t *hash, const tn_policy *policy)
{
    const char *const texts[] = {policy->scheme,     policy->bits,      policy->granularity,
                                 policy->threshold,  policy->levels,    policy->first_layer,
                                 policy->last_layer, policy->conv_bits, policy->linear_bits};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        add_text(hash, texts[i]);
    add_number(hash, policy->narrow);
    for (size_t i = 0; i < policy->n_layer_rules; i++)
        add_text(hash, policy->layer_rules[i]);
    for (size_t i = 0; i < policy->n_excluded; i++)
        add_text(hash, policy->excluded[i]);
}

static void add_options(XXH3_state_t *hash, const tn_train_options *o)
{
    add_policy(hash, &o->policy);
    const double numbers[] = {
        o->epochs,        o->batch,         o->accumulate,     o->lr,
        o->momentum,      o->no_nesterov,   o->weight_decay,   o->final_lr,
        o->warmup_epochs, o->scale_lr,      o->clip_norm,      o->label_smoothing,
        o->ema,           o->temperature,   o->distill_weight, o->batch_norm,
        o->parq_fraction, o->sparsity_ramp, (double)o->seed,   (double)o->precision};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        add_number(hash, numbers[i]);
    add_text(hash, o->activations ? o->activation_scheme : NULL);
    for (size_t i = 0; o->activations && i < o->activations->count; i++)
        add_number(hash, o->activations->range[i].bits);
    add_text(hash, o->optimizer);
    add_text(hash, o->schedule);
    add_text(hash, o->distill);
    if (o->output)
        add_text(hash, o->output);
    for (size_t i = 0; i < o->n_frozen; i++)
        add_text(hash, o->frozen[i]);
}

static void add_data(XXH3_state_t *hash, const tn_train_data *data)
{
    const tn_preprocess *p = data->preprocess;
    const double numbers[] = {p->resize,
                              p->crop_width,
                              p->crop_height,
                              (double)p->scale,
                              (double)p->mean[0],
                              (double)p->mean[1],
                              (double)p->mean[2],
                              (double)p->deviation[0],
                              (double)p->deviation[1],
                              (double)p->deviation[2],
                              p->bgr,
                              p->channels};
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        add_number(hash, numbers[i]);
    const tn_augment_options *a = data->augment;
    if (!a)
        return;
    const double augment[] = {a->pad,
                              a->flip,
                              (double)a->min_area,
                              (double)a->rotation,
                              (double)a->brightness,
                              (double)a->contrast,
                              (double)a->saturation,
                              (double)a->sharpness,
                              a->cutout,
                              (double)a->mixup};
    for (size_t i = 0; i < sizeof augment / sizeof *augment; i++)
        add_number(hash, augment[i]);
}

/* Names and numbers of all initializers: what training starts from. */
static tn_status add_model(XXH3_state_t *hash, const tn_model *model, tn_error *error)
{
    const Onnx__GraphProto *graph = model->proto->graph;
    for (size_t i = 0; i < graph->n_initializer; i++) {
        tn_tensor tensor;
        tn_status status = tn_model_tensor(model, graph->initializer[i], &tensor, error);
        if (status != TN_OK)
            return status;
        add_text(hash, graph->initializer[i]->name);
        if (tensor.bytes)
            XXH3_128bits_update(hash, tensor.data, tensor.bytes);
        tn_tensor_done(&tensor);
    }
    for (size_t i = 0; i < graph->n_node; i++)
        add_text(hash, graph->node[i]->op_type);
    return TN_OK;
}

tn_status tn_identity_make(const tn_model *model, const tn_train_data *data,
                           const tn_train_options *options, tn_run_identity *identity,
                           tn_error *error)
{
    tn_run_identity made = {0};
    XXH3_state_t *hash = XXH3_createState();
    if (!hash)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    XXH3_128bits_reset(hash);
    add_options(hash, options);
    add_data(hash, data);
    tn_status status = options->latents ? add_model(hash, options->latents, error) : TN_OK;
    hex(hash, made.recipe);
    XXH3_128bits_reset(hash);
    if (status == TN_OK)
        status = add_model(hash, model, error);
    hex(hash, made.model);
    XXH3_freeState(hash);
    if (status != TN_OK)
        return status;
    made.processes = options->collective->size;
    snprintf(made.data, sizeof made.data, "%016" PRIx64, tn_dataset_hash(data->train));
    snprintf(made.machine, sizeof made.machine, "%s, ternion %s", options->device->arithmetic,
             TERNION_VERSION);
    *identity = made;
    return TN_OK;
}
