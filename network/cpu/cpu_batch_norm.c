#include "network/cpu/cpu.h"

#include "core/memory.h"
#include "network/cpu/cpu_bf16.h"

#include <math.h>
#include <string.h>

/* Loops run over lanes: the channels of one row, or of as many rows as make LANES elements, so that
 * few channels make long loops too. What is per channel is repeated over the lanes.
 * Sums over rows: fixed chunks, each in blocks of about BLOCK elements (which stay in cache) summed
 * in fp32 per lane and merged in double in order. */
enum { LANES = 256, VECTOR = 16, BLOCK = 4096, LEAST_ROWS = 32 };
/* A block of several sources: what stays in the second cache; rows that memory is read in turn for.
 */
enum { STAGED_BYTES = 128 << 10, MOST_STAGED_ROWS = 256 };

/* Channels [first, first + n) of all, which source `index` has, and where its lanes begin. */
typedef struct part {
    int index;
    int64_t first, n, first_lane, lanes;
} part;

typedef struct batch_norm_kernel {
    tn_cpu_kernel plain;
    int chunks;
    int64_t lanes, most_lanes; /* of all parts, of the one that has most */
    int64_t block, staged;     /* rows; bytes of a block of all sources, 0: of one */
    bool bf16;                 /* how all operands are stored */
    bool batch_statistics;     /* of the last forward */
    int n_parts;               /* at least 1 */
    part *parts;               /* behind `widths` */
    int64_t widths[];          /* the task's parts */
} batch_norm_kernel;

#define EACH_PART(k, p) for (const part *p = (k)->parts; p < (k)->parts + (k)->n_parts; p++)

/* How the gradient behind the function is told. */
typedef enum gate_kind { GATE_NONE, GATE_BY_X, GATE_BY_Y } gate_kind;

/* `saved` [channels] mean, 1 / sqrt(var + epsilon), var; [lanes] mean, scale, shift. */
static float *lane_mean(const batch_norm_kernel *k, const tn_arguments *args)
{
    return (float *)args->saved + 3 * k->plain.task.batch_norm.channels;
}

static float *lane_scale(const batch_norm_kernel *k, const tn_arguments *args)
{
    return lane_mean(k, args) + k->lanes;
}

static float *lane_shift(const batch_norm_kernel *k, const tn_arguments *args)
{
    return lane_mean(k, args) + 2 * k->lanes;
}

/* The channels' values, first in `lanes`, again for the other rows. */
static void repeat(float *lanes, int64_t n, int64_t channels)
{
    for (int64_t i = channels; i < n; i += channels)
        memcpy(lanes + i, lanes, (size_t)channels * sizeof(float));
}

/* Sums over the rows of a lane row. */
static void fold(float *lanes, int64_t n, int64_t channels)
{
    for (int64_t i = channels; i < n; i += channels)
        for (int64_t c = 0; c < channels; c++)
            lanes[c] += lanes[i + c];
}

/* A block of rows of all channels goes through memory where each part's rows are dense, so that
 * memory is read and written in its order. `scatter`: from there. */
TN_INLINE void copy_piece(char *restrict to, const char *restrict from, size_t bytes)
{
    enum { LINE = 64 };
    size_t at = 0;
    for (; at + LINE <= bytes; at += LINE)
        memcpy(to + at, from + at, LINE);
    if (at < bytes)
        memcpy(to + at, from + at, bytes - at);
}

TN_HOT static void stage(const batch_norm_kernel *k, char *rows, char *parts, int64_t n,
                         bool scatter)
{
    const size_t element = tn_element(k->bf16);
    for (int64_t r = 0; r < n; r++)
        EACH_PART(k, p)
        {
            size_t bytes = (size_t)p->n * element;
            char *in_row =
                rows + (size_t)(r * k->plain.task.batch_norm.channels + p->first) * element;
            char *in_part = parts + (size_t)(n * p->first + r * p->n) * element;
            if (scatter)
                copy_piece(in_row, in_part, bytes);
            else
                copy_piece(in_part, in_row, bytes);
        }
}

/* For every lane row of `count` elements: n elements from `at`. */
#define EACH_LANE_ROW(count, lanes)                                                                \
    for (int64_t at = 0, n; n = (count)-at < (lanes) ? (count)-at : (lanes), at < (count);         \
         at += (lanes))

TN_INLINE void add_sums(const void *restrict x, int64_t count, int64_t lanes, float *restrict sum,
                        bool bf16)
{
    memset(sum, 0, (size_t)lanes * sizeof(float));
    EACH_LANE_ROW(count, lanes)
    for (int64_t i = 0; i < n; i++)
        sum[i] += tn_load(x, at + i, bf16);
}

TN_HOT static void lane_sums(const void *x, int64_t count, int64_t lanes, float *sum, bool bf16)
{
    if (bf16)
        add_sums(x, count, lanes, sum, true);
    else
        add_sums(x, count, lanes, sum, false);
}

TN_INLINE void add_squares(const void *restrict x, int64_t count, int64_t lanes,
                           const float *restrict mean, float *restrict square, bool bf16)
{
    memset(square, 0, (size_t)lanes * sizeof(float));
    EACH_LANE_ROW(count, lanes)
    for (int64_t i = 0; i < n; i++) {
        float d = tn_load(x, at + i, bf16) - mean[i];
        square[i] += d * d;
    }
}

TN_HOT static void lane_squares(const void *x, int64_t count, int64_t lanes, const float *mean,
                                float *square, bool bf16)
{
    if (bf16)
        add_squares(x, count, lanes, mean, square, true);
    else
        add_squares(x, count, lanes, mean, square, false);
}

/* Chan's formula: merges a block of `n` rows into (mean, square) of `count`. */
static void merge(double *mean, double *square, double count, const float *block_mean,
                  const float *block_square, double n, int64_t channels)
{
    double total = count + n, share = n / total, weight = count * n / total;
    for (int64_t c = 0; c < channels; c++) {
        double d = (double)block_mean[c] - mean[c];
        mean[c] += d * share;
        square[c] += (double)block_square[c] + d * d * weight;
    }
}

/* Workspace of a chunk: doubles of two sums per channel; floats of two per lane; a staged block. */
static size_t sum_bytes(const batch_norm_kernel *k)
{
    return (size_t)k->plain.task.batch_norm.channels * 2 * sizeof(double) +
           (size_t)((k->most_lanes + 1) / 2 * 2) * 2 * sizeof(float);
}

static size_t chunk_bytes(const batch_norm_kernel *k)
{
    return sum_bytes(k) + (size_t)k->staged;
}

static double *chunk_memory(const batch_norm_kernel *k, const tn_arguments *args, int chunk)
{
    return (double *)((char *)args->workspace + (size_t)chunk * chunk_bytes(k));
}

static void *staged(const batch_norm_kernel *k, const tn_arguments *args, int chunk)
{
    return (char *)chunk_memory(k, args, chunk) + sum_bytes(k);
}

static int64_t block_rows(int64_t lanes, int64_t channels)
{
    int64_t rows = lanes / channels, block = BLOCK / channels;
    block = block > LEAST_ROWS ? block : LEAST_ROWS;
    return (block + rows - 1) / rows * rows;
}

static void part_statistics(const batch_norm_kernel *k, const tn_arguments *args, const part *p,
                            int chunk)
{
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    double *mean = chunk_memory(k, args, chunk), *square = mean + t->channels;
    float *block = (float *)(square + t->channels), *squares = block + k->most_lanes;
    int64_t first = t->rows * chunk / k->chunks, last = t->rows * (chunk + 1) / k->chunks;
    int64_t most = block_rows(p->lanes, p->n);
    for (int64_t r = first; r < last; r += most) {
        int64_t n = last - r < most ? last - r : most, count = n * p->n;
        const void *x = tn_place(args->src[p->index], r * p->n, k->bf16);
        lane_sums(x, count, p->lanes, block, k->bf16);
        fold(block, p->lanes, p->n);
        for (int64_t c = 0; c < p->n; c++)
            block[c] /= (float)n;
        repeat(block, p->lanes, p->n);
        lane_squares(x, count, p->lanes, block, squares, k->bf16);
        fold(squares, p->lanes, p->n);
        merge(mean + p->first, square + p->first, (double)(r - first), block, squares, (double)n,
              p->n);
    }
}

static void chunk_statistics(const batch_norm_kernel *k, const tn_arguments *args, int chunk)
{
    memset(chunk_memory(k, args, chunk), 0, sum_bytes(k));
    EACH_PART(k, p)
    part_statistics(k, args, p, chunk);
}

/* mean, 1 / sqrt(var + epsilon), var of the batch into saved. */
static void batch_statistics(const batch_norm_kernel *k, const tn_arguments *args)
{
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    float *saved = args->saved;
    int64_t channels = t->channels;
    int chunks = k->chunks;
#pragma omp parallel for schedule(static)
    for (int i = 0; i < chunks; i++)
        chunk_statistics(k, args, i);
    for (int64_t c = 0; c < channels; c++) {
        double mean = 0.0, square = 0.0, count = 0.0;
        for (int i = 0; i < chunks; i++) {
            const double *m = chunk_memory(k, args, i);
            double n = (double)(t->rows * (i + 1) / chunks - t->rows * i / chunks);
            double d = m[c] - mean, total = count + n;
            if (n > 0.0) {
                mean += d * (n / total);
                square += m[channels + c] + d * d * (count * n / total);
                count = total;
            }
        }
        double variance = square / (double)t->rows;
        saved[c] = (float)mean;
        saved[channels + c] = (float)(1.0 / sqrt(variance + (double)t->epsilon));
        saved[2 * channels + c] = (float)variance;
    }
}

static void move_running(const batch_norm_kernel *k, const tn_arguments *args)
{
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    const float *saved = args->saved;
    double keep = (double)args->keep, rows = (double)t->rows;
    double unbias = rows > 1.0 ? rows / (rows - 1.0) : 1.0;
    for (int64_t c = 0; c < t->channels; c++) {
        double variance = (double)saved[2 * t->channels + c] * unbias;
        if (!isfinite(saved[c]) || !isfinite(variance))
            continue; /* of a step that will be dropped */
        args->running_mean[c] =
            (float)(keep * (double)args->running_mean[c] + (1.0 - keep) * (double)saved[c]);
        args->running_var[c] =
            (float)(keep * (double)args->running_var[c] + (1.0 - keep) * variance);
    }
}

/* y = min(max(x * scale + shift [+ residual], low), high) */
TN_INLINE void apply_rows(const void *restrict x, const void *restrict residual,
                          const float *restrict scale, const float *restrict shift,
                          void *restrict y, int64_t count, int64_t lanes, float low, float high,
                          bool bf16)
{
    EACH_LANE_ROW(count, lanes)
    for (int64_t i = 0; i < n; i++) {
        float v = tn_load(x, at + i, bf16) * scale[i] + shift[i];
        if (residual)
            v += tn_load(residual, at + i, bf16);
        v = v < low ? low : v;
        tn_save(y, at + i, v > high ? high : v, bf16);
    }
}

TN_HOT static void apply(const void *x, const void *residual, const float *scale,
                         const float *shift, void *y, int64_t count, int64_t lanes, float low,
                         float high, bool bf16)
{
    if (residual && bf16)
        apply_rows(x, residual, scale, shift, y, count, lanes, low, high, true);
    else if (residual)
        apply_rows(x, residual, scale, shift, y, count, lanes, low, high, false);
    else if (bf16)
        apply_rows(x, NULL, scale, shift, y, count, lanes, low, high, true);
    else
        apply_rows(x, NULL, scale, shift, y, count, lanes, low, high, false);
}

static void bounds(const tn_batch_norm_task *t, float *low, float *high)
{
    *low = t->function == TN_FUNCTION_NONE   ? -INFINITY
           : t->function == TN_FUNCTION_RELU ? 0.0f
                                             : t->a;
    *high = t->function == TN_FUNCTION_CLIP ? t->b : INFINITY;
}

/* Rows [first, first + n). */
static void apply_block(const batch_norm_kernel *k, const tn_arguments *args, int chunk,
                        int64_t first, int64_t n)
{
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    void *dst = tn_place(args->dst, first * t->channels, k->bf16);
    void *y = t->n_parts ? staged(k, args, chunk) : dst;
    float low, high;
    bounds(t, &low, &high);
    EACH_PART(k, p)
    apply(tn_place(args->src[p->index], first * p->n, k->bf16),
          t->residual ? tn_place(args->src[1], first * t->channels, k->bf16) : NULL,
          lane_scale(k, args) + p->first_lane, lane_shift(k, args) + p->first_lane,
          tn_place(y, n * p->first, k->bf16), n * p->n, p->lanes, low, high, k->bf16);
    if (t->n_parts)
        stage(k, dst, y, n, true);
}

static void apply_chunk(const batch_norm_kernel *k, const tn_arguments *args, int chunk)
{
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    int64_t last = t->rows * (chunk + 1) / k->chunks;
    for (int64_t r = t->rows * chunk / k->chunks; r < last; r += k->block)
        apply_block(k, args, chunk, r, last - r < k->block ? last - r : k->block);
}

/* Mean, scale and shift of the lanes, from the statistics in saved. */
static void set_lanes(const batch_norm_kernel *k, const tn_arguments *args)
{
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    const float *gamma = args->params[0], *beta = args->params[1], *saved = args->saved;
    float *lanes[] = {lane_mean(k, args), lane_scale(k, args), lane_shift(k, args)};
    EACH_PART(k, p)
    {
        for (int64_t i = 0; i < p->n; i++) {
            int64_t c = p->first + i, at = p->first_lane + i;
            double s = (double)gamma[c] * (double)saved[t->channels + c];
            lanes[0][at] = saved[c];
            lanes[1][at] = (float)s;
            lanes[2][at] = (float)((double)beta[c] - (double)saved[c] * s);
        }
        for (int i = 0; i < 3; i++)
            repeat(lanes[i] + p->first_lane, p->lanes, p->n);
    }
}

static tn_status batch_norm_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    batch_norm_kernel *k = (batch_norm_kernel *)kernel;
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    float *saved = args->saved;
    k->batch_statistics = args->training;
    if (args->training) {
        batch_statistics(k, args);
        if (args->keep < 1.0f)
            move_running(k, args);
    } else {
        for (int64_t c = 0; c < t->channels; c++) {
            saved[c] = args->params[2][c];
            saved[t->channels + c] =
                (float)(1.0 / sqrt((double)args->params[3][c] + (double)t->epsilon));
            saved[2 * t->channels + c] = args->params[3][c];
        }
    }
    set_lanes(k, args);
    const int chunks = k->chunks;
#pragma omp parallel for schedule(static) if (t->rows * t->channels > TN_CPU_GRAIN)
    for (int i = 0; i < chunks; i++)
        apply_chunk(k, args, i);
    return TN_OK;
}

/* --- backward -------------------------------------------------------------------------------- */

/* A block of rows in backward: elements and what is per lane. */
typedef struct rows_view {
    const void *x, *y, *dy;
    const float *mean, *scale, *shift; /* of forward */
    int64_t count, lanes;
    float low, high;
} rows_view;

/* dy where the function let it through; without a residual forward's result is computed again,
 * cheaper than reading it. */
TN_INLINE float gated(const rows_view *v, int64_t at, int64_t i, gate_kind gate, bool bf16)
{
    float dy = tn_load(v->dy, at + i, bf16), y = 0.0f;
    if (gate == GATE_NONE)
        return dy;
    if (gate == GATE_BY_X)
        y = tn_load(v->x, at + i, bf16) * v->scale[i] + v->shift[i];
    else
        y = tn_load(v->y, at + i, bf16);
    return tn_keep(dy, (y > v->low) & (y < v->high));
}

TN_INLINE void add_gradients(const rows_view *view, float *restrict sum, float *restrict product,
                             gate_kind gate, bool bf16)
{
    const rows_view v = *view;
    memset(sum, 0, (size_t)v.lanes * sizeof(float));
    memset(product, 0, (size_t)v.lanes * sizeof(float));
    EACH_LANE_ROW(v.count, v.lanes)
    for (int64_t i = 0; i < n; i++) {
        float g = gated(&v, at, i, gate, bf16);
        sum[i] += g;
        product[i] += g * (tn_load(v.x, at + i, bf16) - v.mean[i]);
    }
}

/* Calls with constants: one body for each gate and type. */
#define BY_GATE(call, gate)                                                                        \
    switch (gate) {                                                                                \
    case GATE_NONE:                                                                                \
        call(GATE_NONE);                                                                           \
        break;                                                                                     \
    case GATE_BY_X:                                                                                \
        call(GATE_BY_X);                                                                           \
        break;                                                                                     \
    default:                                                                                       \
        call(GATE_BY_Y);                                                                           \
    }

TN_HOT static void lane_gradients(const rows_view *v, float *sum, float *product, gate_kind gate,
                                  bool bf16)
{
#define SUMS(kind)                                                                                 \
    bf16 ? add_gradients(v, sum, product, kind, true) : add_gradients(v, sum, product, kind, false)
    BY_GATE(SUMS, gate)
#undef SUMS
}

/* Of the lanes, in backward. */
typedef struct factors {
    const float *scale, *mean_g, *slope;
} factors;

/* dx = scale (g - mean_g - (x - mean) slope) */
TN_INLINE void spread_rows(const rows_view *view, const factors *f, void *restrict dx,
                           bool accumulate, gate_kind gate, bool bf16)
{
    const rows_view v = *view;
    const float *scale = f->scale, *mean_g = f->mean_g, *slope = f->slope;
    EACH_LANE_ROW(v.count, v.lanes)
    for (int64_t i = 0; i < n; i++) {
        float g = gated(&v, at, i, gate, bf16);
        float d = scale[i] * (g - mean_g[i] - (tn_load(v.x, at + i, bf16) - v.mean[i]) * slope[i]);
        tn_save(dx, at + i, accumulate ? tn_load(dx, at + i, bf16) + d : d, bf16);
    }
}

TN_HOT static void spread(const rows_view *v, const factors *f, void *dx, bool accumulate,
                          gate_kind gate, bool bf16)
{
#define SPREAD(kind)                                                                               \
    if (accumulate)                                                                                \
        bf16 ? spread_rows(v, f, dx, true, kind, true) : spread_rows(v, f, dx, true, kind, false); \
    else                                                                                           \
        bf16 ? spread_rows(v, f, dx, false, kind, true) : spread_rows(v, f, dx, false, kind, false)
    BY_GATE(SPREAD, gate)
#undef SPREAD
}

TN_INLINE void pass_rows(const rows_view *view, void *restrict dx, bool accumulate, gate_kind gate,
                         bool bf16)
{
    const rows_view v = *view;
    for (int64_t i = 0; i < v.count; i++) {
        float g = gated(&v, 0, i, gate, bf16);
        tn_save(dx, i, accumulate ? tn_load(dx, i, bf16) + g : g, bf16);
    }
}

/* The residual's gradient: never gated by x. */
TN_HOT static void pass_on(const rows_view *v, void *dx, bool accumulate, gate_kind gate, bool bf16)
{
#define PASS(kind)                                                                                 \
    if (accumulate)                                                                                \
        bf16 ? pass_rows(v, dx, true, kind, true) : pass_rows(v, dx, true, kind, false);           \
    else                                                                                           \
        bf16 ? pass_rows(v, dx, false, kind, true) : pass_rows(v, dx, false, kind, false)
    if (gate == GATE_NONE) {
        PASS(GATE_NONE);
    } else {
        PASS(GATE_BY_Y);
    }
#undef PASS
}

static gate_kind gate_of(const tn_batch_norm_task *t)
{
    return t->function == TN_FUNCTION_NONE ? GATE_NONE : t->residual ? GATE_BY_Y : GATE_BY_X;
}

/* Of rows [first, first + n), whose gradient is at dy: of the block, or staged. */
static rows_view view_rows(const batch_norm_kernel *k, const tn_arguments *args, const part *p,
                           const void *dy, int64_t first, int64_t n)
{
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    rows_view v = {.x = tn_place(args->src[p->index], first * p->n, k->bf16),
                   .y = tn_place(args->dst, first * t->channels, k->bf16),
                   .dy = tn_place(dy, n * p->first, k->bf16),
                   .mean = lane_mean(k, args) + p->first_lane,
                   .scale = lane_scale(k, args) + p->first_lane,
                   .shift = lane_shift(k, args) + p->first_lane,
                   .count = n * p->n,
                   .lanes = p->lanes};
    bounds(t, &v.low, &v.high);
    return v;
}

static const void *block_gradient(const batch_norm_kernel *k, const tn_arguments *args, int chunk,
                                  int64_t first, int64_t n)
{
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    void *dy = tn_place(args->ddst, first * t->channels, k->bf16), *parts = staged(k, args, chunk);
    if (!t->n_parts)
        return dy;
    stage(k, dy, parts, n, false);
    return parts;
}

static void chunk_sums(const batch_norm_kernel *k, const tn_arguments *args, int chunk)
{
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    int64_t channels = t->channels, last = t->rows * (chunk + 1) / k->chunks;
    double *sum = chunk_memory(k, args, chunk);
    float *lanes[2] = {(float *)(sum + 2 * channels),
                       (float *)(sum + 2 * channels) + k->most_lanes};
    memset(sum, 0, (size_t)(2 * channels) * sizeof(double));
    for (int64_t r = t->rows * chunk / k->chunks; r < last; r += k->block) {
        int64_t n = last - r < k->block ? last - r : k->block;
        const void *dy = block_gradient(k, args, chunk, r, n);
        EACH_PART(k, p)
        {
            rows_view v = view_rows(k, args, p, dy, r, n);
            lane_gradients(&v, lanes[0], lanes[1], gate_of(t), k->bf16);
            for (int which = 0; which < 2; which++) {
                double *into = sum + which * channels + p->first;
                fold(lanes[which], p->lanes, p->n);
                for (int64_t c = 0; c < p->n; c++)
                    into[c] += (double)lanes[which][c];
            }
        }
    }
}

/* Parameter gradients of channel c, and its scale, mean_g and slope in the lanes. */
static void finish_channel(const batch_norm_kernel *k, const tn_arguments *args, int chunks,
                           int64_t c, float *lane)
{
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    double inverse = (double)((const float *)args->saved)[t->channels + c], rows = (double)t->rows;
    double sum = 0.0, product = 0.0;
    for (int i = 0; i < chunks; i++) {
        const double *s = chunk_memory(k, args, i);
        sum += s[c];
        product += s[t->channels + c];
    }
    for (int p = 0; p < 2; p++) {
        double d = p ? sum : product * inverse;
        if (args->dparams[p])
            args->dparams[p][c] = (float)d + (args->accumulate_params ? args->dparams[p][c] : 0.0f);
    }
    lane[0] = args->params[0][c] * (float)inverse;
    lane[k->lanes] = k->batch_statistics ? (float)(sum / rows) : 0.0f;
    lane[2 * k->lanes] = k->batch_statistics ? (float)(product * inverse * inverse / rows) : 0.0f;
}

/* `lanes`: three arrays, at the workspace's end. */
static void finish_sums(const batch_norm_kernel *k, const tn_arguments *args, int chunks,
                        float *lanes)
{
    EACH_PART(k, p)
    {
        for (int64_t i = 0; i < p->n; i++)
            finish_channel(k, args, chunks, p->first + i, lanes + p->first_lane + i);
        for (int i = 0; i < 3; i++)
            repeat(lanes + i * k->lanes + p->first_lane, p->lanes, p->n);
    }
}

static void chunk_spread(const batch_norm_kernel *k, const tn_arguments *args, const float *lanes,
                         int chunk)
{
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    int64_t last = t->rows * (chunk + 1) / k->chunks;
    for (int64_t r = t->rows * chunk / k->chunks; r < last; r += k->block) {
        int64_t n = last - r < k->block ? last - r : k->block;
        const void *dy = block_gradient(k, args, chunk, r, n);
        EACH_PART(k, p)
        {
            const float *scale = lanes + p->first_lane;
            const factors f = {scale, scale + k->lanes, scale + 2 * k->lanes};
            rows_view v = view_rows(k, args, p, dy, r, n);
            if (args->dsrc[p->index])
                spread(&v, &f, tn_place(args->dsrc[p->index], r * p->n, k->bf16),
                       args->accumulate[p->index], gate_of(t), k->bf16);
            if (t->residual && args->dsrc[1])
                pass_on(&v, tn_place(args->dsrc[1], r * t->channels, k->bf16), args->accumulate[1],
                        gate_of(t), k->bf16);
        }
    }
}

static tn_status batch_norm_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const batch_norm_kernel *k = (const batch_norm_kernel *)kernel;
    int chunks = k->chunks;
    float *lanes = (float *)chunk_memory(k, args, chunks);
    /* remembered statistics and parameters that are not trained: dx = dy * scale, no sums */
    const bool summed = k->batch_statistics || args->dparams[0] || args->dparams[1];
#pragma omp parallel for schedule(static) if (summed)
    for (int i = 0; i < (summed ? chunks : 0); i++)
        chunk_sums(k, args, i);
    finish_sums(k, args, summed ? chunks : 0, lanes);
#pragma omp parallel for schedule(static)
    for (int i = 0; i < chunks; i++)
        chunk_spread(k, args, lanes, i);
    return TN_OK;
}

static const tn_kernel_class batch_norm_class = {tn_cpu_kernel_destroy, NULL, batch_norm_forward,
                                                 batch_norm_backward};

static int64_t lanes_of(int64_t channels)
{
    int64_t rows = 1;
    while (rows * channels < LANES || (rows * channels % VECTOR && rows < VECTOR))
        rows *= 2;
    return rows * channels;
}

static void add_part(batch_norm_kernel *k, int64_t channels)
{
    const part *before = k->n_parts ? &k->parts[k->n_parts - 1] : NULL;
    part *p = &k->parts[k->n_parts];
    *p = (part){.index = k->n_parts++, .n = channels, .lanes = lanes_of(channels)};
    p->first = before ? before->first + before->n : 0;
    p->first_lane = k->lanes;
    k->lanes += p->lanes;
    k->most_lanes = p->lanes > k->most_lanes ? p->lanes : k->most_lanes;
}

/* The task's own list may be gone by then. */
static void make_parts(batch_norm_kernel *k)
{
    tn_batch_norm_task *t = &k->plain.task.batch_norm;
    k->parts = (part *)(void *)(k->widths + t->n_parts);
    for (int i = 0; i < t->n_parts; i++) {
        k->widths[i] = t->parts[i];
        add_part(k, t->parts[i]);
    }
    t->parts = k->widths;
    if (t->n_parts == 0)
        add_part(k, t->channels);
}

static void set_sizes(batch_norm_kernel *k)
{
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    k->block = block_rows(lanes_of(t->channels), t->channels);
    if (t->n_parts) {
        int64_t row = t->channels * (int64_t)tn_element(k->bf16), rows = STAGED_BYTES / row;
        rows = rows > MOST_STAGED_ROWS ? MOST_STAGED_ROWS : rows < LEAST_ROWS ? LEAST_ROWS : rows;
        /* an odd number of vectors: parts powers of two apart would meet in the same lines */
        k->block = ((rows / VECTOR - 1) | 1) * VECTOR;
        k->staged = (k->block * row + 63) / 64 * 64;
    }
}

tn_status tn_cpu_batch_norm_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                    tn_error *error)
{
    const tn_batch_norm_task *t = &task->batch_norm;
    size_t channels = (size_t)t->channels;
    tn_kernel *created;
    size_t parts = (size_t)t->n_parts * sizeof(int64_t) + (size_t)(t->n_parts + 1) * sizeof(part);
    tn_status status = tn_cpu_kernel_create(device, task, &batch_norm_class, "omp",
                                            sizeof(batch_norm_kernel) + parts, &created, error);
    if (status != TN_OK)
        return status;
    batch_norm_kernel *k = (batch_norm_kernel *)created;
    make_parts(k);
    k->chunks = t->rows < TN_CPU_CHUNKS ? (t->rows > 0 ? (int)t->rows : 1) : TN_CPU_CHUNKS;
    k->bf16 = task->bf16_dst;
    set_sizes(k);
    created->saved_bytes = (3 * channels + 3 * (size_t)k->lanes) * sizeof(float);
    created->workspace_bytes =
        (size_t)k->chunks * chunk_bytes(k) + 3 * (size_t)k->lanes * sizeof(float);
    created->reads_src = true;
    created->reads_dst = t->function != TN_FUNCTION_NONE && t->residual;
    *kernel = created;
    return TN_OK;
}
