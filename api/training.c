/* finetune: read, prepare, train, pack, prove, evaluate. */
#include "api/activation_ranges.h"
#include "api/images.h"
#include "api/packed_start.h"
#include "api/packing.h"
#include "api/processes.h"

#include "converter/activation_record.h"
#include "finetune/calibrate.h"
#include "finetune/checkpoint.h"
#include "finetune/new_head.h"
#include "finetune/new_resolution.h"
#include "finetune/restore_bn.h"
#include "finetune/runlog.h"
#include "finetune/train.h"

#include <math.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

typedef struct job {
    const tn_train_request *request;
    tn_processes processes;
    const tn_reporter *reporter;
    tn_packing packing;
    tn_model *model, *teacher, *latents;
    tn_image_source source; /* the training part, and the device */
    tn_dataset *val;
    tn_preprocess preprocess; /* fitted */
    tn_augment_options augment;
    tn_train_options options;
    tn_train_data data;
    tn_trained trained;
    size_t restored; /* BatchNorms put in for training */
    bool from_codes; /* training starts at packed.codes */
    bool untrained;  /* created, or with a new head: nothing to calibrate or to compare with */
    tn_evaluate_report *before;
    tn_calibration warm;      /* where training starts; model NULL: from rounded weights */
    tn_packed_start packed;   /* or from the codes of a packed model */
    tn_activations ranges;    /* where activations' steps start */
    char *activations_record; /* of them */
} job;

/* `spec` without a part behind it: its validation part, if there is one besides what is trained on.
 */
static tn_status open_val(job *j, tn_error *error)
{
    const tn_train_request *request = j->request;
    if (request->val)
        return tn_image_dataset_open(request->val, TN_SPLIT_VAL, NULL, j->reporter, &j->val, error);
    const char *colon = strrchr(request->data, ':');
    char spec[4200];
    tn_error absent = {.code = TN_OK};
    if (colon && (strcmp(colon, ":train") == 0 || strcmp(colon, ":val") == 0))
        return TN_OK;
    if (snprintf(spec, sizeof spec, "%s:val", request->data) >= (int)sizeof spec)
        return TN_OK;
    if (tn_dataset_part(j->source.dataset) == TN_SPLIT_VAL)
        snprintf(absent.message, sizeof absent.message, "%s holds it alone, and is trained on",
                 tn_quote(request->data));
    else if (tn_image_dataset_open(spec, TN_SPLIT_VAL, NULL, j->reporter, &j->val, &absent) ==
             TN_OK)
        return TN_OK;
    tn_log(j->reporter, TN_LOG_WARNING,
           "no validation part (%s): the accuracy will not be known; give --val DATA",
           absent.message);
    return TN_OK;
}

/* The old preprocessing at the new size: pictures are resized as before, or to it if they have
 * another one; the model says so from now on. */
static tn_status change_resolution(job *j, tn_error *error)
{
    const int64_t *input = j->request->input;
    tn_preprocess *p = &j->source.preprocess;
    int side = (int)(input[1] < input[2] ? input[1] : input[2]);
    if (input[0] <= 0)
        return TN_OK;
    tn_status status = TN_OK;
    if (!j->source.asked)
        status = tn_evaluate_preprocess(j->model, j->source.dataset, NULL, p, NULL, error);
    if (status == TN_OK && !j->source.asked) {
        int old = p->crop_width < p->crop_height ? p->crop_width : p->crop_height;
        tn_sample_shape is = tn_dataset_shape(j->source.dataset);
        bool same = is.width == input[2] && is.height == input[1];
        p->resize = p->resize > 0 && old > 0 ? (int)lrint((double)p->resize * side / old)
                    : same                   ? 0
                                             : side;
        p->crop_width = (int)input[2];
        p->crop_height = (int)input[1];
        j->source.asked = true;
    }
    return status == TN_OK ? tn_new_resolution(j->model, input, error) : status;
}

static tn_status fit_preprocess(job *j, tn_error *error)
{
    char source[96];
    tn_status status = tn_evaluate_preprocess(j->model, j->source.dataset,
                                              j->source.asked ? &j->source.preprocess : NULL,
                                              &j->preprocess, source, error);
    if (status == TN_OK)
        tn_log(j->reporter, TN_LOG_INFO, "preprocessing %s (%s)", j->preprocess.preset, source);
    return status;
}

/* Training needs a size before it starts; evaluation takes what the preprocessing gives. */
static tn_status check_size(const job *j, tn_error *error)
{
    tn_graph *graph = NULL;
    tn_status status = tn_graph_create(j->model, NULL, &graph, error);
    if (status != TN_OK)
        return status;
    const tn_value *input = graph->n_inputs > 0 ? graph->inputs[0] : NULL;
    for (int d = 1; status == TN_OK && input && d < input->rank; d++)
        if (input->dims[d] <= 0)
            status = tn_fail(error, TN_ERROR_USAGE,
                             "input %s leaves its size open: say which with --input CxHxW, as "
                             "--input 3x224x224",
                             tn_quote(input->name));
    tn_graph_destroy(graph);
    return status;
}

/* The usual augmentation of small pictures and of photographs. */
static tn_status choose_augmentation(job *j, tn_error *error)
{
    const char *text = j->request->augment;
    if (!text)
        text = j->preprocess.resize > 0 ? "imagenet" : "cifar";
    return tn_augment_parse(text, &j->augment, error);
}

/* What the network learns from besides the labels. A float network that is to become a quantized
 * one teaches itself: 20 epochs of ternary resnet20 end half a point higher (docs/results.md). */
static const char *choose_teacher(const job *j)
{
    const tn_train_request *r = j->request;
    if (r->distill)
        return strcmp(r->distill, "none") == 0 ? NULL : r->distill;
    bool to_quantized = !r->scheme.scheme || !tn_train_is_plain(r->scheme.scheme);
    bool from_float = !j->untrained && j->packed.codes.count == 0;
    return to_quantized && from_float ? "self" : NULL;
}

static void fill_options(job *j)
{
    const tn_train_request *r = j->request;
    j->options = (tn_train_options){.policy = tn_packing_policy(&r->scheme),
                                    .activation_scheme = r->activation_scheme,
                                    .latents = j->latents,
                                    .output = r->images.output,
                                    .epochs = (int)r->epochs,
                                    .batch = (int)r->images.batch,
                                    .accumulate = (int)r->accumulate,
                                    .optimizer = r->optimizer,
                                    .lr = r->lr,
                                    .momentum = r->momentum,
                                    .weight_decay = r->weight_decay,
                                    .schedule = r->schedule,
                                    .final_lr = r->final_lr,
                                    .warmup_epochs = r->warmup_epochs,
                                    .scale_lr = r->scale_lr,
                                    .clip_norm = r->clip_norm,
                                    .label_smoothing = r->label_smoothing,
                                    .ema = r->ema,
                                    .distill = choose_teacher(j),
                                    .temperature = r->temperature,
                                    .distill_weight = r->distill_weight,
                                    .frozen = r->frozen,
                                    .n_frozen = r->n_frozen,
                                    .early_stop = (int)r->early_stop,
                                    .sparsity_ramp = r->sparsity_ramp,
                                    .seed = r->images.seed,
                                    .device = j->source.device,
                                    .precision = j->source.evaluate.precision,
                                    .folder = r->folder,
                                    .resume = r->resume,
                                    .save_every = (int)r->save_seconds,
                                    .reporter = j->reporter,
                                    .collective = j->processes.sums};
    if (r->batch_norm && strcmp(r->batch_norm, "freeze") == 0)
        j->options.batch_norm = TN_BATCH_NORM_FREEZE;
    j->data = (tn_train_data){.origin = j->model,
                              .train = j->source.dataset,
                              .val = j->val,
                              .preprocess = &j->preprocess,
                              .augment = &j->augment,
                              .max_bad = (size_t)r->images.max_bad};
}

/* What can be told before anything is read. */
static tn_status check_request(const tn_train_request *r, tn_error *error)
{
    if (!r->data)
        return tn_fail(error, TN_ERROR_USAGE, "give a training set: --data DATA");
    if (r->resume && !r->folder)
        return tn_fail(error, TN_ERROR_USAGE,
                       "--resume goes on from the checkpoints of a folder: give --checkpoint DIR");
    if (r->classes > 0 && r->distill && strcmp(r->distill, "self") == 0)
        return tn_fail(
            error, TN_ERROR_USAGE,
            "--distill self would learn from the random head that --classes makes: leave it "
            "out, or name a model of %lld classes",
            (long long)r->classes);
    if (r->folder && !r->resume && tn_checkpoint_exists(r->folder))
        return tn_fail(
            error, TN_ERROR_USAGE,
            "%s: holds the checkpoints of a run: give --resume to go on with it, or name "
            "another --checkpoint folder",
            tn_quote(r->folder));
    return TN_OK;
}

static tn_status prepare(job *j, tn_error *error)
{
    const tn_train_request *r = j->request;
    const tn_read_options read = tn_boundary_read(&r->in, j->reporter);
    tn_status status = check_request(r, error);
    if (status == TN_OK)
        status = tn_packing_begin(&j->packing, error);
    if (status == TN_OK)
        status = tn_model_read(j->packing.input, &read, &j->model, error);
    if (status == TN_OK && r->latent)
        status = tn_model_read(r->latent, &read, &j->latents, error);
    if (status == TN_OK)
        status = tn_image_source_open(r->data, TN_SPLIT_TRAIN,
                                      r->distill && strcmp(r->distill, "none") != 0, j->model,
                                      &r->images, j->reporter, &j->source, error);
    if (status == TN_OK)
        status = tn_processes_use(&j->processes, j->source.device, j->reporter, error);
    if (status == TN_OK)
        status = change_resolution(j, error);
    if (status == TN_OK)
        status = tn_packed_start_read(j->model, j->reporter, &j->packed, error);
    if (status == TN_OK)
        status = open_val(j, error);
    if (status == TN_OK && r->classes > 0)
        status = tn_new_head(j->model, r->classes, r->images.output, r->images.seed, error);
    if (status == TN_OK)
        status = check_size(j, error);
    if (status == TN_OK)
        status = fit_preprocess(j, error);
    if (status == TN_OK)
        status = choose_augmentation(j, error);
    if (status != TN_OK)
        return status;
    if (r->early_stop > 0 && !j->val)
        return tn_fail(error, TN_ERROR_USAGE,
                       "--early-stop watches the validation loss, and %s has no validation part: "
                       "give --val DATA",
                       tn_quote(r->data));
    j->untrained = r->classes > 0 || tn_model_metadata(j->model, "ternion.create") != NULL;
    fill_options(j);
    status = tn_packed_start_policy(&j->packed, &j->options.policy, error);
    const char *teacher = j->options.distill;
    if (status == TN_OK && teacher && strcmp(teacher, "self") != 0)
        status = tn_model_read(teacher, &read, &j->teacher, error);
    return status;
}

/* Accuracy of a model on the validation part. */
static tn_status evaluate(job *j, const tn_model *model, const char *path,
                          tn_evaluate_report **report, tn_error *error)
{
    tn_evaluation evaluation = {.images = 0};
    tn_evaluate_options options = j->source.evaluate;
    tn_image_source on_val = j->source;
    if (!j->val)
        return TN_OK;
    options.preprocess = &j->preprocess;
    options.batch = 0;
    options.limit = 0;
    on_val.dataset = j->val;
    tn_status status =
        tn_evaluate_model(model, j->val, j->source.device, &options, &evaluation, error);
    if (status == TN_OK)
        status = tn_evaluate_report_make(path, j->request->val ? j->request->val : j->request->data,
                                         &on_val, &evaluation, report, error);
    tn_evaluation_done(&evaluation);
    return status;
}

/* A look at the network as it came; near chance is an error unless it was just created or gets a
 * new head, where it is expected. */
static tn_status look_first(job *j, tn_error *error)
{
    if (j->untrained || !j->val || !tn_processes_is_first(&j->processes))
        return TN_OK;
    tn_status status = evaluate(j, j->model, j->packing.input, &j->before, error);
    if (status != TN_OK || j->request->images.no_preflight)
        return status;
    double chance = j->before->n_classes ? 1.0 / (double)j->before->n_classes : 0;
    if (j->before->top1_low <= chance)
        return tn_fail(error, TN_ERROR_DATA,
                       "the network gets %.1f %% of the validation images right, no better than "
                       "guessing: do preprocessing and class order fit? (`ternion evaluate` tries "
                       "what is usual; --no-preflight trains anyway)",
                       100 * j->before->top1);
    return TN_OK;
}

/* A trained network is no created one any more. */
static void forget_creation(tn_model *model)
{
    Onnx__ModelProto *proto = model->proto;
    size_t kept = 0;
    for (size_t i = 0; i < proto->n_metadata_props; i++)
        if (strcmp(tn_text(proto->metadata_props[i]->key), "ternion.create") != 0)
            proto->metadata_props[kept++] = proto->metadata_props[i];
    proto->n_metadata_props = kept;
}

/* Codes and scales from some hundred training images: training starts some points higher. */
static tn_status warm_start(job *j, tn_error *error)
{
    tn_train_options resolved;
    tn_status status = tn_train_resolve(&j->options, &resolved, error);
    if (status != TN_OK || j->untrained || j->request->no_calibration ||
        tn_train_is_plain(resolved.policy.scheme))
        return status;
    bool fits = false;
    status = tn_packed_start_fits(&j->packed, &resolved.policy, &fits, error);
    if (status != TN_OK || fits) {
        j->from_codes = fits;
        tn_log(j->reporter, TN_LOG_INFO, "training starts at the codes of the packed model");
        return status;
    }
    const tn_calibrate_options options = {.policy = resolved.policy,
                                          .seed = j->request->images.seed,
                                          .preprocess = &j->preprocess,
                                          .output = j->request->images.output,
                                          .device = j->source.device,
                                          .reporter = j->reporter};
    return tn_calibrate(j->model, j->source.dataset, &options, &j->warm, error);
}

static tn_status measure_ranges(job *j, const tn_model *model, const tn_conversion *start,
                                tn_error *error)
{
    const tn_train_request *r = j->request;
    tn_train_options resolved;
    tn_activation_options options = {.seed = r->images.seed,
                                     .preprocess = &j->preprocess,
                                     .output = r->images.output,
                                     .device = j->source.device,
                                     .reporter = j->reporter};
    if (!r->activation_bits && !r->input_bits)
        return TN_OK;
    tn_status status = tn_train_resolve(&j->options, &resolved, error);
    if (status == TN_OK && j->packed.unpacked.activations)
        status = tn_fail(error, TN_ERROR_USAGE,
                         "the activations of %s are quantized already: start from its float model",
                         tn_quote(j->packing.input));
    if (status == TN_OK && strcmp(resolved.policy.scheme, "float") == 0)
        status = tn_fail(error, TN_ERROR_USAGE,
                         "--activation-bits needs quantized weights, not --scheme float");
    if (status == TN_OK)
        status = tn_activation_ranges_options(r->activation_bits, r->input_bits,
                                              r->activation_range, &options, error);
    if (status == TN_OK)
        status = tn_activation_ranges_measure(model, start, &resolved.policy, j->source.dataset,
                                              &options, &j->ranges, error);
    if (status == TN_OK)
        status = tn_activations_to_json(&j->ranges, options.method, &j->activations_record, error);
    j->options.activations = &j->ranges;
    return status;
}

static tn_status train(job *j, tn_error *error)
{
    const tn_model *model = j->model;
    const tn_conversion *start = NULL;
    forget_creation(j->model);
    tn_status status = TN_OK;
    if (j->request->restore_bn)
        status = tn_restore_bn(j->model, &j->data, 512, j->source.device, &j->restored, error);
    if (status == TN_OK)
        status = warm_start(j, error);
    if (status == TN_OK && j->warm.model) {
        model = j->warm.model;
        start = &j->warm.conversion;
    } else if (j->from_codes) {
        start = &j->packed.codes;
    }
    if (status == TN_OK)
        status = measure_ranges(j, model, start, error);
    bool self = j->options.distill && strcmp(j->options.distill, "self") == 0;
    if (status == TN_OK)
        status = tn_train(model, &j->data, self ? j->model : j->teacher, start, &j->options,
                          &j->trained, error);
    if (status == TN_OK && j->trained.stopped)
        status = tn_fail(error, TN_ERROR_CANCELLED, "stopped at step %llu%s",
                         (unsigned long long)j->trained.last.step,
                         j->options.folder ? ", which is saved" : "");
    if (status == TN_OK && j->restored > 0 && tn_processes_is_first(&j->processes))
        status = tn_restored_bn_fold(&j->trained, &j->data, &j->options, error);
    return status;
}

/* Of a class, which may be a folder's name: any bytes. */
static json_t *name_json(const char *name)
{
    char escaped[512];
    json_t *text = json_string(name);
    return text ? text : json_string(tn_escape(name, escaped, sizeof escaped));
}

static json_t *accuracy_json(const tn_evaluate_report *accuracy)
{
    if (!accuracy)
        return json_null();
    json_t *classes = json_array();
    for (size_t i = 0; i < accuracy->n_classes; i++) {
        const tn_class_report *row = &accuracy->classes[i];
        json_array_append_new(classes, json_pack("{s:o, s:I, s:I}", "name", name_json(row->name),
                                                 "images", (json_int_t)row->images, "correct",
                                                 (json_int_t)row->correct));
    }
    return json_pack("{s:I, s:o, s:o, s:o, s:o, s:o}", "images", (json_int_t)accuracy->images,
                     "top1", tn_runlog_real(accuracy->top1), "top1_low",
                     tn_runlog_real(accuracy->top1_low), "top1_high",
                     tn_runlog_real(accuracy->top1_high), "loss", tn_runlog_real(accuracy->loss),
                     "classes", classes);
}

/* The last line of the run's journal: what was written and how good it is. */
static tn_status log_result(const job *j, const tn_conversion_report *made, tn_error *error)
{
    tn_runlog log = {.descriptor = -1};
    const char *recipe = j->packing.pack.recipe;
    json_t *options = recipe ? json_loads(recipe, 0, NULL) : NULL;
    tn_status status = tn_runlog_open(j->options.folder, &log, error);
    if (status == TN_OK)
        status = tn_runlog_write(
            &log, "result",
            json_pack("{s:s, s:s, s:I, s:I, s:s, s:o, s:o, s:s, s:o, s:o, s:o}", "input",
                      made->input, "output", made->output, "bytes_in", (json_int_t)made->bytes_in,
                      "bytes_out", (json_int_t)made->bytes_out, "form", made->form,
                      "bits_per_weight", tn_runlog_real(made->bits_per_weight), "sparsity",
                      tn_runlog_real(made->sparsity), "needs", made->needs ? made->needs : "",
                      "float", accuracy_json(made->before), "quantized", accuracy_json(made->after),
                      "options", options ? json_incref(options) : json_object()),
            error);
    tn_runlog_close(&log);
    json_decref(options);
    return status;
}

/* Writes the trained network and proves that the file computes it. */
static tn_status write_and_prove(job *j, tn_train_report *report, tn_error *error)
{
    tn_packing *packing = &j->packing;
    char *preprocess = NULL;
    tn_model *written = NULL;
    packing->graph = j->trained.graph;
    packing->bytes_in = tn_network_file_bytes(packing->input, j->model);
    tn_status status = tn_preprocess_to_json(&j->preprocess, &preprocess, error);
    packing->pack.preprocess = preprocess;
    packing->pack.activations =
        j->activations_record ? j->activations_record : j->packed.unpacked.activations;
    packing->pack.linear = j->request->activation_bits > 0 ||
                           tn_activation_record_inner(packing->pack.activations, packing->graph);
    packing->activations = j->options.activations ? &j->trained.activations : NULL;
    if (status == TN_OK)
        status = tn_packing_take(packing, &j->trained.conversion, error);
    if (status == TN_OK)
        status = tn_packing_write(packing, error);
    if (status == TN_OK)
        status = tn_packing_report(packing, &j->trained.layers, &report->conversion, error);
    if (status == TN_OK) {
        report->conversion->before = j->before;
        j->before = NULL;
    }
    if (status == TN_OK && !packing->out->dry_run)
        status = tn_model_read(packing->output, NULL, &written, error);
    if (written && status == TN_OK && !packing->out->rest)
        status = tn_trained_prove(&j->trained, written, &j->data, &j->options, error);
    if (status == TN_ERROR_DIFFERS)
        unlink(packing->output); /* nobody shall take it for the result */
    if (written && status == TN_OK)
        status = evaluate(j, written, packing->output, &report->conversion->after, error);
    if (status == TN_OK)
        status = log_result(j, report->conversion, error);
    tn_model_destroy(written);
    tn_free(preprocess);
    packing->pack.preprocess = packing->pack.activations = NULL;
    packing->activations = NULL;
    return status;
}

static void fill_report(job *j, tn_train_report *report)
{
    report->epochs = j->trained.epochs_run;
    report->stopped = j->trained.stopped;
    report->reestimated = j->trained.reestimated;
    report->train_loss = j->trained.last.train_loss;
    report->train_top1 = j->trained.last.train_top1;
    report->images_per_s = j->trained.last.images_per_s;
}

static void job_close(job *j)
{
    tn_evaluate_report_free(j->before);
    tn_trained_done(&j->trained);
    tn_calibration_done(&j->warm);
    tn_activations_done(&j->ranges);
    tn_free(j->activations_record);
    tn_packed_start_done(&j->packed);
    tn_dataset_close(j->val);
    tn_processes_leave(&j->processes);
    tn_image_source_close(&j->source);
    tn_model_destroy(j->teacher);
    tn_model_destroy(j->latents);
    tn_model_destroy(j->model);
}

tn_status tn_finetune_file(const char *input, const char *output, const tn_train_request *request,
                           const tn_reporter *reporter, tn_train_report **report, tn_error *error)
{
    job j = {.request = request,
             .packing = {.input = input, .output = output, .out = &request->out}};
    tn_train_report *made = tn_result_create(sizeof *made);
    if (!made)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    tn_status status = tn_processes_open(request->distributed, &j.processes, error);
    if (status == TN_OK) {
        j.reporter = j.packing.reporter = tn_processes_reporter(&j.processes, reporter);
        status = prepare(&j, error);
    }
    if (status == TN_OK)
        status = look_first(&j, error);
    if (status == TN_OK)
        status = train(&j, error);
    if (status == TN_OK && tn_processes_is_first(&j.processes)) {
        status = write_and_prove(&j, made, error);
        fill_report(&j, made);
    }
    if (status != TN_OK && j.processes.sums)
        tn_collective_fail(j.processes.sums, error);
    const bool reports = j.processes.collective && tn_processes_is_first(&j.processes);
    job_close(&j);
    status = tn_processes_close(&j.processes, status, error);
    if (status != TN_OK || !reports) {
        tn_train_report_free(made);
        made = NULL;
    }
    if (status == TN_OK)
        *report = made;
    return status;
}

void tn_train_report_free(tn_train_report *report)
{
    if (!report)
        return;
    tn_conversion_report_free(report->conversion);
    tn_result_free(report);
}
