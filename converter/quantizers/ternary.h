/* What the schemes with codes -1, 0, +1 behind a threshold share (twn, ttq). */
#ifndef TERNION_CONVERTER_QUANTIZERS_TERNARY_H
#define TERNION_CONVERTER_QUANTIZERS_TERNARY_H

#include "converter/quantizer.h"

/* Fills the thresholds (TWN eq. 6, TTQ section 4, or the exact optimum) and, when asked, the
 * scales: means of the kept |w| (weighted by h), over both sides or, with scale_neg, of each.
 * A weight that is ternary already, values -b, 0, +a (b = a for one scale), is met exactly. */
void tn_ternary_fit(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                    const float *h, float *threshold, float *scale, float *scale_neg);

/* code = sign(w) where |w| > threshold; of equal magnitudes at a sparsity threshold the first are
 * kept, so that exactly the asked fraction is 0. */
void tn_ternary_quantize(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                         const tn_quantizer_state *state, int16_t *codes, float *values);

tn_status tn_ternary_resolve(tn_scheme *scheme, const char *id, tn_error *error) TN_MUST_CHECK;

/* The least positive scale that training may reach. */
#define TN_SCALE_FLOOR 1e-8f
void tn_scales_floor(float *scale, int64_t n);

#endif
