/* DoReFa-Net weights (Zhou et al. 2016, arXiv 1606.06160).
 *
 * Forward, k bits: m = max|tanh w|, x = tanh(w) / (2 m) + 1/2, r = round((2^k - 1) x), code
 * c = r - 2^(k-1), w' = 2 r / (2^k - 1) - 1 = (c + 1/2) * 2 / (2^k - 1) (eq. 9). k = 1:
 * w' = sign(w) mean|w| (eq. 8, per run), codes -1 and 0.
 * Gradient: straight through the rounding alone: dw = dq (1 - tanh(w)^2) / m; k = 1: dw = dq.
 * m follows from the latents in every step and counts as a constant in the gradient. Values span
 * [-1, 1] whatever the latents do: a network needs BatchNorm behind such a layer. */
#include "converter/quantizers/runs.h"
#include "converter/quantizers/table.h"
#include "converter/quantizers/uniform.h"
#include "converter/sums.h"

#include <math.h>
#include <string.h>

static tn_status resolve(tn_scheme *scheme, tn_error *error)
{
    if (scheme->ternary || scheme->narrow || scheme->low != 0 || scheme->high != 0)
        return tn_fail(error, TN_ERROR_USAGE,
                       "scheme dorefa has 2^bits values that do not hold 0: ternary, narrow and "
                       "levels are not possible (use fixed)");
    if (scheme->bits == 1) {
        scheme->low = -1;
        scheme->high = 0;
        return TN_OK;
    }
    return tn_uniform_resolve(scheme, "dorefa", 2, true, error);
}

typedef struct dorefa_work {
    const tn_scheme *scheme;
    const float *w, *dvalues;
    const tn_quantizer_state *state;
    tn_quantizer_state *fitted;
    int16_t *codes;
    float *values, *dw;
} dorefa_work;

static void refresh_run(const void *context, int64_t i, tn_run run)
{
    const dorefa_work *work = context;
    const float *w = work->w + run.first;
    tn_quantizer_state *state = work->fitted;
    state->zero[i] = -0.5f;
    state->threshold[i] = tanhf(tn_max_abs(w, run.count)); /* tanh rises: max|tanh w| */
    if (work->scheme->bits > 1) {
        state->scale[i] = 2.0f / (float)(work->scheme->high - work->scheme->low);
        return;
    }
    float scale = (float)(2 * (tn_sum_abs(w, run.count) / (double)run.count));
    state->scale[i] = scale > 0.0f && isfinite(scale) ? scale : 1.0f;
}

static void refresh(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                    tn_quantizer_state *state)
{
    dorefa_work work = {.scheme = scheme, .w = w, .fitted = state};
    tn_runs_each(shape, refresh_run, &work);
}

static void fit(const tn_scheme *scheme, const tn_qweight *shape, const float *w, const float *h,
                tn_quantizer_state *state)
{
    (void)h; /* the values are given */
    refresh(scheme, shape, w, state);
}

static void latents_of_run(const void *context, int64_t i, tn_run run)
{
    const dorefa_work *work = context;
    float *w = work->values + run.first, most = tn_max_abs(w, run.count);
    /* the scale is lost in any case: far enough from where tanh is 1 */
    float reach = tanhf(most < 2.0f ? most : 2.0f);
    (void)i;
    for (int64_t e = 0; most > 0.0f && e < run.count; e++)
        w[e] = atanhf(reach * (w[e] / most));
}

static void latents(const tn_scheme *scheme, const tn_qweight *weight, float *w)
{
    dorefa_work work = {.scheme = scheme, .values = w};
    tn_qweight_dequantize(weight, w);
    if (scheme->bits > 1)
        tn_runs_each(weight, latents_of_run, &work);
}

static float code_of(const tn_scheme *scheme, float w, float most)
{
    if (scheme->bits == 1)
        return w < 0.0f ? -1.0f : 0.0f;
    float x = most > 0.0f ? tanhf(w) / (2.0f * most) + 0.5f : 0.5f;
    float code = nearbyintf(x * (float)(scheme->high - scheme->low)) + (float)scheme->low;
    return code < (float)scheme->low    ? (float)scheme->low
           : code > (float)scheme->high ? (float)scheme->high
                                        : code;
}

static void quantize_piece(const void *context, int64_t i, tn_run run)
{
    const dorefa_work *work = context;
    for (int64_t e = run.first; e < run.first + run.count; e++) {
        float code = code_of(work->scheme, work->w[e], work->state->threshold[i]);
        if (work->codes != NULL)
            work->codes[e] = (int16_t)code;
        if (work->values != NULL)
            work->values[e] = (code - work->state->zero[i]) * work->state->scale[i];
    }
}

static void quantize(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                     const tn_quantizer_state *state, int16_t *codes, float *values)
{
    dorefa_work work = {.scheme = scheme, .w = w, .state = state, .codes = codes, .values = values};
    tn_runs_each_piece(shape, quantize_piece, &work);
}

static void backward_piece(const void *context, int64_t i, tn_run run)
{
    const dorefa_work *work = context;
    float most = work->state->threshold[i];
    for (int64_t e = run.first; e < run.first + run.count; e++) {
        float t = tanhf(work->w[e]), slope = most > 0.0f ? (1.0f - t * t) / most : 1.0f;
        work->dw[e] = work->scheme->bits == 1 ? work->dvalues[e] : work->dvalues[e] * slope;
    }
}

static void backward(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                     const tn_quantizer_state *state, const float *dvalues, float *dw,
                     float *dscale, float *dscale_neg)
{
    (void)dscale_neg;
    dorefa_work work = {.scheme = scheme, .w = w, .dvalues = dvalues, .state = state, .dw = dw};
    tn_runs_each_piece(shape, backward_piece, &work);
    if (dscale != NULL)
        memset(dscale, 0, (size_t)shape->n_scales * sizeof *dscale);
}

static const tn_parameter parameters[] = {
    {"bits", "1..8, 16", "2", "2^bits evenly spaced values in [-1, 1]"},
    {NULL, NULL, NULL, NULL},
};

const tn_quantizer tn_quantizer_dorefa = {
    .id = "dorefa",
    .summary = "n-bit values in [-1, 1] of tanh w, without a zero",
    .parameters = parameters,
    .has_zero = true,
    .resolve = resolve,
    .fit = fit,
    .refresh = refresh,
    .latents = latents,
    .quantize = quantize,
    .backward = backward,
    .constrain = tn_uniform_constrain,
};
