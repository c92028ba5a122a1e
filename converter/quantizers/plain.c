#include "converter/quantizers/plain.h"

#include <string.h>

tn_status tn_plain_resolve(tn_scheme *scheme, const char *id, int bits, tn_error *error)
{
    if (scheme->ternary || (scheme->bits != 0 && scheme->bits != bits) || scheme->low != 0 ||
        scheme->high != 0)
        return tn_fail(error, TN_ERROR_USAGE, "scheme %s takes no bits or levels", id);
    scheme->bits = bits;
    return TN_OK;
}

void tn_plain_fit(const tn_scheme *scheme, const tn_qweight *shape, const float *w, const float *h,
                  tn_quantizer_state *state)
{
    (void)scheme, (void)shape, (void)w, (void)h, (void)state;
}

void tn_plain_backward(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                       const tn_quantizer_state *state, const float *dvalues, float *dw,
                       float *dscale, float *dscale_neg)
{
    (void)scheme, (void)w, (void)state, (void)dscale, (void)dscale_neg;
    memcpy(dw, dvalues, (size_t)shape->rows * (size_t)shape->cols * sizeof *dw);
}

void tn_plain_constrain(const tn_scheme *scheme, const tn_qweight *shape, tn_quantizer_state *state)
{
    (void)scheme, (void)shape, (void)state;
}
