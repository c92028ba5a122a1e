/* Trained steps of quantized activations: the network under training has QuantizeLinear and
 * DequantizeLinear where the written one will have them, and their scales are parameters.
 *
 * lsq: Esser et al. 2020; the gradient is scaled by 1 / sqrt(N high), N the features of one sample,
 * as their appendix has it. pact: Choi et al. 2018; what is trained is the clip alpha = high *
 * step, by the gradient beyond it, under the weights' decay. fixed: the measured step stays. Zero
 * points stay as measured. */
#ifndef TERNION_FINETUNE_ACTIVATION_STEPS_H
#define TERNION_FINETUNE_ACTIVATION_STEPS_H

#include "finetune/activations.h"
#include "finetune/optimizer.h"
#include "finetune/train.h"
#include "network/params.h"

typedef struct tn_activation_steps {
    tn_activations ranges; /* owned */
    size_t *param;         /* [ranges.count] the step's position in the store */
    tn_model *model;       /* with the quantization in it; NULL: no activations are quantized */
} tn_activation_steps;

/* A copy of the model that quantizes its activations in the given ranges (borrowed: the model). */
tn_status tn_activation_steps_create(const tn_model *model, const tn_activations *ranges,
                                     tn_activation_steps *steps, tn_error *error) TN_MUST_CHECK;
void tn_activation_steps_done(tn_activation_steps *steps);

/* Finds the steps in the store of that copy's graph and freezes every other one (a network that
 * came with quantized activations keeps theirs), or all where the options say fixed. */
tn_status tn_activation_steps_bind(tn_activation_steps *steps, const tn_train_options *options,
                                   tn_params *params, tn_error *error) TN_MUST_CHECK;

/* The range whose step a parameter is; NULL: none's. */
const tn_activation_range *tn_activation_steps_find(const tn_activation_steps *steps, size_t param);

/* Factor on the learning rate and weight decay of a step. */
void tn_activation_steps_rate(const tn_activation_range *range, const tn_train_options *options,
                              float *rate, float *decay);

/* Keeps steps positive after an update. */
void tn_activation_steps_constrain(const tn_activation_steps *steps, tn_params *params);

/* The ranges with their present steps. */
tn_status tn_activation_steps_export(const tn_activation_steps *steps, const tn_params *params,
                                     tn_activations *ranges, tn_error *error) TN_MUST_CHECK;

#endif
