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

typedef struct batch_norm_kernel {
    tn_kernel base;
    int chunks;
    int64_t lanes, block;  /* elements, rows */
    bool bf16;             /* how all operands are stored */
    bool batch_statistics; /* of the last forward */
    int64_t parts[];
} batch_norm_kernel;

/* How the gradient behind the function is told. */
typedef enum gate_kind { GATE_NONE, GATE_BY_X, GATE_BY_Y } gate_kind;

/* `saved` [channels] mean, 1 / sqrt(var + epsilon), var; [lanes] mean, scale, shift. */
static float *lane_mean(const batch_norm_kernel *k, const tn_arguments *args)
{
    return (float *)args->saved + 3 * k->base.task.batch_norm.channels;
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

/* Channels [first, first + n) of all, which source `index` has, and its rows as lanes. */
typedef struct part {
    int index;
    int64_t first, n, lanes;
} part;

/* The part after `p`; the first one after {-1}. False: there is none. */
static bool next_part(const batch_norm_kernel *k, part *p)
{
    const tn_batch_norm_task *t = &k->base.task.batch_norm;
    p->first = p->index < 0 ? 0 : p->first + p->n;
    p->index++;
    if (p->index >= (t->n_parts ? t->n_parts : 1))
        return false;
    p->n = t->n_parts ? t->parts[p->index] : t->channels;
    p->lanes = t->n_parts ? p->n : k->lanes;
    return true;
}

/* Elements between lane rows of dst. */
static int64_t row_step(const batch_norm_kernel *k, const part *p)
{
    return p->lanes / p->n * k->base.task.batch_norm.channels;
}

#define EACH_PART(k, p) for (part p = {.index = -1}; next_part(k, &(p));)

/* For every lane row of `count` elements: n elements from `at`. */
#define EACH_LANE_ROW(count, lanes)                                                                \
    for (int64_t at = 0, n; n = (count)-at < (lanes) ? (count)-at : (lanes), at < (count);         \
         at += (lanes))
/* The same, and where they are in memory whose lane rows are `step` elements apart. */
#define EACH_STEPPED_ROW(count, lanes, step)                                                       \
    for (int64_t at = 0, to = 0, n; n = (count)-at < (lanes) ? (count)-at : (lanes), at < (count); \
         at += (lanes), to += (step))

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

/* Workspace of a chunk: doubles of two sums per channel; floats of two per lane. */
static size_t chunk_bytes(const batch_norm_kernel *k)
{
    return (size_t)k->base.task.batch_norm.channels * 2 * sizeof(double) +
           (size_t)((k->lanes + 1) / 2 * 2) * 2 * sizeof(float);
}

static double *chunk_memory(const batch_norm_kernel *k, const tn_arguments *args, int chunk)
{
    return (double *)((char *)args->workspace + (size_t)chunk * chunk_bytes(k));
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
    const tn_batch_norm_task *t = &k->base.task.batch_norm;
    double *mean = chunk_memory(k, args, chunk), *square = mean + t->channels;
    float *block = (float *)(square + t->channels), *squares = block + k->lanes;
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
    memset(chunk_memory(k, args, chunk), 0, chunk_bytes(k));
    EACH_PART(k, p)
    part_statistics(k, args, &p, chunk);
}

/* mean, 1 / sqrt(var + epsilon), var of the batch into saved. */
static void batch_statistics(const batch_norm_kernel *k, const tn_arguments *args)
{
    const tn_batch_norm_task *t = &k->base.task.batch_norm;
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
    const tn_batch_norm_task *t = &k->base.task.batch_norm;
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
                          void *restrict y, int64_t count, int64_t lanes, int64_t step, float low,
                          float high, bool bf16)
{
    EACH_STEPPED_ROW(count, lanes, step)
    for (int64_t i = 0; i < n; i++) {
        float v = tn_load(x, at + i, bf16) * scale[i] + shift[i];
        if (residual)
            v += tn_load(residual, to + i, bf16);
        v = v < low ? low : v;
        tn_save(y, to + i, v > high ? high : v, bf16);
    }
}

TN_HOT static void apply(const void *x, const void *residual, const float *scale,
                         const float *shift, void *y, int64_t count, int64_t lanes, int64_t step,
                         float low, float high, bool bf16)
{
    if (residual && bf16)
        apply_rows(x, residual, scale, shift, y, count, lanes, step, low, high, true);
    else if (residual)
        apply_rows(x, residual, scale, shift, y, count, lanes, step, low, high, false);
    else if (bf16)
        apply_rows(x, NULL, scale, shift, y, count, lanes, step, low, high, true);
    else
        apply_rows(x, NULL, scale, shift, y, count, lanes, step, low, high, false);
}

static void bounds(const tn_batch_norm_task *t, float *low, float *high)
{
    *low = t->function == TN_FUNCTION_NONE   ? -INFINITY
           : t->function == TN_FUNCTION_RELU ? 0.0f
                                             : t->a;
    *high = t->function == TN_FUNCTION_CLIP ? t->b : INFINITY;
}

/* Rows [first, first + n) of all sources. */
static void apply_block(const batch_norm_kernel *k, const tn_arguments *args, int64_t first,
                        int64_t n)
{
    const tn_batch_norm_task *t = &k->base.task.batch_norm;
    const float *scale = lane_scale(k, args), *shift = lane_shift(k, args);
    float low, high;
    bounds(t, &low, &high);
    EACH_PART(k, p)
    apply(tn_place(args->src[p.index], first * p.n, k->bf16),
          t->residual ? tn_place(args->src[1], first * t->channels, k->bf16) : NULL,
          scale + p.first, shift + p.first,
          tn_place(args->dst, first * t->channels + p.first, k->bf16), n * p.n, p.lanes,
          row_step(k, &p), low, high, k->bf16);
}

/* Mean, scale and shift of the lanes, from the statistics in saved. */
static void set_lanes(const batch_norm_kernel *k, const tn_arguments *args)
{
    const tn_batch_norm_task *t = &k->base.task.batch_norm;
    const float *gamma = args->params[0], *beta = args->params[1], *saved = args->saved;
    float *lanes[] = {lane_mean(k, args), lane_scale(k, args), lane_shift(k, args)};
    for (int64_t c = 0; c < t->channels; c++) {
        double s = (double)gamma[c] * (double)saved[t->channels + c];
        lanes[0][c] = saved[c];
        lanes[1][c] = (float)s;
        lanes[2][c] = (float)((double)beta[c] - (double)saved[c] * s);
    }
    for (int i = 0; i < 3; i++)
        repeat(lanes[i], k->lanes, t->channels);
}

static tn_status batch_norm_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    batch_norm_kernel *k = (batch_norm_kernel *)kernel;
    const tn_batch_norm_task *t = &k->base.task.batch_norm;
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
    int64_t pieces = (t->rows + k->block - 1) / k->block;
#pragma omp parallel for schedule(static) if (t->rows * t->channels > TN_CPU_GRAIN)
    for (int64_t p = 0; p < pieces; p++) {
        int64_t n = t->rows - p * k->block < k->block ? t->rows - p * k->block : k->block;
        apply_block(k, args, p * k->block, n);
    }
    return TN_OK;
}

/* --- backward -------------------------------------------------------------------------------- */

/* A block of rows in backward: elements and what is per lane. */
typedef struct rows_view {
    const void *x, *y, *dy;
    const float *mean, *scale, *shift; /* of forward */
    int64_t count, lanes, step;        /* step: of y and dy */
    float low, high;
} rows_view;

/* dy where the function let it through; without a residual forward's result is computed again,
 * cheaper than reading it. Element i of the lane row at `at` in x and `to` in y and dy. */
TN_INLINE float gated(const rows_view *v, int64_t at, int64_t to, int64_t i, gate_kind gate,
                      bool bf16)
{
    float dy = tn_load(v->dy, to + i, bf16), y = 0.0f;
    if (gate == GATE_NONE)
        return dy;
    if (gate == GATE_BY_X)
        y = tn_load(v->x, at + i, bf16) * v->scale[i] + v->shift[i];
    else
        y = tn_load(v->y, to + i, bf16);
    return tn_keep(dy, (y > v->low) & (y < v->high));
}

TN_INLINE void add_gradients(const rows_view *view, float *restrict sum, float *restrict product,
                             gate_kind gate, bool bf16)
{
    const rows_view v = *view;
    memset(sum, 0, (size_t)v.lanes * sizeof(float));
    memset(product, 0, (size_t)v.lanes * sizeof(float));
    EACH_STEPPED_ROW(v.count, v.lanes, v.step)
    for (int64_t i = 0; i < n; i++) {
        float g = gated(&v, at, to, i, gate, bf16);
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
    EACH_STEPPED_ROW(v.count, v.lanes, v.step)
    for (int64_t i = 0; i < n; i++) {
        float g = gated(&v, at, to, i, gate, bf16);
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
        float g = gated(&v, 0, 0, i, gate, bf16);
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

static rows_view view_rows(const batch_norm_kernel *k, const tn_arguments *args, const part *p,
                           int64_t first, int64_t n)
{
    const tn_batch_norm_task *t = &k->base.task.batch_norm;
    int64_t to = first * t->channels + p->first;
    rows_view v = {.x = tn_place(args->src[p->index], first * p->n, k->bf16),
                   .y = tn_place(args->dst, to, k->bf16),
                   .dy = tn_place(args->ddst, to, k->bf16),
                   .mean = lane_mean(k, args) + p->first,
                   .scale = lane_scale(k, args) + p->first,
                   .shift = lane_shift(k, args) + p->first,
                   .count = n * p->n,
                   .lanes = p->lanes,
                   .step = row_step(k, p)};
    bounds(t, &v.low, &v.high);
    return v;
}

static void chunk_sums(const batch_norm_kernel *k, const tn_arguments *args, int chunk)
{
    const tn_batch_norm_task *t = &k->base.task.batch_norm;
    int64_t channels = t->channels, last = t->rows * (chunk + 1) / k->chunks;
    double *sum = chunk_memory(k, args, chunk);
    float *lanes[2] = {(float *)(sum + 2 * channels), (float *)(sum + 2 * channels) + k->lanes};
    memset(sum, 0, (size_t)(2 * channels) * sizeof(double));
    for (int64_t r = t->rows * chunk / k->chunks; r < last; r += k->block)
        EACH_PART(k, p)
        {
            rows_view v = view_rows(k, args, &p, r, last - r < k->block ? last - r : k->block);
            lane_gradients(&v, lanes[0], lanes[1], gate_of(t), k->bf16);
            for (int which = 0; which < 2; which++) {
                double *into = sum + which * channels + p.first;
                fold(lanes[which], p.lanes, p.n);
                for (int64_t c = 0; c < p.n; c++)
                    into[c] += (double)lanes[which][c];
            }
        }
}

/* Parameter gradients, and per lane scale, mean_g, slope at the workspace's end. */
static void finish_sums(const batch_norm_kernel *k, const tn_arguments *args, int chunks,
                        float *lanes)
{
    const tn_batch_norm_task *t = &k->base.task.batch_norm;
    int64_t channels = t->channels;
    const float *saved = args->saved;
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0.0, product = 0.0, inverse = (double)saved[channels + c];
        for (int i = 0; i < chunks; i++) {
            const double *s = chunk_memory(k, args, i);
            sum += s[c];
            product += s[channels + c];
        }
        for (int p = 0; p < 2; p++) {
            double d = p ? sum : product * inverse;
            if (args->dparams[p])
                args->dparams[p][c] =
                    (float)d + (args->accumulate_params ? args->dparams[p][c] : 0.0f);
        }
        double rows = (double)t->rows;
        lanes[c] = args->params[0][c] * saved[channels + c];
        lanes[k->lanes + c] = k->batch_statistics ? (float)(sum / rows) : 0.0f;
        lanes[2 * k->lanes + c] =
            k->batch_statistics ? (float)(product * inverse * inverse / rows) : 0.0f;
    }
    for (int i = 0; i < 3; i++)
        repeat(lanes + i * k->lanes, k->lanes, channels);
}

static void chunk_spread(const batch_norm_kernel *k, const tn_arguments *args, const float *lanes,
                         int chunk)
{
    const tn_batch_norm_task *t = &k->base.task.batch_norm;
    int64_t last = t->rows * (chunk + 1) / k->chunks;
    for (int64_t r = t->rows * chunk / k->chunks; r < last; r += k->block)
        EACH_PART(k, p)
        {
            const float *scale = lanes + p.first;
            const factors f = {scale, scale + k->lanes, scale + 2 * k->lanes};
            rows_view v = view_rows(k, args, &p, r, last - r < k->block ? last - r : k->block);
            if (args->dsrc[p.index])
                spread(&v, &f, tn_place(args->dsrc[p.index], r * p.n, k->bf16),
                       args->accumulate[p.index], gate_of(t), k->bf16);
            if (t->residual && args->dsrc[1])
                pass_on(&v, tn_place(args->dsrc[1], r * t->channels, k->bf16), args->accumulate[1],
                        gate_of(t), k->bf16);
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

static const tn_kernel_class batch_norm_class = {tn_kernel_free, NULL, batch_norm_forward,
                                                 batch_norm_backward};

static void set_block(batch_norm_kernel *k)
{
    int64_t channels = k->base.task.batch_norm.channels, rows = 1;
    while (rows * channels < LANES || (rows * channels % VECTOR && rows < VECTOR))
        rows *= 2;
    k->lanes = rows * channels;
    k->block = block_rows(k->lanes, channels);
}

tn_status tn_cpu_batch_norm_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                    tn_error *error)
{
    const tn_batch_norm_task *t = &task->batch_norm;
    size_t channels = (size_t)t->channels;
    tn_kernel *created;
    tn_status status = tn_kernel_create(
        device, task, &batch_norm_class, "omp",
        sizeof(batch_norm_kernel) + (size_t)t->n_parts * sizeof(int64_t), &created, error);
    if (status != TN_OK)
        return status;
    batch_norm_kernel *k = (batch_norm_kernel *)created;
    for (int i = 0; i < t->n_parts; i++)
        k->parts[i] = t->parts[i];
    k->base.task.batch_norm.parts = k->parts;
    k->chunks = t->rows < TN_CPU_CHUNKS ? (t->rows > 0 ? (int)t->rows : 1) : TN_CPU_CHUNKS;
    k->bf16 = task->bf16_dst;
    set_block(k);
    created->saved_bytes = (3 * channels + 3 * (size_t)k->lanes) * sizeof(float);
    created->workspace_bytes =
        (size_t)k->chunks * chunk_bytes(k) + 3 * (size_t)k->lanes * sizeof(float);
    created->reads_src = true;
    created->reads_dst = t->function != TN_FUNCTION_NONE && t->residual;
    *kernel = created;
    return TN_OK;
}
