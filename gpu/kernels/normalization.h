/* Batch norm phases: two passes over the activations each way (tiles.h), and the sums between
 * them. x can lie in parts, as matrices of some of its channels (DenseNet, whose concatenations are
 * then never made): no thread has columns of two. y can be quantized at once: forward stores codes
 * times their step, backward computes y from x again. Both take registers, so passes that can do it
 * are kernels of their own. */
#ifndef TERNION_GPU_KERNELS_NORMALIZATION_H
#define TERNION_GPU_KERNELS_NORMALIZATION_H

#include "gpu/kernels/elementwise.h"
#include "gpu/kernels/tiles.h"

enum { TN_NORM_PARTS = 64 };

/* What a pass can do: a constant of each kernel. */
typedef enum tn_norm_can {
    TN_NORM_PLAIN,
    TN_NORM_OF_PARTS,
    TN_NORM_CODES /* of parts too */
} tn_norm_can;

typedef struct tn_norm_part {
    const void *x;
    void *dx; /* NULL: not wanted */
    int32_t first, channels;
    bool accumulate;
} tn_norm_part;

typedef struct tn_norm_args {
    tn_norm_part part[TN_NORM_PARTS];
    const void *y, *dy, *residual;          /* y: NULL where the gate is found from x */
    const float *gamma, *beta, *mean, *var; /* mean, var: running statistics of inference */
    void *dst, *dresidual;
    float *running_mean, *running_var;
    float *saved;    /* [3, channels]: mean, 1 / sqrt(var + epsilon), var */
    float *factors;  /* [3, channels]: of the second pass */
    double *partial; /* [chunks, 2, channels] */
    float *dgamma, *dbeta;
    tn_tiles sums, spread;              /* of a pass that sums, of one that does not */
    bool x_bf16, y_bf16, residual_bf16; /* as stored; gradients as their values */
    bool training, move, accumulate_residual, accumulate_params, gated;
    int parts;
    float epsilon, keep, low, high;
    const float *code_step; /* NULL: no codes */
    float code_low, code_high;
    bool clip_only;
    double *code_slopes; /* of the blocks of `spread` */
} tn_norm_args;

TN_BODY const tn_norm_part *tn_norm_part_at(const tn_norm_args *k, int64_t col, tn_norm_can can)
{
    int low = 0, high = can == TN_NORM_PLAIN ? 0 : k->parts - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        if (k->part[middle].first <= col)
            low = middle;
        else
            high = middle - 1;
    }
    return &k->part[low];
}

/* A thread's place in a part. */
TN_BODY tn_tile_span tn_norm_inside(const tn_norm_part *part, tn_tile_span at, tn_norm_can can)
{
    if (can == TN_NORM_PLAIN)
        return at;
    at.col -= part->first;
    at.pitch = part->channels;
    return at;
}

/* Four columns of what is kept per channel. */
TN_BODY void tn_norm_vector(const tn_tiles *t, const float *from, int64_t col, float v[4])
{
    for (int w = 0; w < TN_TILE_WIDTH; w++)
        v[w] = w < t->width && col + w < t->cols ? from[col + w] : 0.0f;
}

/* Sums of d = x - (x's first row) and of d^2: close enough to the mean that fp32 serves a burst. */
TN_BODY void tn_norm_statistics(const tn_norm_args *k, tn_tile_shared *s, int64_t block, int thread,
                                int phase, tn_norm_can can)
{
    const tn_tiles *t = &k->sums;
    if (phase > 0) {
        tn_tile_fold(t, s, block, thread, phase, 2, k->partial);
        return;
    }
    tn_tile_span at = tn_tile_at(t, block, thread);
    double sum[4] = {0.0, 0.0, 0.0, 0.0}, square[4] = {0.0, 0.0, 0.0, 0.0};
    float shift[4] = {0.0f, 0.0f, 0.0f, 0.0f}, x[4][4];
    const tn_norm_part *part = tn_norm_part_at(k, at.col, can);
    tn_tile_span in = tn_norm_inside(part, at, can);
    if (at.first < at.last)
        tn_load_wide(part->x, in.col, t->width, k->x_bf16, shift);
    for (int64_t row = at.first; row < at.last; row += TN_TILE_ROWS * at.step) {
        float a[4] = {0.0f, 0.0f, 0.0f, 0.0f}, b[4] = {0.0f, 0.0f, 0.0f, 0.0f};
        tn_load_rows(t, &in, row, part->x, k->x_bf16, x);
        for (int r = 0; r < TN_TILE_ROWS; r++)
            for (int w = 0; w < TN_TILE_WIDTH; w++) {
                float d = row + r * at.step < at.last ? x[r][w] - shift[w] : 0.0f;
                a[w] += d;
                b[w] += d * d;
            }
        for (int w = 0; w < TN_TILE_WIDTH; w++) {
            sum[w] += (double)a[w];
            square[w] += (double)b[w];
        }
    }
    tn_tile_put(t, s, thread, 0, sum);
    tn_tile_put(t, s, thread, 1, square);
}

/* The factors that apply y = f(scale x + shift). */
TN_BODY void tn_norm_factors(const tn_norm_args *k, int64_t c, float *scale, float *shift)
{
    double factor = (double)k->gamma[c] * (double)k->saved[k->sums.cols + c];
    *scale = (float)factor;
    *shift = (float)((double)k->beta[c] - (double)k->saved[c] * factor);
}

/* Mean and variance from the chunks, or the running statistics; moves the running ones; leaves
 * scale and shift in factors. */
TN_BODY void tn_norm_finish_phase(const tn_norm_args *k, tn_tile_shared *s, int64_t block,
                                  int thread, int phase)
{
    int64_t channels = k->sums.cols, c = tn_chunk_column(block, thread);
    if (phase < 2) {
        tn_chunk_gather(s, block, thread, phase, k->partial, channels,
                        k->training ? k->sums.chunks : 0, 2);
        return;
    }
    if (thread >= TN_CHUNK_COLUMNS || c >= channels)
        return;
    double mean, variance, rows = (double)k->sums.rows;
    if (k->training) {
        double off = tn_chunk_total(s, thread, 0) / rows;
        const tn_norm_part *part = tn_norm_part_at(k, c, TN_NORM_OF_PARTS);
        mean = (double)tn_load(part->x, c - part->first, k->x_bf16) + off;
        variance = tn_chunk_total(s, thread, 1) / rows - off * off;
        variance = variance < 0.0 ? 0.0 : variance; /* NaN stays */
    } else {
        mean = (double)k->mean[c];
        variance = (double)k->var[c];
    }
    k->saved[c] = (float)mean;
    k->saved[channels + c] = (float)(1.0 / sqrt(variance + (double)k->epsilon));
    k->saved[2 * channels + c] = (float)variance;
    /* statistics that are not finite are those of a step that will be dropped */
    if (k->move && mean - mean == 0.0 && variance - variance == 0.0) {
        double keep = (double)k->keep, unbias = rows > 1.0 ? rows / (rows - 1.0) : 1.0;
        double moved = (double)k->saved[2 * channels + c] * unbias;
        k->running_mean[c] =
            (float)(keep * (double)k->running_mean[c] + (1.0 - keep) * (double)k->saved[c]);
        k->running_var[c] = (float)(keep * (double)k->running_var[c] + (1.0 - keep) * moved);
    }
    tn_norm_factors(k, c, &k->factors[c], &k->factors[channels + c]);
}

TN_BODY void tn_norm_apply(const tn_norm_args *k, tn_tile_shared *s, int64_t block, int thread,
                           int phase, tn_norm_can can)
{
    const tn_tiles *t = &k->spread;
    tn_tile_span at = tn_tile_at(t, block, thread);
    float scale[4], shift[4], x[4][4], add[4][4];
    float step = can == TN_NORM_CODES ? tn_step(k->code_step) : 1.0f;
    (void)s;
    (void)phase;
    if (at.first >= at.last)
        return;
    const tn_norm_part *part = tn_norm_part_at(k, at.col, can);
    const tn_tile_span in = tn_norm_inside(part, at, can);
    tn_norm_vector(t, k->factors, at.col, scale);
    tn_norm_vector(t, k->factors + t->cols, at.col, shift);
    for (int64_t row = at.first; row < at.last; row += TN_TILE_ROWS * at.step) {
        tn_load_rows(t, &in, row, part->x, k->x_bf16, x);
        if (k->residual)
            tn_load_rows(t, &at, row, k->residual, k->residual_bf16, add);
        for (int r = 0; r < TN_TILE_ROWS; r++) {
            for (int w = 0; w < TN_TILE_WIDTH; w++) {
                float v = x[r][w] * scale[w] + shift[w];
                v += k->residual ? add[r][w] : 0.0f;
                v = v < k->low ? k->low : v;
                v = v > k->high ? k->high : v;
                if (can == TN_NORM_CODES)
                    v = tn_code_value(v, step, k->code_low, k->code_high);
                x[r][w] = v;
            }
            if (row + r * at.step < at.last)
                tn_store_wide(k->dst, (row + r * at.step) * t->cols + at.col, t->width, k->y_bf16,
                              x[r]);
        }
    }
}

/* What a thread's columns keep in registers while the gradients pass. */
typedef struct tn_norm_columns {
    float mean[4], scale[4], shift[4];
} tn_norm_columns;

TN_BODY tn_norm_columns tn_norm_columns_at(const tn_norm_args *k, int64_t col)
{
    const tn_tiles *t = &k->sums;
    tn_norm_columns c;
    tn_norm_vector(t, k->saved, col, c.mean);
    for (int w = 0; w < TN_TILE_WIDTH; w++) {
        c.scale[w] = c.shift[w] = 0.0f;
        if (w < t->width && col + w < t->cols)
            tn_norm_factors(k, col + w, &c.scale[w], &c.shift[w]);
    }
    return c;
}

/* y is quantized: *g is dy or, outside the range, 0; returns what dy adds to the step's gradient.
 */
TN_BODY double tn_norm_code_gate(const tn_norm_args *k, float y, float step, float *g)
{
    float v = y / step;
    double slope = (double)tn_code_slope(v, k->code_low, k->code_high, k->clip_only) * (double)*g;
    *g = v >= k->code_low && v <= k->code_high ? *g : 0.0f;
    return slope;
}

/* Four rows of x, and of dy where the function let it through; what dy adds to the gradient of the
 * codes' step. */
TN_BODY double tn_norm_gate(const tn_norm_args *k, const tn_tiles *t, const tn_tile_span *at,
                            const tn_norm_part *part, tn_norm_can can, const tn_norm_columns *c,
                            int64_t row, float x[4][4], float g[4][4])
{
    const tn_tile_span in = tn_norm_inside(part, *at, can);
    float y[4][4];
    bool stored = can != TN_NORM_CODES && k->gated && k->y;
    bool added = can == TN_NORM_CODES && k->residual;
    float step = can == TN_NORM_CODES ? tn_step(k->code_step) : 1.0f;
    double slopes = 0.0;
    tn_load_rows(t, &in, row, part->x, k->x_bf16, x);
    tn_load_rows(t, at, row, k->dy, k->y_bf16, g);
    if (stored)
        tn_load_rows(t, at, row, k->y, k->y_bf16, y);
    if (added)
        tn_load_rows(t, at, row, k->residual, k->residual_bf16, y);
    for (int r = 0; r < TN_TILE_ROWS; r++)
        for (int w = 0; w < TN_TILE_WIDTH; w++) {
            float v = stored ? y[r][w] : x[r][w] * c->scale[w] + c->shift[w];
            v += added ? y[r][w] : 0.0f;
            if (can == TN_NORM_CODES)
                slopes += tn_norm_code_gate(k, tn_clamp(v, k->low, k->high), step, &g[r][w]);
            g[r][w] = !k->gated || (v > k->low && v < k->high) ? g[r][w] : 0.0f;
        }
    return slopes;
}

TN_BODY void tn_norm_sums(const tn_norm_args *k, tn_tile_shared *s, int64_t block, int thread,
                          int phase, tn_norm_can can)
{
    const tn_tiles *t = &k->sums;
    if (phase > 0) {
        tn_tile_fold(t, s, block, thread, phase, 2, k->partial);
        return;
    }
    tn_tile_span at = tn_tile_at(t, block, thread);
    const tn_norm_part *part = tn_norm_part_at(k, at.col, can);
    tn_norm_columns c = tn_norm_columns_at(k, at.col);
    double sum[4] = {0.0, 0.0, 0.0, 0.0}, product[4] = {0.0, 0.0, 0.0, 0.0};
    for (int64_t row = at.first; row < at.last; row += TN_TILE_ROWS * at.step) {
        float a[4] = {0.0f, 0.0f, 0.0f, 0.0f}, b[4] = {0.0f, 0.0f, 0.0f, 0.0f}, x[4][4], g[4][4];
        (void)tn_norm_gate(k, t, &at, part, can, &c, row, x, g);
        for (int r = 0; r < TN_TILE_ROWS; r++)
            for (int w = 0; w < TN_TILE_WIDTH; w++) {
                a[w] += g[r][w];
                b[w] += g[r][w] * (x[r][w] - c.mean[w]);
            }
        for (int w = 0; w < TN_TILE_WIDTH; w++) {
            sum[w] += (double)a[w];
            product[w] += (double)b[w];
        }
    }
    tn_tile_put(t, s, thread, 0, sum);
    tn_tile_put(t, s, thread, 1, product);
}

/* Parameter gradients, and what the second pass needs per channel: scale, mean of g, slope. */
TN_BODY void tn_norm_gradients_phase(const tn_norm_args *k, tn_tile_shared *s, int64_t block,
                                     int thread, int phase)
{
    int64_t channels = k->sums.cols, c = tn_chunk_column(block, thread);
    if (phase < 2) {
        tn_chunk_gather(s, block, thread, phase, k->partial, channels, k->sums.chunks, 2);
        return;
    }
    if (thread >= TN_CHUNK_COLUMNS || c >= channels)
        return;
    double sum = tn_chunk_total(s, thread, 0), product = tn_chunk_total(s, thread, 1);
    double inverse = (double)k->saved[channels + c], rows = (double)k->sums.rows;
    if (k->dgamma)
        k->dgamma[c] = (float)(product * inverse) + (k->accumulate_params ? k->dgamma[c] : 0.0f);
    if (k->dbeta)
        k->dbeta[c] = (float)sum + (k->accumulate_params ? k->dbeta[c] : 0.0f);
    k->factors[c] = k->gamma[c] * k->saved[channels + c];
    k->factors[channels + c] = k->training ? (float)(sum / rows) : 0.0f;
    k->factors[2 * channels + c] = k->training ? (float)(product * inverse * inverse / rows) : 0.0f;
}

/* Four rows of a gradient. */
TN_BODY void tn_norm_put(const tn_tiles *t, const tn_tile_span *at, int64_t row, void *to,
                         bool bf16, bool accumulate, float v[4][4])
{
    float old[4][4];
    if (accumulate)
        tn_load_rows(t, at, row, to, bf16, old);
    for (int r = 0; r < TN_TILE_ROWS; r++) {
        for (int w = 0; w < TN_TILE_WIDTH; w++)
            v[r][w] += accumulate ? old[r][w] : 0.0f;
        if (row + r * at->step < at->last)
            tn_store_wide(to, (row + r * at->step) * at->pitch + at->col, t->width, bf16, v[r]);
    }
}

TN_BODY void tn_norm_spread(const tn_norm_args *k, tn_tile_shared *s, int64_t block, int thread,
                            int phase, tn_norm_can can)
{
    const tn_tiles *t = &k->spread;
    tn_tile_span at = tn_tile_at(t, block, thread);
    float scale[4], middle[4], slope[4], x[4][4], g[4][4];
    double slopes = 0.0;
    if (phase > 0) { /* codes alone have these phases */
        tn_block_finish(s, thread, phase, k->code_slopes + block);
        return;
    }
    if (can == TN_NORM_CODES)
        s->sums[0][thread] = 0.0;
    if (at.first >= at.last)
        return;
    const tn_norm_part *part = tn_norm_part_at(k, at.col, can);
    const tn_tile_span in = tn_norm_inside(part, at, can);
    tn_norm_columns c = tn_norm_columns_at(k, at.col);
    tn_norm_vector(t, k->factors, at.col, scale);
    tn_norm_vector(t, k->factors + t->cols, at.col, middle);
    tn_norm_vector(t, k->factors + 2 * t->cols, at.col, slope);
    for (int64_t row = at.first; row < at.last; row += TN_TILE_ROWS * at.step) {
        slopes += tn_norm_gate(k, t, &at, part, can, &c, row, x, g);
        for (int r = 0; r < TN_TILE_ROWS; r++)
            for (int w = 0; w < TN_TILE_WIDTH; w++)
                x[r][w] = scale[w] * (g[r][w] - middle[w] - (x[r][w] - c.mean[w]) * slope[w]);
        if (part->dx)
            tn_norm_put(t, &in, row, part->dx, k->x_bf16, part->accumulate, x);
        if (k->dresidual)
            tn_norm_put(t, &at, row, k->dresidual, k->residual_bf16, k->accumulate_residual, g);
    }
    if (can == TN_NORM_CODES)
        s->sums[0][thread] = slopes;
}

#define TN_NORM_PASS(name, pass, can)                                                              \
    TN_BODY void tn_##name##_phase(const tn_norm_args *k, tn_tile_shared *s, int64_t block,        \
                                   int thread, int phase)                                          \
    {                                                                                              \
        tn_norm_##pass(k, s, block, thread, phase, can);                                           \
    }
TN_NORM_PASS(norm_statistics, statistics, TN_NORM_PLAIN)
TN_NORM_PASS(norm_apply, apply, TN_NORM_PLAIN)
TN_NORM_PASS(norm_sums, sums, TN_NORM_PLAIN)
TN_NORM_PASS(norm_spread, spread, TN_NORM_PLAIN)
TN_NORM_PASS(norm_parts_statistics, statistics, TN_NORM_OF_PARTS)
TN_NORM_PASS(norm_parts_apply, apply, TN_NORM_OF_PARTS)
TN_NORM_PASS(norm_parts_sums, sums, TN_NORM_OF_PARTS)
TN_NORM_PASS(norm_parts_spread, spread, TN_NORM_OF_PARTS)
TN_NORM_PASS(norm_codes_apply, apply, TN_NORM_CODES)
TN_NORM_PASS(norm_codes_sums, sums, TN_NORM_CODES)
TN_NORM_PASS(norm_codes_spread, spread, TN_NORM_CODES)
#undef TN_NORM_PASS

#endif
