#include "converter/forms/integers.h"

#include "converter/forms/packing.h"
#include "converter/forms/planes.h"
#include "core/memory.h"

#include <math.h>
#include <string.h>

tn_dtype tn_integers_type(const tn_qweight *weight)
{
    return weight->bits <= 2   ? TN_INT2
           : weight->bits <= 4 ? TN_INT4
           : weight->bits <= 8 ? TN_INT8
                               : TN_INT16;
}

static size_t packed_bytes(int64_t count, tn_dtype dtype)
{
    return ((size_t)count * (size_t)tn_dtype_bits(dtype) + 7) / 8;
}

const char *tn_integers_add(tn_decoder *decoder, tn_dtype dtype)
{
    const tn_form_site *site = decoder->site;
    int64_t count = tn_stored_count(site->weight, decoder->grouped), dims[TN_MAX_RANK];
    int16_t *owned;
    const int16_t *codes = tn_stored_codes(site, decoder->grouped, &owned);
    if (!codes) {
        decoder->status = tn_fail(decoder->error, TN_ERROR_LIMIT,
                                  "out of memory while packing weight %s", tn_quote(site->output));
        return NULL;
    }
    void *data;
    int rank = tn_decoder_stored_dims(decoder, dims);
    const char *name =
        tn_decoder_payload(decoder, "codes", dtype, rank, dims, packed_bytes(count, dtype), &data);
    if (name)
        tn_codes_pack(codes, count, 0, tn_dtype_bits(dtype), data);
    tn_free(owned);
    return name;
}

tn_status tn_integers_read(const tn_tensor *codes, tn_dtype dtype, bool padded, tn_qweight *weight,
                           tn_error *error)
{
    int64_t count = tn_stored_count(weight, padded);
    tn_status status = tn_planes_check(codes, dtype, packed_bytes(count, dtype), error);
    if (status != TN_OK)
        return status;
    int16_t *owned, *stored = tn_stored_target(weight, padded, &owned);
    if (!stored)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %lld codes", (long long)count);
    /* unsigned ones hold the same bits */
    tn_codes_unpack(codes->data, count, 0, tn_dtype_bits(dtype), true, stored);
    if (owned)
        tn_stored_to_rows(owned, padded, weight);
    tn_free(owned);
    return TN_OK;
}

const char *tn_integers_refuse_linear(const tn_qweight *weight, const tn_layer *layer)
{
    if (strcmp(layer->node->type, "MatMul") == 0 && !layer->transpose)
        return "DequantizeLinear before MatMul makes runtimes quantize activations";
    for (int64_t i = 0; weight->zero && i < weight->n_scales; i++) {
        if (weight->zero[i] != rintf(weight->zero[i]))
            return "DequantizeLinear cannot hold half-integer zeros";
    }
    return NULL;
}

const char *tn_integers_add_zero(tn_decoder *decoder, tn_dtype dtype, int rank, const int64_t *dims)
{
    const float *zero = decoder->site->weight->zero;
    int64_t count = 1;
    for (int i = 0; i < rank; i++)
        count *= dims[i];
    void *data;
    const char *name =
        tn_decoder_payload(decoder, "zero", dtype, rank, dims, packed_bytes(count, dtype), &data);
    int16_t *integers = tn_alloc_zero((size_t)count, sizeof *integers);
    if (!name || !integers) {
        tn_free(integers);
        if (decoder->status == TN_OK)
            decoder->status = tn_fail(decoder->error, TN_ERROR_LIMIT, "out of memory for zeros");
        return NULL;
    }
    for (int64_t i = 0; zero && i < count; i++)
        integers[i] = (int16_t)zero[i];
    tn_codes_pack(integers, count, 0, tn_dtype_bits(dtype), data);
    tn_free(integers);
    return name;
}
