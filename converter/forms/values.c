#include "converter/forms/values.h"

#include "converter/forms/packing.h"
#include "core/bf16.h"
#include "core/memory.h"

#include <math.h>
#include <string.h>

/* Padding is cut off again when decoding: any value does. */
static void pad_rows(const tn_qweight *weight, const float *rows, int64_t padded_cols, float *dst)
{
    for (int64_t row = 0; row < weight->rows; row++) {
        memcpy(dst + row * padded_cols, rows + row * weight->cols,
               (size_t)weight->cols * sizeof *dst);
        for (int64_t col = weight->cols; col < padded_cols; col++)
            dst[row * padded_cols + col] = 0.0f;
    }
}

static tn_status store_as(const float *values, int64_t count, tn_dtype dtype, void *data,
                          tn_error *error)
{
    enum { STEP = 512 };
    double wide[STEP];
    size_t bytes;
    if (!tn_dtype_bytes(dtype, (uint64_t)count, &bytes))
        return tn_fail(error, TN_ERROR_LIMIT, "a weight is too large");
    tn_tensor tensor = {.dtype = dtype, .rank = 1, .dims = {count}, .data = data, .bytes = bytes};
    for (int64_t first = 0; first < count; first += STEP) {
        int64_t n = count - first < STEP ? count - first : STEP;
        for (int64_t i = 0; i < n; i++)
            wide[i] = (double)values[first + i];
        tn_status status = tn_tensor_write_double(&tensor, first, n, wide, error);
        if (status != TN_OK)
            return status;
    }
    return TN_OK;
}

tn_status tn_values_store(const tn_form_site *site, bool padded, tn_dtype dtype, void *data,
                          tn_error *error)
{
    const tn_qweight *weight = site->weight;
    int64_t count = tn_stored_count(weight, padded), padded_cols = count / weight->rows;
    bool as_rows = padded ? padded_cols == weight->cols : site->axis == 0;
    if (as_rows && dtype == TN_FLOAT) {
        tn_qweight_dequantize(weight, data);
        return TN_OK;
    }
    float *rows = tn_alloc_array((size_t)(weight->rows * weight->cols), sizeof *rows);
    float *stored = as_rows ? rows : tn_alloc_array((size_t)count, sizeof *stored);
    tn_status status = TN_OK;
    if (!rows || !stored) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the values of weight %s",
                         tn_quote(site->output));
        goto done;
    }
    tn_qweight_dequantize(weight, rows);
    if (!as_rows && padded)
        pad_rows(weight, rows, padded_cols, stored);
    else if (!as_rows)
        tn_rows_to_layout(rows, site->rank, site->dims, site->axis, stored);
    status = store_as(stored, count, dtype, data, error);
done:
    if (stored != rows)
        tn_free(stored);
    tn_free(rows);
    return status;
}

static float round_to(float value, tn_dtype dtype)
{
    switch (dtype) {
    case TN_FLOAT16:
        return tn_half_to_float(tn_float_to_half(value));
    case TN_BFLOAT16:
        return tn_bfloat16_to_float(tn_float_to_bfloat16(value));
    default:
        return value;
    }
}

/* The code of `value` at (row, col): the nearest and its neighbours are tried. */
static bool find_code(tn_qweight *weight, int64_t row, int64_t col, float value, tn_dtype dtype)
{
    int64_t s = tn_qweight_scale_index(weight, row, col);
    int16_t *code = weight->codes + row * weight->cols + col;
    double nearest = (double)value / (double)weight->scale[s];
    if (weight->scale_neg)
        nearest = value > 0.0f ? 1 : value < 0.0f ? -1 : 0;
    else if (weight->zero)
        nearest += (double)weight->zero[s];
    if (!(nearest > -40000.0 && nearest < 40000.0))
        return false;
    static const int around[] = {0, -1, 1};
    for (size_t i = 0; i < sizeof around / sizeof *around; i++) {
        double c = rint(nearest) + around[i];
        if (c < weight->low || c > weight->high)
            continue;
        *code = (int16_t)c;
        if (round_to(tn_qweight_value(weight, row, col), dtype) == value)
            return true;
    }
    return false;
}

tn_status tn_values_read(const tn_tensor *values, bool padded, tn_qweight *weight, tn_error *error)
{
    int64_t count = tn_stored_count(weight, padded), cols = count / weight->rows;
    if (!values || !tn_dtype_is_float(values->dtype) || tn_tensor_count(values) != count)
        return tn_fail(error, TN_ERROR_MODEL, "its values are missing or of another size");
    float *stored = tn_alloc_array((size_t)count, sizeof *stored), *rows = stored;
    if (!stored)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %lld values", (long long)count);
    tn_status status = tn_tensor_read_float(values, 0, count, stored, error);
    if (status == TN_OK && !padded && weight->axis != 0) {
        rows = tn_alloc_array((size_t)count, sizeof *rows);
        if (rows)
            tn_rows_from_layout(stored, weight->rank, weight->dims, weight->axis, rows);
        else
            status =
                tn_fail(error, TN_ERROR_LIMIT, "out of memory for %lld values", (long long)count);
    }
    for (int64_t i = 0; status == TN_OK && i < weight->rows * weight->cols; i++) {
        int64_t row = i / weight->cols, col = i % weight->cols;
        if (!find_code(weight, row, col, rows[row * cols + col], values->dtype))
            status = tn_fail(error, TN_ERROR_MODEL, "value %g at [%lld, %lld] is on no level",
                             (double)rows[row * cols + col], (long long)row, (long long)col);
    }
    if (rows != stored)
        tn_free(rows);
    tn_free(stored);
    return status;
}
