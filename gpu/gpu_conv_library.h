/* Convolutions by the runtime's library (cuDNN), around its own types: in bf16 what is stored as
 * fp32 is rounded before and widened after. */
#ifndef TERNION_GPU_GPU_CONV_LIBRARY_H
#define TERNION_GPU_GPU_CONV_LIBRARY_H

#include "gpu/gpu.h"

typedef struct tn_conv_library {
    tn_gpu_convolution *passes[TN_N_CONV_PASSES];
    bool bf16, x_bf16, y_bf16;           /* the library's; x, y as stored */
    int64_t x, w, y;                     /* elements */
    size_t x_at, y_at, out_at, spare_at; /* workspace */
    size_t bytes;                        /* of the workspace */
} tn_conv_library;

/* False: the library is not there, or has no plan for one of the passes. */
bool tn_conv_library_init(tn_conv_library *library, tn_gpu *gpu, const tn_task *task);
void tn_conv_library_done(tn_conv_library *library);

/* w: packed [O, k..., I / g], bf16 in bf16. */
tn_status tn_conv_library_forward(const tn_conv_library *library, tn_gpu *gpu, void *workspace,
                                  const void *x, const void *w, void *y,
                                  tn_error *error) TN_MUST_CHECK;
tn_status tn_conv_library_data(const tn_conv_library *library, tn_gpu *gpu, void *workspace,
                               const void *dy, const void *w, void *dx, bool accumulate,
                               tn_error *error) TN_MUST_CHECK;
/* *dw: in the workspace, packed as w is. */
tn_status tn_conv_library_weights(const tn_conv_library *library, tn_gpu *gpu, void *workspace,
                                  const void *x, const void *dy, const void **dw,
                                  tn_error *error) TN_MUST_CHECK;

#endif
