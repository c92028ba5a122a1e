/* Defaults and checks of tn_train_options. */
#include "finetune/train.h"

#include "finetune/schedule.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static tn_status check_range(const char *name, double value, double low, double high,
                             tn_error *error)
{
    if (value >= low && value <= high)
        return TN_OK;
    return tn_fail(error, TN_ERROR_USAGE, "--%s %.10g: expected a number from %.10g to %.10g", name,
                   value, low, high);
}

/* 0 means the default, a negative number "none". */
static double or_standard(double value, double standard)
{
    return value == 0 ? standard : value < 0 ? 0 : value;
}

static tn_status check(const tn_train_options *o, tn_error *error)
{
    const struct {
        const char *name;
        double value, low, high;
    } ranges[] = {{"epochs", o->epochs, 1, 1e6},
                  {"batch-size", o->batch, 1, 1 << 20},
                  {"accumulate", o->accumulate, 1, 1 << 16},
                  {"lr", o->lr, 1e-12, 1e3},
                  {"momentum", o->momentum, 0, 0.99999},
                  {"weight-decay", o->weight_decay, 0, 1},
                  {"final-lr", o->final_lr, 0, 1},
                  {"warmup-epochs", o->warmup_epochs, 0, o->epochs},
                  {"scale-lr", o->scale_lr, 0, 1e3},
                  {"clip-norm", o->clip_norm, 0, 1e9},
                  {"label-smoothing", o->label_smoothing, 0, 0.99},
                  {"ema", o->ema, 0, 0.99999999},
                  {"temperature", o->temperature, 1e-3, 1e3},
                  {"distill-weight", o->distill_weight, 0, 1},
                  {"parq-fraction", o->parq_fraction, 0, 1}};
    for (size_t i = 0; i < sizeof ranges / sizeof *ranges; i++) {
        tn_status status =
            check_range(ranges[i].name, ranges[i].value, ranges[i].low, ranges[i].high, error);
        if (status != TN_OK)
            return status;
    }
    if (strcmp(o->optimizer, "sgd") && strcmp(o->optimizer, "adam") &&
        strcmp(o->optimizer, "adamw"))
        return tn_fail(error, TN_ERROR_USAGE, "--optimizer %s: expected sgd, adam or adamw",
                       tn_quote(o->optimizer));
    if (strcmp(o->activation_scheme, "lsq") && strcmp(o->activation_scheme, "pact") &&
        strcmp(o->activation_scheme, "fixed"))
        return tn_fail(error, TN_ERROR_USAGE, "--activation-scheme %s: expected lsq, pact or fixed",
                       tn_quote(o->activation_scheme));
    if (o->batch % o->collective->size != 0)
        return tn_fail(error, TN_ERROR_USAGE,
                       "--batch-size %d cannot be divided among %d processes: choose a multiple",
                       o->batch, o->collective->size);
    tn_schedule schedule = {0};
    return tn_schedule_parse(o->schedule, &schedule, error);
}

bool tn_train_is_plain(const char *scheme)
{
    return !strcmp(scheme, "float") || !strcmp(scheme, "half");
}

tn_status tn_train_resolve(const tn_train_options *options, tn_train_options *resolved,
                           tn_error *error)
{
    tn_train_options o = *options;
    if (!o.policy.scheme) {
        o.policy.scheme = "lsq";
        if (!o.policy.bits)
            o.policy.bits = "1.58";
    }
    bool plain = tn_train_is_plain(o.policy.scheme);
    o.epochs = o.epochs ? o.epochs : 20;
    o.batch = o.batch ? o.batch : 128;
    o.accumulate = o.accumulate ? o.accumulate : 1;
    o.optimizer = o.optimizer ? o.optimizer : "sgd";
    o.lr = o.lr != 0 ? o.lr : strcmp(o.optimizer, "sgd") ? 1e-3 : plain ? 0.1 : 0.02;
    o.momentum = or_standard(o.momentum, 0.9);
    o.weight_decay = or_standard(o.weight_decay, 1e-4);
    o.schedule = o.schedule ? o.schedule : "cosine";
    o.scale_lr = or_standard(o.scale_lr, 1);
    o.temperature = o.temperature != 0 ? o.temperature : 4;
    o.distill_weight = or_standard(o.distill_weight, 0.5);
    o.activation_scheme = o.activation_scheme ? o.activation_scheme : "lsq";
    o.parq_fraction = or_standard(o.parq_fraction, 0.75);
    o.threads_loader = o.threads_loader > 0 ? o.threads_loader : 1;
    o.save_every = o.save_every > 0 ? o.save_every : 600;
    o.collective = o.collective ? o.collective : tn_collective_single();
    tn_status status = check(&o, error);
    if (status == TN_OK)
        *resolved = o;
    return status;
}

json_t *tn_train_options_to_json(const tn_train_options *o)
{
    const struct {
        const char *name, *value;
    } texts[] = {{"scheme", o->policy.scheme},
                 {"bits", o->policy.bits},
                 {"granularity", o->policy.granularity},
                 {"threshold", o->policy.threshold},
                 {"levels", o->policy.levels},
                 {"first-layer", o->policy.first_layer},
                 {"last-layer", o->policy.last_layer},
                 {"conv-bits", o->policy.conv_bits},
                 {"linear-bits", o->policy.linear_bits},
                 {"optimizer", o->optimizer},
                 {"schedule", o->schedule},
                 {"distill", o->distill},
                 {"activation-scheme", o->activations ? o->activation_scheme : NULL},
                 {"batch-norm", o->batch_norm == TN_BATCH_NORM_FREEZE ? "freeze" : "train"}};
    const struct {
        const char *name;
        double value;
    } numbers[] = {{"epochs", o->epochs},
                   {"batch-size", o->batch},
                   {"accumulate", o->accumulate},
                   {"lr", o->lr},
                   {"momentum", o->momentum},
                   {"weight-decay", o->weight_decay},
                   {"final-lr", o->final_lr},
                   {"warmup-epochs", o->warmup_epochs},
                   {"scale-lr", o->scale_lr},
                   {"clip-norm", o->clip_norm},
                   {"label-smoothing", o->label_smoothing},
                   {"ema", o->ema},
                   {"temperature", o->distill ? o->temperature : 0},
                   {"distill-weight", o->distill ? o->distill_weight : 0},
                   {"early-stop", o->early_stop},
                   {"sparsity-ramp", o->sparsity_ramp}};
    json_t *object = json_object();
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++)
        if (texts[i].value)
            json_object_set_new(object, texts[i].name, json_string(texts[i].value));
    for (size_t i = 0; i < sizeof numbers / sizeof *numbers; i++)
        json_object_set_new(object, numbers[i].name, json_real(numbers[i].value));
    return object;
}
