/* What a calibrated network is worth on images it was not fitted to, without their labels: how far
 * its output is from the float network's, and how much top-1 that is expected to cost.
 *
 * Where it names another class than the float network, that network's own probabilities tell what
 * the change costs on average: p(its class) - p(the other's class). Unlike a count of changed
 * classes this does not charge for changes between classes the float network finds equally likely.
 * On images the float network was trained on it errs towards too large a loss. */
#ifndef TERNION_FINETUNE_PROBE_H
#define TERNION_FINETUNE_PROBE_H

#include "finetune/calibrate.h"

typedef struct tn_probe tn_probe;

typedef struct tn_probe_result {
    double kl;        /* mean of KL(float || calibrated) */
    double loss;      /* expected loss of top-1, points */
    double deviation; /* standard error of that, at least one image in all */
} tn_probe_result;

/* Runs the float network on up to 1,024 images (256 MB of them) that the options' seed draws after
 * those calibrated with; where the data set has too few of them, or for options->images, on the
 * last quarter of the calibration images as well: calibrations to be measured then need hold_out.
 */
tn_status tn_probe_create(const tn_model *model, const tn_dataset *dataset,
                          const tn_calibrate_options *options, tn_device *device, tn_probe **probe,
                          tn_error *error) TN_MUST_CHECK;
void tn_probe_destroy(tn_probe *probe); /* NULL is fine */

int64_t tn_probe_images(const tn_probe *probe);
bool tn_probe_needs_hold_out(const tn_probe *probe);

tn_status tn_probe_measure(tn_probe *probe, const tn_calibration *calibration,
                           tn_probe_result *result, tn_error *error) TN_MUST_CHECK;

#endif
