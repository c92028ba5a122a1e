#include "oracle.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

/* --- functions ------------------------------------------------------------------------------- */

static double clamp(double x, double low, double high)
{
    return x < low ? low : x > high ? high : x;
}

static double value_of(tn_function f, double a, double b, double x)
{
    switch (f) {
    case TN_FUNCTION_RELU:
        return x > 0.0 ? x : 0.0;
    case TN_FUNCTION_CLIP:
        return clamp(x, a, b);
    case TN_FUNCTION_LEAKY_RELU:
        return x < 0.0 ? a * x : x;
    case TN_FUNCTION_SIGMOID:
        return 1.0 / (1.0 + exp(-x));
    case TN_FUNCTION_HARD_SIGMOID:
        return clamp(a * x + b, 0.0, 1.0);
    case TN_FUNCTION_HARD_SWISH:
        return x * clamp(x / 6.0 + 0.5, 0.0, 1.0);
    case TN_FUNCTION_TANH:
        return tanh(x);
    case TN_FUNCTION_ELU:
        return x < 0.0 ? a * (exp(x) - 1.0) : x;
    case TN_FUNCTION_EXP:
        return exp(x);
    case TN_FUNCTION_ABS:
        return fabs(x);
    case TN_FUNCTION_NEG:
        return -x;
    default:
        return x;
    }
}

static double slope_of(tn_function f, double a, double b, double x)
{
    switch (f) {
    case TN_FUNCTION_RELU:
        return x > 0.0 ? 1.0 : 0.0;
    case TN_FUNCTION_CLIP:
        return x > a && x < b ? 1.0 : 0.0;
    case TN_FUNCTION_LEAKY_RELU:
        return x < 0.0 ? a : 1.0;
    case TN_FUNCTION_SIGMOID:
        return value_of(f, a, b, x) * (1.0 - value_of(f, a, b, x));
    case TN_FUNCTION_HARD_SIGMOID:
        return a * x + b > 0.0 && a * x + b < 1.0 ? a : 0.0;
    case TN_FUNCTION_HARD_SWISH:
        return x <= -3.0 ? 0.0 : x >= 3.0 ? 1.0 : x / 3.0 + 0.5;
    case TN_FUNCTION_TANH:
        return 1.0 - tanh(x) * tanh(x);
    case TN_FUNCTION_ELU:
        return x < 0.0 ? a * exp(x) : 1.0;
    case TN_FUNCTION_EXP:
        return exp(x);
    case TN_FUNCTION_ABS:
        return x > 0.0 ? 1.0 : -1.0;
    case TN_FUNCTION_NEG:
        return -1.0;
    default:
        return 1.0;
    }
}

static void clear(oracle *o)
{
    for (int i = 0; i < o->n_src; i++)
        memset(o->dsrc[i], 0, (size_t)o->src_count[i] * sizeof(double));
    for (int i = 0; i < o->n_params; i++)
        memset(o->dparams[i], 0, (size_t)o->param_count[i] * sizeof(double));
}

/* --- convolution ----------------------------------------------------------------------------- */

static void coordinates(int64_t index, int n, const int64_t *dims, int64_t *at)
{
    for (int i = n - 1; i >= 0; i--) {
        at[i] = index % dims[i];
        index /= dims[i];
    }
}

static int64_t product(const int64_t *dims, int n)
{
    int64_t p = 1;
    for (int i = 0; i < n; i++)
        p *= dims[i];
    return p;
}

/* Calls for every (output, input, weight) triple that meets; before the function: the sum. */
static void conv_pass(oracle *o, const double *dy, double *sum)
{
    const tn_conv_task *t = &o->task->conv;
    int64_t in = product(t->in, t->spatial), out = product(t->out, t->spatial);
    int64_t cells = product(t->kernel, t->spatial);
    int64_t per_in = t->in_channels / t->group, per_out = t->out_channels / t->group;
    for (int64_t n = 0; n < t->batch; n++)
        for (int64_t p = 0; p < out; p++)
            for (int64_t c = 0; c < t->out_channels; c++)
                for (int64_t cell = 0; cell < cells; cell++) {
                    int64_t at[3], k[3], pixel = 0;
                    bool inside = true;
                    coordinates(p, t->spatial, t->out, at);
                    coordinates(cell, t->spatial, t->kernel, k);
                    for (int i = 0; i < t->spatial; i++) {
                        int64_t x = at[i] * t->stride[i] - t->pad_begin[i] + k[i] * t->dilation[i];
                        inside = inside && x >= 0 && x < t->in[i];
                        pixel = pixel * t->in[i] + x;
                    }
                    for (int64_t i = 0; inside && i < per_in; i++) {
                        int64_t y = (n * out + p) * t->out_channels + c;
                        int64_t x = (n * in + pixel) * t->in_channels + c / per_out * per_in + i;
                        int64_t w = (c * per_in + i) * cells + cell;
                        if (sum) {
                            sum[y] += o->src[0][x] * o->params[0][w];
                        } else {
                            o->dsrc[0][x] += dy[y] * o->params[0][w];
                            o->dparams[0][w] += dy[y] * o->src[0][x];
                        }
                    }
                }
}

static void conv_forward(oracle *o)
{
    const tn_conv_task *t = &o->task->conv;
    memset(o->dst, 0, (size_t)o->dst_count * sizeof(double));
    conv_pass(o, NULL, o->dst);
    int bn = t->bias ? 2 : 1;
    for (int64_t i = 0; i < o->dst_count; i++) {
        int64_t c = i % t->out_channels;
        double y = o->dst[i] + (t->bias ? o->params[1][c] : 0.0);
        if (t->fold)
            y = (y - o->params[bn + 2][c]) / sqrt(o->params[bn + 3][c] + (double)t->epsilon) *
                    o->params[bn][c] +
                o->params[bn + 1][c];
        if (t->residual)
            y += o->src[1][i];
        o->dst[i] = value_of(t->function, (double)t->a, (double)t->b, y);
    }
}

static void conv_backward(oracle *o)
{
    const tn_conv_task *t = &o->task->conv;
    conv_pass(o, o->ddst, NULL);
    for (int64_t i = 0; t->bias && i < o->dst_count; i++)
        o->dparams[1][i % t->out_channels] += o->ddst[i];
}

/* --- matrix product -------------------------------------------------------------------------- */

typedef struct cell { /* of c, in the operand's own layout */
    double *value, *gradient;
} cell;

static cell gemm_c(oracle *o, int64_t m, int64_t n)
{
    const tn_gemm_task *t = &o->task->gemm;
    int param = t->const_b ? 1 : 0, src = t->const_b ? 1 : 2;
    int64_t at = (t->c_rows == 1 ? 0 : m * t->c_cols) + (t->c_cols == 1 ? 0 : n);
    if (t->const_c)
        return (cell){o->params[param] + at, o->dparams[param] ? o->dparams[param] + at : NULL};
    return (cell){o->src[src] + at, o->dsrc[src] ? o->dsrc[src] + at : NULL};
}

static void gemm_pass(oracle *o, const double *dy)
{
    const tn_gemm_task *t = &o->task->gemm;
    const double *b = t->const_b ? o->params[0] : o->src[1];
    double *db = t->const_b ? o->dparams[0] : o->dsrc[1], alpha = (double)t->alpha;
    for (int64_t i = 0; i < o->dst_count; i++) {
        int64_t batch = i / (t->m * t->n), m = i / t->n % t->m, n = i % t->n;
        double sum = 0.0;
        for (int64_t k = 0; k < t->k; k++) {
            int64_t ai = batch * t->m * t->k + (t->trans_a ? k * t->m + m : m * t->k + k);
            int64_t bi = (t->shared_b ? 0 : batch * t->k * t->n) +
                         (t->trans_b ? n * t->k + k : k * t->n + n);
            sum += o->src[0][ai] * b[bi];
            if (dy) {
                o->dsrc[0][ai] += alpha * dy[i] * b[bi];
                db[bi] += alpha * dy[i] * o->src[0][ai];
            }
        }
        cell c = t->has_c ? gemm_c(o, m, n) : (cell){NULL, NULL};
        if (dy && t->has_c)
            *c.gradient += (double)t->beta * dy[i];
        if (!dy)
            o->dst[i] = value_of(t->function, (double)t->a, (double)t->b,
                                 alpha * sum + (t->has_c ? (double)t->beta * *c.value : 0.0));
    }
}

/* --- codes of activations -------------------------------------------------------------------- */

/* Divided as devices do: what is at a tie there is at one here. */
static double in_steps(double x, double s)
{
    return (double)((float)x / (float)s);
}

static double code_value(const tn_fake_quantize_task *t, double x, double s)
{
    return clamp(rint(in_steps(x, s)), (double)t->low, (double)t->high) * s;
}

/* What dy is by x; *slope: the derivative by the step. */
static double code_gradient(const tn_fake_quantize_task *t, double x, double s, double dy,
                            double *slope)
{
    double v = in_steps(x, s);
    bool inside = v >= (double)t->low && v <= (double)t->high;
    double edge = v < 0 ? (double)t->low : (double)t->high;
    *slope = !inside ? edge : t->clip_only ? 0.0 : rint(v) - v;
    return inside ? dy : 0.0;
}

/* --- batch norm ------------------------------------------------------------------------------ */

/* Element i of x or its gradient, which may lie in parts. */
static double *batch_norm_source(double *const *src, const tn_batch_norm_task *t, int64_t i)
{
    int64_t r = i / t->channels, c = i % t->channels;
    int p = 0;
    if (t->n_parts == 0)
        return &src[0][i];
    while (c >= t->parts[p])
        c -= t->parts[p++];
    return &src[p][r * t->parts[p] + c];
}

static void statistics(const oracle *o, int64_t c, double *mean, double *variance)
{
    const tn_batch_norm_task *t = &o->task->batch_norm;
    *mean = o->params[2][c];
    *variance = o->params[3][c];
    if (!o->training)
        return;
    *mean = *variance = 0.0;
    for (int64_t r = 0; r < t->rows; r++)
        *mean += *batch_norm_source(o->src, t, r * t->channels + c) / (double)t->rows;
    for (int64_t r = 0; r < t->rows; r++)
        *variance +=
            pow(*batch_norm_source(o->src, t, r * t->channels + c) - *mean, 2.0) / (double)t->rows;
}

double oracle_gain(const oracle *o)
{
    const tn_batch_norm_task *t = &o->task->batch_norm;
    double gain = 1.0, mean, variance;
    for (int64_t c = 0; o->task->verb == TN_VERB_BATCH_NORM && c < t->channels; c++) {
        statistics(o, c, &mean, &variance);
        gain = fmax(gain, fabs(o->params[0][c]) / sqrt(variance + (double)t->epsilon));
    }
    return gain;
}

static double batch_norm_sum(const oracle *o, int64_t i, double mean, double variance)
{
    const tn_batch_norm_task *t = &o->task->batch_norm;
    int64_t c = i % t->channels;
    double y = (*batch_norm_source(o->src, t, i) - mean) / sqrt(variance + (double)t->epsilon) *
                   o->params[0][c] +
               o->params[1][c];
    return t->residual ? y + o->src[1][i] : y;
}

static void batch_norm_forward(oracle *o)
{
    const tn_batch_norm_task *t = &o->task->batch_norm;
    for (int64_t c = 0; c < t->channels; c++) {
        double mean, variance;
        statistics(o, c, &mean, &variance);
        for (int64_t i = c; i < o->dst_count; i += t->channels) {
            o->dst[i] = value_of(t->function, (double)t->a, (double)t->b,
                                 batch_norm_sum(o, i, mean, variance));
            if (t->codes)
                o->dst[i] = code_value(&t->quantize, o->dst[i], o->params[4][0]);
        }
    }
}

static void batch_norm_backward(oracle *o)
{
    const tn_batch_norm_task *t = &o->task->batch_norm;
    double rows = (double)t->rows;
    for (int64_t c = 0; c < t->channels; c++) {
        double mean, variance, sum_g = 0.0, sum_gx = 0.0;
        statistics(o, c, &mean, &variance);
        double inverse = 1.0 / sqrt(variance + (double)t->epsilon);
        for (int pass = 0; pass < 2; pass++)
            for (int64_t i = c; i < o->dst_count; i += t->channels) {
                double y = batch_norm_sum(o, i, mean, variance);
                double dy = o->ddst[i], slope = 0.0;
                if (t->codes)
                    dy = code_gradient(&t->quantize,
                                       value_of(t->function, (double)t->a, (double)t->b, y),
                                       o->params[4][0], dy, &slope);
                double g = dy * slope_of(t->function, (double)t->a, (double)t->b, y);
                double x = (*batch_norm_source(o->src, t, i) - mean) * inverse;
                if (pass == 0) {
                    if (t->codes)
                        o->dparams[4][0] += (double)t->quantize.step_factor * o->ddst[i] * slope;
                    sum_g += g;
                    sum_gx += g * x;
                    if (t->residual)
                        o->dsrc[1][i] = g;
                } else {
                    double centre = o->training ? sum_g / rows + x * sum_gx / rows : 0.0;
                    *batch_norm_source(o->dsrc, t, i) = o->params[0][c] * inverse * (g - centre);
                }
            }
        o->dparams[0][c] = sum_gx;
        o->dparams[1][c] = sum_g;
    }
}

/* --- pooling --------------------------------------------------------------------------------- */

static void pool_pass(oracle *o, const double *dy)
{
    const tn_pool_task *t = &o->task->pool;
    int64_t in = product(t->in, t->spatial), out = product(t->out, t->spatial);
    int64_t cells = product(t->kernel, t->spatial);
    for (int64_t y = 0; y < o->dst_count; y++) {
        int64_t c = y % t->channels, p = y / t->channels % out, n = y / t->channels / out;
        int64_t best = -1, count = 0, at[3], k[3];
        double sum = 0.0, most = -(double)INFINITY;
        for (int pass = 0; pass < (dy ? 2 : 1); pass++)
            for (int64_t cell_index = 0; cell_index < cells; cell_index++) {
                bool inside = true, padded = true;
                int64_t pixel = 0;
                coordinates(p, t->spatial, t->out, at);
                coordinates(cell_index, t->spatial, t->kernel, k);
                for (int i = 0; i < t->spatial; i++) {
                    int64_t x = at[i] * t->stride[i] - t->pad_begin[i] + k[i] * t->dilation[i];
                    inside = inside && x >= 0 && x < t->in[i];
                    padded = padded && x < t->in[i] + t->pad_end[i];
                    pixel = pixel * t->in[i] + x;
                }
                int64_t x = (n * in + pixel) * t->channels + c;
                if (pass == 0)
                    count += t->count_include_pad ? padded : inside;
                if (pass == 0 && inside) {
                    sum += o->src[0][x];
                    if (o->src[0][x] > most) {
                        most = o->src[0][x];
                        best = x;
                    }
                }
                if (pass == 1 && inside && !t->max)
                    o->dsrc[0][x] += dy[y] / (double)count;
            }
        if (dy && t->max && best >= 0)
            o->dsrc[0][best] += dy[y];
        if (!dy)
            o->dst[y] = t->max ? most : sum / (double)count;
    }
}

/* --- elementwise ----------------------------------------------------------------------------- */

static int64_t broadcast_index(const tn_extent *dst, const tn_extent *operand, int64_t index)
{
    int64_t at[TN_MAX_RANK], i = 0;
    coordinates(index, dst->rank, dst->dims, at);
    for (int d = 0; d < dst->rank; d++)
        i = i * operand->dims[d] + (operand->dims[d] == 1 ? 0 : at[d]);
    return i;
}

static double binary_value(tn_binary_kind kind, double a, double b)
{
    switch (kind) {
    case TN_BINARY_ADD:
        return a + b;
    case TN_BINARY_SUB:
        return a - b;
    case TN_BINARY_MUL:
        return a * b;
    case TN_BINARY_DIV:
        return a / b;
    case TN_BINARY_MAX:
        return a > b ? a : b;
    case TN_BINARY_MIN:
        return a < b ? a : b;
    case TN_BINARY_POW:
        return pow(a, b);
    default:
        return a < 0.0 ? a * b : a;
    }
}

static void binary_slopes(tn_binary_kind kind, double a, double b, double *da, double *db)
{
    bool first = kind == TN_BINARY_MAX ? a > b : a < b;
    *da = kind == TN_BINARY_MUL   ? b
          : kind == TN_BINARY_DIV ? 1.0 / b
          : kind == TN_BINARY_POW ? b * pow(a, b - 1.0)
                                  : 1.0;
    *db = kind == TN_BINARY_SUB   ? -1.0
          : kind == TN_BINARY_MUL ? a
          : kind == TN_BINARY_DIV ? -a / (b * b)
          : kind == TN_BINARY_POW ? pow(a, b) * log(a)
                                  : 1.0;
    if (kind == TN_BINARY_MAX || kind == TN_BINARY_MIN) {
        *da = first ? 1.0 : 0.0;
        *db = first ? 0.0 : 1.0;
    } else if (kind == TN_BINARY_PRELU) {
        *da = a < 0.0 ? b : 1.0;
        *db = a < 0.0 ? a : 0.0;
    }
}

static void binary_pass(oracle *o, const double *dy)
{
    const tn_binary_task *t = &o->task->binary;
    for (int64_t i = 0; i < o->dst_count; i++) {
        int64_t ai = broadcast_index(&t->dst, &t->a, i), bi = broadcast_index(&t->dst, &t->b, i);
        double a = o->src[0][ai], b = o->src[1][bi], da, db;
        double y = binary_value(t->kind, a, b);
        if (!dy) {
            o->dst[i] = value_of(t->function, 0.0, 0.0, y);
            continue;
        }
        binary_slopes(t->kind, a, b, &da, &db);
        double g = dy[i] * slope_of(t->function, 0.0, 0.0, y);
        o->dsrc[0][ai] += g * da;
        o->dsrc[1][bi] += g * db;
    }
}

static void unary_pass(oracle *o, const double *dy)
{
    const tn_unary_task *t = &o->task->unary;
    for (int64_t i = 0; i < o->dst_count; i++)
        if (dy)
            o->dsrc[0][i] = dy[i] * slope_of(t->function, (double)t->a, (double)t->b, o->src[0][i]);
        else
            o->dst[i] = value_of(t->function, (double)t->a, (double)t->b, o->src[0][i]);
}

/* --- movement: each output is one input, or the padding -------------------------------------- */

/* The input element (and which operand) that output i copies; -1: none. */
static int64_t moved_from(const oracle *o, int64_t i, int *operand)
{
    int64_t at[TN_MAX_RANK], from = 0;
    const tn_task *task = o->task;
    *operand = 0;
    if (task->verb == TN_VERB_CONCAT) {
        int64_t total = 0;
        for (int k = 0; k < task->concat.n; k++)
            total += task->concat.inner[k];
        int64_t row = i / total, col = i % total;
        while (col >= task->concat.inner[*operand])
            col -= task->concat.inner[(*operand)++];
        return row * task->concat.inner[*operand] + col;
    }
    if (task->verb == TN_VERB_TRANSPOSE) {
        const tn_transpose_task *t = &task->transpose;
        int64_t dims[TN_MAX_RANK], back[TN_MAX_RANK] = {0};
        for (int d = 0; d < t->src.rank; d++)
            dims[d] = t->src.dims[t->permutation[d]];
        coordinates(i, t->src.rank, dims, at);
        for (int d = 0; d < t->src.rank; d++)
            back[t->permutation[d]] = at[d];
        for (int d = 0; d < t->src.rank; d++)
            from = from * t->src.dims[d] + back[d];
        return from;
    }
    bool slice = task->verb == TN_VERB_SLICE;
    const tn_extent *src = slice ? &task->slice.src : &task->pad.src;
    const tn_extent *dst = slice ? &task->slice.dst : &task->pad.dst;
    coordinates(i, dst->rank, dst->dims, at);
    for (int d = 0; d < dst->rank; d++) {
        int64_t x =
            slice ? task->slice.start[d] + at[d] * task->slice.step[d] : at[d] - task->pad.begin[d];
        if (x < 0 || x >= src->dims[d])
            return -1;
        from = from * src->dims[d] + x;
    }
    return from;
}

static void movement_pass(oracle *o, const double *dy)
{
    for (int64_t i = 0; i < o->dst_count; i++) {
        int operand;
        int64_t from = moved_from(o, i, &operand);
        if (!dy)
            o->dst[i] = from < 0 ? (double)o->task->pad.value : o->src[operand][from];
        else if (from >= 0)
            o->dsrc[operand][from] += dy[i];
    }
}

/* --- reductions ------------------------------------------------------------------------------ */

static void reduce_pass(oracle *o, const double *dy)
{
    const tn_reduce_task *t = &o->task->reduce;
    double scale = t->kind == TN_REDUCE_MEAN ? 1.0 / (double)t->reduced : 1.0;
    for (int64_t i = 0; i < o->dst_count; i++) {
        double sum = 0.0, most = -(double)INFINITY;
        for (int64_t r = 0; r < t->reduced; r++) {
            int64_t x = (i / t->inner * t->reduced + r) * t->inner + i % t->inner;
            sum += o->src[0][x] * scale;
            most = o->src[0][x] > most ? o->src[0][x] : most;
            if (dy)
                o->dsrc[0][x] = dy[i] * scale;
        }
        if (!dy)
            o->dst[i] = t->kind == TN_REDUCE_MAX ? most : sum;
    }
}

static void softmax_pass(oracle *o, const double *dy)
{
    const tn_softmax_task *t = &o->task->softmax;
    for (int64_t i = 0; i < t->outer * t->inner; i++) {
        int64_t first = i / t->inner * t->axis * t->inner + i % t->inner;
        double sum = 0.0, most = -(double)INFINITY;
        for (int64_t j = 0; j < t->axis; j++)
            most = fmax(most, o->src[0][first + j * t->inner]);
        for (int64_t j = 0; j < t->axis; j++)
            sum += exp(o->src[0][first + j * t->inner] - most);
        for (int64_t j = 0; j < t->axis; j++) {
            int64_t x = first + j * t->inner;
            double p = exp(o->src[0][x] - most) / sum;
            if (!dy) {
                o->dst[x] = t->log ? o->src[0][x] - most - log(sum) : p;
                continue;
            }
            for (int64_t k = 0; k < t->axis; k++) {
                int64_t y = first + k * t->inner;
                double q = exp(o->src[0][y] - most) / sum, same = j == k ? 1.0 : 0.0;
                o->dsrc[0][x] += dy[y] * (t->log ? same - p : q * (same - p));
            }
        }
    }
}

static void lrn_pass(oracle *o, const double *dy)
{
    const tn_lrn_task *t = &o->task->lrn;
    double factor = (double)t->alpha / (double)t->size;
    for (int64_t i = 0; i < o->dst_count; i++) {
        int64_t row = i / t->channels * t->channels, c = i % t->channels;
        int64_t low = c - (t->size - 1) / 2, high = c + t->size / 2;
        double sum = (double)t->bias;
        low = low < 0 ? 0 : low;
        high = high > t->channels - 1 ? t->channels - 1 : high;
        for (int64_t k = low; k <= high; k++)
            sum += factor * o->src[0][row + k] * o->src[0][row + k];
        double power = pow(sum, -(double)t->beta);
        if (!dy) {
            o->dst[i] = o->src[0][i] * power;
            continue;
        }
        o->dsrc[0][i] += dy[i] * power;
        for (int64_t k = low; k <= high; k++)
            o->dsrc[0][row + k] -= dy[i] * o->src[0][i] * (double)t->beta * power / sum * 2.0 *
                                   factor * o->src[0][row + k];
    }
}

static void quantize_forward(oracle *o)
{
    const tn_quantize_task *t = &o->task->quantize;
    for (int64_t i = 0; i < o->dst_count; i++) {
        int64_t axis = i / t->inner % t->axis;
        double scale = o->src[1][axis], zero = t->zero ? o->src[2][axis] : 0.0;
        if (o->task->verb == TN_VERB_QUANTIZE)
            o->dst[i] = clamp(rint((double)((float)o->src[0][i] / (float)scale)) + zero,
                              (double)t->low, (double)t->high);
        else
            o->dst[i] = (o->src[0][i] - zero) * scale;
    }
}

/* round(v) - v and the code (NaN inside the range) of every element. */
void oracle_freeze(oracle *o, double *frozen)
{
    const tn_fake_quantize_task *t = &o->task->fake_quantize;
    for (int64_t i = 0; i < t->count; i++) {
        double v = in_steps(o->src[0][i], o->params[0][0]);
        bool inside = v >= (double)t->low && v <= (double)t->high;
        frozen[i] = inside && !t->clip_only ? rint(v) - v : 0.0;
        frozen[t->count + i] = inside ? (double)NAN : v < 0 ? (double)t->low : (double)t->high;
    }
    o->frozen = frozen;
}

static void fake_quantize_pass(oracle *o, const double *dy)
{
    const tn_fake_quantize_task *t = &o->task->fake_quantize;
    double s = o->params[0][0];
    for (int64_t i = 0; i < t->count; i++) {
        if (dy) {
            double slope;
            o->dsrc[0][i] = code_gradient(t, o->src[0][i], s, dy[i], &slope);
            o->dparams[0][0] += (double)t->step_factor * dy[i] * slope;
        } else if (o->frozen) {
            double code = o->frozen[t->count + i];
            o->dst[i] = isnan(code) ? o->src[0][i] + o->frozen[i] * s : code * s;
        } else {
            o->dst[i] = code_value(t, o->src[0][i], s);
        }
    }
}

/* --- all ------------------------------------------------------------------------------------- */

bool oracle_has_backward(const tn_task *task)
{
    switch (task->verb) {
    case TN_VERB_CONV:
        return task->conv.function == TN_FUNCTION_NONE && !task->conv.fold && !task->conv.residual;
    case TN_VERB_GEMM:
        return task->gemm.function == TN_FUNCTION_NONE;
    case TN_VERB_REDUCE:
        return task->reduce.kind != TN_REDUCE_MAX;
    case TN_VERB_PAD:
        return task->pad.mode == TN_PAD_CONSTANT;
    case TN_VERB_QUANTIZE:
    case TN_VERB_DEQUANTIZE:
    case TN_VERB_LOSS:
        return false;
    default:
        return true;
    }
}

static void pass(oracle *o, const double *dy)
{
    switch (o->task->verb) {
    case TN_VERB_GEMM:
        gemm_pass(o, dy);
        break;
    case TN_VERB_POOL:
        pool_pass(o, dy);
        break;
    case TN_VERB_UNARY:
        unary_pass(o, dy);
        break;
    case TN_VERB_BINARY:
        binary_pass(o, dy);
        break;
    case TN_VERB_REDUCE:
        reduce_pass(o, dy);
        break;
    case TN_VERB_SOFTMAX:
        softmax_pass(o, dy);
        break;
    case TN_VERB_LRN:
        lrn_pass(o, dy);
        break;
    case TN_VERB_FAKE_QUANTIZE:
        fake_quantize_pass(o, dy);
        break;
    default:
        movement_pass(o, dy);
    }
}

void oracle_forward(oracle *o)
{
    if (o->task->verb == TN_VERB_CONV)
        conv_forward(o);
    else if (o->task->verb == TN_VERB_BATCH_NORM)
        batch_norm_forward(o);
    else if (o->task->verb == TN_VERB_QUANTIZE || o->task->verb == TN_VERB_DEQUANTIZE)
        quantize_forward(o);
    else
        pass(o, NULL);
}

void oracle_backward(oracle *o)
{
    clear(o);
    if (o->task->verb == TN_VERB_CONV)
        conv_backward(o);
    else if (o->task->verb == TN_VERB_BATCH_NORM)
        batch_norm_backward(o);
    else
        pass(o, o->ddst);
}

static void softmax_at(const double *row, int64_t n, double temperature, double *p)
{
    double sum = 0.0, most = -(double)INFINITY;
    for (int64_t i = 0; i < n; i++)
        most = fmax(most, row[i] / temperature);
    for (int64_t i = 0; i < n; i++)
        sum += exp(row[i] / temperature - most);
    for (int64_t i = 0; i < n; i++)
        p[i] = exp(row[i] / temperature - most) / sum;
}

static double target_at(const oracle_targets *t, int64_t r, int64_t i, int64_t n)
{
    double mix = t->partners && t->partners[r] >= 0 ? t->mix[r] : 0.0;
    double one_hot =
        (i == t->labels[r] ? 1.0 - mix : 0.0) + (t->partners && i == t->partners[r] ? mix : 0.0);
    return t->smoothing / (double)n + (1.0 - t->smoothing) * one_hot;
}

double oracle_loss(oracle *o, const oracle_targets *t)
{
    double temperature = t->temperature, scale = t->scale;
    int64_t n = o->task->loss.classes;
    double loss = 0.0, *p = malloc((size_t)(3 * n) * sizeof(double)), *q = p + n, *s = q + n;
    double w = o->src[1] ? t->weight : 0.0;
    memset(o->dsrc[0], 0, (size_t)o->src_count[0] * sizeof(double));
    for (int64_t r = 0; r < t->count && p; r++) {
        const double *x = o->src[0] + r * n;
        softmax_at(x, n, 1.0, p);
        for (int64_t i = 0; i < n && t->labels[r] >= 0; i++) {
            double target = target_at(t, r, i, n);
            loss -= (1.0 - w) * target * log(p[i]);
            o->dsrc[0][r * n + i] += scale * (1.0 - w) * (p[i] - target);
        }
        if (!o->src[1])
            continue;
        softmax_at(x, n, temperature, q);
        softmax_at(o->src[1] + r * n, n, temperature, s);
        for (int64_t i = 0; i < n; i++) {
            loss += w * temperature * temperature * s[i] * log(s[i] / q[i]);
            o->dsrc[0][r * n + i] += scale * w * temperature * (q[i] - s[i]);
        }
    }
    free(p);
    return loss;
}
