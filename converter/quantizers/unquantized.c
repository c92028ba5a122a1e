/* Weights as they are: plain training, and layers that a rule leaves alone. Gradient: dw = dq. */
#include "converter/quantizers/plain.h"
#include "converter/quantizers/table.h"

#include <string.h>

static void quantize(const tn_scheme *scheme, const tn_qweight *shape, const float *w,
                     const tn_quantizer_state *state, int16_t *codes, float *values)
{
    (void)scheme, (void)state, (void)codes;
    if (values != NULL)
        memcpy(values, w, (size_t)shape->rows * (size_t)shape->cols * sizeof *values);
}

static tn_status resolve(tn_scheme *scheme, tn_error *error)
{
    return tn_plain_resolve(scheme, "float", 32, error);
}

static const tn_parameter parameters[] = {{NULL, NULL, NULL, NULL}};

const tn_quantizer tn_quantizer_float = {
    .id = "float",
    .summary = "weights as they are",
    .parameters = parameters,
    .plain = true,
    .resolve = resolve,
    .fit = tn_plain_fit,
    .quantize = quantize,
    .backward = tn_plain_backward,
    .constrain = tn_plain_constrain,
};
