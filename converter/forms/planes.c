/* Forms `lut` and `planes`. A plane is UINT8 [ceil(n w / 8)] of w-bit parts of the codes:
 *   Cast(INT32) -> Gather(axis 0) in a table [256, 8 / w] that holds the parts' values
 *   -> where the last byte is not full: Reshape[-1], Slice[0:n] -> Reshape(stored shape)
 * and `planes` adds the planes up. Then Sub zero, Mul scale. All of it folds when the model is
 * loaded, from opset 7 on. Per-tensor two-scale weights of 2 bits look up the codes' index in a
 * shared table and then in their own four values {0, Wp, 0, -Wn}: a table of their own would cost
 * 4 KiB a layer. */
#include "converter/forms/planes.h"

#include "converter/forms/forms.h"
#include "converter/forms/packing.h"
#include "core/memory.h"

#include <stdio.h>

enum { BYTES = 256, MAX_ENTRIES = BYTES * 8 };

const int *tn_planes_widths(int bits)
{
    static const int widths[9][TN_FORM_MAX_PLANES + 1] = {
        [2] = {2}, [3] = {2, 1}, [4] = {4}, [5] = {4, 1}, [6] = {4, 2}, [7] = {4, 2, 1}, [8] = {8}};
    return bits >= 2 && bits <= 8 ? widths[bits] : NULL;
}

/* What part `part` of `width` bits adds to a code: the highest plane carries the sign. */
static int part_value(int part, int width, int shift, bool is_signed)
{
    int sign = 1 << (width - 1);
    return (is_signed ? (part ^ sign) - sign : part) * (1 << shift);
}

/* Tables of `lut` are FLOAT; those of `planes` INT8 and cast, because [256, 8]
 * floats are 8 KiB; so is the one of a compact `lut`. */
static const char *add_table(tn_decoder *decoder, int width, int shift, bool is_signed, bool wide)
{
    float floats[MAX_ENTRIES];
    int8_t bytes[MAX_ENTRIES];
    int each = 8 / width;
    for (int i = 0; i < BYTES * each; i++) {
        int part = (i / each) >> ((i % each) * width) & ((1 << width) - 1);
        int value = part_value(part, width, shift, is_signed);
        floats[i] = (float)value;
        bytes[i] = (int8_t)value;
    }
    char name[64];
    snprintf(name, sizeof name, "ternion_table_%s%d%s%d", wide ? "" : "int8_", width,
             is_signed ? "s" : "u", shift);
    int64_t dims[2] = {BYTES, each};
    size_t count = (size_t)(BYTES * each);
    return wide
               ? tn_decoder_shared(decoder, name, TN_FLOAT, 2, dims, floats, count * sizeof *floats)
               : tn_decoder_shared(decoder, name, TN_INT8, 2, dims, bytes, count);
}

static const char *add_index_table(tn_decoder *decoder)
{
    int32_t indices[BYTES * 4];
    for (int i = 0; i < BYTES * 4; i++)
        indices[i] = i / 4 >> i % 4 * 2 & 3;
    int64_t dims[2] = {BYTES, 4};
    return tn_decoder_shared(decoder, "ternion_table_index", TN_INT32, 2, dims, indices,
                             sizeof indices);
}

static const char *add_codes(tn_decoder *decoder, const int16_t *codes, int shift, int width)
{
    int64_t count = tn_stored_count(decoder->site->weight, decoder->grouped);
    int64_t bytes = (count * width + 7) / 8;
    void *data;
    const char *name =
        tn_decoder_payload(decoder, "codes", TN_UINT8, 1, &bytes, (size_t)bytes, &data);
    if (name)
        tn_codes_pack(codes, count, shift, width, data);
    return name;
}

/* The looked-up bytes [bytes, 8 / width] in the stored shape. */
static void shape_plane(tn_decoder *decoder, int width)
{
    static const int64_t flat = -1;
    int64_t count = tn_stored_count(decoder->site->weight, decoder->grouped), dims[TN_MAX_RANK];
    if (count % (8 / width) != 0) {
        tn_decoder_reshape(decoder, 1, &flat);
        tn_decoder_slice(decoder, 0, count);
    }
    int rank = tn_decoder_stored_dims(decoder, dims);
    tn_decoder_reshape(decoder, rank, dims);
}

static bool has_value_table(const tn_qweight *weight)
{
    return weight->bits == 2 && weight->scale_neg && weight->n_scales == 1 && weight->low >= -1;
}

/* Per-tensor two-scale: the value of each code is one of four numbers. */
static void write_value_table(tn_decoder *decoder, const int16_t *codes, tn_form_names *names)
{
    const tn_qweight *weight = decoder->site->weight;
    const float values[4] = {0.0f, weight->scale[0], 0.0f, -weight->scale_neg[0]};
    static const int64_t dims[1] = {4};
    const char *index = add_index_table(decoder);
    names->codes[0] = add_codes(decoder, codes, 0, 2);
    const char *table =
        tn_decoder_initializer(decoder, "values", TN_FLOAT, 1, dims, values, sizeof values);
    tn_decoder_cast(decoder, names->codes[0], TN_INT32);
    tn_decoder_step(decoder, "Gather", index, decoder->value, NULL);
    tn_decoder_step(decoder, "Gather", table, decoder->value, NULL);
    shape_plane(decoder, 2);
}

static void write_planes(tn_decoder *decoder, const int16_t *codes, tn_form_names *names)
{
    const int *widths = tn_planes_widths(decoder->site->weight->bits);
    bool single = widths[1] == 0 && !decoder->site->compact;
    const char *sum = NULL;
    int shift = decoder->site->weight->bits;
    for (int p = 0; widths[p]; p++) {
        shift -= widths[p];
        const char *table = add_table(decoder, widths[p], shift, p == 0, single);
        if (!single)
            table = tn_decoder_shared_float(decoder, table);
        names->codes[p] = add_codes(decoder, codes, shift, widths[p]);
        tn_decoder_cast(decoder, names->codes[p], TN_INT32);
        tn_decoder_step(decoder, "Gather", table, decoder->value, NULL);
        shape_plane(decoder, widths[p]);
        if (sum)
            tn_decoder_step(decoder, "Add", sum, decoder->value, NULL);
        sum = decoder->value;
    }
    tn_decoder_dequantize(decoder, names);
}

static int int8_width(const tn_qweight *weight)
{
    return weight->bits <= 2 ? 2 : weight->bits <= 4 ? 4 : 8;
}

void tn_planes_lookup_int8(tn_decoder *decoder, tn_form_names *names)
{
    int width = int8_width(decoder->site->weight);
    int16_t *owned;
    const int16_t *codes = tn_stored_codes(decoder->site, decoder->grouped, &owned);
    if (!codes) {
        decoder->status =
            tn_fail(decoder->error, TN_ERROR_LIMIT, "out of memory while packing weight %s",
                    tn_quote(decoder->site->output));
        return;
    }
    const char *table = add_table(decoder, width, 0, true, false);
    names->codes[0] = add_codes(decoder, codes, 0, width);
    tn_free(owned);
    tn_decoder_cast(decoder, names->codes[0], TN_INT32);
    tn_decoder_step(decoder, "Gather", table, decoder->value, NULL);
    shape_plane(decoder, width);
}

tn_status tn_planes_write(const tn_form_site *site, tn_form_names *names, tn_error *error)
{
    tn_decoder decoder = tn_decoder_start(site, error);
    int16_t *owned;
    const int16_t *codes = tn_stored_codes(site, decoder.grouped, &owned);
    if (!codes)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory while packing weight %s",
                       tn_quote(site->output));
    if (has_value_table(site->weight))
        write_value_table(&decoder, codes, names);
    else
        write_planes(&decoder, codes, names);
    tn_free(owned);
    return tn_decoder_finish(&decoder);
}

tn_status tn_planes_check(const tn_tensor *codes, tn_dtype dtype, size_t bytes, tn_error *error)
{
    if (!codes)
        return tn_fail(error, TN_ERROR_MODEL, "its codes are missing");
    if (codes->dtype != dtype || codes->bytes != bytes)
        return tn_fail(error, TN_ERROR_MODEL,
                       "its codes are %s of %zu bytes, expected %s of %zu bytes",
                       tn_dtype_name(codes->dtype), codes->bytes, tn_dtype_name(dtype), bytes);
    return TN_OK;
}

tn_status tn_planes_read(const tn_tensor *const *codes, const tn_tensor *values, tn_qweight *weight,
                         tn_error *error)
{
    (void)values;
    const int *widths = tn_planes_widths(weight->bits);
    bool padded = weight->granularity == TN_PER_GROUP;
    int64_t count = tn_stored_count(weight, padded);
    if (!widths)
        return tn_fail(error, TN_ERROR_MODEL, "%d bits do not fit its form", weight->bits);
    for (int p = 0; widths[p]; p++) {
        tn_status status =
            tn_planes_check(codes[p], TN_UINT8, (size_t)((count * widths[p] + 7) / 8), error);
        if (status != TN_OK)
            return status;
    }
    int16_t *owned, *stored = tn_stored_target(weight, padded, &owned);
    if (!stored)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %lld codes", (long long)count);
    int shift = weight->bits;
    for (int p = 0; widths[p]; p++) {
        shift -= widths[p];
        tn_codes_unpack(codes[p]->data, count, shift, widths[p], p == 0, stored);
    }
    if (owned)
        tn_stored_to_rows(owned, padded, weight);
    tn_free(owned);
    return TN_OK;
}

tn_status tn_planes_read_int8(const tn_tensor *const *codes, const tn_tensor *values,
                              tn_qweight *weight, tn_error *error)
{
    (void)values;
    int64_t count = tn_stored_count(weight, false);
    int width = int8_width(weight);
    tn_status status =
        tn_planes_check(codes[0], TN_UINT8, (size_t)((count * width + 7) / 8), error);
    if (status != TN_OK)
        return status;
    int16_t *owned, *stored = tn_stored_target(weight, false, &owned);
    if (!stored)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %lld codes", (long long)count);
    tn_codes_unpack(codes[0]->data, count, 0, width, true, stored);
    if (owned)
        tn_stored_to_rows(owned, false, weight);
    tn_free(owned);
    return TN_OK;
}

static const char *refuse_lut(const tn_qweight *weight, const tn_layer *layer, bool *by_bits)
{
    (void)layer;
    const int *widths = tn_planes_widths(weight->bits);
    if (widths && widths[1] == 0)
        return NULL;
    if (by_bits)
        *by_bits = true;
    return "form lut holds 1.58, 2, 4 and 8 bits";
}

static const char *refuse_planes(const tn_qweight *weight, const tn_layer *layer, bool *by_bits)
{
    (void)layer;
    if (tn_planes_widths(weight->bits))
        return NULL;
    if (by_bits)
        *by_bits = true;
    return "form planes holds 1.58 and 2 to 8 bits";
}

static void need_versions(const tn_qweight *weight, int64_t *opset, int64_t *ir)
{
    (void)weight;
    *opset = 7;
    *ir = 4;
}

const tn_form tn_form_lut = {
    .id = "lut",
    .summary = "packed bytes decoded through a lookup table: runs everywhere",
    .needs = "any ONNX Runtime from 1.10",
    .self_contained = true,
    .refuses = refuse_lut,
    .versions = need_versions,
    .write = tn_planes_write,
    .read = tn_planes_read,
};

const tn_form tn_form_planes = {
    .id = "planes",
    .summary = "bit planes of width 4, 2 and 1, each decoded through a table: true n-bit storage",
    .needs = "any ONNX Runtime from 1.10",
    .self_contained = true,
    .refuses = refuse_planes,
    .versions = need_versions,
    .write = tn_planes_write,
    .read = tn_planes_read,
};
