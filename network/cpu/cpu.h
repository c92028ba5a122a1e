/* What the files of the CPU device share: the device, one prepare function per verb. */
#ifndef TERNION_NETWORK_CPU_CPU_H
#define TERNION_NETWORK_CPU_CPU_H

#include "core/hot.h"
#include "network/cpu/dnnl_seam.h"
#include "network/device.h"

typedef struct tn_cpu_device {
    tn_device base;
    tn_dnnl *dnnl;
} tn_cpu_device;

enum {
    TN_CPU_GRAIN = 8192, /* elements one parallel piece should have at least */
    TN_CPU_CHUNKS = 16   /* pieces of a sum over the batch: fixed, so that bits are */
};

/* Of `count` elements those of the piece that begins at `at`. */
static inline int64_t tn_cpu_piece(int64_t count, int64_t at)
{
    return count - at < TN_CPU_GRAIN ? count - at : TN_CPU_GRAIN;
}

typedef tn_status tn_cpu_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                 tn_error *error);
tn_cpu_prepare tn_cpu_conv_prepare;
tn_cpu_prepare tn_cpu_gemm_prepare;
tn_cpu_prepare tn_cpu_batch_norm_prepare;
tn_cpu_prepare tn_cpu_pool_prepare;
tn_cpu_prepare tn_cpu_unary_prepare;
tn_cpu_prepare tn_cpu_binary_prepare;
tn_cpu_prepare tn_cpu_concat_prepare;
tn_cpu_prepare tn_cpu_slice_prepare;
tn_cpu_prepare tn_cpu_pad_prepare;
tn_cpu_prepare tn_cpu_transpose_prepare;
tn_cpu_prepare tn_cpu_reduce_prepare;
tn_cpu_prepare tn_cpu_softmax_prepare;
tn_cpu_prepare tn_cpu_lrn_prepare;
tn_cpu_prepare tn_cpu_quantize_prepare;
tn_cpu_prepare tn_cpu_fake_quantize_prepare;
tn_cpu_prepare tn_cpu_dropout_prepare;
tn_cpu_prepare tn_cpu_loss_prepare;

/* Why operands of a binary task cannot be stored as bf16; NULL: they can. */
const char *tn_cpu_binary_refusal(const tn_binary_task *task);
/* Convolutions on few pixels (cpu_pixel_conv.c): which, by their shapes alone. DEVICE when oneDNN
 * lacks a product. */
bool tn_cpu_pixel_conv_suits(const tn_conv_task *task);
tn_cpu_prepare tn_cpu_pixel_conv_prepare;

/* [n, rows, cols] -> [n, cols, rows] */
void tn_cpu_transpose(const float *src, float *dst, int64_t n, int64_t rows, int64_t cols);

/* One elementwise function over a piece, on the calling thread; dst may be src. */
void tn_cpu_function(tn_function function, float a, float b, const float *src, float *dst,
                     int64_t count);
/* dx (+)= dy * f'(x), where f' is expressed by x or by y = f(x). */
void tn_cpu_function_backward(tn_function function, float a, float b, const float *x,
                              const float *y, const float *dy, float *dx, bool accumulate,
                              int64_t count);
bool tn_cpu_function_has_backward(tn_function function);

#endif
