/* Two networks side by side over the same images, step by step: the float one, and the one that is
 * being quantized. Fitting a layer sees both; so does the correction of a BatchNorm. */
#ifndef TERNION_FINETUNE_CALIBRATE_WALK_H
#define TERNION_FINETUNE_CALIBRATE_WALK_H

#include "finetune/calibrate.h"
#include "network/plan.h"

typedef struct tn_walk {
    const tn_calibrate_options *options; /* resolved */
    const tn_graph *graph;               /* batch = all images */
    const tn_layers *layers;             /* of that graph */
    tn_plan *float_plan, *plan;
    tn_params *float_params, *params;
    int64_t images;              /* in the plans */
    int64_t fitted;              /* the first of them, used to fit */
    tn_calibrate_bn bn;          /* not AUTO */
    tn_qweight *weight;          /* [layers->count]: codes NULL for layers that are kept */
    tn_calibrated_layer *report; /* [layers->count] */
    bool *touched;               /* [values]: differs between the two networks */
} tn_walk;

/* Plans for `images` images on the device; borrows everything. */
tn_status tn_walk_create(const tn_graph *graph, const tn_layers *layers, tn_device *device,
                         const tn_calibrate_options *options, int64_t images, tn_walk *walk,
                         tn_error *error) TN_MUST_CHECK;
void tn_walk_done(tn_walk *walk);

/* Calibrates on the first `fitted` images: starts from the float parameters and plainly rounded
 * weights. nchw: all images. */
tn_status tn_walk_run(tn_walk *walk, const float *nchw, int64_t fitted, tn_calibrate_bn bn,
                      tn_error *error) TN_MUST_CHECK;

/* KL(softmax float || softmax quantized) and share of equal top-1 of images [first, last), after a
 * run. */
tn_status tn_walk_compare(const tn_walk *walk, int64_t first, int64_t last, double *kl,
                          double *agreement, tn_error *error) TN_MUST_CHECK;

#endif
