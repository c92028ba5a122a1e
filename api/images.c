#include "api/images.h"

#include "finetune/devices.h"
#include "finetune/preflight.h"

#include <stdio.h>
#include <string.h>

tn_status tn_image_device(const char *name, tn_device **device, tn_error *error)
{
    return tn_devices_open(name, device, error);
}

tn_status tn_image_precision(const char *name, tn_precision *precision, tn_error *error)
{
    if (!name || strcmp(name, "auto") == 0)
        *precision = TN_PRECISION_AUTO;
    else if (strcmp(name, "fp32") == 0)
        *precision = TN_PRECISION_FP32;
    else if (strcmp(name, "bf16") == 0)
        *precision = TN_PRECISION_BF16;
    else if (strcmp(name, "tf32") == 0)
        *precision = TN_PRECISION_TF32;
    else
        return tn_fail(error, TN_ERROR_USAGE, "precision %s: expected auto, fp32, tf32 or bf16",
                       tn_quote(name));
    return TN_OK;
}

/* The preset asked for, or what would be taken without one, with the single settings over it. */
static tn_status resolve_preprocess(const tn_model *model, const tn_image_options *options,
                                    tn_image_source *source, tn_error *error)
{
    const struct {
        const char *key, *value;
    } settings[] = {{"resize", options->resize},
                    {"crop", options->crop},
                    {"mean", options->mean},
                    {"std", options->std},
                    {"scale", options->scale}, /* behind those that guess it */
                    {"channel-order", options->channel_order}};
    const size_t n = sizeof settings / sizeof settings[0];
    tn_status status = TN_OK;
    source->asked = options->preprocess != NULL;
    for (size_t i = 0; i < n; i++)
        source->asked |= settings[i].value != NULL;
    if (!source->asked)
        return TN_OK;
    if (options->preprocess)
        status = tn_preprocess_preset(options->preprocess, &source->preprocess, error);
    else
        status =
            tn_evaluate_preprocess(model, source->dataset, NULL, &source->preprocess, NULL, error);
    for (size_t i = 0; i < n && status == TN_OK; i++)
        if (settings[i].value)
            status =
                tn_preprocess_set(&source->preprocess, settings[i].key, settings[i].value, error);
    return status;
}

/* Batch statistics are a runtime's way with such a file; here the running ones count. */
static void warn_of_training_mode(const tn_model *model, const tn_reporter *reporter)
{
    const Onnx__GraphProto *graph = model->proto->graph;
    for (size_t i = 0; i < graph->n_node; i++) {
        const Onnx__NodeProto *node = graph->node[i];
        if (strcmp(tn_text(node->op_type), "BatchNormalization") != 0)
            continue;
        for (size_t k = 0; k < node->n_attribute; k++) {
            if (strcmp(tn_text(node->attribute[k]->name), "training_mode") != 0 ||
                node->attribute[k]->i == 0)
                continue;
            tn_log(reporter, TN_LOG_WARNING,
                   "node %s is in training mode: runtimes will normalize by each batch and give "
                   "other outputs than here; export the network again in evaluation mode "
                   "(torch: model.eval())",
                   tn_quote(tn_text(node->name)));
            return;
        }
    }
}

tn_status tn_image_dataset_open(const char *data, tn_split split, const tn_dataset_options *options,
                                const tn_reporter *reporter, tn_dataset **dataset, tn_error *error)
{
    tn_status status = tn_dataset_open(data, split, options, dataset, error);
    if (status == TN_OK && tn_dataset_unread(*dataset) > 0)
        tn_log(reporter, TN_LOG_WARNING,
               "%s: pictures left out, for only JPEG and PNG are read: %zu; convert them",
               tn_quote(data), tn_dataset_unread(*dataset));
    return status;
}

tn_status tn_image_source_open(const char *data, tn_split split, bool allow_unlabelled,
                               const tn_model *model, const tn_image_options *options,
                               const tn_reporter *reporter, tn_image_source *source,
                               tn_error *error)
{
    const tn_dataset_options dataset = {.allow_unlabelled = allow_unlabelled};
    tn_precision precision = TN_PRECISION_AUTO;
    memset(source, 0, sizeof *source);
    tn_status status = tn_image_precision(options->precision, &precision, error);
    if (status == TN_OK)
        status = tn_image_dataset_open(data, split, &dataset, reporter, &source->dataset, error);
    if (status == TN_OK)
        status = resolve_preprocess(model, options, source, error);
    if (status == TN_OK)
        status = tn_image_device(options->device, &source->device, error);
    if (status != TN_OK) {
        tn_image_source_close(source);
        return status;
    }
    warn_of_training_mode(model, reporter);
    tn_log(reporter, TN_LOG_INFO, "%s", tn_dataset_description(source->dataset));
    tn_log(reporter, TN_LOG_DEBUG, "device %s: %s", source->device->id, source->device->summary);
    source->evaluate =
        (tn_evaluate_options){.preprocess = source->asked ? &source->preprocess : NULL,
                              .batch = (size_t)options->batch,
                              .limit = (size_t)options->limit,
                              .seed = options->seed,
                              .precision = precision,
                              .output = options->output,
                              .max_bad = (size_t)options->max_bad,
                              .reporter = reporter};
    return TN_OK;
}

void tn_image_source_close(tn_image_source *source)
{
    tn_dataset_close(source->dataset);
    tn_device_destroy(source->device);
    source->dataset = NULL;
    source->device = NULL;
}

tn_status tn_image_preflight(const tn_model *model, const tn_image_source *source,
                             const tn_reporter *reporter, tn_error *error)
{
    tn_preflight preflight;
    tn_evaluate_options options = source->evaluate;
    options.limit = 0;
    options.reporter = NULL;
    tn_status status =
        tn_preflight_run(model, source->dataset, source->device, &options, &preflight, error);
    if (status == TN_OK && preflight.message[0])
        tn_log(reporter, TN_LOG_WARNING, "%s", preflight.message);
    return status;
}

static tn_status copy_classes(const tn_image_source *source, const tn_evaluation *evaluation,
                              tn_evaluate_report *report, tn_error *error)
{
    tn_arena *arena = tn_result_arena(report);
    int named = tn_dataset_classes(source->dataset);
    report->n_classes = (size_t)evaluation->classes;
    report->classes = tn_arena_array(arena, report->n_classes + 1, sizeof *report->classes);
    if (!report->classes)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    for (int c = 0; c < evaluation->classes; c++) {
        const char *name = c < named ? tn_dataset_class_name(source->dataset, c) : "";
        tn_class_report *row = &report->classes[c];
        row->name = tn_arena_strdup(arena, name ? name : "");
        row->images = (int64_t)evaluation->class_images[c];
        row->correct = (int64_t)evaluation->class_correct[c];
        if (!row->name)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    }
    return TN_OK;
}

static tn_status copy_predictions(const tn_evaluation *evaluation, tn_evaluate_report *report,
                                  tn_error *error)
{
    if (!evaluation->predictions)
        return TN_OK;
    report->predictions = tn_arena_array(tn_result_arena(report), evaluation->images + 1,
                                         sizeof *report->predictions);
    if (!report->predictions)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the predictions");
    for (size_t i = 0; i < evaluation->images; i++) {
        const tn_prediction *from = &evaluation->predictions[i];
        report->predictions[i] = (tn_prediction_report){.index = from->index,
                                                        .label = from->label,
                                                        .top1 = from->top1,
                                                        .logit = (double)from->logit};
    }
    return TN_OK;
}

tn_status tn_evaluate_report_make(const char *model, const char *data,
                                  const tn_image_source *source, const tn_evaluation *evaluation,
                                  tn_evaluate_report **report, tn_error *error)
{
    tn_evaluate_report *made = tn_result_create(sizeof *made);
    char preprocess[160];
    if (!made)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    tn_arena *arena = tn_result_arena(made);
    snprintf(preprocess, sizeof preprocess, "%s (%s)", evaluation->preprocess.preset,
             evaluation->preprocess_source);
    made->model = tn_arena_strdup(arena, model);
    made->data = tn_arena_strdup(arena, data);
    made->description = tn_arena_strdup(arena, tn_dataset_description(source->dataset));
    made->device = tn_arena_strdup(arena, source->device->id);
    made->preprocess = tn_arena_strdup(arena, preprocess);
    made->precision = tn_precision_name(evaluation->precision);
    made->images = (int64_t)evaluation->images;
    made->bad = (int64_t)evaluation->bad;
    made->correct_top1 = (int64_t)evaluation->correct_top1;
    made->correct_topk = (int64_t)evaluation->correct_topk;
    made->top_k = evaluation->top_k;
    made->top1 = evaluation->top1;
    made->topk = evaluation->topk;
    made->top1_low = evaluation->top1_low;
    made->top1_high = evaluation->top1_high;
    made->loss = evaluation->loss;
    made->seconds = evaluation->seconds;
    made->images_per_s = evaluation->images_per_s;
    tn_status status = TN_OK;
    if (!made->model || !made->data || !made->description || !made->device || !made->preprocess)
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    if (status == TN_OK)
        status = copy_classes(source, evaluation, made, error);
    if (status == TN_OK)
        status = copy_predictions(evaluation, made, error);
    if (status == TN_OK)
        *report = made;
    else
        tn_result_free(made);
    return status;
}
