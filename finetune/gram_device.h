/* The sums of gram.h made by a device with memory of its own (network/calibration.h). */
#ifndef TERNION_FINETUNE_GRAM_DEVICE_H
#define TERNION_FINETUNE_GRAM_DEVICE_H

#include "finetune/gram.h"

typedef struct tn_gram_device tn_gram_device;

/* Vectors and values of the target are the host's and copied; its arrays over positions are the
 * device's, as they are at each add. DEVICE, LIMIT when out of memory. */
tn_status tn_gram_device_create(tn_device *device, const tn_patches *patches, bool cross_only,
                                const tn_gram_target *target, tn_gram_device **sums,
                                tn_error *error) TN_MUST_CHECK;
void tn_gram_device_destroy(tn_gram_device *sums); /* NULL is fine */
tn_gram_layout tn_gram_device_layout(const tn_gram_device *sums);
/* Adds the positions `places` [count] of patches.data, which is the device's. */
tn_status tn_gram_device_add(tn_gram_device *sums, const float *data, const uint32_t *places,
                             int64_t count, tn_error *error) TN_MUST_CHECK;
/* products [groups, cols, sum_width] and moments [channels of y, 2] as the task's dst has them. */
tn_status tn_gram_device_get(const tn_gram_device *sums, double *products, double *moments,
                             tn_error *error) TN_MUST_CHECK;

#endif
