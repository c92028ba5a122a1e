/* Fixed point: signed n-bit codes and one positive step.
 *
 * Forward: q = clamp(round(w / s), low, high), w' = q s; s is the step of least squared error.
 * Gradients: straight through inside the range, 0 outside; the step, where it is trained, as lsq's.
 */
#include "converter/quantizers/table.h"
#include "converter/quantizers/uniform.h"

static tn_status resolve(tn_scheme *scheme, tn_error *error)
{
    return tn_uniform_resolve(scheme, "fixed", 8, false, error);
}

static const tn_parameter parameters[] = {
    {"bits", "1.58, 2..8, 16", "8", "width of the codes; 1.58 is ternary"},
    {"levels", "A:B", "from bits", "range of the codes"},
    {"narrow", "yes | no", "no", "drops the lowest code"},
    {NULL, NULL, NULL, NULL},
};

const tn_quantizer tn_quantizer_fixed = {
    .id = "fixed",
    .summary = "n-bit signed codes, one step of least squared error",
    .parameters = parameters,
    .resolve = resolve,
    .fit = tn_uniform_fit,
    .quantize = tn_uniform_quantize,
    .backward = tn_uniform_backward,
    .constrain = tn_uniform_constrain,
};
