/* What a layer that is to be fitted sees of the two networks, and where the corrections behind it
 * go. */
#ifndef TERNION_FINETUNE_CALIBRATE_VIEW_H
#define TERNION_FINETUNE_CALIBRATE_VIEW_H

#include "finetune/calibrate_chain.h"
#include "finetune/calibrate_layer.h"
#include "finetune/calibrate_walk.h"

/* One layer's fit, with its buffers. */
typedef struct tn_layer_work {
    tn_layer_view view;
    tn_chain chain;
    tn_layer_fit fit;
    float *w, *bias;
    double *gain, *offset;
    bool bias_inside; /* the layer's own output holds the bias */
    /* the plans' buffers the view looks into; other_*: count 0 when there is none */
    tn_plan_buffer input, output, other_f, other_q;
} tn_layer_work;

/* Why the layer cannot be fitted to data, or NULL. */
const char *tn_layer_unfit(const tn_walk *walk, const tn_layer *layer, const tn_qweight *weight);

/* The patches a layer's node reads; their data is not set. */
tn_status tn_layer_patches(const tn_node *node, const tn_layer *layer, tn_patches *patches,
                           tn_error *error) TN_MUST_CHECK;

/* Looks at the layer that step `step` computes. Ended by tn_layer_work_done, also after an error.
 */
tn_status tn_layer_look(const tn_walk *walk, const tn_layer *layer, size_t step,
                        tn_layer_work *work, tn_error *error) TN_MUST_CHECK;
void tn_layer_work_done(tn_layer_work *work);

/* Puts slope and shift where they cost nothing: scales, BN or bias. */
tn_status tn_layer_absorb(const tn_walk *walk, tn_layer_work *work, tn_qweight *weight,
                          tn_error *error) TN_MUST_CHECK;

#endif
