/* The CUDA device: the verbs of network/device.h on an NVIDIA GPU (compute capability 8.0 or
 * newer, CUDA 13; cuBLASLt, and cuDNN 9 where it is there, are found when it is opened).
 *
 * Activations are fp32 channels-last like the CPU device's; in bf16 plans the operands of
 * convolutions and matrix products are rounded to bf16 and accumulated in fp32. Convolution is
 * cuDNN's, or without it columns in chunks of images and a matrix product; depthwise and all else
 * are kernels of our own (kernels/), whose bodies the tests also run on the processor. No atomics,
 * sums in orders fixed by the shapes, algorithms pinned: two runs give the same bits.
 *
 * Environment: TERNION_CUDNN=off and TERNION_CUDA_GRAPHS=off do without cuDNN and without recorded
 * steps, TERNION_GPU_FAULT=N lets the N-th call of the runtime fail.
 *
 * What has never run on a GPU is listed in docs/results/gpu.md. */
#ifndef TERNION_GPU_CUDA_DEVICE_H
#define TERNION_GPU_CUDA_DEVICE_H

#include "network/device.h"

/* GPU `index`, counted from 0. DEVICE with one line that says what is missing: CUDA in this build,
 * a driver, a GPU, or cuBLASLt. */
tn_status tn_device_create_cuda(int index, tn_device **device, tn_error *error) TN_MUST_CHECK;

/* Whether this build has CUDA at all. */
bool tn_device_cuda_built(void);

#endif
