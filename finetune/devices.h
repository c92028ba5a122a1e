/* The list of devices, by the names users give. */
#ifndef TERNION_FINETUNE_DEVICES_H
#define TERNION_FINETUNE_DEVICES_H

#include "network/device.h"

/* "cpu", "cuda" (the first GPU; of several processes on a machine each has its own), "cuda:K", or
 * "auto" (also NULL): the same GPU where it works, else the CPU. USAGE for another name; DEVICE with one line when a
 * GPU asked for is not there. */
tn_status tn_devices_open(const char *name, tn_device **device, tn_error *error) TN_MUST_CHECK;

#endif
