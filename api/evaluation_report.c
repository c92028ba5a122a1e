#include "api/images.h"

/* Another resolution has the same channels. */
static tn_status check_channels(const tn_model *model, int64_t asked, tn_error *error)
{
    tn_graph *graph = NULL;
    tn_status status = asked > 0 ? tn_graph_create(model, NULL, &graph, error) : TN_OK;
    const tn_value *input = graph && graph->n_inputs > 0 ? graph->inputs[0] : NULL;
    if (input && input->rank == 4) {
        int64_t has = input->dims[tn_input_channels_last(4, input->dims) ? 3 : 1];
        if (has > 0 && has != asked)
            status = tn_fail(error, TN_ERROR_USAGE,
                             "--input: the input %s of the network has %lld channels, not %lld: "
                             "only its height and width can be others",
                             tn_quote(input->name), (long long)has, (long long)asked);
    }
    tn_graph_destroy(graph);
    return status;
}

tn_status tn_evaluate_file(const char *path, const char *data, const tn_evaluate_request *given,
                           const tn_reporter *reporter, tn_evaluate_report **report,
                           tn_error *error)
{
    static const tn_evaluate_request standard;
    const tn_evaluate_request *request = given ? given : &standard;
    const tn_read_options read = tn_boundary_read(&request->in, reporter);
    tn_model *model = NULL;
    tn_image_source source = {.dataset = NULL};
    tn_evaluation evaluation = {.images = 0};
    tn_status status = tn_model_read(path, &read, &model, error);
    if (status == TN_OK)
        status = check_channels(model, request->input[0], error);
    if (status == TN_OK)
        status = tn_image_source_open(data, TN_SPLIT_VAL, false, model, &request->images, reporter,
                                      &source, error);
    if (status == TN_OK && !request->images.no_preflight)
        status = tn_image_preflight(model, &source, reporter, error);
    if (status == TN_OK) {
        source.evaluate.input_height = (int)request->input[1];
        source.evaluate.input_width = (int)request->input[2];
        source.evaluate.top_k = request->top_k;
        source.evaluate.keep_predictions = request->keep_predictions;
        status = tn_evaluate_model(model, source.dataset, source.device, &source.evaluate,
                                   &evaluation, error);
    }
    if (status == TN_OK)
        status = tn_evaluate_report_make(path, data, &source, &evaluation, report, error);
    tn_evaluation_done(&evaluation);
    tn_image_source_close(&source);
    tn_model_destroy(model);
    return status;
}

void tn_evaluate_report_free(tn_evaluate_report *report)
{
    tn_result_free(report);
}
