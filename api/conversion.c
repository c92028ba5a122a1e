/* quantize and export: read, choose codes, pack, write, report. */
#include "api/calibrated.h"

#include "converter/activation_record.h"
#include "converter/equalize.h"
#include "converter/record.h"
#include "converter/unpack.h"

#include <math.h>
#include <stdlib.h>

static tn_status open_input(tn_packing *packing, const tn_input_options *in, tn_network_file *file,
                            tn_error *error)
{
    tn_status status = tn_packing_begin(packing, error);
    if (status == TN_OK)
        status = tn_network_file_open(packing->input, in, 0, packing->reporter, file, error);
    packing->graph = file->graph;
    packing->bytes_in = file->bytes;
    return status;
}

/* Changes the model before anything else looks at its weights. */
static tn_status equalize(tn_packing *packing, const char *asked, const tn_policy *policy,
                          tn_network_file *file, tn_error *error)
{
    tn_equalize_when when;
    tn_layers layers = {NULL, 0};
    tn_equalized done = {0};
    tn_status status = tn_equalize_parse(asked, &when, error);
    if (status != TN_OK || when == TN_EQUALIZE_NEVER)
        return status;
    status = tn_layers_select(file->graph, policy, &layers, error);
    if (status == TN_OK)
        status = tn_equalize(file->model, file->graph, &layers, when, &done, error);
    if (status != TN_OK || done.rows + done.links + done.clipped == 0)
        return status;
    tn_log(packing->reporter, TN_LOG_INFO,
           "equalized: rows of %zu convolutions, inputs of %zu; %zu behind a Clip left as they are",
           done.rows, done.links, done.clipped);
    const tn_graph_options options = {.batch = 0};
    tn_graph_destroy(file->graph);
    file->graph = NULL;
    status = tn_graph_create(file->model, &options, &file->graph, error);
    packing->graph = file->graph;
    return status;
}

/* What the input's record says of the file as a whole holds for the output as well. */
static tn_status keep_record(tn_packing *packing, const tn_model *model, tn_error *error)
{
    static const char *const keys[] = {"preprocess", "activations"};
    const char **kept[] = {&packing->pack.preprocess, &packing->pack.activations};
    tn_record record = {0};
    tn_error broken = {0};
    tn_status status = tn_record_parse(model, &record, &broken);
    if (status == TN_ERROR_LIMIT)
        return tn_fail(error, status, "%s", broken.message);
    if (status != TN_OK)
        tn_log(packing->reporter, TN_LOG_WARNING, "the model's record is ignored: %s",
               broken.message);
    packing->pack.rest_was_float16 = record.rest_float16;
    status = TN_OK;
    for (size_t i = 0; record.json && status == TN_OK && i < sizeof keys / sizeof *keys; i++) {
        char *text = tn_record_object(&record, keys[i]);
        *kept[i] = text ? tn_arena_strdup(&packing->graph->arena, text) : NULL;
        if (text && !*kept[i])
            status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the record");
        free(text);
    }
    tn_record_done(&record);
    return status;
}

static tn_status convert_alone(tn_packing *packing, const tn_network_file *file,
                               const tn_policy *policy, tn_conversion_report **report,
                               tn_error *error)
{
    tn_layers layers = {NULL, 0};
    tn_conversion conversion = {NULL, 0};
    tn_status status = tn_layers_select(file->graph, policy, &layers, error);
    if (status == TN_OK)
        status = tn_convert(&layers, packing->reporter, &conversion, error);
    if (status == TN_OK)
        status = tn_packing_take(packing, &conversion, error);
    if (status == TN_OK)
        status = tn_packing_write(packing, error);
    if (status == TN_OK)
        status = tn_packing_report(packing, &layers, report, error);
    tn_packing_done(packing);
    tn_conversion_done(&conversion);
    return status;
}

/* Input and output on the same images with the same preprocessing. */
static tn_status measure_accuracy(const tn_packing *packing, const tn_network_file *file,
                                  const tn_quantize_request *request, tn_conversion_report *report,
                                  tn_error *error)
{
    tn_image_source source = {.dataset = NULL};
    tn_evaluation before = {.images = 0}, after = {.images = 0};
    tn_model *written = NULL;
    tn_status status = tn_image_source_open(request->val, TN_SPLIT_VAL, false, file->model,
                                            &request->images, packing->reporter, &source, error);
    if (status == TN_OK)
        status = tn_evaluate_model(file->model, source.dataset, source.device, &source.evaluate,
                                   &before, error);
    if (status == TN_OK)
        status = tn_evaluate_report_make(packing->input, request->val, &source, &before,
                                         &report->before, error);
    source.evaluate.preprocess = &before.preprocess;
    if (status == TN_OK && !packing->out->dry_run)
        status = tn_model_read(packing->output, NULL, &written, error);
    if (status == TN_OK && written)
        status = tn_evaluate_model(written, source.dataset, source.device, &source.evaluate, &after,
                                   error);
    if (status == TN_OK && written)
        status = tn_evaluate_report_make(packing->output, request->val, &source, &after,
                                         &report->after, error);
    tn_evaluation_done(&before);
    tn_evaluation_done(&after);
    tn_model_destroy(written);
    tn_image_source_close(&source);
    return status;
}

tn_status tn_quantize_file(const char *input, const char *output, const tn_quantize_request *given,
                           const tn_reporter *reporter, tn_conversion_report **report,
                           tn_error *error)
{
    static const tn_quantize_request standard;
    const tn_quantize_request *request = given ? given : &standard;
    const tn_policy policy = tn_packing_policy(&request->scheme);
    tn_packing packing = {.input = input,
                          .output = output,
                          .out = &request->out,
                          .reporter = reporter,
                          .bias_bits = request->bias_bits};
    tn_network_file file = {NULL, NULL, 0};
    tn_conversion_report *made = NULL;
    tn_status status = open_input(&packing, &request->in, &file, error);
    if (status == TN_OK && !request->calibration_data &&
        (request->target_size || request->target_drop > 0 || request->sensitivity))
        status = tn_fail(error, TN_ERROR_USAGE,
                         "choosing bits per layer needs images: --calibration-data DATA");
    if (status == TN_OK && !request->calibration_data &&
        (request->activation_bits || request->input_bits))
        status = tn_fail(error, TN_ERROR_USAGE,
                         "%s needs images to measure ranges on: --calibration-data DATA, or "
                         "--calibration-data synthesize",
                         request->activation_bits ? "--activation-bits" : "--input-bits");
    if (status == TN_OK)
        status = equalize(&packing, request->equalize, &policy, &file, error);
    if (status == TN_OK)
        status = keep_record(&packing, file.model, error);
    if (status == TN_OK)
        status = request->calibration_data
                     ? tn_calibrated_convert(&packing, &file, request, &made, error)
                     : convert_alone(&packing, &file, &policy, &made, error);
    if (status == TN_OK && request->val && made->n_layers > 0)
        status = measure_accuracy(&packing, &file, request, made, error);
    if (status == TN_OK)
        *report = made;
    else
        tn_conversion_report_free(made);
    tn_network_file_close(&file);
    return status;
}

static double zeros_of(const float *values, int64_t count)
{
    int64_t zeros = 0;
    for (int64_t i = 0; i < count; i++)
        zeros += values[i] == 0.0f;
    return (double)zeros / (double)count;
}

/* Exported weights are measured against the input's values: 0 unless something is wrong. */
static tn_status measure(tn_packing *j, tn_error *error)
{
    tn_weight_figures *figures = tn_arena_array(&j->graph->arena, j->count + 1, sizeof *figures);
    tn_status status = figures ? TN_OK : tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    for (size_t i = 0; i < j->count && status == TN_OK; i++) {
        const tn_layer *layer = j->items[i].layer;
        float *rows = tn_alloc_array((size_t)(layer->rows * layer->cols), sizeof *rows);
        if (!rows)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a layer");
        status = tn_layer_rows(layer, rows, error);
        if (status == TN_OK && j->items[i].weight && j->items[i].weight->codes)
            tn_weight_measure(j->items[i].weight, rows, &figures[i]);
        else if (status == TN_OK) /* FLOAT16 values, which are the input's */
            figures[i] = (tn_weight_figures){.sqnr_db = (double)INFINITY,
                                             .zeros = zeros_of(rows, layer->rows * layer->cols)};
        tn_free(rows);
    }
    j->figures = figures;
    return status;
}

static tn_status take_unpacked(tn_packing *j, const tn_unpacked *unpacked, tn_error *error)
{
    if (unpacked->count == 0)
        return tn_fail(error, TN_ERROR_MODEL,
                       "%s has no quantized weights to export: `ternion quantize` makes them",
                       tn_quote(j->input));
    j->items = unpacked->item;
    j->count = unpacked->count;
    j->pack.preprocess = unpacked->preprocess;
    if (!j->pack.recipe)
        j->pack.recipe = unpacked->recipe;
    j->pack.activations = unpacked->activations;
    j->pack.rest_was_float16 = unpacked->rest_float16;
    j->pack.linear = tn_activation_record_inner(unpacked->activations, j->graph);
    return measure(j, error);
}

tn_status tn_export_file(const char *input, const char *output, const tn_export_request *given,
                         const tn_reporter *reporter, tn_conversion_report **report,
                         tn_error *error)
{
    static const tn_export_request standard;
    const tn_export_request *request = given ? given : &standard;
    tn_packing packing = {
        .input = input, .output = output, .out = &request->out, .reporter = reporter};
    tn_network_file file = {NULL, NULL, 0};
    tn_layers layers = {NULL, 0};
    tn_unpacked unpacked = {.count = 0};
    tn_status status = open_input(&packing, &request->in, &file, error);
    if (status == TN_OK)
        status = tn_network_file_layers(&file, &layers, error);
    if (status == TN_OK)
        status = tn_unpack(file.graph, reporter, &unpacked, error);
    if (status == TN_OK)
        status = take_unpacked(&packing, &unpacked, error);
    if (status == TN_OK)
        status = tn_packing_write(&packing, error);
    if (status == TN_OK)
        status = tn_packing_report(&packing, &layers, report, error);
    tn_unpacked_done(&unpacked);
    tn_network_file_close(&file);
    return status;
}
