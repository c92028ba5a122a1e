/* Form `qdq`: INT2 / INT4 / INT8 / INT16 in the weight's shape -> DequantizeLinear with scale [O]
 * and an explicit zero point along the channel axis (groups: Gemm alone, block_size on axis 1). Not
 * folded at load: memory stays low. Two scales: DequantizeLinear(scale 1) -> Max / Min with 0 ->
 * Mul Wp / Wn -> Add, which is exact. */
#include "converter/forms/forms.h"
#include "converter/forms/integers.h"

#include <string.h>

enum { OPSET_BLOCKS = 21 };

/* Shape of DequantizeLinear's scale. */
static int parameter_dims(const tn_qweight *weight, int64_t *dims)
{
    if (weight->granularity == TN_PER_GROUP) {
        dims[0] = weight->rows;
        dims[1] = weight->groups_per_row;
        return 2;
    }
    dims[0] = weight->rows;
    return weight->n_scales == 1 ? 0 : 1;
}

static void write_one_scale(tn_decoder *decoder, tn_dtype dtype, tn_form_names *names)
{
    const tn_qweight *weight = decoder->site->weight;
    int64_t dims[2];
    int rank = parameter_dims(weight, dims);
    names->scale = tn_decoder_initializer(decoder, "scale", TN_FLOAT, rank, dims, weight->scale,
                                          (size_t)weight->n_scales * sizeof *weight->scale);
    const char *zero = tn_integers_add_zero(decoder, dtype, rank, dims);
    names->zero = weight->zero ? zero : NULL;
    tn_decoder_step(decoder, "DequantizeLinear", names->codes[0], names->scale, zero);
    if (weight->granularity == TN_PER_GROUP) {
        tn_decoder_int(decoder, "axis", 1);
        tn_decoder_int(decoder, "block_size", weight->group);
    } else if (rank == 1) {
        tn_decoder_int(decoder, "axis", decoder->site->axis);
    }
}

static void write_two_scales(tn_decoder *decoder, tn_dtype dtype, tn_form_names *names)
{
    static const float one = 1.0f;
    const tn_qweight *weight = decoder->site->weight;
    const char *unit =
        tn_decoder_shared(decoder, "ternion_one", TN_FLOAT, 0, NULL, &one, sizeof one);
    const char *zero = tn_integers_add_zero(decoder, dtype, 0, NULL);
    names->scale = tn_decoder_scales(decoder, "scale", weight->scale);
    names->scale_neg = tn_decoder_scales(decoder, "scale_neg", weight->scale_neg);
    tn_decoder_step(decoder, "DequantizeLinear", names->codes[0], unit, zero);
    tn_decoder_two_scales(decoder, names->scale, names->scale_neg);
}

static tn_status write_qdq(const tn_form_site *site, tn_form_names *names, tn_error *error)
{
    tn_decoder decoder = tn_decoder_start(site, error);
    tn_dtype dtype = tn_integers_type(site->weight);
    decoder.grouped = false;
    names->codes[0] = tn_integers_add(&decoder, dtype);
    if (site->weight->scale_neg)
        write_two_scales(&decoder, dtype, names);
    else
        write_one_scale(&decoder, dtype, names);
    return tn_decoder_finish(&decoder);
}

static tn_status read_qdq(const tn_tensor *const *codes, const tn_tensor *values,
                          tn_qweight *weight, tn_error *error)
{
    (void)values;
    return tn_integers_read(codes[0], tn_integers_type(weight), false, weight, error);
}

static const char *refuse_qdq(const tn_qweight *weight, const tn_layer *layer, bool *by_bits)
{
    (void)by_bits;
    if (weight->granularity == TN_PER_GROUP && strcmp(layer->node->type, "Gemm") != 0 &&
        !layer->transpose)
        return "DequantizeLinear holds groups for fully connected layers alone";
    if (weight->granularity == TN_PER_GROUP && weight->scale_neg)
        return "DequantizeLinear cannot hold groups with two scales";
    return tn_integers_refuse_linear(weight, layer);
}

static void need_versions(const tn_qweight *weight, int64_t *opset, int64_t *ir)
{
    bool wide = weight->bits > 8 || weight->granularity == TN_PER_GROUP;
    *opset = weight->bits <= 2 ? 25 : weight->bits <= 4 || wide ? OPSET_BLOCKS : 13;
    *ir = weight->bits <= 2 ? 13 : weight->bits <= 4 || wide ? 10 : 7;
}

const tn_form tn_form_qdq = {
    .id = "qdq",
    .summary = "2-, 4-, 8- and 16-bit integers before DequantizeLinear; keeps memory low",
    .needs = "2 bits: ONNX Runtime from 1.24.3 (opset 25, IR 13); 4 bits: from 1.20 (21, 10); "
             "8 bits: from 1.10 (13, 7)",
    .self_contained = true,
    .refuses = refuse_qdq,
    .versions = need_versions,
    .write = write_qdq,
    .read = read_qdq,
};
