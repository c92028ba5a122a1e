/* Element loops that constant folding shares: strided block copies of any type, and maps over
 * broadcast operands in one of three working types. */
#ifndef TERNION_ONNX_IO_OPS_ELEMENTS_H
#define TERNION_ONNX_IO_OPS_ELEMENTS_H

#include "onnx_io/ops/shapes.h"

/* Allocates outputs[k] as inference left node->outputs[k]; USAGE when that is not known in full.
 * An omitted output stays empty. */
tn_status tn_op_output_init(const tn_node *node, size_t k, tn_tensor *output,
                            tn_error *error) TN_MUST_CHECK;
/* The same data under the shape of node->outputs[0], borrowed from `source`. */
tn_status tn_op_output_view(const tn_node *node, const tn_tensor *source, tn_tensor *output,
                            tn_error *error) TN_MUST_CHECK;

/* An n-dimensional block of elements: offsets and strides count elements. A stride may be 0
 * (source) or negative. */
typedef struct tn_block {
    int rank;
    int64_t dims[2 * TN_MAX_RANK];
    int64_t src_stride[2 * TN_MAX_RANK], dst_stride[2 * TN_MAX_RANK];
    int64_t src_offset, dst_offset;
} tn_block;

/* Copies a block between tensors of one type; every element it names must lie inside both. */
tn_status tn_block_copy(const tn_block *block, const tn_tensor *src, tn_tensor *dst,
                        tn_error *error) TN_MUST_CHECK;
/* Row-major strides of a shape. */
void tn_strides_of(int rank, const int64_t *dims, int64_t *strides);

/* The type arithmetic runs in: fp32 for FLOAT, FLOAT16, BFLOAT16; double; int64 for integers of 8
 * to 64 bits (UINT64 excepted) and BOOL. */
typedef enum tn_work { TN_WORK_NONE, TN_WORK_FLOAT, TN_WORK_DOUBLE, TN_WORK_INT } tn_work;
tn_work tn_work_of(tn_dtype dtype);

/* Elements [first, first + n) as the working type; storing wraps integers around. */
tn_status tn_lane_load(const tn_tensor *tensor, int64_t first, int64_t n, tn_work work, void *dst,
                       tn_error *error) TN_MUST_CHECK;
tn_status tn_lane_store(tn_tensor *tensor, int64_t first, int64_t n, tn_work work, const void *src,
                        tn_error *error) TN_MUST_CHECK;

enum { TN_MAP_INPUTS = 3, TN_LANE = 1024 };

/* out[i] = kernel(in[0][i], ...), the operands broadcast to the shape of `out`. The kernel sees
 * dense lanes of at most TN_LANE elements of the working types. */
typedef struct tn_map {
    int n_inputs;
    tn_work in[TN_MAP_INPUTS], out;
    void (*kernel)(const void *context, int64_t n, const void *const *in, void *out);
    const void *context;
} tn_map;

tn_status tn_map_run(const tn_map *map, const tn_tensor *const *inputs, tn_tensor *output,
                     tn_error *error) TN_MUST_CHECK;

#endif
