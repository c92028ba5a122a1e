/* LSQ: learned step size quantization (Esser, McKinstry, Bablani, Appuswamy, Modha 2020,
 * arXiv 1902.08153), n-bit and ternary.
 *
 * Forward: q = clamp(round(w / s), low, high), w' = q s (eq. 1, 2).
 * Gradients: dw = dq inside the range, 0 outside (eq. 5); ds as in eq. 3 times the gradient scale
 * 1 / sqrt(N high), N the number of weights that share s.
 * Deviation: s starts at the step of least squared error, not at 2 mean|w| / sqrt(high). */
#include "converter/quantizers/table.h"
#include "converter/quantizers/uniform.h"

static tn_status resolve(tn_scheme *scheme, tn_error *error)
{
    return tn_uniform_resolve(scheme, "lsq", 0, false, error);
}

static const tn_parameter parameters[] = {
    {"bits", "1.58, 2..8, 16", "1.58", "width of the codes; 1.58 is ternary"},
    {"levels", "A:B", "from bits", "range of the codes"},
    {"narrow", "yes | no", "no", "drops the lowest code"},
    {NULL, NULL, NULL, NULL},
};

const tn_quantizer tn_quantizer_lsq = {
    .id = "lsq",
    .summary = "n-bit or ternary codes, trained step",
    .parameters = parameters,
    .needs_training = true,
    .resolve = resolve,
    .fit = tn_uniform_fit,
    .quantize = tn_uniform_quantize,
    .backward = tn_uniform_backward,
    .constrain = tn_uniform_constrain,
};
