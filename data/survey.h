/* A look at every image of a data set: counts, sizes, what cannot be decoded. */
#ifndef TERNION_DATA_SURVEY_H
#define TERNION_DATA_SURVEY_H

#include "core/reporter.h"
#include "data/dataset.h"

typedef struct tn_survey {
    size_t images, bad, unlabelled, grey;
    int min_width, max_width, min_height, max_height; /* of the good ones; 0 when there are none */
    size_t *class_images;                             /* [classes]; tn_survey_done frees it */
    char first_bad[512];                              /* the first message by index, or "" */
} tn_survey;

/* Decodes all images, on all threads. CANCELLED through the reporter (may be NULL). */
tn_status tn_survey_take(const tn_dataset *dataset, const tn_reporter *reporter, tn_survey *survey,
                         tn_error *error) TN_MUST_CHECK;
void tn_survey_done(tn_survey *survey);

#endif
