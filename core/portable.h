/* Functions that are compiled for the processor and, by nvcc, for the GPU. */
#ifndef TERNION_CORE_PORTABLE_H
#define TERNION_CORE_PORTABLE_H

#ifdef __CUDACC__
#define TN_BODY static __host__ __device__ __forceinline__
#else
#define TN_BODY static inline
#endif

#endif
