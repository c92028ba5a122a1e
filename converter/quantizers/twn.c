/* TWN: ternary weight networks (Li, Zhang, Liu 2016, arXiv 1605.04711).
 *
 * Forward: D = 0.7 mean|w| (eq. 6) or the exact optimum; a = mean of |w| over |w| > D (eq. 5);
 * q = a sign(w) where |w| > D, else 0. D and a follow from the latents in every step.
 * Gradient: dw = dq, the straight-through estimator; the scale is not trained.
 * Deviation: the threshold is per channel by default and the exact least-squares one; the paper's
 * is
 * --granularity tensor --threshold mean:0.7. */
#include "converter/quantizers/ternary.h"
#include "converter/quantizers/table.h"

#include <string.h>

static tn_status resolve(tn_scheme *scheme, tn_error *error)
{
    return tn_ternary_resolve(scheme, "twn", error);
}

static void fit(const tn_scheme *scheme, const tn_qweight *shape, const float *w, const float *h,
                tn_quantizer_state *state)
{
    tn_ternary_fit(scheme, shape, w, h, state->threshold, state->scale, NULL);
}

static void refresh(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                    tn_quantizer_state *state)
{
    tn_ternary_fit(scheme, shape, w, NULL, state->threshold, state->scale, NULL);
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

static void constrain(const tn_scheme *scheme, const tn_qweight *shape, tn_quantizer_state *state)
{
    (void)scheme;
    tn_scales_floor(state->scale, shape->n_scales);
}

static const tn_parameter parameters[] = {
    {"threshold", "optimal | mean:F | max:F | sparsity:F", "optimal", "which weights become 0"},
    {NULL, NULL, NULL, NULL},
};

const tn_quantizer tn_quantizer_twn = {
    .id = "twn",
    .summary = "ternary, one scale: {-a, 0, a}",
    .parameters = parameters,
    .resolve = resolve,
    .fit = fit,
    .refresh = refresh,
    .quantize = tn_ternary_quantize,
    .backward = backward,
    .constrain = constrain,
};
