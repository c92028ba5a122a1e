/* TTQ: trained ternary quantization (Zhu, Han, Mao, Dally 2017, arXiv 1612.01064).
 *
 * Forward: q = Wp where w > D, -Wn where w < -D, else 0 (eq. 6); D = t max|w| (eq. 9), a fixed
 * sparsity, or the exact optimum of one threshold with two scales. D follows from the latents in
 * every step; Wp, Wn > 0 are trained.
 * Gradients: dw = dq * {Wp, 1, Wn} for codes {+1, 0, -1} (eq. 8);
 *            dWp = sum of dq over code +1;  dWn = MINUS the sum of dq over code -1.
 * Deviations: the paper's eq. 7 and a well-known re-implementation have plus for dWn, although
 * q = -Wn there: finite differences give minus. Scales start at the least-squares values, not at 1.
 * Per channel by default; the paper's is --granularity tensor. */
#include "converter/quantizers/runs.h"
#include "converter/quantizers/ternary.h"
#include "converter/quantizers/table.h"

static tn_status resolve(tn_scheme *scheme, tn_error *error)
{
    return tn_ternary_resolve(scheme, "ttq", error);
}

static void fit(const tn_scheme *scheme, const tn_qweight *shape, const float *w, const float *h,
                tn_quantizer_state *state)
{
    tn_ternary_fit(scheme, shape, w, h, state->threshold, state->scale, state->scale_neg);
}

static void refresh(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                    tn_quantizer_state *state)
{
    tn_ternary_fit(scheme, shape, w, NULL, state->threshold, NULL, NULL);
}

typedef struct backward_work {
    const tn_quantizer_state *state;
    const float *dvalues;
    float *dw, *dscale, *dscale_neg;
} backward_work;

/* dw holds the values at first: their signs are the codes. */
static void backward_run(const void *context, int64_t i, tn_run run)
{
    const backward_work *work = context;
    const float *dq = work->dvalues + run.first;
    float positive = work->state->scale[i], negative = work->state->scale_neg[i];
    float *dw = work->dw + run.first;
    double over_positive = 0, over_negative = 0;
    for (int64_t e = 0; e < run.count; e++) {
        float value = dw[e], factor = value > 0.0f ? positive : 1.0f;
        dw[e] = dq[e] * (value < 0.0f ? negative : factor);
        over_positive += (double)(value > 0.0f ? dq[e] : 0.0f);
        over_negative += (double)(value < 0.0f ? dq[e] : 0.0f);
    }
    if (work->dscale != NULL)
        work->dscale[i] = (float)over_positive;
    if (work->dscale_neg != NULL)
        work->dscale_neg[i] = (float)-over_negative;
}

static void backward(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                     const tn_quantizer_state *state, const float *dvalues, float *dw,
                     float *dscale, float *dscale_neg)
{
    backward_work work = {state, dvalues, dw, dscale, dscale_neg};
    tn_ternary_quantize(scheme, shape, w, state, NULL, dw);
    tn_runs_each(shape, backward_run, &work);
}

static void constrain(const tn_scheme *scheme, const tn_qweight *shape, tn_quantizer_state *state)
{
    (void)scheme;
    tn_scales_floor(state->scale, shape->n_scales);
    tn_scales_floor(state->scale_neg, shape->n_scales);
}

static const tn_parameter parameters[] = {
    {"threshold", "optimal | mean:F | max:F | sparsity:F", "optimal", "which weights become 0"},
    {NULL, NULL, NULL, NULL},
};

const tn_quantizer tn_quantizer_ttq = {
    .id = "ttq",
    .summary = "ternary, two scales: {-Wn, 0, Wp}",
    .parameters = parameters,
    .two_scales = true,
    .resolve = resolve,
    .fit = fit,
    .refresh = refresh,
    .quantize = tn_ternary_quantize,
    .backward = backward,
    .constrain = constrain,
};
