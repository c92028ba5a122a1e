/* Form `qonnx`: float values and a `Quant` node of domain qonnx.custom_op.general (inputs x, scale,
 * zero point, bit width; attributes signed, narrow, rounding_mode), for FINN and hls4ml. Two
 * scales: Max / Min with 0, a Quant each, Add. */
#include "converter/forms/decoder.h"
#include "converter/forms/forms.h"
#include "converter/forms/packing.h"
#include "converter/forms/values.h"

#include <string.h>

static const char qonnx_domain[] = "qonnx.custom_op.general";

static tn_status import_domain(tn_model *model, tn_error *error)
{
    Onnx__ModelProto *proto = model->proto;
    for (size_t i = 0; i < proto->n_opset_import; i++) {
        if (strcmp(tn_text(proto->opset_import[i]->domain), qonnx_domain) == 0)
            return TN_OK;
    }
    Onnx__OperatorSetIdProto *entry = tn_arena_alloc(&model->arena, sizeof *entry);
    Onnx__OperatorSetIdProto **list = tn_arena_array(&model->arena, proto->n_opset_import + 1,
                                                     sizeof(Onnx__OperatorSetIdProto *));
    if (!entry || !list)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a domain");
    onnx__operator_set_id_proto__init(entry);
    entry->domain = tn_arena_strdup(&model->arena, qonnx_domain);
    entry->has_version = 1;
    entry->version = 1;
    if (!entry->domain)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a domain");
    if (proto->n_opset_import)
        memcpy(list, proto->opset_import,
               proto->n_opset_import * sizeof(Onnx__OperatorSetIdProto *));
    list[proto->n_opset_import++] = entry;
    proto->opset_import = list;
    return TN_OK;
}

static void add_quant(tn_decoder *decoder, const char *from, const char *scale, const char *zero)
{
    const tn_form_site *site = decoder->site;
    const tn_qweight *weight = site->weight;
    float bits = (float)weight->bits;
    const char *width =
        tn_decoder_shared(decoder, weight->bits == 2 ? "ternion_bits_2" : "ternion_bits", TN_FLOAT,
                          0, NULL, &bits, sizeof bits);
    tn_decoder_step(decoder, "Quant", from, scale, zero);
    if (decoder->status != TN_OK)
        return;
    decoder->status = tn_edit_set_input(site->model, decoder->last, 3, width, decoder->error);
    decoder->last->domain = tn_arena_strdup(&site->model->arena, qonnx_domain);
    if (decoder->status == TN_OK && !decoder->last->domain)
        decoder->status = tn_fail(decoder->error, TN_ERROR_LIMIT, "out of memory for a domain");
    tn_decoder_int(decoder, "signed", 1);
    tn_decoder_int(decoder, "narrow", weight->low > -(1 << (weight->bits - 1)));
    if (decoder->status == TN_OK)
        decoder->status = tn_edit_set_string(site->model, decoder->last, "rounding_mode", "ROUND",
                                             decoder->error);
}

static tn_status write_qonnx(const tn_form_site *site, tn_form_names *names, tn_error *error)
{
    tn_decoder decoder = tn_decoder_start(site, error);
    const tn_qweight *weight = site->weight;
    int64_t dims[TN_MAX_RANK], count = tn_stored_count(weight, decoder.grouped);
    int rank = tn_decoder_stored_dims(&decoder, dims);
    void *data;
    names->codes[0] = tn_decoder_payload(&decoder, "values", TN_FLOAT, rank, dims,
                                         (size_t)count * sizeof(float), &data);
    if (names->codes[0])
        decoder.status = tn_values_store(site, decoder.grouped, TN_FLOAT, data, error);
    if (decoder.status == TN_OK)
        decoder.status = import_domain(site->model, error);
    names->scale = tn_decoder_scales(&decoder, "scale", weight->scale);
    const char *zero = tn_decoder_zero(&decoder);
    if (weight->scale_neg) {
        names->scale_neg = tn_decoder_scales(&decoder, "scale_neg", weight->scale_neg);
        const char *above = tn_decoder_step(&decoder, "Max", names->codes[0], zero, NULL);
        const char *below = tn_decoder_step(&decoder, "Min", names->codes[0], zero, NULL);
        add_quant(&decoder, above, names->scale, zero);
        above = decoder.value;
        add_quant(&decoder, below, names->scale_neg, zero);
        tn_decoder_step(&decoder, "Add", above, decoder.value, NULL);
    } else {
        if (weight->zero)
            zero = names->zero = tn_decoder_scales(&decoder, "zero", weight->zero);
        add_quant(&decoder, names->codes[0], names->scale, zero);
    }
    return tn_decoder_finish(&decoder);
}

static tn_status read_qonnx(const tn_tensor *const *codes, const tn_tensor *values,
                            tn_qweight *weight, tn_error *error)
{
    (void)values;
    return tn_values_read(codes[0], weight->granularity == TN_PER_GROUP, weight, error);
}

static void need_versions(const tn_qweight *weight, int64_t *opset, int64_t *ir)
{
    *opset = weight->scale_neg ? 8 : 7;
    *ir = 4;
}

const tn_form tn_form_qonnx = {
    .id = "qonnx",
    .summary = "float values and Quant nodes, for FINN and hls4ml",
    .needs = "tools that know QONNX; ONNX Runtime does not",
    .versions = need_versions,
    .write = write_qonnx,
    .read = read_qonnx,
};
