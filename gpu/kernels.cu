/* The kernels: each thread runs the body named in kernels.h. Arguments stay in constant memory. */
#include "gpu/kernels.h"

#define TN_KERNEL(name, arguments)                                                                 \
    static __global__ void __launch_bounds__(TN_GPU_BLOCK)                                         \
        name##_kernel(const __grid_constant__ tn_##arguments##_args k, int64_t threads)            \
    {                                                                                              \
        int64_t i = (int64_t)blockIdx.x * TN_GPU_BLOCK + threadIdx.x;                              \
        if (i < threads)                                                                           \
            tn_##name##_body(&k, i);                                                               \
    }
TN_GPU_KERNELS(TN_KERNEL)

#define TN_BLOCK_KERNEL(name, arguments, phases)                                                   \
    static __global__ void __launch_bounds__(TN_GPU_BLOCK, 2)                                        \
        name##_kernel(const __grid_constant__ tn_##arguments##_args k, int64_t)                    \
    {                                                                                              \
        __shared__ tn_tile_shared shared;                                                          \
        constexpr int unrolled = phases <= 3 ? phases : 1;                                         \
        _Pragma("unroll (unrolled)") for (int phase = 0; phase < phases; phase++)                             \
        {                                                                                          \
            if (phase > 0)                                                                         \
                __syncthreads();                                                                   \
            tn_##name##_phase(&k, &shared, blockIdx.x, (int)threadIdx.x, phase);                   \
        }                                                                                          \
    }
TN_GPU_BLOCK_KERNELS(TN_BLOCK_KERNEL)

#define TN_ADDRESS(name, arguments) (const void *)name##_kernel,
#define TN_BLOCK_ADDRESS(name, arguments, phases) (const void *)name##_kernel,
extern "C" const void *const tn_gpu_kernel_addresses[TN_N_GPU_KERNELS];
extern "C" const void *const tn_gpu_kernel_addresses[TN_N_GPU_KERNELS] = {
    TN_GPU_KERNELS(TN_ADDRESS) TN_GPU_BLOCK_KERNELS(TN_BLOCK_ADDRESS)};
