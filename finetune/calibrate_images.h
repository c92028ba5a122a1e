/* The images a network is calibrated on, in one array. */
#ifndef TERNION_FINETUNE_CALIBRATE_IMAGES_H
#define TERNION_FINETUNE_CALIBRATE_IMAGES_H

#include "finetune/calibrate.h"

typedef struct tn_calibrate_images {
    float *values; /* [count, dims] */
    int64_t count;
    int64_t dims[3]; /* as the network reads them: C, H, W, or H, W, C (tn_input_channels_last) */
    int64_t size;    /* their product */
} tn_calibrate_images;

/* options->samples images (fewer, perhaps 0, when the data set has fewer) drawn by options->seed
 * and prepared for the model, or options->images in the order of such a draw. DATA when a sample is
 * broken or sizes differ. */
tn_status tn_calibrate_images_load(const tn_model *model, const tn_dataset *dataset,
                                   const tn_calibrate_options *options, tn_calibrate_images *images,
                                   tn_error *error) TN_MUST_CHECK;
void tn_calibrate_images_done(tn_calibrate_images *images);

#endif
