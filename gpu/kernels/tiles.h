/* Kernels whose threads work together. A block has TN_GPU_BLOCK threads and memory they share, and
 * runs in phases: in a phase a thread reads of that memory what earlier phases of its block wrote.
 * Nothing else is kept between phases.
 *
 * Matrices [rows, cols] are walked in memory's order: each thread has `width` neighbouring columns,
 * `lanes` threads lie side by side, the others on the rows below. A block has one tile of columns
 * and one chunk of rows. A thread loads four rows before it uses them, so that memory is kept busy.
 * Sums over rows: those four in fp32, all of a thread in double; then the threads of a block, then
 * the chunks, each in fixed order. */
#ifndef TERNION_GPU_KERNELS_TILES_H
#define TERNION_GPU_KERNELS_TILES_H

#include "gpu/body.h"

enum {
    TN_GPU_BLOCK = 256, /* threads of a block */
    TN_TILE_WIDTH = 4,
    TN_TILE_LANES = 64, /* at most */
    TN_TILE_ROWS = 4,   /* rows a thread has in hand */
    TN_FOLD = 8,        /* threads that share a column's last but one sum */
    TN_CHUNK_COLUMNS = 8,
    TN_CHUNK_LANES = TN_GPU_BLOCK / TN_CHUNK_COLUMNS,
    TN_CHUNK_FOLD = 4,    /* threads that share a column's last but one sum */
    TN_SORT_SHARED = 4608 /* 3 x 3 x 512: of common layers the longest but few */
};

typedef struct tn_tiles {
    int64_t rows, cols;
    int width, lanes, tiles, chunks;
} tn_tiles;

typedef struct tn_tile_shared {
    union {
        double sums[2][TN_GPU_BLOCK * TN_TILE_WIDTH];
        uint32_t keys[TN_SORT_SHARED]; /* of a run that is sorted */
    };
    int64_t notes[2]; /* where the block works, when finding that takes long */
} tn_tile_shared;

/* Where a thread works: columns from `col` on, rows first, first + step, ... < last; pitch: from a
 * row to the next. */
typedef struct tn_tile_span {
    int64_t col, first, last, pitch;
    int step;
} tn_tile_span;

TN_BODY tn_tile_span tn_tile_at(const tn_tiles *t, int64_t block, int thread)
{
    int64_t tile = block % t->tiles, chunk = block / t->tiles;
    tn_tile_span s;
    s.step = TN_GPU_BLOCK / t->lanes;
    s.col = (tile * t->lanes + thread % t->lanes) * t->width;
    s.first = t->rows * chunk / t->chunks + thread / t->lanes;
    s.last = t->rows * (chunk + 1) / t->chunks;
    s.pitch = t->cols;
    if (s.col >= t->cols || thread / t->lanes >= s.step)
        s.last = s.first;
    return s;
}

/* `width` elements from `at` on, 4 or 1; the others are 0. */
TN_BODY void tn_load_wide(const void *from, int64_t at, int width, bool bf16, float v[4])
{
    for (int w = 0; w < TN_TILE_WIDTH; w++)
        v[w] = 0.0f;
    if (width == 1) {
        v[0] = tn_load(from, at, bf16);
    } else if (bf16) {
        tn_bf16x4 four = *(const tn_bf16x4 *)(const void *)((const tn_bf16 *)from + at);
        v[0] = tn_bfloat16_to_float(four.x);
        v[1] = tn_bfloat16_to_float(four.y);
        v[2] = tn_bfloat16_to_float(four.z);
        v[3] = tn_bfloat16_to_float(four.w);
    } else {
        tn_float4 four = tn_load4((const float *)from + at);
        v[0] = four.x;
        v[1] = four.y;
        v[2] = four.z;
        v[3] = four.w;
    }
}

TN_BODY void tn_store_wide(void *to, int64_t at, int width, bool bf16, const float v[4])
{
    if (width == 1) {
        tn_store_operand(to, at, bf16, v[0]);
    } else if (bf16) {
        tn_bf16x4 four = {tn_float_to_bfloat16(v[0]), tn_float_to_bfloat16(v[1]),
                          tn_float_to_bfloat16(v[2]), tn_float_to_bfloat16(v[3])};
        *(tn_bf16x4 *)(void *)((tn_bf16 *)to + at) = four;
    } else {
        tn_float4 four = {v[0], v[1], v[2], v[3]};
        tn_store4((float *)to + at, four);
    }
}

/* Four rows of a thread from `row` on; 0 beyond its last. */
TN_BODY void tn_load_rows(const tn_tiles *t, const tn_tile_span *at, int64_t row, const void *from,
                          bool bf16, float v[4][4])
{
    for (int r = 0; r < TN_TILE_ROWS; r++) {
        if (row + r * at->step < at->last)
            tn_load_wide(from, (row + r * at->step) * at->pitch + at->col, t->width, bf16, v[r]);
        else
            v[r][0] = v[r][1] = v[r][2] = v[r][3] = 0.0f;
    }
}

TN_BODY void tn_tile_put(const tn_tiles *t, tn_tile_shared *s, int thread, int which,
                         const double sums[4])
{
    for (int w = 0; w < TN_TILE_WIDTH; w++)
        if (w < t->width)
            s->sums[which][thread * t->width + w] = sums[w];
}

/* Phases 1 and 2 of a sum over rows: the block's threads into partial [chunks, n, cols]. */
TN_BODY void tn_tile_fold(const tn_tiles *t, tn_tile_shared *s, int64_t block, int thread,
                          int phase, int n, double *partial)
{
    int span = t->lanes * t->width, rows = TN_GPU_BLOCK / t->lanes;
    int folds = rows < TN_FOLD ? rows : TN_FOLD;
    for (int q = 0; q < n && phase == 1; q++)
        for (int i = thread; i < folds * span; i += TN_GPU_BLOCK)
            for (int r = i / span + TN_FOLD; r < rows; r += TN_FOLD)
                s->sums[q][i] += s->sums[q][r * span + i % span];
    if (phase < 2)
        return;
    int64_t first = block % t->tiles * span, chunk = block / t->tiles;
    for (int q = 0; q < n; q++)
        for (int i = thread; i < span && first + i < t->cols; i += TN_GPU_BLOCK) {
            double sum = 0.0;
            for (int r = 0; r < folds; r++)
                sum += s->sums[q][r * span + i];
            partial[(chunk * n + q) * t->cols + first + i] = sum;
        }
}

/* The chunks' sums of TN_CHUNK_COLUMNS columns, in three phases: lanes, some of them, all. */
TN_BODY int64_t tn_chunk_column(int64_t block, int thread)
{
    return block * TN_CHUNK_COLUMNS + thread % TN_CHUNK_COLUMNS;
}

TN_BODY void tn_chunk_gather(tn_tile_shared *s, int64_t block, int thread, int phase,
                             const double *partial, int64_t cols, int chunks, int n)
{
    int64_t col = tn_chunk_column(block, thread);
    for (int q = 0; q < n && phase == 1 && thread < TN_CHUNK_FOLD * TN_CHUNK_COLUMNS; q++)
        for (int i = TN_CHUNK_FOLD; i < TN_CHUNK_LANES; i += TN_CHUNK_FOLD)
            s->sums[q][thread] += s->sums[q][i * TN_CHUNK_COLUMNS + thread];
    for (int q = 0; q < n && phase == 0; q++) {
        double sum = 0.0;
        for (int chunk = thread / TN_CHUNK_COLUMNS; chunk < chunks && col < cols;
             chunk += TN_CHUNK_LANES)
            sum += partial[((int64_t)chunk * n + q) * cols + col];
        s->sums[q][thread] = sum;
    }
}

/* For threads < TN_CHUNK_COLUMNS, in phase 2. */
TN_BODY double tn_chunk_total(const tn_tile_shared *s, int thread, int which)
{
    double sum = 0.0;
    for (int lane = 0; lane < TN_CHUNK_FOLD; lane++)
        sum += s->sums[which][lane * TN_CHUNK_COLUMNS + thread];
    return sum;
}

/* sums[0][0 .. 255] to one number, in phases 1 (16 threads) and 2 (thread 0, which gets it). */
TN_BODY double tn_block_total(tn_tile_shared *s, int which, int thread, int phase)
{
    const int group = 16;
    double sum = 0.0;
    if (phase == 1 && thread < group) {
        for (int i = 0; i < group; i++)
            sum += s->sums[which][thread * group + i];
        s->sums[which][TN_GPU_BLOCK + thread] = sum;
    }
    for (int i = 0; i < group && phase == 2 && thread == 0; i++)
        sum += s->sums[which][TN_GPU_BLOCK + i];
    return sum;
}

/* The same for sums[0]; thread 0 writes the number. */
TN_BODY void tn_block_finish(tn_tile_shared *s, int thread, int phase, double *to)
{
    double sum = tn_block_total(s, 0, thread, phase);
    if (phase == 2 && thread == 0)
        *to = sum;
}

#endif
