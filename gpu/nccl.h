/* Sums over GPUs by NCCL, one process per GPU. NCCL (libnccl.so.2, 2.7 or newer) is loaded when it
 * is asked for; the environment variable TERNION_NCCL=off hides it. */
#ifndef TERNION_GPU_NCCL_H
#define TERNION_GPU_NCCL_H

#include "network/collective.h"
#include "network/device.h"

/* Whether there is an NCCL to load. */
bool tn_nccl_found(void);

/* A collective whose sums are of the device's memory, queued on its stream; everything else is
 * `control`'s (borrowed, as the device is), which also brings NCCL's id to all ranks. All ranks
 * call it. DEVICE where NCCL is missing or refuses (two ranks on one GPU). */
tn_status tn_nccl_create(tn_device *device, tn_collective *control, tn_collective **collective,
                         tn_error *error) TN_MUST_CHECK;

#endif
