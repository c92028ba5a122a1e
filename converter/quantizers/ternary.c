#include "converter/quantizers/ternary.h"

#include "converter/quantizers/runs.h"
#include "converter/sums.h"
#include "converter/thresholds.h"

#include <math.h>

typedef struct fit_work {
    const tn_scheme *scheme;
    const float *w, *h;
    float *threshold, *scale, *scale_neg;
} fit_work;

static float mean_of(double moment, double mass)
{
    float mean = (float)(moment / mass);
    return mean > 0.0f ? mean : 1.0f;
}

/* True when all values are -b, 0 or a; ends at the first that is not. */
static bool is_ternary(const float *w, int64_t n, bool two_scales, float *least)
{
    float positive = 0, negative = 0;
    for (int64_t i = 0; i < n; i++) {
        float *side = w[i] > 0.0f ? &positive : &negative;
        float magnitude = fabsf(w[i]);
        if (magnitude == 0.0f || magnitude == *side)
            continue;
        if (*side != 0.0f)
            return false;
        *side = magnitude;
    }
    bool both = positive != 0.0f && negative != 0.0f;
    if (!two_scales && both && positive != negative)
        return false;
    *least = positive == 0.0f || (negative != 0.0f && negative < positive) ? negative : positive;
    return true;
}

/* Elements that a sparsity sets to 0. */
static int64_t zeros_wanted(const tn_scheme *scheme, int64_t n)
{
    return (int64_t)floor((double)scheme->threshold_value * (double)n + 1e-9);
}

static float threshold_of(const tn_scheme *scheme, const float *w, int64_t n, bool two_scales)
{
    float least;
    if (is_ternary(w, n, two_scales, &least) && scheme->threshold != TN_THRESHOLD_SPARSITY)
        return 0.5f * least;
    switch (scheme->threshold) {
    case TN_THRESHOLD_MEAN:
        return (float)((double)scheme->threshold_value * (tn_sum_abs(w, n) / (double)n));
    case TN_THRESHOLD_MAX:
        return scheme->threshold_value * tn_max_abs(w, n);
    case TN_THRESHOLD_SPARSITY: {
        int64_t zeros = zeros_wanted(scheme, n);
        return zeros > 0 ? tn_threshold_rank(w, n, zeros - 1) : 0.0f;
    }
    case TN_THRESHOLD_OPTIMAL:
        break;
    }
    return 0.0f;
}

/* Kept elements whose magnitude is the sparsity threshold itself. */
static int64_t ties_kept(const tn_scheme *scheme, const float *w, int64_t n, float threshold)
{
    if (scheme->threshold != TN_THRESHOLD_SPARSITY || threshold == 0.0f)
        return 0;
    return n - zeros_wanted(scheme, n) - tn_count_above(w, n, threshold);
}

static void cut_at(const fit_work *fit, const float *w, const float *h, int64_t n, tn_cut *cut)
{
    tn_sum_above(w, h, n, fit->scale_neg != NULL, cut->threshold, cut->mass, cut->moment);
    int64_t ties = ties_kept(fit->scheme, w, n, cut->threshold);
    for (int64_t i = 0; ties > 0 && i < n; i++) {
        if (fabsf(w[i]) != cut->threshold)
            continue;
        double weight = h != NULL ? (double)h[i] : 1.0;
        cut->mass[w[i] < 0.0f] += weight;
        cut->moment[w[i] < 0.0f] += weight * (double)fabsf(w[i]);
        ties--;
    }
}

static void fit_run(const void *context, int64_t i, tn_run run)
{
    const fit_work *fit = context;
    const float *w = fit->w + run.first, *h = fit->h != NULL ? fit->h + run.first : NULL;
    bool two_scales = fit->scheme->quantizer->two_scales, wants_scale = fit->scale != NULL;
    tn_cut cut = {0};
    if (fit->scheme->threshold == TN_THRESHOLD_OPTIMAL) {
        tn_threshold_optimal(w, h, run.count, two_scales, &cut);
    } else {
        cut.threshold = threshold_of(fit->scheme, w, run.count, two_scales);
        if (wants_scale)
            cut_at(fit, w, h, run.count, &cut);
    }
    fit->threshold[i] = cut.threshold;
    if (!wants_scale)
        return;
    double mass = cut.mass[0] + cut.mass[1];
    float both = mass > 0 ? mean_of(cut.moment[0] + cut.moment[1], mass) : 1.0f;
    fit->scale[i] = both;
    if (fit->scale_neg == NULL)
        return;
    /* a side without weights takes the other's scale: all its codes are 0 */
    fit->scale[i] = cut.mass[0] > 0 ? mean_of(cut.moment[0], cut.mass[0]) : both;
    fit->scale_neg[i] = cut.mass[1] > 0 ? mean_of(cut.moment[1], cut.mass[1]) : both;
}

void tn_ternary_fit(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                    const float *h, float *threshold, float *scale, float *scale_neg)
{
    fit_work fit = {scheme, w, h, threshold, scale, scale_neg};
    tn_runs_each(shape, fit_run, &fit);
}

typedef struct code_work {
    const tn_scheme *scheme;
    const float *w;
    const tn_quantizer_state *state;
    int16_t *codes;
    float *values;
} code_work;

TN_MULTIVERSION
static void code_piece(const float *restrict w, int64_t n, float threshold, int16_t *restrict codes)
{
    for (int64_t i = 0; i < n; i++)
        codes[i] = (int16_t)((w[i] > threshold) - (w[i] < -threshold));
}

TN_MULTIVERSION
static void value_piece(const float *restrict w, int64_t n, float threshold, float positive,
                        float negative, float *restrict values)
{
    for (int64_t i = 0; i < n; i++) {
        float value = w[i] > threshold ? positive : 0.0f;
        values[i] = w[i] < -threshold ? negative : value;
    }
}

/* Both, reading w once. */
TN_MULTIVERSION
static void code_and_value_piece(const float *restrict w, int64_t n, float threshold,
                                 float positive, float negative, int16_t *restrict codes,
                                 float *restrict values)
{
    for (int64_t i = 0; i < n; i++) {
        float value = w[i] > threshold ? positive : 0.0f;
        values[i] = w[i] < -threshold ? negative : value;
        codes[i] = (int16_t)((w[i] > threshold) - (w[i] < -threshold));
    }
}

static void quantize_piece(const void *context, int64_t i, tn_run run)
{
    const code_work *work = context;
    const tn_quantizer_state *state = work->state;
    const float *w = work->w + run.first;
    float positive = state->scale[i];
    float negative = work->scheme->quantizer->two_scales ? state->scale_neg[i] : positive;
    if (work->codes != NULL && work->values != NULL)
        code_and_value_piece(w, run.count, state->threshold[i], positive, -negative,
                             work->codes + run.first, work->values + run.first);
    else if (work->codes != NULL)
        code_piece(w, run.count, state->threshold[i], work->codes + run.first);
    else if (work->values != NULL)
        value_piece(w, run.count, state->threshold[i], positive, -negative,
                    work->values + run.first);
}

static void keep_ties(const void *context, int64_t i, tn_run run)
{
    const code_work *work = context;
    const tn_quantizer_state *state = work->state;
    const float *w = work->w + run.first;
    int64_t ties = ties_kept(work->scheme, w, run.count, state->threshold[i]);
    for (int64_t e = 0; ties > 0 && e < run.count; e++) {
        if (fabsf(w[e]) != state->threshold[i])
            continue;
        bool is_negative = w[e] < 0.0f;
        if (work->codes != NULL)
            work->codes[run.first + e] = is_negative ? -1 : 1;
        if (work->values != NULL) {
            const float *side = is_negative && work->scheme->quantizer->two_scales
                                    ? state->scale_neg
                                    : state->scale;
            work->values[run.first + e] = is_negative ? -side[i] : side[i];
        }
        ties--;
    }
}

void tn_ternary_quantize(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                         const tn_quantizer_state *state, int16_t *codes, float *values)
{
    code_work work = {scheme, w, state, codes, values};
    tn_runs_each_piece(shape, quantize_piece, &work);
    if (scheme->threshold == TN_THRESHOLD_SPARSITY)
        tn_runs_each(shape, keep_ties, &work);
}

tn_status tn_ternary_resolve(tn_scheme *scheme, const char *id, tn_error *error)
{
    if (!scheme->ternary && scheme->bits != 0)
        return tn_fail(error, TN_ERROR_USAGE,
                       "scheme %s is ternary, 1.58 bits: %d bits are not possible (use %s)", id,
                       scheme->bits, scheme->bits == 1 ? "dorefa" : "fixed");
    if ((scheme->low != 0 || scheme->high != 0) && (scheme->low != -1 || scheme->high != 1))
        return tn_fail(error, TN_ERROR_USAGE, "scheme %s has the levels -1:1, not %d:%d", id,
                       scheme->low, scheme->high);
    scheme->ternary = true;
    scheme->bits = 2;
    scheme->low = -1;
    scheme->high = 1;
    return TN_OK;
}

void tn_scales_floor(float *scale, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        scale[i] = scale[i] > TN_SCALE_FLOOR ? scale[i] : TN_SCALE_FLOOR;
}
