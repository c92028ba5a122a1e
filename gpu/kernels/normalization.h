/* Batch norm bodies: two passes each way, sums by thread (chunk of rows, channel), added in the
 * order of the chunks. */
#ifndef TERNION_GPU_KERNELS_NORMALIZATION_H
#define TERNION_GPU_KERNELS_NORMALIZATION_H

#include "gpu/body.h"

typedef struct tn_norm_args {
    const float *x, *y, *dy, *residual;
    const float *gamma, *beta, *mean, *var; /* running statistics of inference */
    float *dst;                             /* y, or dx */
    float *dresidual;
    float *running_mean, *running_var;
    float *saved;    /* [3, channels]: mean, 1 / sqrt(var + epsilon), var */
    float *factors;  /* [3, channels]: of the second pass */
    double *partial; /* [chunks, 2, channels] */
    float *dgamma, *dbeta;
    int64_t rows, channels;
    int chunks;
    bool training, move, accumulate, accumulate_residual, accumulate_params, gated;
    float epsilon, keep, low, high;
} tn_norm_args;

/* Shifted sums of a chunk: the shift is the chunk's first row, close enough to its mean. */
TN_BODY void tn_norm_statistics_body(const tn_norm_args *k, int64_t i)
{
    int64_t c = i % k->channels, chunk = i / k->channels;
    int64_t first = k->rows * chunk / k->chunks, last = k->rows * (chunk + 1) / k->chunks;
    double shift = first < last ? (double)k->x[first * k->channels + c] : 0.0;
    double sum = 0.0, square = 0.0, n = (double)(last - first);
    for (int64_t r = first; r < last; r++) {
        double d = (double)k->x[r * k->channels + c] - shift;
        sum += d;
        square += d * d;
    }
    double *to = k->partial + 2 * chunk * k->channels + c;
    to[0] = n > 0.0 ? shift + sum / n : 0.0;
    to[k->channels] = n > 0.0 ? square - sum * sum / n : 0.0;
}

/* Merges the chunks (Chan's formula), or takes the running statistics; moves the running ones;
 * leaves scale and shift in factors. */
TN_BODY void tn_norm_finish_body(const tn_norm_args *k, int64_t c)
{
    int64_t channels = k->channels;
    double mean = 0.0, square = 0.0, count = 0.0, variance, rows = (double)k->rows;
    if (k->training) {
        for (int chunk = 0; chunk < k->chunks; chunk++) {
            const double *from = k->partial + 2 * chunk * channels + c;
            double n = (double)(k->rows * (chunk + 1) / k->chunks - k->rows * chunk / k->chunks);
            double d = from[0] - mean, total = count + n;
            if (n > 0.0) {
                mean += d * (n / total);
                square += from[channels] + d * d * (count * n / total);
                count = total;
            }
        }
        variance = square / rows;
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
    double scale = (double)k->gamma[c] * (double)k->saved[channels + c];
    k->factors[c] = (float)scale;
    k->factors[channels + c] = (float)((double)k->beta[c] - (double)k->saved[c] * scale);
}

TN_BODY void tn_norm_apply_body(const tn_norm_args *k, int64_t i)
{
    int64_t c = i % k->channels;
    float v = k->x[i] * k->factors[c] + k->factors[k->channels + c];
    if (k->residual)
        v += k->residual[i];
    v = v < k->low ? k->low : v;
    k->dst[i] = v > k->high ? k->high : v;
}

/* dy where the function let it through */
TN_BODY float tn_norm_gate(const tn_norm_args *k, int64_t i)
{
    return !k->gated || (k->y[i] > k->low && k->y[i] < k->high) ? k->dy[i] : 0.0f;
}

TN_BODY void tn_norm_sums_body(const tn_norm_args *k, int64_t i)
{
    int64_t c = i % k->channels, chunk = i / k->channels;
    int64_t first = k->rows * chunk / k->chunks, last = k->rows * (chunk + 1) / k->chunks;
    float mean = k->saved[c];
    double sum = 0.0, product = 0.0;
    for (int64_t r = first; r < last; r++) {
        int64_t at = r * k->channels + c;
        double g = (double)tn_norm_gate(k, at);
        sum += g;
        product += g * (double)(k->x[at] - mean);
    }
    k->partial[2 * chunk * k->channels + c] = sum;
    k->partial[(2 * chunk + 1) * k->channels + c] = product;
}

/* Parameter gradients, and what the second pass needs per channel: scale, mean of g, slope. */
TN_BODY void tn_norm_gradients_body(const tn_norm_args *k, int64_t c)
{
    int64_t channels = k->channels;
    double sum = 0.0, product = 0.0, inverse = (double)k->saved[channels + c];
    double rows = (double)k->rows;
    for (int chunk = 0; chunk < k->chunks; chunk++) {
        sum += k->partial[2 * chunk * channels + c];
        product += k->partial[(2 * chunk + 1) * channels + c];
    }
    if (k->dgamma)
        k->dgamma[c] = (float)(product * inverse) + (k->accumulate_params ? k->dgamma[c] : 0.0f);
    if (k->dbeta)
        k->dbeta[c] = (float)sum + (k->accumulate_params ? k->dbeta[c] : 0.0f);
    k->factors[c] = k->gamma[c] * k->saved[channels + c];
    k->factors[channels + c] = k->training ? (float)(sum / rows) : 0.0f;
    k->factors[2 * channels + c] = k->training ? (float)(product * inverse * inverse / rows) : 0.0f;
}

TN_BODY void tn_norm_spread_body(const tn_norm_args *k, int64_t i)
{
    int64_t c = i % k->channels;
    const float *f = k->factors;
    float g = tn_norm_gate(k, i);
    if (k->dresidual)
        k->dresidual[i] = g + (k->accumulate_residual ? k->dresidual[i] : 0.0f);
    if (k->dst) {
        float d =
            f[c] * (g - f[k->channels + c] - (k->x[i] - k->saved[c]) * f[2 * k->channels + c]);
        k->dst[i] = k->accumulate ? k->dst[i] + d : d;
    }
}

#endif
