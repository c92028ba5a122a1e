/* tn_image_options on their way to a network: preprocessing, device, precision. */
#ifndef TERNION_API_IMAGES_H
#define TERNION_API_IMAGES_H

#include "api/boundary.h"
#include "finetune/evaluate.h"

typedef struct tn_image_source {
    tn_dataset *dataset;
    tn_device *device;
    tn_preprocess preprocess;     /* when asked */
    bool asked;                   /* else the model's record or the guess */
    tn_evaluate_options evaluate; /* points into this */
} tn_image_source;

/* Opens data set and device. `model` says what an unset preset means when single settings are
 * given over it. */
tn_status tn_image_source_open(const char *data, tn_split split, bool allow_unlabelled,
                               const tn_model *model, const tn_image_options *options,
                               const tn_reporter *reporter, tn_image_source *source,
                               tn_error *error) TN_MUST_CHECK;
void tn_image_source_close(tn_image_source *source);

tn_status tn_image_device(const char *name, tn_device **device, tn_error *error) TN_MUST_CHECK;
tn_status tn_image_precision(const char *name, tn_precision *precision,
                             tn_error *error) TN_MUST_CHECK;

/* tn_dataset_open with a warning of pictures in formats that are not read. */
tn_status tn_image_dataset_open(const char *data, tn_split split, const tn_dataset_options *options,
                                const tn_reporter *reporter, tn_dataset **dataset,
                                tn_error *error) TN_MUST_CHECK;

/* Warns through the reporter when the preprocessing does not seem to fit; an error only where the
 * look itself fails. */
tn_status tn_image_preflight(const tn_model *model, const tn_image_source *source,
                             const tn_reporter *reporter, tn_error *error) TN_MUST_CHECK;

/* The report of an evaluation, allocated; takes nothing. */
tn_status tn_evaluate_report_make(const char *model, const char *data,
                                  const tn_image_source *source, const tn_evaluation *evaluation,
                                  tn_evaluate_report **report, tn_error *error) TN_MUST_CHECK;

#endif
