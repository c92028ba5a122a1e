#include "api/activation_ranges.h"
#include "api/calibrated.h"

#include "core/file.h"
#include "data/numpy_array.h"
#include "finetune/budget.h"
#include "finetune/synthesize.h"

#include <string.h>

_Static_assert((int)TN_WIDTHS == (int)TN_BUDGET_WIDTHS, "one list of widths");

const char *tn_width_bits(int index)
{
    return index >= 0 && index < TN_BUDGET_WIDTHS ? tn_budget_bits[index] : "";
}

static tn_status calibrate_options(const tn_quantize_request *request, tn_image_source *source,
                                   tn_calibrate_options *options, tn_error *error)
{
    if (request->method && !tn_calibrate_method_parse(request->method, &options->method))
        return tn_fail(error, TN_ERROR_USAGE,
                       "method %s: expected auto, round, cd, gptq or adaround",
                       tn_quote(request->method));
    if (request->bn && !tn_calibrate_bn_parse(request->bn, &options->bn))
        return tn_fail(error, TN_ERROR_USAGE,
                       "bn %s: expected auto, keep, reestimate, control or affine",
                       tn_quote(request->bn));
    options->policy = tn_packing_policy(&request->scheme);
    options->samples = (size_t)request->samples;
    options->seed = request->images.seed;
    options->preprocess = source->asked ? &source->preprocess : NULL;
    options->output = request->images.output;
    options->device = source->device;
    options->reporter = source->evaluate.reporter;
    return TN_OK;
}

/* The preprocessing that was used goes into the record: evaluate takes it from there. */
static tn_status keep_preprocess(tn_packing *packing, const tn_model *model,
                                 const tn_image_source *source, char **json, tn_error *error)
{
    tn_preprocess used;
    tn_status status = tn_evaluate_preprocess(
        model, source->dataset, source->asked ? &source->preprocess : NULL, &used, NULL, error);
    if (status == TN_OK)
        status = tn_preprocess_to_json(&used, json, error);
    packing->pack.preprocess = *json;
    return status;
}

enum { UNSEEN = 64 };

typedef struct job {
    tn_packing *packing;
    const tn_quantize_request *request;
    tn_image_source source; /* dataset NULL: synthesized images */
    tn_synthesis synthesis;
    tn_calibrate_options options;
    tn_calibration calibration;
    tn_budget budget;
    tn_activation_options measure;
    tn_activations activations;
    char *record; /* of activations */
    bool has_activations, has_budget, only_table;
} job;

static tn_status measure_size(void *context, const tn_calibration *calibration, uint64_t *bytes,
                              tn_error *error)
{
    const job *j = context;
    tn_packing packing = *j->packing;
    tn_activations activations = {NULL, 0};
    char *record = NULL;
    tn_status status = j->has_activations
                           ? tn_activations_list(calibration->graph, &calibration->conversion,
                                                 &j->measure, &activations, error)
                           : TN_OK;
    if (status == TN_OK && j->has_activations)
        status = tn_activations_to_json(&activations, j->measure.method, &record, error);
    packing.activations = j->has_activations ? &activations : NULL;
    packing.pack.activations = record;
    if (status == TN_OK)
        status =
            tn_packing_size(&packing, calibration->graph, &calibration->conversion, bytes, error);
    tn_activations_done(&activations);
    tn_free(record);
    return status;
}

/* Ranges in the calibrated network, on the same images. */
static tn_status measure_activations(job *j, tn_error *error)
{
    j->measure.samples = j->options.samples;
    j->measure.seed = j->options.seed;
    j->measure.preprocess = j->options.preprocess;
    j->measure.output = j->options.output;
    j->measure.images = j->options.images;
    j->measure.device = j->options.device;
    j->measure.reporter = j->options.reporter;
    tn_status status =
        tn_activations_measure(j->calibration.model, &j->calibration.conversion, j->source.dataset,
                               &j->measure, &j->activations, error);
    if (status == TN_OK)
        status = tn_activations_to_json(&j->activations, j->measure.method, &j->record, error);
    else
        tn_error_prepend(error, "measuring activations");
    j->packing->activations = &j->activations;
    j->packing->pack.activations = j->record;
    return status;
}

static tn_budget_options budget_options(job *j)
{
    return (tn_budget_options){.calibrate = j->options,
                               .target_size = j->request->target_size,
                               .target_drop = j->request->target_drop,
                               .sensitivity_only = j->only_table,
                               .size = measure_size,
                               .size_context = j};
}

static tn_status calibrate(job *j, const tn_model *model, tn_error *error)
{
    const tn_budget_options options = budget_options(j);
    return j->has_budget
               ? tn_budget_choose(model, j->source.dataset, &options, &j->budget, &j->calibration,
                                  error)
               : tn_calibrate(model, j->source.dataset, &j->options, &j->calibration, error);
}

static tn_status report_budget(const job *j, tn_conversion_report *report, tn_error *error)
{
    tn_arena *arena = tn_result_arena(report);
    report->sensitivity = tn_arena_array(arena, j->budget.count + 1, sizeof *report->sensitivity);
    if (!report->sensitivity)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    report->n_sensitivity = j->budget.count;
    for (int w = 0; w < TN_BUDGET_WIDTHS; w++)
        report->kl_uniform[w] = j->budget.kl_uniform[w];
    for (size_t i = 0; i < j->budget.count; i++) {
        const tn_budget_row *from = &j->budget.row[i];
        tn_sensitivity_row *to = &report->sensitivity[i];
        to->weight = tn_arena_strdup(arena, from->name);
        to->name = tn_arena_strdup(arena, from->label);
        to->chosen = j->only_table ? -1 : from->chosen;
        for (int w = 0; w < TN_BUDGET_WIDTHS; w++) {
            to->kl[w] = from->kl[w];
            to->bytes[w] = from->bytes[w];
        }
        if (!to->weight || !to->name)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    }
    return TN_OK;
}

/* What a run that writes nothing can say. */
static tn_status report_table(const job *j, tn_conversion_report **report, tn_error *error)
{
    tn_conversion_report *made = tn_result_create(sizeof *made);
    if (!made)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    made->input = tn_arena_strdup(tn_result_arena(made), j->packing->input);
    made->output = made->needs = made->form = made->method = made->bn = made->unseen_which = "";
    made->bytes_in = j->packing->bytes_in;
    tn_status status = made->input ? report_budget(j, made, error)
                                   : tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    if (status == TN_OK)
        *report = made;
    else
        tn_conversion_report_free(made);
    return status;
}

static void report_calibration(const tn_calibration *calibration, tn_conversion_report *report)
{
    report->images = (int64_t)calibration->images;
    report->held_out = (int64_t)calibration->held_out;
    report->method = tn_calibrate_method_name(calibration->method);
    report->bn = tn_calibrate_bn_name(calibration->bn);
    report->kl = calibration->kl;
    report->kl_round = calibration->kl_round;
    report->agreement = calibration->agreement;
    report->seconds = calibration->seconds;
}

static void report_unseen(tn_conversion_report *report, int64_t images, const char *which,
                          double kl, double agreement)
{
    report->unseen = images;
    report->unseen_which = which;
    report->kl_unseen = kl;
    report->agreement_unseen = agreement;
}

/* What the network to be written is worth on images: its activations, too, are as in the file.
 * most: as of tn_probe_create. */
static tn_status measure_on(const job *j, const tn_model *model, int64_t most, int64_t *images,
                            tn_probe_result *result, tn_error *error)
{
    tn_probe *probe = NULL;
    tn_status status = tn_probe_create(model, j->source.dataset, &j->options, most,
                                       j->source.device, &probe, error);
    if (status == TN_OK)
        status = j->has_activations ? tn_probe_measure_activations(probe, &j->calibration,
                                                                   &j->activations, result, error)
                                    : tn_probe_measure(probe, &j->calibration, result, error);
    if (status == TN_OK)
        *images = tn_probe_images(probe);
    tn_probe_destroy(probe);
    return status;
}

/* Calibration itself measures the weights alone. */
static tn_status measure_seen(const job *j, const tn_model *model, tn_conversion_report *report,
                              tn_error *error)
{
    tn_probe_result result = {.kl = report->kl, .agreement = report->agreement};
    int64_t images;
    tn_status status = TN_OK;
    if (j->has_activations)
        status = measure_on(j, model, TN_PROBE_CALIBRATED, &images, &result, error);
    report->kl = result.kl;
    report->agreement = result.agreement;
    return status;
}

/* On the images drawn next: what a KL on those that were fitted to cannot tell. A broken one among
 * them does not spoil the network that is already written. */
static tn_status measure_unseen(const job *j, const tn_model *model, tn_conversion_report *report,
                                tn_error *error)
{
    tn_probe_result result;
    tn_error broken = {0};
    int64_t images;
    tn_status status = measure_on(j, model, UNSEEN, &images, &result, &broken);
    if (status == TN_OK) {
        report_unseen(report, images, "images that come next in the data set", result.kl,
                      result.agreement);
    } else if (status == TN_ERROR_DATA) {
        tn_log(j->packing->reporter, TN_LOG_WARNING, "not measured on further images: %s",
               broken.message);
        status = TN_OK;
    } else {
        status = tn_fail(error, status, "%s", broken.message);
    }
    tn_error_clear(&broken);
    return status;
}

/* By what widths were chosen. Those held out meanwhile, the result was fitted to. */
static tn_status judge_chosen(const job *j, const tn_model *model, tn_conversion_report *report,
                              tn_error *error)
{
    const tn_budget *budget = &j->budget;
    tn_probe_result result = budget->result;
    int64_t images = budget->images;
    tn_status status = TN_OK;
    if (j->has_activations && !budget->held_out)
        status = measure_on(j, model, 0, &images, &result, error);
    report_unseen(report, images,
                  budget->held_out
                      ? "images held out while widths were chosen"
                      : "images that come next in the data set, by which widths were chosen",
                  result.kl, result.agreement);
    report->unseen_weights_alone = j->has_activations && budget->held_out;
    return status;
}

/* The best there is: other images, or those that were held out while something was chosen. */
static tn_status judge_unseen(const job *j, const tn_model *model, tn_conversion_report *report,
                              tn_error *error)
{
    const tn_calibration *calibration = &j->calibration;
    tn_status status = TN_OK;
    report->unseen_which = "";
    if (j->has_budget)
        status = judge_chosen(j, model, report, error);
    else if (tn_probe_unseen(j->source.dataset, &j->options) > 0)
        status = measure_unseen(j, model, report, error);
    if (status == TN_OK && report->unseen == 0 && calibration->held_out > 0) {
        report_unseen(report, (int64_t)calibration->held_out,
                      "calibration images held out of a first, shorter fit",
                      calibration->kl_held_out, -1);
        report->unseen_weights_alone = j->has_activations;
    }
    return status;
}

static tn_status write_and_report(job *j, const tn_model *model, tn_conversion_report **report,
                                  tn_error *error)
{
    tn_conversion_report *made = NULL;
    j->packing->graph = j->calibration.graph;
    tn_status status = j->has_activations ? measure_activations(j, error) : TN_OK;
    if (status == TN_OK)
        status = tn_packing_take(j->packing, &j->calibration.conversion, error);
    if (status == TN_OK)
        status = tn_packing_write(j->packing, error);
    if (status == TN_OK)
        status = tn_packing_report(j->packing, &j->calibration.layers, &made, error);
    if (status == TN_OK) {
        report_calibration(&j->calibration, made);
        status = measure_seen(j, model, made, error);
    }
    if (status == TN_OK)
        status = judge_unseen(j, model, made, error);
    if (status == TN_OK && j->has_budget)
        status = report_budget(j, made, error);
    if (status == TN_OK)
        *report = made;
    else
        tn_conversion_report_free(made);
    return status;
}

/* Before minutes are spent on images that could not be kept. */
static tn_status check_save(const job *j, bool made, tn_error *error)
{
    const char *path = j->request->save_synthesized;
    const size_t length = path ? strlen(path) : 0;
    if (!path)
        return TN_OK;
    if (!made)
        return tn_fail(error, TN_ERROR_USAGE,
                       "there are images to save with --calibration-data synthesize only, not with "
                       "the data set %s",
                       tn_quote(j->request->calibration_data));
    if (length < 5 || strcmp(path + length - 4, ".npy") != 0)
        return tn_fail(error, TN_ERROR_USAGE,
                       "synthesized images are saved as a NumPy array and found again by its "
                       "ending: %s.npy instead of %s",
                       path, tn_quote(path));
    if (tn_file_is_same(path, j->packing->output) || strcmp(path, j->packing->output) == 0)
        return tn_fail(error, TN_ERROR_USAGE,
                       "%s is the model's own file: save the images in one of their own",
                       tn_quote(path));
    return tn_output_check(path, &j->packing->input, 1, &j->request->out, error);
}

static tn_status save_synthesized(const job *j, tn_error *error)
{
    const tn_synthesis *made = &j->synthesis;
    const size_t dims[4] = {made->samples, (size_t)made->channels, (size_t)made->height,
                            (size_t)made->width};
    if (!j->request->save_synthesized || j->request->out.dry_run)
        return TN_OK;
    return tn_numpy_write(j->request->save_synthesized, j->request->out.replace, made->images, 4,
                          dims, error);
}

/* Images made to fit the network's BatchNorms, in place of a data set. */
static tn_status synthesize(job *j, const tn_model *model, tn_error *error)
{
    const tn_budget_options budget = budget_options(j);
    const tn_synthesize_options options = {.samples = (size_t)j->request->samples,
                                           .seed = j->request->images.seed,
                                           .output = j->request->images.output,
                                           .device = j->source.device,
                                           .reporter = j->packing->reporter};
    tn_status status = tn_budget_check(model, &budget, error);
    if (status == TN_OK)
        status = tn_synthesize(model, &options, &j->synthesis, error);
    j->options.images = j->synthesis.images;
    j->options.samples = j->synthesis.samples;
    return status == TN_OK ? save_synthesized(j, error) : status;
}

/* The images and the options of calibration. `./synthesize` is a folder, `synthesize` is not. */
static tn_status open_images(job *j, const tn_model *model, char **preprocess, tn_error *error)
{
    const tn_quantize_request *request = j->request;
    const bool made = strcmp(request->calibration_data, "synthesize") == 0;
    const tn_image_options images = request->images;
    tn_status status = check_save(j, made, error);
    if (status == TN_OK)
        status = made ? tn_image_device(images.device, &j->source.device, error)
                      : tn_image_source_open(request->calibration_data, TN_SPLIT_TRAIN, true, model,
                                             &images, j->packing->reporter, &j->source, error);
    j->source.evaluate.reporter = j->packing->reporter;
    const bool prepared = j->source.dataset && tn_dataset_shape(j->source.dataset).prepared;
    if (prepared && request->val)
        j->source.asked = false; /* what was asked for is for its images */
    if (status == TN_OK)
        status = calibrate_options(request, &j->source, &j->options, error);
    if (status == TN_OK && made)
        status = synthesize(j, model, error);
    else if (status == TN_OK && !prepared)
        status = keep_preprocess(j->packing, model, &j->source, preprocess, error);
    return status;
}

tn_status tn_calibrated_convert(tn_packing *packing, const tn_network_file *file,
                                const tn_quantize_request *request, tn_conversion_report **report,
                                tn_error *error)
{
    const bool has_target = request->target_size > 0 || request->target_drop > 0;
    job j = {.packing = packing,
             .request = request,
             .has_activations = request->activation_bits || request->input_bits,
             .has_budget = has_target || request->sensitivity,
             .only_table = request->sensitivity && !has_target};
    char *preprocess = NULL;
    packing->pack.linear = request->activation_bits > 0;
    tn_status status = tn_activation_ranges_options(request->activation_bits, request->input_bits,
                                                    request->activation_range, &j.measure, error);
    if (status == TN_OK)
        status = open_images(&j, file->model, &preprocess, error);
    if (status == TN_OK)
        status = calibrate(&j, file->model, error);
    if (status == TN_OK)
        status = j.only_table ? report_table(&j, report, error)
                              : write_and_report(&j, file->model, report, error);
    tn_packing_done(packing);
    tn_activations_done(&j.activations);
    tn_free(j.record);
    tn_budget_done(&j.budget);
    tn_synthesis_done(&j.synthesis);
    tn_calibration_done(&j.calibration);
    tn_image_source_close(&j.source);
    tn_free(preprocess);
    packing->pack.preprocess = packing->pack.activations = NULL;
    packing->activations = NULL;
    return status;
}
