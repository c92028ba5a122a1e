/* Bodies that reduce along an axis: sums and means, columns of matrices, softmax, LRN. */
#ifndef TERNION_GPU_KERNELS_REDUCTION_H
#define TERNION_GPU_KERNELS_REDUCTION_H

#include "gpu/kernels/tiles.h"

typedef struct tn_reduce_args { /* [outer, reduced, inner] -> [outer, inner] */
    const void *src;            /* backward: dy */
    void *dst;                  /* backward: dx */
    tn_reduce_kind kind;
    int64_t reduced, inner;
    bool accumulate, src_bf16, dst_bf16;
} tn_reduce_args;

TN_BODY void tn_reduce_body(const tn_reduce_args *k, int64_t i)
{
    int64_t outer, inner;
    tn_divide(i, k->inner, &outer, &inner);
    int64_t from = outer * k->reduced * k->inner + inner;
    double sum = 0.0;
    float most = tn_load(k->src, from, k->src_bf16);
    for (int64_t r = 0; r < k->reduced; r++) {
        float v = tn_load(k->src, from + r * k->inner, k->src_bf16);
        most = v > most ? v : most;
        sum += (double)v;
    }
    double scale = k->kind == TN_REDUCE_MEAN ? 1.0 / (double)k->reduced : 1.0;
    tn_store_operand(k->dst, i, k->dst_bf16,
                     k->kind == TN_REDUCE_MAX ? most : (float)(sum * scale));
}

TN_BODY void tn_reduce_backward_body(const tn_reduce_args *k, int64_t i)
{
    float scale = k->kind == TN_REDUCE_MEAN ? 1.0f / (float)k->reduced : 1.0f;
    int64_t outer, inner, row, at;
    tn_divide(i, k->inner, &row, &inner);
    tn_divide(row, k->reduced, &outer, &at);
    float d = tn_load(k->src, outer * k->inner + inner, k->src_bf16) * scale;
    d += k->accumulate ? tn_load(k->dst, i, k->dst_bf16) : 0.0f;
    tn_store_operand(k->dst, i, k->dst_bf16, d);
}

/* Sums of a matrix's columns by chunks of rows, for tn_chunks_phase to add. */
typedef struct tn_column_sums_args {
    const void *src; /* [rows, cols] */
    double *partial; /* [chunks, cols] */
    tn_tiles tiles;
    bool bf16;
} tn_column_sums_args;

TN_BODY void tn_column_sums_phase(const tn_column_sums_args *k, tn_tile_shared *s, int64_t block,
                                  int thread, int phase)
{
    const tn_tiles *t = &k->tiles;
    if (phase > 0) {
        tn_tile_fold(t, s, block, thread, phase, 1, k->partial);
        return;
    }
    tn_tile_span at = tn_tile_at(t, block, thread);
    double sum[4] = {0.0, 0.0, 0.0, 0.0};
    float v[4][4];
    for (int64_t row = at.first; row < at.last; row += TN_TILE_ROWS * at.step) {
        tn_load_rows(t, &at, row, k->src, k->bf16, v);
        for (int w = 0; w < TN_TILE_WIDTH; w++)
            sum[w] += (double)(v[0][w] + v[1][w] + v[2][w] + v[3][w]);
    }
    tn_tile_put(t, s, thread, 0, sum);
}

/* dst (+)= alpha times the sum of the chunks. */
typedef struct tn_chunks_args {
    const double *partial; /* [chunks, count] */
    float *dst;
    int64_t count;
    int chunks;
    float alpha;
    bool accumulate;
} tn_chunks_args;

TN_BODY void tn_chunks_phase(const tn_chunks_args *k, tn_tile_shared *s, int64_t block, int thread,
                             int phase)
{
    int64_t i = tn_chunk_column(block, thread);
    if (phase < 2)
        tn_chunk_gather(s, block, thread, phase, k->partial, k->count, k->chunks, 1);
    else if (thread < TN_CHUNK_COLUMNS && i < k->count)
        k->dst[i] =
            (float)tn_chunk_total(s, thread, 0) * k->alpha + (k->accumulate ? k->dst[i] : 0.0f);
}

/* Operand c of a matrix product, broadcast: dst = beta c. */
typedef struct tn_broadcast_args {
    const float *c;
    float *dst;
    int64_t m, n, rows, cols; /* rows, cols: of c, 1 where broadcast */
    float beta;
} tn_broadcast_args;

TN_BODY void tn_broadcast_body(const tn_broadcast_args *k, int64_t i)
{
    int64_t row = k->rows == 1 ? 0 : i / k->n % k->m, col = k->cols == 1 ? 0 : i % k->n;
    k->dst[i] = k->beta * k->c[row * k->cols + col];
}

/* The gradient of a c that is not one row: one thread each. dy [batch, m, n]. */
typedef struct tn_broadcast_sum_args {
    const float *dy;
    float *dst;
    int64_t batch, m, n, rows, cols;
    float beta;
    bool accumulate;
} tn_broadcast_sum_args;

TN_BODY void tn_broadcast_sum_body(const tn_broadcast_sum_args *k, int64_t i)
{
    int64_t row = i / k->cols, col = i % k->cols;
    int64_t r0 = k->rows == 1 ? 0 : row, r1 = k->rows == 1 ? k->m : row + 1;
    int64_t c0 = k->cols == 1 ? 0 : col, c1 = k->cols == 1 ? k->n : col + 1;
    double sum = 0.0;
    for (int64_t b = 0; b < k->batch; b++)
        for (int64_t r = r0; r < r1; r++)
            for (int64_t c = c0; c < c1; c++)
                sum += (double)k->dy[(b * k->m + r) * k->n + c];
    k->dst[i] = (float)sum * k->beta + (k->accumulate ? k->dst[i] : 0.0f);
}

typedef struct tn_softmax_args { /* one thread per [outer, inner] */
    const float *src, *dy;       /* backward: src is y */
    float *dst;
    int64_t axis, inner;
    bool log, accumulate;
} tn_softmax_args;

TN_BODY void tn_softmax_body(const tn_softmax_args *k, int64_t i)
{
    int64_t first = i / k->inner * k->axis * k->inner + i % k->inner;
    float most = -INFINITY;
    double sum = 0.0;
    for (int64_t j = 0; j < k->axis; j++) {
        float v = k->src[first + j * k->inner];
        most = v > most ? v : most;
    }
    for (int64_t j = 0; j < k->axis; j++)
        sum += (double)expf(k->src[first + j * k->inner] - most);
    float scale = (float)(1.0 / sum), shift = most + (float)log(sum);
    for (int64_t j = 0; j < k->axis; j++) {
        int64_t at = first + j * k->inner;
        k->dst[at] = k->log ? k->src[at] - shift : expf(k->src[at] - most) * scale;
    }
}

TN_BODY void tn_softmax_backward_body(const tn_softmax_args *k, int64_t i)
{
    int64_t first = i / k->inner * k->axis * k->inner + i % k->inner;
    double sum = 0.0;
    for (int64_t j = 0; j < k->axis; j++) {
        int64_t at = first + j * k->inner;
        sum += k->log ? (double)k->dy[at] : (double)k->dy[at] * (double)k->src[at];
    }
    for (int64_t j = 0; j < k->axis; j++) {
        int64_t at = first + j * k->inner;
        float d = k->log ? k->dy[at] - expf(k->src[at]) * (float)sum
                         : k->src[at] * (k->dy[at] - (float)sum);
        k->dst[at] = d + (k->accumulate ? k->dst[at] : 0.0f);
    }
}

typedef struct tn_lrn_args { /* over channels of [rows, channels] */
    const float *x, *dy;
    float *dst;
    int64_t channels, size;
    float alpha, beta, bias;
    bool accumulate;
} tn_lrn_args;

TN_BODY double tn_lrn_scale(const tn_lrn_args *k, const float *x, int64_t c)
{
    int64_t low = c - (k->size - 1) / 2, high = c + k->size / 2;
    double sum = 0.0;
    low = low < 0 ? 0 : low;
    high = high > k->channels - 1 ? k->channels - 1 : high;
    for (int64_t i = low; i <= high; i++)
        sum += (double)x[i] * (double)x[i];
    return (double)k->bias + (double)k->alpha / (double)k->size * sum;
}

TN_BODY void tn_lrn_body(const tn_lrn_args *k, int64_t i)
{
    int64_t c = i % k->channels;
    k->dst[i] = (float)((double)k->x[i] * pow(tn_lrn_scale(k, k->x + i - c, c), -(double)k->beta));
}

/* dx_i = dy_i s_i^-b - 2 a b / n x_i sum over the c that i reaches of dy_c x_c s_c^(-b - 1) */
TN_BODY void tn_lrn_backward_body(const tn_lrn_args *k, int64_t i)
{
    int64_t at = i % k->channels;
    const float *x = k->x + i - at, *dy = k->dy + i - at;
    int64_t low = at - k->size / 2, high = at + (k->size - 1) / 2;
    double sum = 0.0, factor = 2.0 * (double)k->alpha * (double)k->beta / (double)k->size;
    low = low < 0 ? 0 : low;
    high = high > k->channels - 1 ? k->channels - 1 : high;
    for (int64_t c = low; c <= high; c++)
        sum += (double)dy[c] * (double)x[c] * pow(tn_lrn_scale(k, x, c), -(double)k->beta - 1.0);
    double d = (double)dy[at] * pow(tn_lrn_scale(k, x, at), -(double)k->beta) -
               factor * (double)x[at] * sum;
    k->dst[i] = (float)d + (k->accumulate ? k->dst[i] : 0.0f);
}

#endif
