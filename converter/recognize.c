#include "converter/recognize.h"

#include "core/memory.h"

#include <math.h>
#include <string.h>

enum { MOST_LEVELS = 256, WIDEST = 8 };

/* The only positive and the only negative value of a row; 0: none yet. */
typedef struct sides {
    float above, below; /* both as sizes */
    bool ternary;
} sides;

static sides find_sides(const float *row, int64_t cols, sides known)
{
    for (int64_t i = 0; known.ternary && i < cols; i++) {
        if (row[i] == 0.0f)
            continue;
        float *side = row[i] > 0.0f ? &known.above : &known.below, size = fabsf(row[i]);
        if (*side == 0.0f)
            *side = size;
        else if (*side != size)
            known.ternary = false;
    }
    return known;
}

static tn_status start(const tn_layer *layer, tn_granularity granularity, bool two_scales, int bits,
                       tn_qweight *weight, tn_error *error)
{
    *weight = (tn_qweight){.rank = layer->weight->rank,
                           .axis = layer->axis,
                           .granularity = granularity,
                           .bits = bits,
                           .ternary = bits == 2,
                           .low = bits == 2 ? -1 : -(1 << (bits - 1)),
                           .high = bits == 2 ? 1 : (1 << (bits - 1)) - 1};
    const char *scheme = bits > 2 ? "fixed" : two_scales ? "ttq" : "twn";
    const tn_quantizer *quantizer = tn_quantizer_find(scheme);
    weight->scheme = quantizer ? quantizer->id : scheme;
    memcpy(weight->dims, layer->weight->dims, sizeof weight->dims);
    return tn_qweight_init(weight, two_scales, false, error);
}

static float or_else(float first, float second)
{
    return first > 0.0f ? first : second > 0.0f ? second : 1.0f;
}

static tn_status make_ternary(const tn_layer *layer, const float *rows, const sides *tensor,
                              bool two_scales, tn_qweight *weight, tn_error *error)
{
    const sides none = {.ternary = true};
    tn_granularity granularity = tensor->ternary ? TN_PER_TENSOR : TN_PER_CHANNEL;
    tn_status status = start(layer, granularity, two_scales, 2, weight, error);
    for (int64_t row = 0; status == TN_OK && row < layer->rows; row++) {
        const float *values = rows + row * layer->cols;
        sides s = tensor->ternary ? *tensor : find_sides(values, layer->cols, none);
        int64_t k = tensor->ternary ? 0 : row;
        weight->scale[k] = or_else(s.above, s.below);
        if (two_scales)
            weight->scale_neg[k] = or_else(s.below, s.above);
        for (int64_t i = 0; i < layer->cols; i++)
            weight->codes[row * layer->cols + i] = (int16_t)((values[i] > 0) - (values[i] < 0));
    }
    return status;
}

/* The step of a row whose values are all code * step in fp32 with |code| < 128, or 0. */
static float find_step(const float *row, int64_t cols)
{
    float levels[MOST_LEVELS], largest = 0.0f, gap = INFINITY;
    size_t n = 0;
    for (int64_t i = 0; i < cols; i++) {
        float size = fabsf(row[i]);
        size_t k = 0;
        while (k < n && levels[k] != size)
            k++;
        if (k == n && n == MOST_LEVELS / 2 + 1)
            return 0.0f;
        if (k == n)
            levels[n++] = size;
        largest = size > largest ? size : largest;
    }
    for (size_t i = 0; i < n; i++) {
        if (levels[i] > 0.0f && levels[i] < gap)
            gap = levels[i];
        for (size_t k = 0; k < i; k++)
            gap = fminf(gap, fabsf(levels[i] - levels[k]));
    }
    if (largest == 0.0f)
        return 1.0f;
    float top = rintf(largest / gap), step = largest / top;
    if (!(top < 128.0f))
        return 0.0f;
    for (int ulp = 0; ulp < 4; ulp++)
        step = nextafterf(step, 0.0f);
    for (int ulp = -4; ulp <= 4; ulp++, step = nextafterf(step, INFINITY)) {
        bool exact = step > 0.0f;
        for (size_t i = 0; exact && i < n; i++)
            exact = rintf(levels[i] / step) * step == levels[i];
        if (exact)
            return step;
    }
    return 0.0f;
}

static tn_status make_uniform(const tn_layer *layer, const float *rows, tn_qweight *weight,
                              bool *found, tn_error *error)
{
    tn_status status = start(layer, TN_PER_CHANNEL, false, WIDEST, weight, error);
    int low = 0, high = 0, bits = 3;
    for (int64_t row = 0; status == TN_OK && row < layer->rows; row++) {
        const float *values = rows + row * layer->cols;
        weight->scale[row] = find_step(values, layer->cols);
        if (weight->scale[row] == 0.0f) {
            tn_qweight_done(weight);
            return TN_OK;
        }
        for (int64_t i = 0; i < layer->cols; i++) {
            int code = (int)rintf(values[i] / weight->scale[row]);
            low = code < low ? code : low;
            high = code > high ? code : high;
            weight->codes[row * layer->cols + i] = (int16_t)code;
        }
    }
    if (status != TN_OK)
        return status;
    while (low < -(1 << (bits - 1)) || high > (1 << (bits - 1)) - 1)
        bits++;
    weight->bits = bits;
    weight->low = -(1 << (bits - 1));
    weight->high = (1 << (bits - 1)) - 1;
    *found = true;
    return TN_OK;
}

tn_status tn_recognize(const tn_layer *layer, tn_qweight *weight, bool *found, tn_error *error)
{
    sides tensor = {.ternary = true};
    bool ternary = true, two_scales = false;
    float *rows = tn_alloc_array((size_t)(layer->rows * layer->cols), sizeof *rows);
    if (!rows)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the values of %s",
                       tn_quote(layer->weight->name));
    *found = false;
    tn_status status = tn_layer_rows(layer, rows, error);
    for (int64_t row = 0; status == TN_OK && ternary && row < layer->rows; row++) {
        sides s = find_sides(rows + row * layer->cols, layer->cols, (sides){.ternary = true});
        ternary = s.ternary;
        two_scales |= s.above != s.below && s.above > 0.0f && s.below > 0.0f;
        tensor = find_sides(rows + row * layer->cols, layer->cols, tensor);
    }
    if (status == TN_OK && ternary) {
        if (tensor.ternary)
            two_scales = tensor.above != tensor.below && tensor.above > 0 && tensor.below > 0;
        status = make_ternary(layer, rows, &tensor, two_scales, weight, error);
        *found = status == TN_OK;
    } else if (status == TN_OK) {
        status = make_uniform(layer, rows, weight, found, error);
    }
    tn_free(rows);
    return status;
}
