/* A converted layer's weights in a network that runs. */
#ifndef TERNION_FINETUNE_WEIGHT_PLACEMENT_H
#define TERNION_FINETUNE_WEIGHT_PLACEMENT_H

#include "converter/convert.h"
#include "network/params.h"

/* Sets the store's parameter of the layer's weight to what the written file gives it
 * (tn_converted_values). MODEL when there is no such parameter. */
tn_status tn_weight_place(tn_params *params, const tn_layer *layer, const tn_qweight *weight,
                          tn_error *error) TN_MUST_CHECK;

#endif
