/* In builds without CUDA. */
#include "gpu/cuda_device.h"

tn_status tn_device_create_cuda(int index, tn_device **device, tn_error *error)
{
    (void)index;
    (void)device;
    return tn_fail(
        error, TN_ERROR_DEVICE,
        "this build has no CUDA: use --device cpu, or build with nvcc and -Dgpu=enabled");
}

bool tn_device_cuda_built(void)
{
    return false;
}
