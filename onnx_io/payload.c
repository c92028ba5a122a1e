#include "onnx_io/payload.h"

#include "core/checked.h"

#include <inttypes.h>
#include <string.h>

/* The field that holds elements of `dtype` outside raw_data, and how many entries `count` elements
 * take there (onnx.proto, TensorProto). False for types without one. */
static bool typed_field(tn_dtype dtype, uint64_t count, tn_payload_kind *kind, size_t *entries)
{
    size_t bytes;
    switch (dtype) {
    case TN_FLOAT:
        *kind = TN_PAYLOAD_FLOAT;
        break;
    case TN_COMPLEX64:
        *kind = TN_PAYLOAD_FLOAT;
        return tn_checked_mul_size(count, 2, entries);
    case TN_DOUBLE:
        *kind = TN_PAYLOAD_DOUBLE;
        break;
    case TN_COMPLEX128:
        *kind = TN_PAYLOAD_DOUBLE;
        return tn_checked_mul_size(count, 2, entries);
    case TN_INT64:
        *kind = TN_PAYLOAD_INT64;
        break;
    case TN_UINT32:
    case TN_UINT64:
        *kind = TN_PAYLOAD_UINT64;
        break;
    case TN_STRING:
        *kind = TN_PAYLOAD_STRING;
        break;
    default: /* the narrow types, one entry each, or one per packed byte below 8 bits */
        *kind = TN_PAYLOAD_INT32;
        if (tn_dtype_bits(dtype) >= 8)
            break;
        if (!tn_dtype_bytes(dtype, count, &bytes))
            return false;
        *entries = bytes;
        return true;
    }
    *entries = count;
    return true;
}

/* The one field in use. False when there are two. */
static bool used_field(const Onnx__TensorProto *proto, tn_payload *payload)
{
    const tn_payload all[] = {
        {TN_PAYLOAD_RAW, proto->raw_data.data, proto->has_raw_data ? proto->raw_data.len : 0},
        {TN_PAYLOAD_FLOAT, proto->float_data, proto->n_float_data},
        {TN_PAYLOAD_INT32, proto->int32_data, proto->n_int32_data},
        {TN_PAYLOAD_INT64, proto->int64_data, proto->n_int64_data},
        {TN_PAYLOAD_DOUBLE, proto->double_data, proto->n_double_data},
        {TN_PAYLOAD_UINT64, proto->uint64_data, proto->n_uint64_data},
        {TN_PAYLOAD_STRING, NULL, proto->n_string_data},
    };
    int found = 0;
    *payload = (tn_payload){.kind = proto->has_raw_data ? TN_PAYLOAD_RAW : TN_PAYLOAD_NONE};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        if (all[i].count > 0) {
            *payload = all[i];
            found++;
        }
    }
    return found <= 1;
}

static tn_status check_dims(const Onnx__TensorProto *proto, int64_t *count, tn_error *error)
{
    const char *name = tn_quote(proto->name);
    if (proto->n_dims > TN_MAX_RANK)
        return tn_fail(error, TN_ERROR_MODEL,
                       "tensor %s has %zu dimensions; at most %d are "
                       "supported",
                       name, proto->n_dims, TN_MAX_RANK);
    for (size_t i = 0; i < proto->n_dims; i++)
        if (proto->dims[i] < 0)
            return tn_fail(error, TN_ERROR_MODEL, "tensor %s: dimension %zu is %" PRId64, name, i,
                           proto->dims[i]);
    if (!tn_dims_count((int)proto->n_dims, proto->dims, count))
        return tn_fail(error, TN_ERROR_MODEL, "tensor %s: the product of its dimensions overflows",
                       name);
    return TN_OK;
}

tn_status tn_payload_find(const Onnx__TensorProto *proto, tn_payload *payload, tn_error *error)
{
    const char *name = tn_quote(proto->name);
    tn_dtype dtype = (tn_dtype)proto->data_type;
    int64_t count = 0;
    size_t entries = 0;
    tn_payload_kind wanted;
    tn_payload found;
    tn_status status = check_dims(proto, &count, error);
    if (status != TN_OK)
        return status;
    if (tn_dtype_bits(dtype) == 0 && dtype != TN_STRING)
        return tn_fail(error, TN_ERROR_MODEL, "tensor %s has element type %d, which is unknown",
                       name, proto->data_type);
    if (!used_field(proto, &found))
        return tn_fail(error, TN_ERROR_MODEL,
                       "tensor %s has elements in two fields; exactly one may be set", name);
    if (found.kind == TN_PAYLOAD_RAW) {
        if (dtype == TN_STRING)
            return tn_fail(error, TN_ERROR_MODEL, "tensor %s of strings cannot have raw data",
                           name);
        if (!tn_dtype_bytes(dtype, (uint64_t)count, &entries))
            return tn_fail(error, TN_ERROR_MODEL, "tensor %s is too large", name);
    } else {
        if (!typed_field(dtype, (uint64_t)count, &wanted, &entries))
            return tn_fail(error, TN_ERROR_MODEL, "tensor %s is too large", name);
        if (found.kind != TN_PAYLOAD_NONE && found.kind != wanted)
            return tn_fail(error, TN_ERROR_MODEL,
                           "tensor %s of type %s has its elements in the field of another type",
                           name, tn_dtype_name(dtype));
        found.kind = wanted;
    }
    if (found.count != entries)
        return tn_fail(error, TN_ERROR_MODEL,
                       "tensor %s of type %s has %zu %s of data; its shape needs %zu", name,
                       tn_dtype_name(dtype), found.count,
                       found.kind == TN_PAYLOAD_RAW ? "bytes" : "entries", entries);
    *payload = found;
    return TN_OK;
}

/* Entries of int32_data or uint64_data cut to the elements' width (little-endian). */
static void narrow(const tn_payload *payload, size_t width, unsigned char *dst)
{
    size_t stride = payload->kind == TN_PAYLOAD_INT32 ? 4 : 8;
    const unsigned char *src = payload->data;
    for (size_t i = 0; i < payload->count; i++)
        memcpy(dst + i * width, src + i * stride, width);
}

static size_t field_width(tn_payload_kind kind)
{
    return kind == TN_PAYLOAD_RAW                                 ? 1
           : kind == TN_PAYLOAD_FLOAT || kind == TN_PAYLOAD_INT32 ? 4
                                                                  : 8;
}

tn_status tn_model_tensor(const tn_model *model, const Onnx__TensorProto *proto, tn_tensor *tensor,
                          tn_error *error)
{
    (void)model;
    tn_payload payload;
    tn_dtype dtype = (tn_dtype)proto->data_type;
    tn_status status = tn_payload_find(proto, &payload, error);
    if (status != TN_OK)
        return status;
    if (dtype == TN_STRING)
        return tn_fail(error, TN_ERROR_MODEL, "tensor %s holds strings, not numbers",
                       tn_quote(proto->name));
    tn_tensor result = {.dtype = dtype, .rank = (int)proto->n_dims};
    for (size_t i = 0; i < proto->n_dims; i++)
        result.dims[i] = proto->dims[i];
    if (!tn_dtype_bytes(dtype, (uint64_t)tn_tensor_count(&result), &result.bytes))
        return tn_fail(error, TN_ERROR_MODEL, "tensor %s is too large", tn_quote(proto->name));
    if (payload.count * field_width(payload.kind) == result.bytes) {
        result.data = (void *)(uintptr_t)payload.data; /* a view: nobody writes through it */
    } else {
        result.data = tn_alloc(result.bytes);
        if (!result.data)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for tensor %s",
                           tn_quote(proto->name));
        result.owned = true;
        narrow(&payload, result.bytes / (payload.count ? payload.count : 1), result.data);
    }
    *tensor = result;
    return TN_OK;
}
