/* What is in a device's memory, where the host can read it. */
#ifndef TERNION_FINETUNE_HOST_COPY_H
#define TERNION_FINETUNE_HOST_COPY_H

#include "network/device.h"

/* Zero-initialized; one array at a time. */
typedef struct tn_host_copy {
    float *data;
    size_t room;
} tn_host_copy;

/* *host: `from` itself where the device's memory is the host's (or device is NULL), else a copy of
 * its `count` floats, until the next get. LIMIT when out of memory, DEVICE when the copy fails. */
tn_status tn_host_copy_get(tn_host_copy *copy, tn_device *device, const float *from, size_t count,
                           const float **host, tn_error *error) TN_MUST_CHECK;
void tn_host_copy_done(tn_host_copy *copy);

#endif
