/* What the schemes without codes share (float, half): no state, gradients pass. */
#ifndef TERNION_CONVERTER_QUANTIZERS_PLAIN_H
#define TERNION_CONVERTER_QUANTIZERS_PLAIN_H

#include "converter/quantizer.h"

/* USAGE when bits other than `bits`, levels or ternary were asked for. */
tn_status tn_plain_resolve(tn_scheme *scheme, const char *id, int bits,
                           tn_error *error) TN_MUST_CHECK;
void tn_plain_fit(const tn_scheme *scheme, const tn_qweight *shape, const float *w, const float *h,
                  tn_quantizer_state *state);
void tn_plain_backward(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                       const tn_quantizer_state *state, const float *dvalues, float *dw,
                       float *dscale, float *dscale_neg);
void tn_plain_constrain(const tn_scheme *scheme, const tn_qweight *shape,
                        tn_quantizer_state *state);

#endif
