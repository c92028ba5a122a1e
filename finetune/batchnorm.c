#include "finetune/batchnorm.h"

#include "core/memory.h"

enum { PARTS = 32 };

/* Sums of one part: f, q, ff, qq, fq per channel. */
static void sum_part(const float *f, const float *q, int64_t first, int64_t last, int64_t channels,
                     double *sums)
{
    for (int64_t i = 0; i < 5 * channels; i++)
        sums[i] = 0;
    for (int64_t row = first; row < last; row++)
        for (int64_t c = 0; c < channels; c++) {
            double x = (double)f[row * channels + c], y = (double)q[row * channels + c];
            sums[c] += x;
            sums[channels + c] += y;
            sums[2 * channels + c] += x * x;
            sums[3 * channels + c] += y * y;
            sums[4 * channels + c] += x * y;
        }
}

tn_status tn_moment_sums_init(tn_moment_sums *sums, int64_t channels, tn_error *error)
{
    *sums = (tn_moment_sums){.channels = channels};
    sums->sums = tn_alloc_zero((size_t)channels, 5 * sizeof *sums->sums);
    sums->parts = tn_alloc_array((size_t)(PARTS * channels), 5 * sizeof *sums->parts);
    if (sums->sums && sums->parts)
        return TN_OK;
    tn_moment_sums_done(sums);
    return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the moments of %lld channels",
                   (long long)channels);
}

void tn_moment_sums_done(tn_moment_sums *sums)
{
    tn_free(sums->sums);
    tn_free(sums->parts);
    *sums = (tn_moment_sums){0};
}

void tn_moment_sums_add(tn_moment_sums *sums, const float *f, const float *q, int64_t rows)
{
    int64_t channels = sums->channels;
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < PARTS; p++)
        sum_part(f, q, rows * p / PARTS, rows * (p + 1) / PARTS, channels,
                 sums->parts + p * 5 * channels);
    for (int64_t p = 0; p < PARTS; p++)
        for (int64_t i = 0; i < 5 * channels; i++)
            sums->sums[i] += sums->parts[p * 5 * channels + i];
    sums->rows += (double)rows;
}

void tn_moment_sums_get(const tn_moment_sums *sums, tn_channel_moments *moments)
{
    double n = sums->rows > 0 ? sums->rows : 1;
    int64_t channels = sums->channels;
    for (int64_t c = 0; c < channels; c++) {
        double mf = sums->sums[c] / n, mq = sums->sums[channels + c] / n;
        moments[c] = (tn_channel_moments){.mean_f = mf,
                                          .mean_q = mq,
                                          .var_f = sums->sums[2 * channels + c] / n - mf * mf,
                                          .var_q = sums->sums[3 * channels + c] / n - mq * mq,
                                          .cov = sums->sums[4 * channels + c] / n - mf * mq};
    }
}

enum { GAMMA, BETA, MEAN, VARIANCE, N_VECTORS };

/* The four vectors of a BN in the store. */
typedef struct bn_vectors {
    size_t at[N_VECTORS];
    float *v[N_VECTORS];
    float *memory;
} bn_vectors;

static tn_status vectors_read(const tn_params *params, const tn_node *bn, int64_t channels,
                              bn_vectors *vectors, tn_error *error)
{
    vectors->memory = tn_alloc_array((size_t)channels, N_VECTORS * sizeof(float));
    if (!vectors->memory)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a BatchNorm");
    tn_status status = TN_OK;
    for (size_t k = 0; status == TN_OK && k < N_VECTORS; k++) {
        vectors->v[k] = vectors->memory + (int64_t)k * channels;
        vectors->at[k] = tn_params_find(params, bn->inputs[k + 1]->name);
        if (vectors->at[k] == SIZE_MAX || tn_params_at(params, vectors->at[k])->count != channels)
            status = tn_fail(error, TN_ERROR_MODEL, "parameter %s of %s is missing in the plan",
                             tn_quote(bn->inputs[k + 1]->name), tn_quote(tn_node_label(bn)));
        else
            status = tn_params_get(params, vectors->at[k], vectors->v[k], error);
    }
    return status;
}

static tn_status vectors_write(tn_params *params, const bn_vectors *vectors, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t k = 0; status == TN_OK && k < N_VECTORS; k++)
        status = tn_params_set(params, vectors->at[k], vectors->v[k], error);
    return status;
}

tn_status tn_bn_absorb(tn_params *params, const tn_node *bn, int64_t channels, const double *slope,
                       const double *shift, const float *bias, tn_error *error)
{
    bn_vectors vectors = {0};
    tn_status status = vectors_read(params, bn, channels, &vectors, error);
    for (int64_t c = 0; status == TN_OK && c < channels; c++) {
        double s = slope ? slope[c] : 1, b = bias ? (double)bias[c] : 0;
        vectors.v[GAMMA][c] = (float)((double)vectors.v[GAMMA][c] * s);
        vectors.v[MEAN][c] = (float)(b + ((double)vectors.v[MEAN][c] - shift[c]) / s);
    }
    if (status == TN_OK)
        status = vectors_write(params, &vectors, error);
    tn_free(vectors.memory);
    return status;
}

static void correct_channel(bn_vectors *vectors, int64_t c, const tn_channel_moments *m,
                            tn_calibrate_bn mode)
{
    float *gamma = vectors->v[GAMMA] + c, *mean = vectors->v[MEAN] + c;
    float *variance = vectors->v[VARIANCE] + c;
    if (mode == TN_CALIBRATE_BN_REESTIMATE) {
        *mean = (float)m->mean_q;
        *variance = (float)(m->var_q > 0 ? m->var_q : 0);
    } else if (mode == TN_CALIBRATE_BN_CONTROL) {
        *mean = (float)((double)*mean + m->mean_q - m->mean_f);
        if (m->var_f > 0 && m->var_q > 0)
            *variance = (float)((double)*variance * (m->var_q / m->var_f));
    } else if (mode == TN_CALIBRATE_BN_AFFINE) {
        double slope = m->var_q > 0 ? m->cov / m->var_q : 1;
        slope = slope > 0.1 && slope < 10 ? slope : 1;
        *mean = (float)(m->mean_q - (m->mean_f - (double)*mean) / slope);
        *gamma = (float)((double)*gamma * slope);
    }
}

tn_status tn_bn_correct(tn_params *params, const tn_node *bn, const tn_moment_sums *sums,
                        tn_calibrate_bn mode, tn_error *error)
{
    bn_vectors vectors = {0};
    int64_t channels = sums->channels;
    tn_channel_moments *moments = tn_alloc_array((size_t)channels, sizeof *moments);
    tn_status status = moments ? vectors_read(params, bn, channels, &vectors, error)
                               : tn_fail(error, TN_ERROR_LIMIT, "out of memory for a BatchNorm");
    if (status == TN_OK)
        tn_moment_sums_get(sums, moments);
    for (int64_t c = 0; status == TN_OK && c < channels; c++)
        correct_channel(&vectors, c, &moments[c], mode);
    if (status == TN_OK)
        status = vectors_write(params, &vectors, error);
    tn_free(moments);
    tn_free(vectors.memory);
    return status;
}
