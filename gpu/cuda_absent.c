/* In builds without CUDA. */
#include "gpu/cuda_device.h"
#include "gpu/nccl.h"

tn_status tn_device_create_cuda(int index, tn_device **device, tn_error *error)
{
    (void)index;
    (void)device;
    return tn_fail(
        error, TN_ERROR_DEVICE,
        "this build has no CUDA: use --device cpu, or build with nvcc and -Dgpu=enabled");
}

bool tn_nccl_found(void)
{
    return false;
}

tn_status tn_nccl_create(tn_device *device, tn_collective *control, tn_collective **collective,
                         tn_error *error)
{
    (void)device;
    (void)control;
    (void)collective;
    return tn_fail(error, TN_ERROR_DEVICE, "this build has no CUDA, and so no NCCL");
}

bool tn_device_cuda_built(void)
{
    return false;
}
