#include "finetune/adaround.h"

#include "core/memory.h"
#include "finetune/grid.h"

#include <dnnl.h>
#include <math.h>

enum { STEPS = 400, BLOCK = 16 };

static const double RATE = 0.05, STRENGTH = 0.02, BETA_FIRST = 20, BETA_LAST = 2, WARMUP = 0.2;

/* Up to BLOCK rows of one group; arrays are [count, cols]. */
typedef struct rounding_block {
    const tn_gram *gram;
    const float *inner; /* the group's, in fp32 */
    int64_t first, count, cols;
    float *low;             /* value of the code below */
    float *step;            /* distance to the code above; 0 where there is none */
    float *choice;          /* a */
    float *value, *product; /* v and v G */
    float *moment, *square; /* Adam's */
} rounding_block;

enum { BLOCK_ARRAYS = 7 };

static float soft(float choice)
{
    float h = 1.2f / (1.0f + expf(-choice)) - 0.1f;
    return h < 0 ? 0 : h > 1 ? 1 : h;
}

/* The code below w, legal together with the one above where both are. */
static int code_below(const tn_qweight *weight, int64_t scale, double w)
{
    double zero = weight->zero ? (double)weight->zero[scale] : 0;
    double code = floor(w / (double)weight->scale[scale] + zero);
    int top = weight->high > weight->low ? weight->high - 1 : weight->low;
    return code < weight->low ? weight->low : code > top ? top : (int)code;
}

static void start(rounding_block *block, const float *w, const tn_qweight *weight)
{
    for (int64_t i = 0; i < block->count * block->cols; i++) {
        int64_t row = block->first + i / block->cols, col = i % block->cols;
        int64_t scale = tn_qweight_scale_index(weight, row, col);
        double wi = (double)w[row * block->cols + col];
        int below = code_below(weight, scale, wi);
        double value = tn_grid_value(weight, scale, below);
        double step = tn_grid_value(weight, scale, below + 1) - value;
        double h = (wi - value) / step;
        h = h < 0.01 ? 0.01 : h > 0.99 ? 0.99 : h;
        block->low[i] = (float)value;
        block->step[i] = (float)step;
        block->choice[i] = (float)-log(1.2 / (h + 0.1) - 1);
        block->moment[i] = block->square[i] = 0;
    }
}

/* One step of Adam on row-normalized error: a whole step of one weight counts about 1. */
static void learn(rounding_block *block, double progress, int number, double rate, double *unit)
{
    int64_t n = block->cols;
    double warm = (progress - WARMUP) / (1 - WARMUP);
    double beta = BETA_LAST + 0.5 * (BETA_FIRST - BETA_LAST) * (1 + cos(warm * 3.141592653589793));
    double correction1 = 1 - pow(0.9, number), correction2 = 1 - pow(0.999, number);
    for (int64_t r = 0; r < block->count; r++) {
        const double *cross = block->gram->cross + (block->first + r) * n;
        for (int64_t i = r * n; i < (r + 1) * n; i++) {
            double sigmoid = 1 / (1 + (double)expf(-block->choice[i]));
            double raw = 1.2 * sigmoid - 0.1, h = raw < 0 ? 0 : raw > 1 ? 1 : raw;
            double slope = raw <= 0 || raw >= 1 ? 0 : 1.2 * sigmoid * (1 - sigmoid);
            double gradient = 2 * (double)block->step[i] *
                              ((double)block->product[i] - cross[i - r * n]) / unit[r];
            if (progress > WARMUP) {
                double side = 2 * h - 1;
                gradient -= STRENGTH * 2 * beta * pow(fabs(side), beta - 1) * (side < 0 ? -1 : 1);
            }
            gradient *= slope;
            double m = 0.9 * (double)block->moment[i] + 0.1 * gradient;
            double s = 0.999 * (double)block->square[i] + 0.001 * gradient * gradient;
            block->moment[i] = (float)m;
            block->square[i] = (float)s;
            block->choice[i] -= (float)(rate * (m / correction1) / (sqrt(s / correction2) + 1e-8));
        }
    }
}

static bool run_block(rounding_block *block, const float *w, const tn_adaround_options *options,
                      tn_qweight *weight)
{
    int64_t n = block->cols;
    int steps = options->steps > 0 ? options->steps : STEPS;
    double rate = options->rate > 0 ? options->rate : RATE, unit[BLOCK];
    start(block, w, weight);
    for (int64_t r = 0; r < block->count; r++) {
        unit[r] = 0;
        for (int64_t i = 0; i < n; i++)
            unit[r] += (double)block->inner[i * (n + 1)] * (double)block->step[r * n + i] *
                       (double)block->step[r * n + i] / (double)n;
        if (!(unit[r] > 0))
            unit[r] = 1;
    }
    for (int t = 0; t < steps; t++) {
        for (int64_t i = 0; i < block->count * n; i++)
            block->value[i] = block->low[i] + soft(block->choice[i]) * block->step[i];
        if (dnnl_sgemm('N', 'N', block->count, n, n, 1.0f, block->value, n, block->inner, n, 0.0f,
                       block->product, n) != dnnl_success)
            return false;
        learn(block, (double)t / steps, t + 1, rate, unit);
    }
    for (int64_t i = 0; i < block->count * n; i++) {
        int64_t row = block->first + i / n, col = i % n;
        int64_t scale = tn_qweight_scale_index(weight, row, col);
        int below = code_below(weight, scale, (double)w[row * n + col]);
        weight->codes[row * n + col] = (int16_t)(below + (block->choice[i] > 0 ? 1 : 0));
    }
    return true;
}

/* All rows of one group: blocks of rows know nothing of each other. */
static bool run_group(const tn_gram *gram, int64_t group, const float *inner, const float *w,
                      const tn_adaround_options *options, float *memory, tn_qweight *weight)
{
    int64_t outputs = gram->rows / gram->groups, blocks = (outputs + BLOCK - 1) / BLOCK;
    bool fine = true;
#pragma omp parallel for schedule(dynamic) reduction(&& : fine)
    for (int64_t b = 0; b < blocks; b++) {
        int64_t size = BLOCK * gram->cols, rest = outputs - b * BLOCK;
        float *own = memory + b * BLOCK_ARRAYS * size;
        rounding_block block = {.gram = gram,
                                .inner = inner,
                                .first = group * outputs + b * BLOCK,
                                .count = rest < BLOCK ? rest : BLOCK,
                                .cols = gram->cols,
                                .low = own,
                                .step = own + size,
                                .choice = own + 2 * size,
                                .value = own + 3 * size,
                                .product = own + 4 * size,
                                .moment = own + 5 * size,
                                .square = own + 6 * size};
        fine = run_block(&block, w, options, weight) && fine;
    }
    return fine;
}

tn_status tn_adaround(const tn_gram *gram, const float *w, const tn_adaround_options *options,
                      tn_qweight *weight, tn_error *error)
{
    if (weight->scale_neg)
        return tn_fail(error, TN_ERROR_USAGE,
                       "learned rounding works with one scale, not with two (use method cd)");
    tn_adaround_options defaults = {0};
    int64_t n = gram->cols, outputs = gram->rows / gram->groups;
    int64_t blocks = (outputs + BLOCK - 1) / BLOCK;
    float *inner = tn_alloc_array((size_t)(n * n), sizeof *inner);
    float *memory = tn_alloc_array((size_t)(blocks * BLOCK * n), BLOCK_ARRAYS * sizeof *memory);
    tn_status status = TN_OK;
    if (!inner || !memory)
        status = tn_fail(error, TN_ERROR_LIMIT, "no memory to learn the rounding of %lld inputs",
                         (long long)n);
    for (int64_t g = 0; status == TN_OK && g < gram->groups; g++) {
        for (int64_t i = 0; i < n * n; i++)
            inner[i] = (float)gram->inner[g * n * n + i];
        if (!run_group(gram, g, inner, w, options ? options : &defaults, memory, weight))
            status = tn_fail(error, TN_ERROR_DEVICE, "oneDNN's sgemm failed");
    }
    tn_free(inner);
    tn_free(memory);
    return status;
}
