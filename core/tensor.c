#include "core/tensor.h"

#include "core/bf16.h"
#include "core/checked.h"
#include "core/memory.h"

#include <math.h>
#include <string.h>

static const struct {
    const char *name;
    int bits;
    char kind; /* f float, i signed, u unsigned, b bool, - other */
} types[] = {
    [TN_UNDEFINED] = {"UNDEFINED", 0, '-'},
    [TN_FLOAT] = {"FLOAT", 32, 'f'},
    [TN_UINT8] = {"UINT8", 8, 'u'},
    [TN_INT8] = {"INT8", 8, 'i'},
    [TN_UINT16] = {"UINT16", 16, 'u'},
    [TN_INT16] = {"INT16", 16, 'i'},
    [TN_INT32] = {"INT32", 32, 'i'},
    [TN_INT64] = {"INT64", 64, 'i'},
    [TN_STRING] = {"STRING", 0, '-'},
    [TN_BOOL] = {"BOOL", 8, 'b'},
    [TN_FLOAT16] = {"FLOAT16", 16, 'f'},
    [TN_DOUBLE] = {"DOUBLE", 64, 'f'},
    [TN_UINT32] = {"UINT32", 32, 'u'},
    [TN_UINT64] = {"UINT64", 64, 'u'},
    [TN_COMPLEX64] = {"COMPLEX64", 64, '-'},
    [TN_COMPLEX128] = {"COMPLEX128", 128, '-'},
    [TN_BFLOAT16] = {"BFLOAT16", 16, 'f'},
    [TN_FLOAT8E4M3FN] = {"FLOAT8E4M3FN", 8, '-'},
    [TN_FLOAT8E4M3FNUZ] = {"FLOAT8E4M3FNUZ", 8, '-'},
    [TN_FLOAT8E5M2] = {"FLOAT8E5M2", 8, '-'},
    [TN_FLOAT8E5M2FNUZ] = {"FLOAT8E5M2FNUZ", 8, '-'},
    [TN_UINT4] = {"UINT4", 4, 'u'},
    [TN_INT4] = {"INT4", 4, 'i'},
    [TN_FLOAT4E2M1] = {"FLOAT4E2M1", 4, '-'},
    [TN_FLOAT8E8M0] = {"FLOAT8E8M0", 8, '-'},
    [TN_UINT2] = {"UINT2", 2, 'u'},
    [TN_INT2] = {"INT2", 2, 'i'},
};

static bool is_known(tn_dtype dtype)
{
    return (unsigned)dtype < sizeof types / sizeof *types;
}

static char kind_of(tn_dtype dtype)
{
    return is_known(dtype) ? types[dtype].kind : '-';
}

int tn_dtype_bits(tn_dtype dtype)
{
    return is_known(dtype) ? types[dtype].bits : 0;
}

const char *tn_dtype_name(tn_dtype dtype)
{
    return is_known(dtype) ? types[dtype].name : "unknown";
}

bool tn_dtype_is_float(tn_dtype dtype)
{
    return kind_of(dtype) == 'f';
}

bool tn_dtype_is_integer(tn_dtype dtype)
{
    return kind_of(dtype) == 'i' || kind_of(dtype) == 'u';
}

bool tn_dtype_bytes(tn_dtype dtype, uint64_t count, size_t *bytes)
{
    uint64_t bits;
    if (tn_dtype_bits(dtype) == 0 ||
        __builtin_mul_overflow(count, (uint64_t)tn_dtype_bits(dtype), &bits) ||
        bits > UINT64_MAX - 7)
        return false;
    *bytes = (size_t)((bits + 7) / 8);
    return true;
}

bool tn_dims_count(int rank, const int64_t *dims, int64_t *count)
{
    int64_t product = 1;
    bool empty = false, fits = true;
    for (int i = 0; i < rank; i++) {
        if (dims[i] < 0)
            return false;
        empty |= dims[i] == 0;
        fits = fits && tn_checked_mul_i64(product, dims[i], &product);
    }
    if (!empty && !fits)
        return false;
    *count = empty ? 0 : product;
    return true;
}

int64_t tn_tensor_count(const tn_tensor *tensor)
{
    int64_t count = 0;
    return tn_dims_count(tensor->rank, tensor->dims, &count) ? count : 0;
}

tn_status tn_tensor_init(tn_tensor *tensor, tn_dtype dtype, int rank, const int64_t *dims,
                         tn_error *error)
{
    int64_t count;
    size_t bytes;
    if (rank < 0 || rank > TN_MAX_RANK)
        return tn_fail(error, TN_ERROR_LIMIT, "tensor of rank %d: at most %d are supported", rank,
                       TN_MAX_RANK);
    if (!tn_dims_count(rank, dims, &count) || !tn_dtype_bytes(dtype, (uint64_t)count, &bytes))
        return tn_fail(error, TN_ERROR_LIMIT, "tensor of type %s is too large or has no size",
                       tn_dtype_name(dtype));
    void *data = tn_alloc_zero(bytes, 1);
    if (!data)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a tensor of %zu bytes", bytes);
    *tensor =
        (tn_tensor){.dtype = dtype, .rank = rank, .data = data, .bytes = bytes, .owned = true};
    for (int i = 0; i < rank; i++)
        tensor->dims[i] = dims[i];
    return TN_OK;
}

void tn_tensor_done(tn_tensor *tensor)
{
    if (tensor->owned)
        tn_free(tensor->data);
    *tensor = (tn_tensor){0};
}

float tn_half_to_float(uint16_t half)
{
    uint32_t sign = (uint32_t)(half & 0x8000) << 16, exponent = (half >> 10) & 31,
             mantissa = half & 0x3ff, bits;
    if (exponent == 0) {
        float magnitude = (float)mantissa * 0x1p-24f;
        memcpy(&bits, &magnitude, 4);
    } else {
        bits = (exponent == 31 ? 0x7f800000u : (exponent + 112) << 23) | mantissa << 13;
    }
    bits |= sign;
    float value;
    memcpy(&value, &bits, 4);
    return value;
}

uint16_t tn_float_to_half(float value)
{
    uint32_t bits;
    memcpy(&bits, &value, 4);
    uint32_t sign = (bits >> 16) & 0x8000, magnitude = bits & 0x7fffffff;
    if (magnitude > 0x7f800000)
        return (uint16_t)(sign | 0x7e00);
    if (magnitude >= 0x477ff000) /* 65520 and above round to infinity */
        return (uint16_t)(sign | 0x7c00);
    if (magnitude < 0x38800000) { /* subnormal half: units of 2^-24, the FPU rounds to even */
        float scaled;
        memcpy(&scaled, &magnitude, 4);
        return (uint16_t)(sign | (uint32_t)lrintf(scaled * 0x1p24f));
    }
    uint32_t odd = (magnitude >> 13) & 1;
    return (uint16_t)(sign | ((magnitude + 0xfff + odd - 0x38000000) >> 13));
}

/* One element of an integer or BOOL type, 1 to 8 bytes or packed, as uint64 bits extended by sign.
 */
static int64_t load_integer(const tn_tensor *tensor, int64_t index)
{
    int bits = types[tensor->dtype].bits;
    const unsigned char *data = tensor->data;
    uint64_t raw = 0;
    if (bits >= 8) {
        size_t size = (size_t)bits / 8;
        memcpy(&raw, data + (size_t)index * size, size);
    } else {
        size_t per_byte = 8u / (unsigned)bits, at = (size_t)index;
        raw = (uint64_t)(data[at / per_byte] >> ((at % per_byte) * (unsigned)bits)) &
              ((1u << bits) - 1);
    }
    if (kind_of(tensor->dtype) == 'i' && bits < 64 && (raw >> (bits - 1)) & 1)
        raw |= ~(uint64_t)0 << bits;
    return (int64_t)raw;
}

static double load_double(const tn_tensor *tensor, int64_t index)
{
    const unsigned char *data = tensor->data;
    uint16_t half;
    float single;
    double value;
    switch (tensor->dtype) {
    case TN_FLOAT:
        memcpy(&single, data + 4 * (size_t)index, 4);
        return (double)single;
    case TN_DOUBLE:
        memcpy(&value, data + 8 * (size_t)index, 8);
        return value;
    case TN_FLOAT16:
        memcpy(&half, data + 2 * (size_t)index, 2);
        return (double)tn_half_to_float(half);
    case TN_BFLOAT16:
        memcpy(&half, data + 2 * (size_t)index, 2);
        return (double)tn_bfloat16_to_float(half);
    case TN_UINT64:
        return (double)(uint64_t)load_integer(tensor, index);
    default:
        return (double)load_integer(tensor, index);
    }
}

static tn_status check_range(const tn_tensor *tensor, int64_t first, int64_t count, tn_error *error)
{
    if (kind_of(tensor->dtype) == '-')
        return tn_fail(error, TN_ERROR_USAGE, "elements of type %s are not numbers",
                       tn_dtype_name(tensor->dtype));
    int64_t total = tn_tensor_count(tensor);
    if (first < 0 || count < 0 || first > total || count > total - first)
        return tn_fail(error, TN_ERROR_USAGE, "elements outside a tensor of %lld",
                       (long long)total);
    return TN_OK;
}

tn_status tn_tensor_read_float(const tn_tensor *tensor, int64_t first, int64_t count, float *dst,
                               tn_error *error)
{
    tn_status status = check_range(tensor, first, count, error);
    if (status != TN_OK)
        return status;
    if (tensor->dtype == TN_FLOAT) {
        if (count > 0)
            memcpy(dst, (const unsigned char *)tensor->data + 4 * (size_t)first, 4 * (size_t)count);
        return TN_OK;
    }
    for (int64_t i = 0; i < count; i++)
        dst[i] = (float)load_double(tensor, first + i);
    return TN_OK;
}

tn_status tn_tensor_read_double(const tn_tensor *tensor, int64_t first, int64_t count, double *dst,
                                tn_error *error)
{
    tn_status status = check_range(tensor, first, count, error);
    for (int64_t i = 0; status == TN_OK && i < count; i++)
        dst[i] = load_double(tensor, first + i);
    return status;
}

static int64_t saturate_int64(double value)
{
    if (!(value > -9223372036854775808.0))
        return value != value ? 0 : INT64_MIN;
    return value >= 9223372036854775808.0 ? INT64_MAX : (int64_t)value;
}

tn_status tn_tensor_read_int64(const tn_tensor *tensor, int64_t first, int64_t count, int64_t *dst,
                               tn_error *error)
{
    tn_status status = check_range(tensor, first, count, error);
    bool is_float = tn_dtype_is_float(tensor->dtype);
    for (int64_t i = 0; status == TN_OK && i < count; i++) {
        dst[i] = is_float ? saturate_int64(load_double(tensor, first + i))
                          : load_integer(tensor, first + i);
        if (tensor->dtype == TN_UINT64 && dst[i] < 0)
            dst[i] = INT64_MAX;
    }
    return status;
}

static void store_integer(tn_tensor *tensor, int64_t index, int64_t value)
{
    int bits = types[tensor->dtype].bits;
    unsigned char *data = tensor->data;
    char kind = kind_of(tensor->dtype);
    if (kind == 'b') {
        value = value != 0;
    } else if (bits < 64) {
        int64_t low = kind == 'i' ? -((int64_t)1 << (bits - 1)) : 0;
        int64_t high = ((int64_t)1 << (kind == 'i' ? bits - 1 : bits)) - 1;
        value = value < low ? low : value > high ? high : value;
    } else if (kind == 'u' && value < 0) {
        value = 0;
    }
    if (bits >= 8) {
        size_t size = (size_t)bits / 8;
        memcpy(data + (size_t)index * size, &value, size);
        return;
    }
    size_t per_byte = 8u / (unsigned)bits, at = (size_t)index;
    unsigned shift = (unsigned)(at % per_byte) * (unsigned)bits, mask = (1u << bits) - 1;
    unsigned char *byte = &data[at / per_byte];
    *byte = (unsigned char)((*byte & ~(mask << shift)) | (((unsigned)value & mask) << shift));
}

static void store_double(tn_tensor *tensor, int64_t index, double value)
{
    unsigned char *data = tensor->data;
    uint16_t half;
    float single = (float)value;
    switch (tensor->dtype) {
    case TN_FLOAT:
        memcpy(data + 4 * (size_t)index, &single, 4);
        break;
    case TN_DOUBLE:
        memcpy(data + 8 * (size_t)index, &value, 8);
        break;
    case TN_FLOAT16:
        half = tn_float_to_half(single);
        memcpy(data + 2 * (size_t)index, &half, 2);
        break;
    case TN_BFLOAT16:
        half = tn_float_to_bfloat16(single);
        memcpy(data + 2 * (size_t)index, &half, 2);
        break;
    default:
        store_integer(tensor, index, saturate_int64(value));
    }
}

tn_status tn_tensor_write_double(tn_tensor *tensor, int64_t first, int64_t count, const double *src,
                                 tn_error *error)
{
    tn_status status = check_range(tensor, first, count, error);
    for (int64_t i = 0; status == TN_OK && i < count; i++)
        store_double(tensor, first + i, src[i]);
    return status;
}

tn_status tn_tensor_write_int64(tn_tensor *tensor, int64_t first, int64_t count, const int64_t *src,
                                tn_error *error)
{
    tn_status status = check_range(tensor, first, count, error);
    bool is_float = tn_dtype_is_float(tensor->dtype);
    for (int64_t i = 0; status == TN_OK && i < count; i++) {
        if (is_float)
            store_double(tensor, first + i, (double)src[i]);
        else
            store_integer(tensor, first + i, src[i]);
    }
    return status;
}
