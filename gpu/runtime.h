/* The seam between the CUDA device and what runs it: memory, copies, launches and matrix products
 * on one stream. cuda_runtime.c implements it with the CUDA runtime and cuBLASLt; the tests
 * implement it on the processor, so that everything above it is tested without a GPU.
 *
 * Every call is asynchronous on the stream unless it says otherwise. DEVICE when it fails. */
#ifndef TERNION_GPU_RUNTIME_H
#define TERNION_GPU_RUNTIME_H

#include "gpu/kernels.h"

typedef struct tn_gpu tn_gpu;

typedef enum tn_gpu_direction {
    TN_GPU_UPLOAD,   /* returns when src may be reused; waits for nothing else */
    TN_GPU_DOWNLOAD, /* returns when dst is complete */
    TN_GPU_WITHIN
} tn_gpu_direction;

/* c = alpha op(a) op(b) + beta c, row-major, `batch` times with the strides between (elements).
 * c, and what is summed, is fp32. */
typedef struct tn_gpu_product {
    bool trans_a, trans_b;
    tn_precision precision; /* FP32, TF32: fp32 operands; BF16: bf16 ones */
    int64_t m, n, k, lda, ldb, ldc, batch, stride_a, stride_b, stride_c;
} tn_gpu_product;

/* GPU `index`. DEVICE with one line that says what is missing. */
tn_status tn_gpu_open(int index, tn_gpu **gpu, tn_error *error) TN_MUST_CHECK;
void tn_gpu_close(tn_gpu *gpu); /* NULL is fine */
/* "NVIDIA H200, 132 SMs, 139 GiB, cuBLASLt 13.0" */
void tn_gpu_describe(const tn_gpu *gpu, char *text, size_t size);
bool tn_gpu_has_bf16(const tn_gpu *gpu); /* and tf32 */

static inline bool tn_gpu_is_bf16(const tn_gpu_product *product)
{
    return product->precision == TN_PRECISION_BF16;
}

/* What a product takes the pointers to an operand, or to c, to be aligned to in bytes: rows and
 * batches start anywhere. */
static inline uint32_t tn_gpu_operand_alignment(int64_t ld, int64_t stride, bool bf16)
{
    uint64_t bytes = (uint64_t)(ld | stride) * (bf16 ? 2 : 4) | 256;
    return (uint32_t)(bytes & (~bytes + 1));
}

size_t tn_gpu_available(tn_gpu *gpu); /* bytes not in use; 0 when that is not known */
/* The stream, for a library that queues work on it (a cudaStream_t). */
void *tn_gpu_stream(const tn_gpu *gpu);

void *tn_gpu_alloc(tn_gpu *gpu, size_t bytes); /* 256-byte aligned; NULL when there is none */
void tn_gpu_free(tn_gpu *gpu, void *memory);   /* NULL is fine */
tn_status tn_gpu_copy(tn_gpu *gpu, void *dst, const void *src, size_t bytes,
                      tn_gpu_direction direction, tn_error *error) TN_MUST_CHECK;
tn_status tn_gpu_zero(tn_gpu *gpu, void *dst, size_t bytes, tn_error *error) TN_MUST_CHECK;
tn_status tn_gpu_wait(tn_gpu *gpu, tn_error *error) TN_MUST_CHECK;

/* `args` is the kernel's argument struct. No threads: nothing to do. */
tn_status tn_gpu_launch(tn_gpu *gpu, tn_gpu_kernel kernel, const void *args, int64_t threads,
                        tn_error *error) TN_MUST_CHECK;

/* Chooses and keeps the algorithm of a product; multiply then runs those prepared, and only them,
 * on pointers aligned as above. USAGE when there is none. */
tn_status tn_gpu_product_prepare(tn_gpu *gpu, const tn_gpu_product *product,
                                 tn_error *error) TN_MUST_CHECK;
tn_status tn_gpu_multiply(tn_gpu *gpu, const tn_gpu_product *product, float alpha, const void *a,
                          const void *b, float beta, float *c, tn_error *error) TN_MUST_CHECK;

/* Convolutions by cuDNN, where it is there. */
typedef enum tn_conv_pass {
    TN_CONV_FORWARD, /* x, w -> y */
    TN_CONV_DATA,    /* dy, w -> dx */
    TN_CONV_WEIGHTS, /* x, dy -> dw */
    TN_N_CONV_PASSES
} tn_conv_pass;

enum { TN_CONVOLUTION_WORKSPACE = 256 << 20 }; /* at most */

typedef struct tn_gpu_convolution tn_gpu_convolution;

/* All three arrays channels-last and fp32, or bf16 in bf16; weights [O, k..., I / g]. NULL where
 * there is no cuDNN (the environment variable TERNION_CUDNN=off hides it), or no plan. */
tn_gpu_convolution *tn_gpu_convolution_create(tn_gpu *gpu, const tn_conv_task *task,
                                              tn_conv_pass pass, tn_precision precision);
void tn_gpu_convolution_destroy(tn_gpu_convolution *convolution); /* NULL is fine */
size_t tn_gpu_convolution_workspace(const tn_gpu_convolution *convolution);
tn_status tn_gpu_convolve(tn_gpu *gpu, const tn_gpu_convolution *convolution, const void *x,
                          const void *w, const void *y, void *workspace,
                          tn_error *error) TN_MUST_CHECK;

/* What is queued between begin and end is recorded, not done: launches, products, copies within the
 * device, zeroes. DEVICE for all else. end with NULL drops it. */
tn_status tn_gpu_record_begin(tn_gpu *gpu, tn_error *error) TN_MUST_CHECK;
tn_status tn_gpu_record_end(tn_gpu *gpu, tn_recording **recording, tn_error *error) TN_MUST_CHECK;
tn_status tn_gpu_replay(tn_gpu *gpu, const tn_recording *recording, tn_error *error) TN_MUST_CHECK;
void tn_gpu_forget(tn_recording *recording); /* NULL is fine */

/* Fault injection: the n-th call from now (1 is the next) that can fail does; 0 ends it. */
void tn_gpu_fail_call(uint64_t n);
uint64_t tn_gpu_calls(void); /* since the last tn_gpu_fail_call */
/* How often the host has waited for the device, or for data from it. */
uint64_t tn_gpu_waits(void);

#endif
