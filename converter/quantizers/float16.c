/* Weights rounded to FLOAT16 (IEEE 754 binary16, half to even): the control group. No codes.
 * Gradient: dw = dq. */
#include "converter/quantizers/plain.h"
#include "converter/quantizers/runs.h"
#include "converter/quantizers/table.h"
#include "core/tensor.h"

typedef struct half_work {
    const float *w;
    float *values;
} half_work;

static void round_piece(const void *context, int64_t i, tn_run run)
{
    const half_work *work = context;
    (void)i;
    for (int64_t e = run.first; e < run.first + run.count; e++)
        work->values[e] = tn_half_to_float(tn_float_to_half(work->w[e]));
}

static void quantize(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                     const tn_quantizer_state *state, int16_t *codes, float *values)
{
    (void)scheme, (void)state, (void)codes;
    half_work work = {w, values};
    if (values != NULL)
        tn_runs_each_piece(shape, round_piece, &work);
}

static tn_status resolve(tn_scheme *scheme, tn_error *error)
{
    return tn_plain_resolve(scheme, "half", 16, error);
}

static const tn_parameter parameters[] = {{NULL, NULL, NULL, NULL}};

const tn_quantizer tn_quantizer_half = {
    .id = "half",
    .summary = "FLOAT16 weights, the control group",
    .parameters = parameters,
    .plain = true,
    .resolve = resolve,
    .fit = tn_plain_fit,
    .quantize = quantize,
    .backward = tn_plain_backward,
    .constrain = tn_plain_constrain,
};
