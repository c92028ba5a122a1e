/* What the schemes with evenly spaced values share (fixed, lsq, affine, dorefa, parq):
 * q = clamp(round(w / s) + z, low, high), w' = (q - z) s, rounding half to even. */
#ifndef TERNION_CONVERTER_QUANTIZERS_UNIFORM_H
#define TERNION_CONVERTER_QUANTIZERS_UNIFORM_H

#include "converter/quantizer.h"

/* Completes bits, low and high. `standard` is the width without --bits (0: ternary); `zeroed`
 * ranges may lie on one side of 0. */
tn_status tn_uniform_resolve(tn_scheme *scheme, const char *id, int standard, bool zeroed,
                             tn_error *error) TN_MUST_CHECK;

/* The step of least squared error (steps.h) for each run. */
void tn_uniform_fit(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                    const float *h, tn_quantizer_state *state);

/* state->zero is used when the scheme has zeros. */
void tn_uniform_quantize(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                         const tn_quantizer_state *state, int16_t *codes, float *values);

/* LSQ (Esser et al. 2020): with v = w / s, dw = dq inside (low, high) and 0 where v is clamped;
 * ds = sum of dq * {round(v) - v inside, low, high} / sqrt(N max(high, 1)), N the elements of the
 * run. With zeros: low - z and high - z. */
void tn_uniform_backward(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                         const tn_quantizer_state *state, const float *dvalues, float *dw,
                         float *dscale, float *dscale_neg);

void tn_uniform_constrain(const tn_scheme *scheme, const tn_qweight *shape,
                          tn_quantizer_state *state);

#endif
