/* What a calibrated network is worth on images it was not fitted to, without their labels: how far
 * its output is from the float network's, and how much top-1 that is expected to cost.
 *
 * Where it names another class than the float network, that network's own probabilities tell what
 * the change costs on average: p(its class) - p(the other's class). Unlike a count of changed
 * classes this does not charge for changes between classes the float network finds equally likely.
 * Images the float network was trained on are those it is surest of: they change class less often
 * than others, and the loss they tell is too small. */
#ifndef TERNION_FINETUNE_PROBE_H
#define TERNION_FINETUNE_PROBE_H

#include "finetune/activations.h"
#include "finetune/calibrate.h"
#include "network/plan.h"

typedef struct tn_probe tn_probe;

enum { TN_PROBE_CALIBRATED = -1 };

typedef struct tn_probe_result {
    double kl;        /* mean of KL(float || calibrated) */
    double agreement; /* share with the same top-1 */
    double loss;      /* expected loss of top-1, points */
    double deviation; /* standard error of that, at least one image in all */
} tn_probe_result;

/* Runs the float network on up to 1,024 images (256 MB of them) that the options' seed draws after
 * those calibrated with; where the data set has fewer of them than of those, or for
 * options->images, on the last quarter of the calibration images as well: calibrations to be
 * measured then need hold_out. With most > 0 on at most so many drawn after them and on no others:
 * USAGE when there are none (tn_probe_unseen says how many there are); with TN_PROBE_CALIBRATED on
 * the calibration images themselves. */
tn_status tn_probe_create(const tn_model *model, const tn_dataset *dataset,
                          const tn_calibrate_options *options, int64_t most, tn_device *device,
                          tn_probe **probe, tn_error *error) TN_MUST_CHECK;
/* Images of the data set beside those that are calibrated with. */
int64_t tn_probe_unseen(const tn_dataset *dataset, const tn_calibrate_options *options);
void tn_probe_destroy(tn_probe *probe); /* NULL is fine */

int64_t tn_probe_images(const tn_probe *probe);
/* What is measured on, for other measurements on the same images: the plan's parameters are the
 * float network's until tn_probe_measure, and who changes them puts them back. */
typedef struct tn_probe_network {
    const tn_graph *graph;
    tn_params *params;
    tn_plan *plan;
    const char *logits; /* its value's name */
    int64_t batch, classes;
} tn_probe_network;
tn_probe_network tn_probe_network_of(const tn_probe *probe);
/* Images [at, at + batch), fewer at the end, into the plan's input; how many in *count.
 * float_logits: [count, classes] of the float network, borrowed. */
tn_status tn_probe_batch(const tn_probe *probe, int64_t at, int64_t *count,
                         const float **float_logits, tn_error *error) TN_MUST_CHECK;
bool tn_probe_needs_hold_out(const tn_probe *probe);

tn_status tn_probe_measure(tn_probe *probe, const tn_calibration *calibration,
                           tn_probe_result *result, tn_error *error) TN_MUST_CHECK;
/* With the activations quantized as well, as the file will compute. */
tn_status tn_probe_measure_activations(tn_probe *probe, const tn_calibration *calibration,
                                       const tn_activations *activations, tn_probe_result *result,
                                       tn_error *error) TN_MUST_CHECK;

#endif
