/* BatchNorm for networks that were exported with it folded away: training needs it. Put behind each
 * convolution as the identity, trained, and folded again. */
#ifndef TERNION_FINETUNE_RESTORE_BN_H
#define TERNION_FINETUNE_RESTORE_BN_H

#include "finetune/train.h"

/* Measures mean and variance of every convolution's output channels on `images` training images and
 * inserts behind each convolution that no BatchNormalization follows BN(mean, variance,
 * gamma = sqrt(variance + epsilon), beta = mean): the identity at the start. *count (may be NULL):
 * how many. MODEL when the network cannot run. */
tn_status tn_restore_bn(tn_model *model, const tn_train_data *data, size_t images,
                        tn_device *device, size_t *count, tn_error *error) TN_MUST_CHECK;

/* Folds the inserted BNs of a trained network away: scales and float weights times gamma / sd,
 * codes flipped where gamma < 0 (Wp and Wn swap), code 0 where gamma = 0, biases shifted. Leaves
 * model, graph and layers of `trained` anew; the logits to prove an export with are those of the
 * folded network. USAGE with granularity tensor. */
tn_status tn_restored_bn_fold(tn_trained *trained, const tn_train_data *data,
                              const tn_train_options *options, tn_error *error) TN_MUST_CHECK;

#endif
