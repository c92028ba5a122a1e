/* What ranks that train one network add up in every step: the gradients of its parameters, and
 * BatchNormalization's running statistics, of which all then hold the mean. */
#ifndef TERNION_FINETUNE_REDUCTION_H
#define TERNION_FINETUNE_REDUCTION_H

#include "network/collective.h"
#include "network/params.h"

typedef struct tn_reduction tn_reduction;

/* Borrows the store, whose gradients are placed. `statistics`: running statistics change in
 * training. NULL for one rank: there is nothing to add. Where the collective adds in host memory
 * and the device has its own, everything is copied there and back. */
tn_status tn_reduction_create(tn_params *params, tn_device *device, tn_collective *collective,
                              bool statistics, tn_reduction **reduction,
                              tn_error *error) TN_MUST_CHECK;
void tn_reduction_destroy(tn_reduction *reduction); /* NULL is fine */

/* Between the last backward pass of a step and its update; all ranks. NULL: nothing to do. */
tn_status tn_reduction_run(tn_reduction *reduction, tn_error *error) TN_MUST_CHECK;

#endif
