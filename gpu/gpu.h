/* What the files of the CUDA device share: the device, launching, one prepare function per verb. */
#ifndef TERNION_GPU_GPU_H
#define TERNION_GPU_GPU_H

#include "gpu/cuda_device.h"
#include "gpu/runtime.h"

typedef struct tn_gpu_device {
    tn_device base;
    tn_gpu *gpu;
    void *staging; /* for import and export, grown when needed */
    size_t staging_bytes;
} tn_gpu_device;

static inline tn_gpu *tn_gpu_of(const tn_kernel *kernel)
{
    return ((const tn_gpu_device *)kernel->device)->gpu;
}

typedef tn_status tn_gpu_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                 tn_error *error);
tn_gpu_prepare tn_gpu_conv_prepare;
tn_gpu_prepare tn_gpu_gemm_prepare;
tn_gpu_prepare tn_gpu_batch_norm_prepare;
tn_gpu_prepare tn_gpu_pool_prepare;
tn_gpu_prepare tn_gpu_unary_prepare;
tn_gpu_prepare tn_gpu_binary_prepare;
tn_gpu_prepare tn_gpu_concat_prepare;
tn_gpu_prepare tn_gpu_slice_prepare;
tn_gpu_prepare tn_gpu_pad_prepare;
tn_gpu_prepare tn_gpu_transpose_prepare;
tn_gpu_prepare tn_gpu_reduce_prepare;
tn_gpu_prepare tn_gpu_softmax_prepare;
tn_gpu_prepare tn_gpu_lrn_prepare;
tn_gpu_prepare tn_gpu_quantize_prepare;
tn_gpu_prepare tn_gpu_fake_quantize_prepare;
tn_gpu_prepare tn_gpu_dropout_prepare;
tn_gpu_prepare tn_gpu_loss_prepare;
tn_gpu_prepare tn_gpu_augment_prepare;
tn_gpu_prepare tn_gpu_quantizer_prepare;
tn_gpu_prepare tn_gpu_optimizer_prepare; /* NORM too */
tn_gpu_prepare tn_gpu_step_prepare;      /* TALLY, JUDGE */
tn_gpu_prepare tn_gpu_gram_prepare;

bool tn_gpu_function_has_backward(tn_function function);

/* Why a task cannot be run, or NULL. */
const char *tn_gpu_batch_norm_refusal(const tn_batch_norm_task *task);
const char *tn_gpu_binary_refusal(const tn_binary_task *task);
const char *tn_gpu_region_refusal(const tn_task *task);
const char *tn_gpu_quantizer_refusal(const tn_quantizer_task *task);

/* How blocks walk a matrix: for sums over its rows, and where every element is written. A thread's
 * columns lie together: `together` says after how many, or after multiples of it, they may not. */
tn_tiles tn_gpu_sum_tiles(int64_t rows, int64_t cols, int64_t together);
tn_tiles tn_gpu_spread_tiles(int64_t rows, int64_t cols, int64_t together);
int64_t tn_gpu_tile_threads(const tn_tiles *tiles);
int64_t tn_gpu_chunk_threads(int64_t cols); /* of a launch that adds the chunks of `cols` columns */

/* Chunks of rows for kernels of one thread a (chunk, column). */
int tn_gpu_chunks(int64_t rows, int64_t cols);

/* dst (+)= alpha times the sum of `chunks` rows of partial [chunks, count]. */
tn_status tn_gpu_add_chunks(tn_gpu *gpu, const double *partial, int64_t count, int chunks,
                            float *dst, float alpha, bool accumulate,
                            tn_error *error) TN_MUST_CHECK;

/* dst (+)= alpha times the column sums of src [rows, cols], in two launches. `partial` has
 * tn_gpu_column_sums_bytes. */
size_t tn_gpu_column_sums_bytes(int64_t rows, int64_t cols);
tn_status tn_gpu_column_sums(tn_gpu *gpu, const void *src, bool bf16, int64_t rows, int64_t cols,
                             double *partial, float *dst, float alpha, bool accumulate,
                             tn_error *error) TN_MUST_CHECK;

/* All pointers 16-byte aligned. */
static inline bool tn_gpu_aligned(const void *a, const void *b)
{
    return (((uintptr_t)a | (uintptr_t)b) & 15) == 0;
}

/* dst (+)= src, each stored as fp32 or bf16. */
tn_status tn_gpu_convert(tn_gpu *gpu, const void *src, bool src_bf16, void *dst, bool dst_bf16,
                         int64_t count, bool accumulate, tn_error *error) TN_MUST_CHECK;

/* dst = f(dst + bias + residual) over `count` elements; nothing to do when there is nothing. */
tn_status tn_gpu_epilogue(tn_gpu *gpu, const tn_epilogue_args *epilogue, int64_t count,
                          tn_error *error) TN_MUST_CHECK;

/* Element i of memory that stores fp32 or bf16. */
static inline void *tn_gpu_element(const void *memory, int64_t i, bool bf16)
{
    return (char *)(uintptr_t)memory + i * (int64_t)(bf16 ? sizeof(tn_bf16) : sizeof(float));
}

#endif
