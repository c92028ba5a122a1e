/* Affine: the simplest linear quantizer, from the smallest and the largest weight (Jacob et al.
 * 2018, arXiv 1712.05877, eq. 1 and section 3.1).
 *
 * Forward: lo = min(w, 0), hi = max(w, 0); s = (hi - lo) / (levels - 1);
 * z = clamp(round(low - lo / s), low, high); q = clamp(round(w / s) + z, low, high); w' = (q - z)
 * s. Gradient: straight through inside the range, 0 outside; s and z follow from the latents in
 * every step. */
#include "converter/quantizers/runs.h"
#include "converter/quantizers/table.h"
#include "converter/quantizers/uniform.h"
#include "converter/steps.h"
#include "converter/sums.h"

#include <math.h>
#include <stddef.h>

static tn_status resolve(tn_scheme *scheme, tn_error *error)
{
    return tn_uniform_resolve(scheme, "affine", 8, true, error);
}

typedef struct range_work {
    const tn_scheme *scheme;
    const float *w;
    float *scale, *zero;
} range_work;

static void refresh_run(const void *context, int64_t i, tn_run run)
{
    const range_work *work = context;
    int low = work->scheme->low, high = work->scheme->high;
    float least, most;
    tn_range_with_zero(work->w + run.first, run.count, &least, &most);
    float scale =
        tn_step_legal(((double)most - (double)least) / (high - low), low - high, high - low);
    double zero = nearbyint(low - (double)least / (double)scale);
    zero = zero < low ? low : zero > high ? high : zero;
    work->scale[i] = scale;
    work->zero[i] = (float)zero;
}

static void refresh(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                    tn_quantizer_state *state)
{
    range_work work = {scheme, w, state->scale, state->zero};
    tn_runs_each(shape, refresh_run, &work);
}

static void fit(const tn_scheme *scheme, const tn_qweight *shape, const float *w, const float *h,
                tn_quantizer_state *state)
{
    (void)h; /* the range does not depend on it */
    refresh(scheme, shape, w, state);
}

static const tn_parameter parameters[] = {
    {"bits", "1.58, 2..8, 16", "8", "width of the codes"},
    {"levels", "A:B", "from bits", "range of the codes"},
    {"narrow", "yes | no", "no", "drops the lowest code"},
    {NULL, NULL, NULL, NULL},
};

const tn_quantizer tn_quantizer_affine = {
    .id = "affine",
    .summary = "n-bit codes with a zero point, from the smallest to the largest weight",
    .parameters = parameters,
    .has_zero = true,
    .resolve = resolve,
    .fit = fit,
    .refresh = refresh,
    .quantize = tn_uniform_quantize,
    .backward = tn_uniform_backward,
    .constrain = tn_uniform_constrain,
};
