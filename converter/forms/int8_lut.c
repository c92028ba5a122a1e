/* Form `int8-lut`: bytes of codes packed at 2, 4 or 8 bits -> Cast(INT32) -> Gather in an INT8
 * table [256, 8 / bits] -> Reshape
 * -> DequantizeLinear along the channel axis, for graphs whose activations are 8-bit: runtimes make
 * QLinearConv of it. Nothing but the integer part folds. */
#include "converter/forms/forms.h"
#include "converter/forms/integers.h"
#include "converter/forms/planes.h"

static tn_status write_int8(const tn_form_site *site, tn_form_names *names, tn_error *error)
{
    tn_decoder decoder = tn_decoder_start(site, error);
    const tn_qweight *weight = site->weight;
    int64_t dims[1] = {weight->rows};
    int rank = weight->n_scales == 1 ? 0 : 1;
    tn_planes_lookup_int8(&decoder, names);
    const char *codes = decoder.value;
    names->scale = tn_decoder_initializer(&decoder, "scale", TN_FLOAT, rank, dims, weight->scale,
                                          (size_t)weight->n_scales * sizeof *weight->scale);
    const char *zero = tn_integers_add_zero(&decoder, TN_INT8, rank, dims);
    names->zero = weight->zero ? zero : NULL;
    tn_decoder_step(&decoder, "DequantizeLinear", codes, names->scale, zero);
    if (rank == 1)
        tn_decoder_int(&decoder, "axis", site->axis);
    return tn_decoder_finish(&decoder);
}

static const char *refuse_int8(const tn_qweight *weight, const tn_layer *layer, bool *by_bits)
{
    if (weight->bits > 8) {
        if (by_bits)
            *by_bits = true;
        return "form int8-lut holds 1.58 and 2 to 8 bits";
    }
    if (weight->granularity == TN_PER_GROUP)
        return "form int8-lut cannot hold groups";
    if (weight->scale_neg)
        return "form int8-lut cannot hold two scales";
    return tn_integers_refuse_linear(weight, layer);
}

static void need_versions(const tn_qweight *weight, int64_t *opset, int64_t *ir)
{
    (void)weight;
    *opset = 13;
    *ir = 7;
}

const tn_form tn_form_int8_lut = {
    .id = "int8-lut",
    .summary = "lookup table of INT8 before DequantizeLinear, for graphs with 8-bit activations",
    .needs = "any ONNX Runtime from 1.10 (opset 13, IR 7)",
    .self_contained = true,
    .refuses = refuse_int8,
    .versions = need_versions,
    .write = write_int8,
    .read = tn_planes_read_int8,
};
