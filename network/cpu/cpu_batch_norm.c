#include "network/cpu/cpu.h"

#include "core/memory.h"

#include <math.h>
#include <string.h>

/* Sums over rows: fixed chunks, each in blocks of BLOCK rows summed in fp32 (while in cache) and
 * merged in double in order. */
enum { BLOCK = 32 };

typedef struct batch_norm_kernel {
    tn_cpu_kernel plain;
    int chunks;
    bool batch_statistics; /* of the last forward */
    int64_t parts[];
} batch_norm_kernel;

TN_HOT static void block_mean(const float *restrict x, int64_t rows, int64_t channels,
                              float *restrict mean)
{
    memset(mean, 0, (size_t)channels * sizeof(float));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels; c++)
            mean[c] += x[r * channels + c];
    for (int64_t c = 0; c < channels; c++)
        mean[c] /= (float)rows;
}

TN_HOT static void block_square(const float *restrict x, int64_t rows, int64_t channels,
                                const float *restrict mean, float *restrict square)
{
    memset(square, 0, (size_t)channels * sizeof(float));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels; c++) {
            float d = x[r * channels + c] - mean[c];
            square[c] += d * d;
        }
}

/* Chan's formula: merges a block of `n` rows into (mean, square) of `count`. */
static void merge(double *mean, double *square, double count, const float *block_mean_,
                  const float *block_square_, double n, int64_t channels)
{
    double total = count + n;
    for (int64_t c = 0; c < channels; c++) {
        double d = (double)block_mean_[c] - mean[c];
        mean[c] += d * (n / total);
        square[c] += (double)block_square_[c] + d * d * (count * n / total);
    }
}

/* Workspace of a chunk: doubles mean, square; floats for a block's mean, square. */
static size_t chunk_bytes(int64_t channels)
{
    return (size_t)channels * (2 * sizeof(double) + 2 * sizeof(float));
}

static void chunk_statistics(const float *x, int64_t rows, int64_t channels, void *workspace)
{
    double *mean = workspace, *square = mean + channels;
    float *block = (float *)(square + channels);
    memset(workspace, 0, chunk_bytes(channels));
    for (int64_t r = 0; r < rows; r += BLOCK) {
        int64_t n = rows - r < BLOCK ? rows - r : BLOCK;
        block_mean(x + r * channels, n, channels, block);
        block_square(x + r * channels, n, channels, block, block + channels);
        merge(mean, square, (double)r, block, block + channels, (double)n, channels);
    }
}

/* mean, 1 / sqrt(var + epsilon), var of the batch into saved. */
static void batch_statistics(const batch_norm_kernel *k, const tn_arguments *args)
{
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    size_t bytes = chunk_bytes(t->channels);
    float *saved = args->saved;
    int64_t channels = t->channels;
    int chunks = k->chunks;
#pragma omp parallel for schedule(static)
    for (int i = 0; i < chunks; i++) {
        int64_t first = t->rows * i / chunks, last = t->rows * (i + 1) / chunks;
        chunk_statistics(args->src[0] + first * channels, last - first, channels,
                         (char *)args->workspace + (size_t)i * bytes);
    }
    for (int64_t c = 0; c < channels; c++) {
        double mean = 0.0, square = 0.0, count = 0.0;
        for (int i = 0; i < chunks; i++) {
            const double *m = (const double *)((char *)args->workspace + (size_t)i * bytes);
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

/* A row of one of several sources. */
TN_HOT static void apply_part(const float *restrict x, const float *restrict scale,
                              const float *restrict shift, float *restrict y, int64_t channels,
                              float low, float high)
{
    for (int64_t c = 0; c < channels; c++) {
        float v = x[c] * scale[c] + shift[c];
        v = v < low ? low : v;
        y[c] = v > high ? high : v;
    }
}

TN_HOT static void apply(const float *x, const float *residual, const float *restrict scale,
                         const float *restrict shift, float *y, int64_t rows, int64_t channels,
                         float low, float high)
{
    if (residual)
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < channels; c++) {
                float v = x[r * channels + c] * scale[c] + shift[c] + residual[r * channels + c];
                v = v < low ? low : v;
                y[r * channels + c] = v > high ? high : v;
            }
    else
        for (int64_t r = 0; r < rows; r++)
            for (int64_t c = 0; c < channels; c++) {
                float v = x[r * channels + c] * scale[c] + shift[c];
                v = v < low ? low : v;
                y[r * channels + c] = v > high ? high : v;
            }
}

static void bounds(const tn_batch_norm_task *t, float *low, float *high)
{
    *low = t->function == TN_FUNCTION_NONE   ? -INFINITY
           : t->function == TN_FUNCTION_RELU ? 0.0f
                                             : t->a;
    *high = t->function == TN_FUNCTION_CLIP ? t->b : INFINITY;
}

/* Rows [first, first + n) of all sources. */
static void apply_rows(const batch_norm_kernel *k, const tn_arguments *args, const float *scale,
                       int64_t first, int64_t n)
{
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    int64_t at = first * t->channels;
    float low, high;
    bounds(t, &low, &high);
    if (t->n_parts == 0)
        apply(args->src[0] + at, t->residual ? args->src[1] + at : NULL, scale, scale + t->channels,
              args->dst + at, n, t->channels, low, high);
    for (int64_t r = first; r < first + n && t->n_parts; r++) {
        int64_t c = 0;
        for (int i = 0; i < t->n_parts; c += t->parts[i++])
            apply_part(args->src[i] + r * t->parts[i], scale + c, scale + t->channels + c,
                       args->dst + r * t->channels + c, t->parts[i], low, high);
    }
}

static tn_status batch_norm_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    batch_norm_kernel *k = (batch_norm_kernel *)kernel;
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    const float *gamma = args->params[0], *beta = args->params[1];
    float *saved = args->saved, *scale = saved + 3 * t->channels, *shift = scale + t->channels;
    if (args->training && t->n_parts)
        return tn_fail(error, TN_ERROR_USAGE, "batch statistics need a plan with separate BN");
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
    for (int64_t c = 0; c < t->channels; c++) {
        double s = (double)gamma[c] * (double)saved[t->channels + c];
        scale[c] = (float)s;
        shift[c] = (float)((double)beta[c] - (double)saved[c] * s);
    }
    int64_t pieces = (t->rows + BLOCK - 1) / BLOCK;
#pragma omp parallel for schedule(static) if (t->rows * t->channels > TN_CPU_GRAIN)
    for (int64_t p = 0; p < pieces; p++) {
        int64_t n = t->rows - p * BLOCK < BLOCK ? t->rows - p * BLOCK : BLOCK;
        apply_rows(k, args, scale, p * BLOCK, n);
    }
    return TN_OK;
}

/* dy where the function let it through */
TN_HOT static void gate(const float *restrict dy, const float *restrict y, float *restrict g,
                        int64_t n, float low, float high)
{
    for (int64_t i = 0; i < n; i++)
        g[i] = y[i] > low && y[i] < high ? dy[i] : 0.0f;
}

/* The same without a residual: forward's result is computed again, cheaper than reading it. */
TN_HOT static void gate_again(const float *restrict dy, const float *restrict x,
                              const float *restrict scale, const float *restrict shift,
                              float *restrict g, int64_t rows, int64_t channels, float low,
                              float high)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels; c++) {
            int64_t i = r * channels + c;
            float v = x[i] * scale[c] + shift[c];
            g[i] = v > low && v < high ? dy[i] : 0.0f;
        }
}

/* The gradient behind the function of rows from element `at`: ddst itself, or in g. */
static const float *gated(const tn_batch_norm_task *t, const tn_arguments *args, int64_t at,
                          int64_t rows, float *g)
{
    const float *dy = args->ddst + at, *scale = (const float *)args->saved + 3 * t->channels;
    float low, high;
    bounds(t, &low, &high);
    if (t->function == TN_FUNCTION_NONE)
        return dy;
    if (t->residual)
        gate(dy, args->dst + at, g, rows * t->channels, low, high);
    else
        gate_again(dy, args->src[0] + at, scale, scale + t->channels, g, rows, t->channels, low,
                   high);
    return g;
}

TN_HOT static void block_sums(const float *restrict g, const float *restrict x,
                              const float *restrict mean, int64_t rows, int64_t channels,
                              float *restrict sum, float *restrict product)
{
    memset(sum, 0, (size_t)channels * sizeof(float));
    memset(product, 0, (size_t)channels * sizeof(float));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels; c++) {
            sum[c] += g[r * channels + c];
            product[c] += g[r * channels + c] * (x[r * channels + c] - mean[c]);
        }
}

/* dx = scale (g - (mean_g + (x - mean) slope)) */
TN_HOT static void spread(const float *restrict g, const float *restrict x,
                          const float *restrict mean, const float *restrict scale,
                          const float *restrict mean_g, const float *restrict slope, float *dx,
                          int64_t rows, int64_t channels, bool accumulate)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels; c++) {
            int64_t i = r * channels + c;
            float d = scale[c] * (g[i] - mean_g[c] - (x[i] - mean[c]) * slope[c]);
            dx[i] = accumulate ? dx[i] + d : d;
        }
}

TN_HOT static void pass_on(const float *restrict g, float *restrict dx, int64_t n, bool accumulate)
{
    for (int64_t i = 0; i < n; i++)
        dx[i] = accumulate ? dx[i] + g[i] : g[i];
}

/* Workspace of a backward chunk: doubles sum, product; floats sum, product; a block of g. */
static size_t backward_chunk_bytes(int64_t channels)
{
    return chunk_bytes(channels) + (size_t)(BLOCK * channels) * sizeof(float);
}

static void chunk_sums(const batch_norm_kernel *k, const tn_arguments *args, int chunk)
{
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    int64_t channels = t->channels;
    double *sum =
        (double *)((char *)args->workspace + (size_t)chunk * backward_chunk_bytes(channels));
    float *block = (float *)(sum + 2 * channels), *g = block + 2 * channels;
    const float *mean = args->saved;
    memset(sum, 0, (size_t)(2 * channels) * sizeof(double));
    int64_t last = t->rows * (chunk + 1) / k->chunks;
    for (int64_t r = t->rows * chunk / k->chunks; r < last; r += BLOCK) {
        int64_t n = last - r < BLOCK ? last - r : BLOCK, at = r * channels;
        const float *from = gated(t, args, at, n, g);
        block_sums(from, args->src[0] + at, mean, n, channels, block, block + channels);
        for (int64_t c = 0; c < 2 * channels; c++)
            sum[c] += (double)block[c];
    }
}

/* Parameter gradients, and per channel scale, mean_g, slope at the workspace's end. */
static void finish_sums(const batch_norm_kernel *k, const tn_arguments *args, int chunks,
                        float *factors)
{
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    int64_t channels = t->channels;
    const float *saved = args->saved;
    for (int64_t c = 0; c < channels; c++) {
        double sum = 0.0, product = 0.0, inverse = (double)saved[channels + c];
        for (int i = 0; i < chunks; i++) {
            const double *s = (const double *)((char *)args->workspace +
                                               (size_t)i * backward_chunk_bytes(channels));
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
        factors[c] = args->params[0][c] * saved[channels + c];
        factors[channels + c] = k->batch_statistics ? (float)(sum / rows) : 0.0f;
        factors[2 * channels + c] =
            k->batch_statistics ? (float)(product * inverse * inverse / rows) : 0.0f;
    }
}

/* Block g buffers of the second pass reuse those of the first: one per chunk. */
static void chunk_spread(const batch_norm_kernel *k, const tn_arguments *args, const float *factors,
                         int chunk)
{
    const tn_batch_norm_task *t = &k->plain.task.batch_norm;
    int64_t channels = t->channels;
    double *sum =
        (double *)((char *)args->workspace + (size_t)chunk * backward_chunk_bytes(channels));
    float *g = (float *)(sum + 2 * channels) + 2 * channels;
    int64_t last = t->rows * (chunk + 1) / k->chunks;
    for (int64_t r = t->rows * chunk / k->chunks; r < last; r += BLOCK) {
        int64_t n = last - r < BLOCK ? last - r : BLOCK, at = r * channels;
        const float *from = gated(t, args, at, n, g);
        if (args->dsrc[0])
            spread(from, args->src[0] + at, args->saved, factors, factors + channels,
                   factors + 2 * channels, args->dsrc[0] + at, n, channels, args->accumulate[0]);
        if (t->residual && args->dsrc[1])
            pass_on(from, args->dsrc[1] + at, n * channels, args->accumulate[1]);
    }
}

static tn_status batch_norm_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const batch_norm_kernel *k = (const batch_norm_kernel *)kernel;
    int chunks = k->chunks;
    float *factors =
        (float *)((char *)args->workspace +
                  (size_t)chunks * backward_chunk_bytes(k->plain.task.batch_norm.channels));
    /* remembered statistics and parameters that are not trained: dx = dy * scale, no sums */
    const bool summed = k->batch_statistics || args->dparams[0] || args->dparams[1];
#pragma omp parallel for schedule(static) if (summed)
    for (int i = 0; i < (summed ? chunks : 0); i++)
        chunk_sums(k, args, i);
    finish_sums(k, args, summed ? chunks : 0, factors);
#pragma omp parallel for schedule(static)
    for (int i = 0; i < chunks; i++)
        chunk_spread(k, args, factors, i);
    return TN_OK;
}

static const tn_kernel_class batch_norm_class = {tn_cpu_kernel_destroy, NULL, batch_norm_forward,
                                                 batch_norm_backward};

tn_status tn_cpu_batch_norm_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                    tn_error *error)
{
    const tn_batch_norm_task *t = &task->batch_norm;
    size_t channels = (size_t)t->channels;
    tn_kernel *created;
    tn_status status = tn_cpu_kernel_create(
        device, task, &batch_norm_class, "omp",
        sizeof(batch_norm_kernel) + (size_t)t->n_parts * sizeof(int64_t), &created, error);
    if (status != TN_OK)
        return status;
    batch_norm_kernel *k = (batch_norm_kernel *)created;
    for (int i = 0; i < t->n_parts; i++)
        k->parts[i] = t->parts[i];
    k->plain.task.batch_norm.parts = k->parts;
    k->chunks = t->rows < TN_CPU_CHUNKS ? (t->rows > 0 ? (int)t->rows : 1) : TN_CPU_CHUNKS;
    created->saved_bytes = 5 * channels * sizeof(float); /* statistics, scale, shift */
    created->workspace_bytes = (size_t)k->chunks * chunk_bytes(t->channels);
    if (task->backward)
        created->workspace_bytes =
            (size_t)k->chunks * backward_chunk_bytes(t->channels) + 3 * channels * sizeof(float);
    created->reads_src = true;
    created->reads_dst = t->function != TN_FUNCTION_NONE && t->residual;
    *kernel = created;
    return TN_OK;
}
