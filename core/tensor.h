/* Data types and dense tensors as ONNX has them: row-major, little-endian, sub-byte types packed
 * low bits first without row padding. */
#ifndef TERNION_CORE_TENSOR_H
#define TERNION_CORE_TENSOR_H

#include "core/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TN_MAX_RANK = 16 };

/* Values of onnx.TensorProto.DataType. */
typedef enum tn_dtype {
    TN_UNDEFINED = 0,
    TN_FLOAT = 1,
    TN_UINT8 = 2,
    TN_INT8 = 3,
    TN_UINT16 = 4,
    TN_INT16 = 5,
    TN_INT32 = 6,
    TN_INT64 = 7,
    TN_STRING = 8,
    TN_BOOL = 9,
    TN_FLOAT16 = 10,
    TN_DOUBLE = 11,
    TN_UINT32 = 12,
    TN_UINT64 = 13,
    TN_COMPLEX64 = 14,
    TN_COMPLEX128 = 15,
    TN_BFLOAT16 = 16,
    TN_FLOAT8E4M3FN = 17,
    TN_FLOAT8E4M3FNUZ = 18,
    TN_FLOAT8E5M2 = 19,
    TN_FLOAT8E5M2FNUZ = 20,
    TN_UINT4 = 21,
    TN_INT4 = 22,
    TN_FLOAT4E2M1 = 23,
    TN_FLOAT8E8M0 = 24,
    TN_UINT2 = 25,
    TN_INT2 = 26
} tn_dtype;

/* Bits of one element; 0 for strings and unknown types. */
int tn_dtype_bits(tn_dtype dtype);
const char *tn_dtype_name(tn_dtype dtype); /* "FLOAT", ...; "type 99" is "unknown" */
bool tn_dtype_is_float(tn_dtype dtype);    /* FLOAT, DOUBLE, FLOAT16, BFLOAT16 */
bool tn_dtype_is_integer(tn_dtype dtype);  /* signed and unsigned, 2 to 64 bits; not BOOL */

/* Bytes of `count` elements, ceil(count * bits / 8); false on overflow or an unsized type. */
bool tn_dtype_bytes(tn_dtype dtype, uint64_t count, size_t *bytes);

/* A view or an owner of elements. `data` of a view into a mapped file may be unaligned: read it
 * through tn_tensor_read_*. */
typedef struct tn_tensor {
    tn_dtype dtype;
    int rank;
    int64_t dims[TN_MAX_RANK]; /* all >= 0 */
    void *data;
    size_t bytes;
    bool owned; /* data is freed by tn_tensor_done */
} tn_tensor;

/* Product of dims; false when a dim is negative or the product overflows int64. Rank 0 gives 1. */
bool tn_dims_count(int rank, const int64_t *dims, int64_t *count);

int64_t tn_tensor_count(const tn_tensor *tensor); /* of a valid tensor */

/* Allocates zeroed data for dtype and dims. LIMIT when too large or out of memory. */
tn_status tn_tensor_init(tn_tensor *tensor, tn_dtype dtype, int rank, const int64_t *dims,
                         tn_error *error) TN_MUST_CHECK;
void tn_tensor_done(tn_tensor *tensor);

/* Elements [first, first + count) converted to float / double / int64, whatever the type and
 * alignment (numeric types of 2 to 64 bits and BOOL; float to int64 truncates and saturates).
 * USAGE when the type is not numeric. The range must lie inside the tensor. */
tn_status tn_tensor_read_float(const tn_tensor *tensor, int64_t first, int64_t count, float *dst,
                               tn_error *error) TN_MUST_CHECK;
tn_status tn_tensor_read_double(const tn_tensor *tensor, int64_t first, int64_t count, double *dst,
                                tn_error *error) TN_MUST_CHECK;
tn_status tn_tensor_read_int64(const tn_tensor *tensor, int64_t first, int64_t count, int64_t *dst,
                               tn_error *error) TN_MUST_CHECK;

/* Stores doubles / int64 into elements [first, first + count), rounding half to even for float
 * types and saturating for integers. */
tn_status tn_tensor_write_double(tn_tensor *tensor, int64_t first, int64_t count, const double *src,
                                 tn_error *error) TN_MUST_CHECK;
tn_status tn_tensor_write_int64(tn_tensor *tensor, int64_t first, int64_t count, const int64_t *src,
                                tn_error *error) TN_MUST_CHECK;

float tn_half_to_float(uint16_t half);
uint16_t tn_float_to_half(float value); /* half to even, overflow to infinity */

#endif
