/* oneDNN, whose C API nothing else speaks, in versions 2.6 and 3.x: convolutions (dnnl_conv.c),
 * products (dnnl_product.c). */
#ifndef TERNION_NETWORK_CPU_DNNL_SEAM_H
#define TERNION_NETWORK_CPU_DNNL_SEAM_H

#include "network/device.h"

typedef struct tn_dnnl tn_dnnl;           /* engine and stream */
typedef struct tn_dnnl_conv tn_dnnl_conv; /* one convolution primitive and its reorders */

typedef enum tn_dnnl_pass {
    TN_DNNL_FORWARD,
    TN_DNNL_BACKWARD_DATA,
    TN_DNNL_BACKWARD_WEIGHTS
} tn_dnnl_pass;

tn_status tn_dnnl_create(tn_dnnl **dnnl, tn_error *error) TN_MUST_CHECK;
void tn_dnnl_destroy(tn_dnnl *dnnl); /* NULL is fine */
const char *tn_dnnl_version(void);   /* "2.6.3" */

/* Of a pass: all fp32; operands bf16 and the result fp32 (forward: src and weight, backward data:
 * weight and dst, backward weights: src and dst); or the result of forward and backward data bf16
 * too. Weight gradients, biases and theirs are always fp32. */
typedef enum tn_dnnl_types { TN_DNNL_FP32, TN_DNNL_BF16_TO_FP32, TN_DNNL_BF16 } tn_dnnl_types;

/* A pass of task->conv over `batch` images: channels-last activations, weights in the primitive's
 * own layout. Forward fuses bias, residual and function (NONE, RELU, CLIP and what
 * tn_dnnl_has_function knows). `serial` primitives use one thread, whoever calls them. `lanes`
 * calls may run at the same time, each with its own lane. A residual is of the result's type.
 * DEVICE when oneDNN has no such primitive. */
tn_status tn_dnnl_conv_create(tn_dnnl *dnnl, const tn_conv_task *task, tn_dnnl_pass pass,
                              int64_t batch, tn_dnnl_types types, bool serial, int lanes,
                              tn_dnnl_conv **conv, tn_error *error) TN_MUST_CHECK;
void tn_dnnl_conv_destroy(tn_dnnl_conv *conv); /* NULL is fine */

bool tn_dnnl_has_function(tn_function function);

size_t tn_dnnl_conv_weight_bytes(const tn_dnnl_conv *conv); /* in the primitive's layout */
size_t tn_dnnl_conv_scratch_bytes(const tn_dnnl_conv *conv);
const char *tn_dnnl_conv_name(const tn_dnnl_conv *conv);
/* Whether two primitives read weights in one layout. */
bool tn_dnnl_conv_same_weights(const tn_dnnl_conv *a, const tn_dnnl_conv *b);

/* Between [O, I/g, k...] and the primitive's layout. */
tn_status tn_dnnl_conv_pack(tn_dnnl_conv *conv, const float *plain, void *packed,
                            tn_error *error) TN_MUST_CHECK;
tn_status tn_dnnl_conv_unpack(tn_dnnl_conv *conv, const void *packed, float *plain,
                              tn_error *error) TN_MUST_CHECK;

/* Forward reads src, weight, bias, residual and writes dst; backward data reads dst (its gradient)
 * and weight and writes src; backward weights reads src and dst and writes weight and bias. False
 * when oneDNN failed (it does so only when it cannot allocate): callable in a parallel region. */
typedef struct tn_dnnl_conv_args {
    const void *src, *weight, *bias, *residual, *dst;
    void *scratch;
} tn_dnnl_conv_args;
bool tn_dnnl_conv_run(tn_dnnl_conv *conv, int lane, const tn_dnnl_conv_args *args);

/* Row-major c[m, n] = alpha op(a) op(b) + beta c on the calling thread when that is inside a
 * parallel region. */
bool tn_dnnl_gemm(bool trans_a, bool trans_b, int64_t m, int64_t n, int64_t k, float alpha,
                  const float *a, int64_t lda, const float *b, int64_t ldb, float beta, float *c,
                  int64_t ldc);

/* c[m, n] = a[m, k] b[k, n], or added to c, on one thread, whoever calls: c fp32 and dense, a and b
 * of one type. a lies dense, as [k, m] with trans_a. b lies dense, or with packed_b in the
 * product's own layout, to which `pack` brings weights of that type whose element (i, j) is at
 * i * pack_row + j * pack_column. */
typedef struct tn_dnnl_product tn_dnnl_product;
typedef struct tn_dnnl_product_shape {
    int64_t m, n, k;
    bool bf16, trans_a, packed_b;
    int64_t pack_row, pack_column;
} tn_dnnl_product_shape;

/* DEVICE when oneDNN has no such primitive. */
tn_status tn_dnnl_product_create(tn_dnnl *dnnl, const tn_dnnl_product_shape *shape,
                                 tn_dnnl_product **product, tn_error *error) TN_MUST_CHECK;
void tn_dnnl_product_destroy(tn_dnnl_product *product); /* NULL is fine */
size_t tn_dnnl_product_packed_bytes(const tn_dnnl_product *product);
size_t tn_dnnl_product_scratch_bytes(const tn_dnnl_product *product);
const char *tn_dnnl_product_name(const tn_dnnl_product *product);
/* Both callable in a parallel region; false when oneDNN cannot allocate. */
bool tn_dnnl_product_pack(const tn_dnnl_product *product, const void *plain, void *packed);
bool tn_dnnl_product_run(const tn_dnnl_product *product, bool add, const void *a, const void *b,
                         float *c, void *scratch);

#endif
