/* An old network at another resolution: the size its input is said to have. */
#ifndef TERNION_FINETUNE_NEW_RESOLUTION_H
#define TERNION_FINETUNE_NEW_RESOLUTION_H

#include "onnx_io/model.h"

/* Restates the first input as [its batch, input[0], input[1], input[2]] in `model`, and forgets
 * shapes that follow from it. MODEL when the network does not hold together at that size, such as
 * one whose classifier reads a whole feature map. */
tn_status tn_new_resolution(tn_model *model, const int64_t input[3], tn_error *error) TN_MUST_CHECK;

#endif
