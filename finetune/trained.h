/* From the state of training to a finished network. */
#ifndef TERNION_FINETUNE_TRAINED_H
#define TERNION_FINETUNE_TRAINED_H

#include "finetune/bn_statistics.h"
#include "finetune/student.h"

/* Sets BN statistics measured on some hundred training images; the running ones are remembered in
 * `statistics`, to be restored. A network without BN stays as it is. */
tn_status tn_trained_measure(tn_student *student, const tn_train_data *data,
                             const tn_train_options *options, tn_bn_statistics *statistics,
                             tn_error *error) TN_MUST_CHECK;

/* Measures BN statistics of the quantized network on training images, augmented, and keeps them if
 * the loss on other training images is lower with them (the test set is not looked at). */
tn_status tn_trained_reestimate(tn_student *student, const tn_train_data *data,
                                const tn_train_options *options, bool *kept,
                                tn_error *error) TN_MUST_CHECK;

/* The result: a copy of `model` with the student's float parameters, codes and scales of its
 * quantized layers, and logits to prove an export with. */
tn_status tn_trained_collect(tn_student *student, const tn_model *model, const tn_train_data *data,
                             const tn_train_options *options, tn_trained *trained,
                             tn_error *error) TN_MUST_CHECK;

/* After edits of trained->model: graph and layers anew, items bound to them by weight name. */
tn_status tn_trained_rebuild(tn_trained *trained, const tn_train_options *options,
                             tn_error *error) TN_MUST_CHECK;

/* Logits to prove an export with, from the model with the items' values in memory. */
tn_status tn_trained_reprove(tn_trained *trained, const tn_train_data *data,
                             const tn_train_options *options, tn_error *error) TN_MUST_CHECK;

#endif
