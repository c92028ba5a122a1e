#include "converter/weight.h"

#include "core/checked.h"
#include "core/memory.h"

#include <string.h>

int64_t tn_qweight_scale_index(const tn_qweight *weight, int64_t row, int64_t col)
{
    switch (weight->granularity) {
    case TN_PER_TENSOR:
        return 0;
    case TN_PER_CHANNEL:
        return row;
    case TN_PER_GROUP:
        break;
    }
    return row * weight->groups_per_row + col / weight->group;
}

static float value_of(const tn_qweight *weight, int16_t code, int64_t scale_index)
{
    float scale = weight->scale[scale_index];
    if (weight->scale_neg != NULL)
        return code > 0 ? scale : code < 0 ? -weight->scale_neg[scale_index] : 0.0f;
    float zero = weight->zero != NULL ? weight->zero[scale_index] : 0.0f;
    return ((float)code - zero) * scale;
}

float tn_qweight_value(const tn_qweight *weight, int64_t row, int64_t col)
{
    return value_of(weight, weight->codes[row * weight->cols + col],
                    tn_qweight_scale_index(weight, row, col));
}

void tn_qweight_dequantize(const tn_qweight *weight, float *rows_out)
{
    int64_t run = weight->granularity == TN_PER_GROUP ? weight->group : weight->cols;
    for (int64_t row = 0; row < weight->rows; row++) {
        for (int64_t first = 0; first < weight->cols; first += run) {
            int64_t end = first + run < weight->cols ? first + run : weight->cols;
            int64_t index = tn_qweight_scale_index(weight, row, first);
            for (int64_t i = row * weight->cols + first; i < row * weight->cols + end; i++)
                rows_out[i] = value_of(weight, weight->codes[i], index);
        }
    }
}

tn_qweight tn_qweight_row_range(const tn_qweight *weight, int64_t first, int64_t count)
{
    tn_qweight part = *weight;
    part.rows = count;
    if (part.codes != NULL)
        part.codes += first * weight->cols;
    if (weight->granularity == TN_PER_TENSOR)
        return part;
    int64_t scales = first * weight->groups_per_row;
    part.n_scales = count * weight->groups_per_row;
    if (part.scale != NULL)
        part.scale += scales;
    if (part.scale_neg != NULL)
        part.scale_neg += scales;
    if (part.zero != NULL)
        part.zero += scales;
    return part;
}

static bool derive_shape(tn_qweight *weight)
{
    int64_t count;
    if (!tn_dims_count(weight->rank, weight->dims, &count) || count <= 0 || weight->axis < 0 ||
        weight->axis >= weight->rank)
        return false;
    weight->rows = weight->dims[weight->axis];
    weight->cols = count / weight->rows;
    weight->groups_per_row = 1;
    if (weight->granularity == TN_PER_GROUP) {
        if (weight->group <= 0)
            return false;
        weight->groups_per_row = (weight->cols - 1) / weight->group + 1;
    }
    weight->n_scales =
        weight->granularity == TN_PER_TENSOR ? 1 : weight->rows * weight->groups_per_row;
    return true;
}

tn_status tn_qweight_init(tn_qweight *weight, bool two_scales, bool with_zero, tn_error *error)
{
    if (!derive_shape(weight))
        return tn_fail(error, TN_ERROR_USAGE,
                       "a quantized weight needs a non-empty shape and group");
    size_t n = (size_t)weight->rows * (size_t)weight->cols, n_scales = (size_t)weight->n_scales;
    weight->codes = tn_alloc_array(n, sizeof *weight->codes);
    weight->scale = tn_alloc_array(n_scales, sizeof *weight->scale);
    weight->scale_neg = two_scales ? tn_alloc_array(n_scales, sizeof *weight->scale_neg) : NULL;
    weight->zero = with_zero ? tn_alloc_zero(n_scales, sizeof *weight->zero) : NULL;
    if (weight->codes == NULL || weight->scale == NULL ||
        (two_scales && weight->scale_neg == NULL) || (with_zero && weight->zero == NULL)) {
        tn_qweight_done(weight);
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the codes of %zu weights", n);
    }
    return TN_OK;
}

void tn_qweight_done(tn_qweight *weight)
{
    tn_free(weight->codes);
    tn_free(weight->scale);
    tn_free(weight->scale_neg);
    tn_free(weight->zero);
    weight->codes = NULL;
    weight->scale = weight->scale_neg = weight->zero = NULL;
}

/* A layout is [outer, channels, inner] with the channel axis in the middle. */
typedef struct layout_view {
    int64_t outer, channels, inner;
} layout_view;

static layout_view view_layout(int rank, const int64_t *dims, int axis)
{
    layout_view view = {1, dims[axis], 1};
    for (int i = 0; i < axis; i++)
        view.outer *= dims[i];
    for (int i = axis + 1; i < rank; i++)
        view.inner *= dims[i];
    return view;
}

static void move_blocks(const void *src, void *dst, layout_view view, size_t element, bool to_rows)
{
    const unsigned char *from = src;
    unsigned char *to = dst;
    size_t bytes = (size_t)view.inner * element;
    for (int64_t a = 0; a < view.outer; a++) {
        for (int64_t c = 0; c < view.channels; c++) {
            size_t in_layout = (size_t)(a * view.channels + c) * bytes;
            size_t in_rows = (size_t)(c * view.outer + a) * bytes;
            memcpy(to + (to_rows ? in_rows : in_layout), from + (to_rows ? in_layout : in_rows),
                   bytes);
        }
    }
}

void tn_rows_from_layout(const float *layout, int rank, const int64_t *dims, int axis, float *rows)
{
    move_blocks(layout, rows, view_layout(rank, dims, axis), sizeof *rows, true);
}

void tn_rows_to_layout(const float *rows, int rank, const int64_t *dims, int axis, float *layout)
{
    move_blocks(rows, layout, view_layout(rank, dims, axis), sizeof *rows, false);
}

void tn_codes_to_layout(const int16_t *rows, int rank, const int64_t *dims, int axis,
                        int16_t *layout)
{
    move_blocks(rows, layout, view_layout(rank, dims, axis), sizeof *rows, false);
}

void tn_codes_from_layout(const int16_t *layout, int rank, const int64_t *dims, int axis,
                          int16_t *rows)
{
    move_blocks(layout, rows, view_layout(rank, dims, axis), sizeof *rows, true);
}
