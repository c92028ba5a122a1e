#include "api/boundary.h"

#include "converter/verify.h"

static tn_status make_report(const char *path, const char *against,
                             const tn_verification *verification, tn_verify_report **report,
                             tn_error *error)
{
    tn_verify_report *made = tn_result_create(sizeof *made);
    if (!made)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    made->file = tn_arena_strdup(tn_result_arena(made), path);
    made->against = tn_arena_strdup(tn_result_arena(made), against ? against : "");
    made->layers = (int64_t)verification->layers;
    made->halves = (int64_t)verification->halves;
    made->activations = (int64_t)verification->activations;
    made->untouched = (int64_t)verification->untouched;
    if (!made->file || !made->against) {
        tn_result_free(made);
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    }
    *report = made;
    return TN_OK;
}

tn_status tn_verify_file(const char *path, const char *against, const tn_input_options *given,
                         const tn_reporter *reporter, tn_verify_report **report, tn_error *error)
{
    static const tn_input_options standard;
    const tn_read_options read = tn_boundary_read(given ? given : &standard, reporter);
    tn_model *model = NULL, *original = NULL;
    tn_verification verification;
    tn_status status = tn_model_read(path, &read, &model, error);
    if (status == TN_OK && against)
        status = tn_model_read(against, &read, &original, error);
    if (status == TN_OK)
        status = tn_verify(model, original, &verification, error);
    if (status == TN_OK)
        status = make_report(path, against, &verification, report, error);
    tn_model_destroy(original);
    tn_model_destroy(model);
    return status;
}

void tn_verify_report_free(tn_verify_report *report)
{
    tn_result_free(report);
}
