/* A new classifier on an old network: the last layer's weights in another number of classes. */
#ifndef TERNION_FINETUNE_NEW_HEAD_H
#define TERNION_FINETUNE_NEW_HEAD_H

#include "onnx_io/model.h"

/* Replaces weight and bias of the last layer before `output` (NULL: of all) (Gemm, MatMul + Add, or
 * a convolution; SPEC: last layer) in `model`: [classes, fan-in] normal with deviation 1 /
 * sqrt(fan-in), bias 0, drawn from the seed; and the class dimension of the graph's output. MODEL
 * when there is more than one last layer, or the network does not hold together with the new head.
 */
tn_status tn_new_head(tn_model *model, int64_t classes, const char *output, uint64_t seed,
                      tn_error *error) TN_MUST_CHECK;

#endif
