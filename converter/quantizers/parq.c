/* PARQ: piecewise-affine regularized quantization (Jin, Ma, Liu, Xiao 2025, arXiv 2503.15748).
 *
 * Forward: the latent u lies between two neighbouring values q_lo, q_hi of the quantizer with
 * middle c; w' = clamp(c + (u - c) / rho_inv, q_lo, q_hi); rho_inv falls from 1 (w' = u clamped to
 * the range) to 0 (w' = the nearest value). Values are q s, q in low..high; s starts at the step of
 * least squared error and follows the latents by one Lloyd iteration a step.
 * Gradient: that at w' goes to u unchanged.
 * Deviation: the schedule of rho_inv and the base optimizer are the caller's. */
#include "converter/quantizers/runs.h"
#include "converter/quantizers/table.h"
#include "converter/quantizers/uniform.h"
#include "converter/steps.h"

#include <math.h>
#include <string.h>

static tn_status resolve(tn_scheme *scheme, tn_error *error)
{
    return tn_uniform_resolve(scheme, "parq", 0, false, error);
}

typedef struct parq_work {
    const tn_scheme *scheme;
    const float *w;
    const tn_quantizer_state *state;
    float *values;
} parq_work;

static void refresh_run(const void *context, int64_t i, tn_run run)
{
    const parq_work *work = context;
    work->state->scale[i] = tn_step_lloyd(work->w + run.first, NULL, run.count, work->scheme->low,
                                          work->scheme->high, work->state->scale[i]);
}

static void refresh(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                    tn_quantizer_state *state)
{
    parq_work work = {scheme, w, state, NULL};
    tn_runs_each(shape, refresh_run, &work);
}

static float soften(float u, float scale, float low, float high, float rho_inv)
{
    float v = u / scale;
    v = v < low ? low : v > high ? high : v;
    float below = floorf(v), middle = below + 0.5f;
    float soft = middle + (v - middle) / rho_inv;
    soft = soft < below ? below : soft > below + 1.0f ? below + 1.0f : soft;
    return soft * scale;
}

static void soften_piece(const void *context, int64_t i, tn_run run)
{
    const parq_work *work = context;
    for (int64_t e = run.first; e < run.first + run.count; e++)
        work->values[e] = soften(work->w[e], work->state->scale[i], (float)work->scheme->low,
                                 (float)work->scheme->high, work->state->rho_inv);
}

static void quantize(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                     const tn_quantizer_state *state, int16_t *codes, float *values)
{
    bool soft = state->rho_inv > 0.0f;
    if (codes != NULL || (values != NULL && !soft))
        tn_uniform_quantize(scheme, shape, w, state, codes, soft ? NULL : values);
    if (values == NULL || !soft)
        return;
    parq_work work = {scheme, w, state, values};
    tn_runs_each_piece(shape, soften_piece, &work);
}

static void backward(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                     const tn_quantizer_state *state, const float *dvalues, float *dw,
                     float *dscale, float *dscale_neg)
{
    (void)scheme, (void)w, (void)state, (void)dscale_neg;
    memcpy(dw, dvalues, (size_t)shape->rows * (size_t)shape->cols * sizeof *dw);
    if (dscale != NULL)
        memset(dscale, 0, (size_t)shape->n_scales * sizeof *dscale);
}

static const tn_parameter parameters[] = {
    {"bits", "1.58, 2..8, 16", "1.58", "width of the codes; 1.58 is ternary"},
    {"levels", "A:B", "from bits", "range of the codes"},
    {"narrow", "yes | no", "no", "drops the lowest code"},
    {NULL, NULL, NULL, NULL},
};

const tn_quantizer tn_quantizer_parq = {
    .id = "parq",
    .summary = "latents drawn to n-bit or ternary values while training",
    .parameters = parameters,
    .needs_training = true,
    .resolve = resolve,
    .fit = tn_uniform_fit,
    .refresh = refresh,
    .quantize = quantize,
    .backward = backward,
    .constrain = tn_uniform_constrain,
};
