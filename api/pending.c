/* Stands in for evaluate and preflight until they are there. */
#include "finetune/preflight.h"

#define PENDING __attribute__((weak))

static tn_status unsupported(tn_error *error)
{
    return tn_fail(error, TN_ERROR_USAGE, "not supported in this version");
}

PENDING tn_status tn_evaluate_preprocess(const tn_model *model, const tn_dataset *dataset,
                                         const tn_preprocess *asked, tn_preprocess *preprocess,
                                         char *source, tn_error *error)
{
    (void)model, (void)dataset, (void)asked, (void)preprocess, (void)source;
    return unsupported(error);
}

PENDING tn_status tn_evaluate_model(const tn_model *model, const tn_dataset *dataset,
                                    tn_device *device, const tn_evaluate_options *options,
                                    tn_evaluation *evaluation, tn_error *error)
{
    (void)model, (void)dataset, (void)device, (void)options, (void)evaluation;
    return unsupported(error);
}

PENDING tn_status tn_evaluate_pair(const tn_model *a, const tn_model *b, const tn_dataset *dataset,
                                   tn_device *device, const tn_evaluate_options *options_a,
                                   const tn_evaluate_options *options_b, tn_comparison *comparison,
                                   tn_error *error)
{
    (void)a, (void)b, (void)dataset, (void)device, (void)options_a, (void)options_b,
        (void)comparison;
    return unsupported(error);
}

PENDING void tn_evaluation_done(tn_evaluation *evaluation)
{
    (void)evaluation;
}

PENDING void tn_comparison_done(tn_comparison *comparison)
{
    (void)comparison;
}

PENDING tn_status tn_preflight_run(const tn_model *model, const tn_dataset *dataset,
                                   tn_device *device, const tn_evaluate_options *options,
                                   tn_preflight *preflight, tn_error *error)
{
    (void)model, (void)dataset, (void)device, (void)options, (void)preflight;
    return unsupported(error);
}
