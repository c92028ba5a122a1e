/* The CUDA device, over emulated_runtime.c or the real runtime, for programs of other folders that
 * are built here again with tn_device_create_cpu meaning it. */
#ifndef TERNION_TESTS_GPU_EMULATION_H
#define TERNION_TESTS_GPU_EMULATION_H

#include "gpu/cuda_device.h"

static inline tn_status emulation_create(tn_device **device, tn_error *error)
{
    return tn_device_create_cuda(0, device, error);
}

#define tn_device_create_cpu emulation_create

#endif
