/* Quant of domain qonnx.custom_op.general: inputs x, scale, zero point, bit width; y =
 * (round(clip(x / scale + zero, least, most)) - zero) * scale in fp32, rounding half to even. Only
 * what weights need: FLOAT, a constant width of 2 to 16 bits, rounding_mode ROUND. */
#include "onnx_io/ops/elements.h"
#include "onnx_io/ops/functions.h"

#include <math.h>
#include <string.h>

typedef struct quant_range {
    float least, most;
} quant_range;

tn_status tn_quant_infer(tn_node *node, tn_error *error)
{
    return tn_op_set_like(node, 0, node->inputs[0], error);
}

static void quantize_lane(const void *context, int64_t n, const void *const *in, void *out)
{
    const quant_range *range = context;
    const float *x = in[0], *scale = in[1], *zero = in[2];
    float *y = out;
    for (int64_t i = 0; i < n; i++) {
        float code = fminf(fmaxf(x[i] / scale[i] + zero[i], range->least), range->most);
        y[i] = (rintf(code) - zero[i]) * scale[i];
    }
}

static tn_status read_range(const tn_node *node, const tn_tensor *width, quant_range *range,
                            tn_error *error)
{
    int64_t is_signed, narrow;
    char rounding[16];
    float bits = 0;
    tn_status status = tn_node_int(node, "signed", 1, &is_signed, error);
    if (status == TN_OK)
        status = tn_node_int(node, "narrow", 0, &narrow, error);
    if (status == TN_OK)
        status = tn_node_string(node, "rounding_mode", "ROUND", rounding, sizeof rounding, error);
    if (status == TN_OK && tn_tensor_count(width) == 1)
        status = tn_tensor_read_float(width, 0, 1, &bits, error);
    if (status != TN_OK)
        return status;
    if (!(bits >= 2 && bits <= 16) || bits != rintf(bits) || strcmp(rounding, "ROUND") != 0)
        return tn_fail(error, TN_ERROR_MODEL,
                       "Quant is evaluated for 2 to 16 bits and rounding_mode ROUND alone");
    float span = ldexpf(1, (int)bits - (is_signed != 0));
    range->most = is_signed ? span - 1 : span - 1 - (float)(narrow != 0);
    range->least = is_signed ? -span + (float)(narrow != 0) : 0;
    return TN_OK;
}

tn_status tn_quant_evaluate(const tn_node *node, const tn_tensor *const *inputs, tn_tensor *outputs,
                            tn_error *error)
{
    quant_range range;
    const tn_map map = {.n_inputs = 3,
                        .in = {TN_WORK_FLOAT, TN_WORK_FLOAT, TN_WORK_FLOAT},
                        .out = TN_WORK_FLOAT,
                        .kernel = quantize_lane,
                        .context = &range};
    tn_status status = read_range(node, inputs[3], &range, error);
    if (status == TN_OK)
        status = tn_op_output_init(node, 0, &outputs[0], error);
    return status == TN_OK ? tn_map_run(&map, inputs, &outputs[0], error) : status;
}
