/* Plans of convolutions by cuDNN 9's graph API, which is loaded when it is opened: the program
 * starts without it. On the GPU at hand, or for a device profile without any GPU.
 *
 * Tensors are channels-last, weights [O, k..., I / g]; all three fp32, or bf16 with fp32 sums.
 * Engines whose sums depend on scheduling are passed over, and in fp32 those that round operands.
 */
#ifndef TERNION_GPU_CUDNN_PLAN_H
#define TERNION_GPU_CUDNN_PLAN_H

#include "gpu/runtime.h"

typedef struct tn_cudnn tn_cudnn;

/* profile: the GPU's properties in JSON, as cuDNN writes them (gpu/profiles.h); NULL: the current
 * GPU. gpu: its name, under which choices are kept between runs (gpu/plan_cache.h); NULL: they are
 * not. DEVICE when cuDNN 9.8 or newer is not on the loader's path, or does not start. */
tn_status tn_cudnn_open(const char *profile, const char *gpu, tn_cudnn **cudnn,
                        tn_error *error) TN_MUST_CHECK;
void tn_cudnn_close(tn_cudnn *cudnn);              /* NULL is fine; its plans must be gone */
size_t tn_cudnn_version(const tn_cudnn *cudnn);    /* 91900: 9.19.0 */
size_t tn_cudnn_from_cache(const tn_cudnn *cudnn); /* plans whose choice an earlier run made */

/* The first plan by the library's own ranking that keeps the rules above within `most` bytes of
 * workspace, or the one an earlier run chose so. USAGE when there is none. */
tn_status tn_cudnn_plan(tn_cudnn *cudnn, const tn_conv_task *task, tn_conv_pass pass,
                        tn_precision precision, size_t most, tn_gpu_convolution **plan,
                        tn_error *error) TN_MUST_CHECK;
void tn_cudnn_plan_destroy(tn_gpu_convolution *plan); /* NULL is fine */
/* On the stream (a cudaStream_t): computes y, x (the data's gradient) or w from the other two. */
tn_status tn_cudnn_run(const tn_gpu_convolution *plan, void *stream, const void *x, const void *w,
                       const void *y, void *workspace, tn_error *error) TN_MUST_CHECK;
size_t tn_cudnn_plan_workspace(const tn_gpu_convolution *plan);
int64_t tn_cudnn_plan_engine(const tn_gpu_convolution *plan);

#endif
