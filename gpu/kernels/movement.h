/* Bodies that move values: slices, padding, concatenation, transposition, layouts. */
#ifndef TERNION_GPU_KERNELS_MOVEMENT_H
#define TERNION_GPU_KERNELS_MOVEMENT_H

#include "gpu/kernels/tiles.h"

enum { TN_BOX_RANK = 8 };

/* dst[first + sum at[d] to[d]] (+)= src[first + sum at[d] from[d]] over a box; one thread per
 * `width` elements of the box (neighbours on both sides, 4 or 1), the last axis fastest. */
typedef struct tn_move_args {
    const void *src; /* at the first element */
    void *dst;
    int rank, width; /* dims count widths, strides elements */
    int64_t dims[TN_BOX_RANK], from[TN_BOX_RANK], to[TN_BOX_RANK];
    bool accumulate, bf16;
} tn_move_args;

TN_BODY void tn_move_body(const tn_move_args *k, int64_t i)
{
    int64_t from = 0, to = 0;
    for (int d = k->rank - 1; d >= 0; d--) {
        int64_t at;
        tn_divide(i, k->dims[d], &i, &at);
        from += at * k->from[d];
        to += at * k->to[d];
    }
    float v[4], old[4];
    tn_load_wide(k->src, from, k->width, k->bf16, v);
    if (k->accumulate)
        tn_load_wide(k->dst, to, k->width, k->bf16, old);
    for (int w = 0; w < TN_TILE_WIDTH; w++)
        v[w] += k->accumulate ? old[w] : 0.0f;
    tn_store_wide(k->dst, to, k->width, k->bf16, v);
}

/* Padding by edge or reflection: each dst element finds its source. */
typedef struct tn_pad_args {
    const float *src;
    float *dst;
    int rank;
    bool edge;
    int64_t src_dims[TN_BOX_RANK], dst_dims[TN_BOX_RANK], begin[TN_BOX_RANK];
} tn_pad_args;

TN_BODY void tn_pad_body(const tn_pad_args *k, int64_t i)
{
    int64_t rest = i, from = 0, stride = 1;
    for (int d = k->rank - 1; d >= 0; d--) {
        int64_t at = rest % k->dst_dims[d] - k->begin[d];
        rest /= k->dst_dims[d];
        from += tn_padded_index(k->edge, at, k->src_dims[d]) * stride;
        stride *= k->src_dims[d];
    }
    k->dst[i] = k->src[from];
}

/* Rows of a matrix as operands: [rows, cols] with stride `from` to [rows, to], zeros behind. */
typedef struct tn_operand_args {
    const void *src;
    void *dst;
    int64_t cols, from, to;
    bool bf16, src_bf16;
} tn_operand_args;

TN_BODY void tn_operand_body(const tn_operand_args *k, int64_t i)
{
    int64_t row, col;
    tn_divide(i, k->to, &row, &col);
    float v = col < k->cols ? tn_load(k->src, row * k->from + col, k->src_bf16) : 0.0f;
    tn_store_operand(k->dst, i, k->bf16, v);
}

#endif
