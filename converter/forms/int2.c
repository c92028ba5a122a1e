/* Form `int2`: INT2 / INT4 / INT8 / INT16 initializer in stored shape -> Cast(FLOAT) -> Sub zero ->
 * Mul scale. Folds at load. Per-tensor two-scale ternary weights: UINT2 -> Cast(INT32) -> Gather in
 * {0, Wp, 0, -Wn}. */
#include "converter/forms/forms.h"
#include "converter/forms/integers.h"

static bool has_value_table(const tn_qweight *weight)
{
    return weight->bits == 2 && weight->scale_neg && weight->n_scales == 1 && weight->low >= -1;
}

static tn_status write_int2(const tn_form_site *site, tn_form_names *names, tn_error *error)
{
    tn_decoder decoder = tn_decoder_start(site, error);
    const tn_qweight *weight = site->weight;
    if (has_value_table(weight)) {
        const float values[4] = {0.0f, weight->scale[0], 0.0f, -weight->scale_neg[0]};
        static const int64_t dims[1] = {4};
        names->codes[0] = tn_integers_add(&decoder, TN_UINT2);
        const char *table =
            tn_decoder_initializer(&decoder, "values", TN_FLOAT, 1, dims, values, sizeof values);
        tn_decoder_cast(&decoder, names->codes[0], TN_INT32);
        tn_decoder_step(&decoder, "Gather", table, decoder.value, NULL);
    } else {
        names->codes[0] = tn_integers_add(&decoder, tn_integers_type(weight));
        tn_decoder_cast(&decoder, names->codes[0], TN_FLOAT);
        tn_decoder_dequantize(&decoder, names);
    }
    return tn_decoder_finish(&decoder);
}

static tn_status read_int2(const tn_tensor *const *codes, const tn_tensor *values,
                           tn_qweight *weight, tn_error *error)
{
    (void)values;
    bool padded = weight->granularity == TN_PER_GROUP;
    tn_dtype dtype = tn_integers_type(weight);
    if (has_value_table(weight))
        dtype = TN_UINT2;
    return tn_integers_read(codes[0], dtype, padded, weight, error);
}

static void need_versions(const tn_qweight *weight, int64_t *opset, int64_t *ir)
{
    *opset = weight->bits <= 2 ? 25 : weight->bits <= 4 ? 21 : 7;
    *ir = weight->bits <= 2 ? 13 : weight->bits <= 4 ? 10 : 4;
}

const tn_form tn_form_int2 = {
    .id = "int2",
    .summary = "ONNX's own 2-, 4-, 8- and 16-bit integers, cast and scaled; folds at load",
    .needs = "2 bits: ONNX Runtime from 1.24.3 (opset 25, IR 13); 4 bits: from 1.23.2 (21, 10)",
    .self_contained = true,
    .versions = need_versions,
    .write = write_int2,
    .read = read_int2,
};
