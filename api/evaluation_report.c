#include "api/images.h"

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
