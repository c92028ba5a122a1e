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
#include "converter/lanes.h"
#include "converter/quantizers/runs.h"
#include "converter/quantizers/ternary.h"
#include "converter/quantizers/table.h"
#include "converter/sums.h"

#include <string.h>

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
    const float *w, *threshold; /* threshold NULL: 0 */
    const float *dvalues;
    float *dw, *dscale, *dscale_neg;
} backward_work;

/* Codes are w against the threshold; w may be dw. over[0], over[1]: sums of dq over codes +1 and
 * -1, in eight lanes. */
TN_MULTIVERSION
static void backward_piece(const float *dq, const float *w, int64_t n, float threshold,
                           float positive, float negative, float *dw, double over[2])
{
    tn_lane_sums sums[2][2] = {{{0}, {0}}, {{0}, {0}}};
    const tn_lanes zero = {0}, one = zero + 1.0f, up = zero + positive, down = zero + negative;
    const tn_lanes high = zero + threshold, low = zero - threshold;
    float last_q[TN_LANES] = {0}, last_w[TN_LANES] = {0};
    int64_t whole = n - n % TN_LANES;
    memcpy(last_q, dq + whole, (size_t)(n - whole) * sizeof *dq);
    memcpy(last_w, w + whole, (size_t)(n - whole) * sizeof *dw);
    for (int64_t i = 0; i <= whole; i += TN_LANES) {
        const float *from = i == whole ? last_q : dq + i, *of = i == whole ? last_w : w + i;
        float *to = i == whole ? last_w : dw + i;
        for (int half = 0; half < 2; half++) {
            tn_lanes g = TN_LANES_LOAD(from + half * TN_HALF);
            tn_lanes value = TN_LANES_LOAD(of + half * TN_HALF);
            tn_lane_mask above = value > high, below = value < low;
            tn_lanes factor = TN_LANES_CHOOSE(below, down, one);
            tn_lanes result = g * TN_LANES_CHOOSE(above, up, factor);
            memcpy(to + half * TN_HALF, &result, sizeof result);
            sums[0][half] += TN_LANES_WIDEN(TN_LANES_WHERE(above, g));
            sums[1][half] += TN_LANES_WIDEN(TN_LANES_WHERE(below, g));
        }
    }
    memcpy(dw + whole, last_w, (size_t)(n - whole) * sizeof *dw);
    over[0] += TN_LANES_TOTAL(sums[0]);
    over[1] += TN_LANES_TOTAL(sums[1]);
}

static void backward_run(const void *context, int64_t i, tn_run run)
{
    const backward_work *work = context;
    double over[2] = {0, 0};
    backward_piece(work->dvalues + run.first, work->w + run.first, run.count,
                   work->threshold ? work->threshold[i] : 0.0f, work->state->scale[i],
                   work->state->scale_neg[i], work->dw + run.first, over);
    if (work->dscale != NULL)
        work->dscale[i] = (float)over[0];
    if (work->dscale_neg != NULL)
        work->dscale_neg[i] = (float)-over[1];
}

static void backward(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                     const tn_quantizer_state *state, const float *dvalues, float *dw,
                     float *dscale, float *dscale_neg)
{
    backward_work work = {state, w, state->threshold, dvalues, dw, dscale, dscale_neg};
    if (scheme->threshold == TN_THRESHOLD_SPARSITY) { /* keeps some of what is at the threshold */
        tn_ternary_quantize(scheme, shape, w, state, NULL, dw);
        work.w = dw;
        work.threshold = NULL;
    }
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
