/* Matrix products by cuBLASLt, which is loaded when a device is opened: the program starts without
 * it. Algorithms are chosen once per shape and kept, so that results do not move. */
#ifndef TERNION_GPU_BLASLT_H
#define TERNION_GPU_BLASLT_H

#include "gpu/runtime.h"

typedef struct tn_blaslt tn_blaslt;

/* DEVICE when the library is missing, with its name and where to get it. */
tn_status tn_blaslt_create(tn_blaslt **blaslt, tn_error *error) TN_MUST_CHECK;
void tn_blaslt_destroy(tn_blaslt *blaslt); /* NULL is fine */
size_t tn_blaslt_version(const tn_blaslt *blaslt);

tn_status tn_blaslt_prepare(tn_blaslt *blaslt, const tn_gpu_product *product,
                            tn_error *error) TN_MUST_CHECK;
tn_status tn_blaslt_multiply(tn_blaslt *blaslt, void *stream, const tn_gpu_product *product,
                             float alpha, const void *a, const void *b, float beta, float *c,
                             tn_error *error) TN_MUST_CHECK;

#endif
