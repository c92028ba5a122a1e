#include "converter/quantizers/uniform.h"

#include "converter/quantizers/runs.h"
#include "converter/quantizers/ternary.h"
#include "converter/steps.h"
#include "converter/sums.h"

#include <math.h>
#include <string.h>

static tn_status check_bits(tn_scheme *scheme, const char *id, tn_error *error)
{
    bool legal = (scheme->bits >= 2 && scheme->bits <= 8) || scheme->bits == 16;
    if (legal)
        return TN_OK;
    return tn_fail(error, TN_ERROR_USAGE,
                   "scheme %s holds 1.58 (ternary), 2 to 8 or 16 bits, not %d", id, scheme->bits);
}

static tn_status levels_to_bits(tn_scheme *scheme, const char *id, bool zeroed, tn_error *error)
{
    int low = scheme->low, high = scheme->high;
    if (low >= high || low < -32768 || high > 32767 || (!zeroed && (low > 0 || high < 0)))
        return tn_fail(error, TN_ERROR_USAGE,
                       "levels %d:%d are not possible for scheme %s: expected A < B within "
                       "-32768:32767%s",
                       low, high, id, zeroed ? "" : " that hold 0");
    scheme->ternary = scheme->ternary || (low == -1 && high == 1);
    int bits = 2;
    while (low < -(1 << (bits - 1)) || high > (1 << (bits - 1)) - 1)
        bits++;
    scheme->bits = bits <= 8 ? bits : 16;
    return TN_OK;
}

tn_status tn_uniform_resolve(tn_scheme *scheme, const char *id, int standard, bool zeroed,
                             tn_error *error)
{
    if (scheme->low != 0 || scheme->high != 0)
        return levels_to_bits(scheme, id, zeroed, error);
    if (scheme->ternary || (scheme->bits == 0 && standard == 0)) {
        scheme->ternary = true;
        scheme->bits = 2;
        scheme->low = -1;
        scheme->high = 1;
        return TN_OK;
    }
    if (scheme->bits == 0)
        scheme->bits = standard;
    tn_status status = check_bits(scheme, id, error);
    if (status != TN_OK)
        return status;
    scheme->high = (1 << (scheme->bits - 1)) - 1;
    scheme->low = -scheme->high - (scheme->narrow ? 0 : 1);
    return TN_OK;
}

typedef struct uniform_work {
    const tn_scheme *scheme;
    const tn_qweight *shape;
    const float *w, *h, *dvalues;
    const tn_quantizer_state *state;
    float *scale;
    int16_t *codes;
    float *values;
    float *dw, *dscale;
} uniform_work;

static void fit_run(const void *context, int64_t i, tn_run run)
{
    const uniform_work *work = context;
    work->scale[i] =
        tn_step_optimal(work->w + run.first, work->h != NULL ? work->h + run.first : NULL,
                        run.count, work->scheme->low, work->scheme->high);
}

void tn_uniform_fit(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                    const float *h, tn_quantizer_state *state)
{
    uniform_work work = {.scheme = scheme, .w = w, .h = h, .scale = state->scale};
    tn_runs_each(shape, fit_run, &work);
}

/* Rounds half to even for |x| < 2^22 on every processor alike. */
static inline float round_even(float x)
{
    const float magic = 12582912.0f;
    return (x + magic) - magic;
}

/* Clamping before rounding to whole limits gives what clamping after it does. */
static inline float round_clamped(float v, float low, float high)
{
    v = v < low ? low : v;
    v = v > high ? high : v;
    return round_even(v);
}

TN_MULTIVERSION
static void code_piece(const float *restrict w, int64_t n, float scale, float zero, float low,
                       float high, int16_t *restrict codes)
{
    for (int64_t i = 0; i < n; i++)
        codes[i] = (int16_t)(int32_t)(round_clamped(w[i] / scale, low, high) + zero);
}

TN_MULTIVERSION
static void value_piece(const float *restrict w, int64_t n, float scale, float low, float high,
                        float *restrict values)
{
    for (int64_t i = 0; i < n; i++)
        values[i] = round_clamped(w[i] / scale, low, high) * scale;
}

static float zero_of(const uniform_work *work, int64_t i)
{
    return work->scheme->quantizer->has_zero ? work->state->zero[i] : 0.0f;
}

static void quantize_piece(const void *context, int64_t i, tn_run run)
{
    const uniform_work *work = context;
    float scale = work->state->scale[i], zero = zero_of(work, i);
    float low = (float)work->scheme->low - zero, high = (float)work->scheme->high - zero;
    if (work->codes != NULL)
        code_piece(work->w + run.first, run.count, scale, zero, low, high, work->codes + run.first);
    if (work->values != NULL)
        value_piece(work->w + run.first, run.count, scale, low, high, work->values + run.first);
}

void tn_uniform_quantize(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                         const tn_quantizer_state *state, int16_t *codes, float *values)
{
    uniform_work work = {
        .scheme = scheme, .w = w, .state = state, .codes = codes, .values = values};
    tn_runs_each_piece(shape, quantize_piece, &work);
}

static void backward_run(const void *context, int64_t i, tn_run run)
{
    const uniform_work *work = context;
    const float *w = work->w + run.first, *dq = work->dvalues + run.first;
    float *dw = work->dw + run.first, scale = work->state->scale[i], zero = zero_of(work, i);
    float low = (float)work->scheme->low - zero, high = (float)work->scheme->high - zero;
    double ds = 0;
    for (int64_t e = 0; e < run.count; e++) {
        float v = w[e] / scale;
        bool inside = v >= low && v <= high;
        float term = round_clamped(v, low, high) - (inside ? v : 0.0f);
        dw[e] = inside ? dq[e] : 0.0f;
        ds += (double)dq[e] * (double)term;
    }
    if (work->dscale != NULL) {
        double most = work->scheme->high > 1 ? work->scheme->high : 1;
        work->dscale[i] = (float)(ds / sqrt((double)run.count * most));
    }
}

void tn_uniform_backward(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                         const tn_quantizer_state *state, const float *dvalues, float *dw,
                         float *dscale, float *dscale_neg)
{
    (void)dscale_neg;
    uniform_work work = {
        .scheme = scheme, .w = w, .state = state, .dvalues = dvalues, .dw = dw, .dscale = dscale};
    tn_runs_each(shape, backward_run, &work);
}

void tn_uniform_constrain(const tn_scheme *scheme, const tn_qweight *shape,
                          tn_quantizer_state *state)
{
    (void)scheme;
    tn_scales_floor(state->scale, shape->n_scales);
}
