/* Stands in for calibration while the build has none. */
#include "finetune/calibrate.h"

tn_status tn_calibrate(const tn_model *model, const tn_dataset *dataset,
                       const tn_calibrate_options *options, tn_calibration *calibration,
                       tn_error *error)
{
    (void)model, (void)dataset, (void)options, (void)calibration;
    return tn_fail(error, TN_ERROR_USAGE, "calibration is not supported in this version");
}

void tn_calibration_done(tn_calibration *calibration)
{
    (void)calibration;
}

bool tn_calibrate_method_parse(const char *name, tn_calibrate_method *method)
{
    (void)name, (void)method;
    return true;
}

bool tn_calibrate_bn_parse(const char *name, tn_calibrate_bn *bn)
{
    (void)name, (void)bn;
    return true;
}

const char *tn_calibrate_method_name(tn_calibrate_method method)
{
    (void)method;
    return "";
}

const char *tn_calibrate_bn_name(tn_calibrate_bn bn)
{
    (void)bn;
    return "";
}
