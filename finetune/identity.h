/* What makes two runs the same run: see tn_run_identity. */
#ifndef TERNION_FINETUNE_IDENTITY_H
#define TERNION_FINETUNE_IDENTITY_H

#include "finetune/checkpoint.h"
#include "finetune/train.h"

/* options must be resolved. */
tn_status tn_identity_make(const tn_model *model, const tn_train_data *data,
                           const tn_train_options *options, tn_run_identity *identity,
                           tn_error *error) TN_MUST_CHECK;

#endif
