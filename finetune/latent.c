#include "finetune/latent.h"

#include "core/memory.h"

#include <math.h>
#include <string.h>

enum { ROW_BLOCK = 8 }; /* rows one thread quantizes at a time: fixed, so results do not move */

static void latent_done(tn_latent *latent)
{
    tn_qweight_done(&latent->weight);
    tn_free(latent->state.scale);
    tn_free(latent->state.scale_neg);
    tn_free(latent->state.zero);
    tn_free(latent->state.threshold);
    tn_free(latent->w);
    tn_free(latent->dw);
    tn_free(latent->dscale);
    tn_free(latent->dscale_neg);
    tn_free(latent->values);
    tn_free(latent->codes);
    tn_free(latent->codes_before);
}

static tn_status latent_alloc(tn_latent *latent, tn_error *error)
{
    size_t n = (size_t)(latent->weight.rows * latent->weight.cols);
    size_t scales = (size_t)latent->weight.n_scales;
    latent->w = tn_alloc_array(n, sizeof(float));
    latent->dw = tn_alloc_zero(n, sizeof(float));
    latent->values = tn_alloc_array(n, sizeof(float));
    latent->codes = tn_alloc_zero(n, sizeof(int16_t));
    latent->codes_before = tn_alloc_zero(n, sizeof(int16_t));
    latent->dscale = tn_alloc_zero(scales, sizeof(float));
    latent->dscale_neg = tn_alloc_zero(scales, sizeof(float));
    latent->state.scale = tn_alloc_zero(scales, sizeof(float));
    latent->state.scale_neg = tn_alloc_zero(scales, sizeof(float));
    latent->state.zero = tn_alloc_zero(scales, sizeof(float));
    latent->state.threshold = tn_alloc_zero(scales, sizeof(float));
    if (!latent->w || !latent->dw || !latent->values || !latent->codes || !latent->codes_before ||
        !latent->dscale || !latent->dscale_neg || !latent->state.scale ||
        !latent->state.scale_neg || !latent->state.zero || !latent->state.threshold)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the latent weights of %s",
                       tn_quote(tn_node_label(latent->layer->node)));
    return TN_OK;
}

static tn_status latent_init(tn_latent *latent, const tn_layer *layer, const tn_params *params,
                             tn_error *error)
{
    const tn_quantizer *quantizer = layer->scheme.quantizer;
    latent->layer = layer;
    latent->scheme = layer->scheme;
    latent->trains_scale = !quantizer->refresh || quantizer->two_scales;
    latent->param = tn_params_find(params, layer->weight->name);
    if (latent->param == SIZE_MAX)
        return tn_fail(error, TN_ERROR_MODEL, "node %s: weight %s is no parameter of the network",
                       tn_quote(tn_node_label(layer->node)), tn_quote(layer->weight->name));
    latent->weight.rank = layer->weight->constant->rank;
    memcpy(latent->weight.dims, layer->weight->constant->dims, sizeof latent->weight.dims);
    latent->weight.axis = layer->axis;
    tn_scheme_apply(&latent->scheme, &latent->weight);
    tn_status status =
        tn_qweight_init(&latent->weight, quantizer->two_scales, quantizer->has_zero, error);
    if (status == TN_OK)
        status = latent_alloc(latent, error);
    if (status == TN_OK)
        status = tn_layer_rows(layer, latent->w, error);
    if (status == TN_OK)
        quantizer->fit(&latent->scheme, &latent->weight, latent->w, NULL, &latent->state);
    return status;
}

tn_status tn_latents_create(const tn_layers *layers, const tn_params *params, tn_latents *out,
                            tn_error *error)
{
    tn_latents latents = {.item = tn_alloc_zero(layers->count + 1, sizeof *latents.item)};
    tn_status status =
        latents.item ? TN_OK : tn_fail(error, TN_ERROR_LIMIT, "out of memory for latent weights");
    for (size_t i = 0; status == TN_OK && i < layers->count; i++) {
        const tn_layer *layer = &layers->layer[i];
        if (!layer->quantized)
            continue;
        if (layer->scheme.quantizer->plain)
            continue; /* trained as a plain parameter */
        status = latent_init(&latents.item[latents.count++], layer, params, error);
    }
    if (status != TN_OK) {
        tn_latents_done(&latents);
        return status;
    }
    *out = latents;
    return TN_OK;
}

void tn_latents_done(tn_latents *latents)
{
    for (size_t i = 0; i < latents->count; i++)
        latent_done(&latents->item[i]);
    tn_free(latents->item);
    *latents = (tn_latents){0};
}

tn_status tn_latent_set(tn_latent *latent, const tn_layer *from, tn_error *error)
{
    tn_status status = tn_layer_rows(from, latent->w, error);
    if (status == TN_OK)
        latent->scheme.quantizer->fit(&latent->scheme, &latent->weight, latent->w, NULL,
                                      &latent->state);
    return status;
}

/* The interval of latents that quantize to `code` when values step at half steps. */
static void code_interval(const tn_latent *latent, int64_t scale, int code, float *low, float *high)
{
    float step = latent->state.scale[scale];
    float zero = latent->weight.zero ? latent->state.zero[scale] : 0.0f;
    *low = code <= latent->weight.low ? -INFINITY : ((float)code - zero - 0.5f) * step;
    *high = code >= latent->weight.high ? INFINITY : ((float)code - zero + 0.5f) * step;
}

/* Each latent just so far that it quantizes to its code. */
static void move_to_codes(tn_latent *latent, const tn_qweight *from)
{
    const tn_qweight *to = &latent->weight;
    for (int64_t row = 0; row < to->rows; row++) {
        for (int64_t col = 0; col < to->cols; col++) {
            int64_t s = tn_qweight_scale_index(to, row, col), i = row * to->cols + col;
            float low, high, margin = 0.05f * latent->state.scale[s];
            int code = from->codes[i];
            code = code < to->low ? to->low : code > to->high ? to->high : code;
            code_interval(latent, s, code, &low, &high);
            float w = latent->w[i];
            w = w < low + margin ? low + margin : w;
            latent->w[i] = w > high - margin ? high - margin : w;
        }
    }
}

/* Whether the latents as they are (those that the codes were trained with) come to the start's
 * codes and, where they follow, scales. */
static bool gives_start(tn_latent *latent, const tn_qweight *from)
{
    const tn_quantizer *quantizer = latent->scheme.quantizer;
    quantizer->refresh(&latent->scheme, &latent->weight, latent->w, &latent->state);
    quantizer->quantize(&latent->scheme, &latent->weight, latent->w, &latent->state, latent->codes,
                        NULL);
    for (int64_t i = 0; i < from->n_scales; i++)
        if (fabsf(latent->state.scale[i] - from->scale[i]) > 1e-4f * from->scale[i])
            return false;
    return memcmp(latent->codes, from->codes,
                  (size_t)(from->rows * from->cols) * sizeof *from->codes) == 0;
}

tn_status tn_latent_start(tn_latent *latent, const tn_qweight *from, tn_error *error)
{
    const tn_qweight *to = &latent->weight;
    const tn_quantizer *quantizer = latent->scheme.quantizer;
    if (from->rows != to->rows || from->cols != to->cols || from->n_scales != to->n_scales ||
        (to->scale_neg == NULL) != (from->scale_neg == NULL && to->scale_neg == NULL))
        return tn_fail(error, TN_ERROR_USAGE,
                       "node %s: the start has %lld x %lld weights with %lld scales, the scheme "
                       "%lld x %lld with %lld: use the same --granularity",
                       tn_quote(tn_node_label(latent->layer->node)), (long long)from->rows,
                       (long long)from->cols, (long long)from->n_scales, (long long)to->rows,
                       (long long)to->cols, (long long)to->n_scales);
    size_t scales = (size_t)to->n_scales;
    memcpy(latent->state.scale, from->scale, scales * sizeof(float));
    memcpy(latent->state.scale_neg, from->scale_neg ? from->scale_neg : from->scale,
           scales * sizeof(float));
    if (from->zero)
        memcpy(latent->state.zero, from->zero, scales * sizeof(float));
    /* What follows from latents (twn's and ttq's thresholds, scales of twn and affine) comes out of
     * the values as it was in the start. parq's values are its latents at first: those it moves. */
    if (!quantizer->refresh || quantizer->needs_training)
        move_to_codes(latent, from);
    else if (gives_start(latent, from))
        return TN_OK;
    else if (quantizer->latents)
        quantizer->latents(&latent->scheme, from, latent->w);
    else
        tn_qweight_dequantize(from, latent->w);
    return TN_OK;
}

static void quantize_rows(const tn_latent *latent, float *values, int64_t first, int64_t count)
{
    tn_qweight part = tn_qweight_row_range(&latent->weight, first, count);
    int64_t skip = first * latent->weight.cols;
    int64_t scales =
        latent->weight.granularity == TN_PER_TENSOR ? 0 : first * latent->weight.groups_per_row;
    tn_quantizer_state state = latent->state;
    state.scale += scales;
    state.scale_neg += scales;
    state.zero += scales;
    state.threshold += scales;
    latent->scheme.quantizer->quantize(&latent->scheme, &part, latent->w + skip, &state,
                                       latent->codes + skip, values + skip);
}

/* Rows at a time that can be quantized independently. */
static int64_t block_of(const tn_latent *latent)
{
    return latent->weight.granularity == TN_PER_TENSOR ? latent->weight.rows : ROW_BLOCK;
}

static void quantize(tn_latent *latent, bool refresh, float *values)
{
    const tn_quantizer *quantizer = latent->scheme.quantizer;
    if (refresh && quantizer->refresh)
        quantizer->refresh(&latent->scheme, &latent->weight, latent->w, &latent->state);
    int64_t block = block_of(latent), rows = latent->weight.rows;
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < rows; row += block)
        quantize_rows(latent, values, row, rows - row < block ? rows - row : block);
}

tn_status tn_latents_apply(tn_latents *latents, tn_params *params, bool refresh, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < latents->count; i++) {
        tn_latent *latent = &latents->item[i];
        float *there = tn_params_rows(params, latent->param);
        quantize(latent, refresh, there ? there : latent->values);
        if (there)
            tn_params_touch(params, latent->param);
        else
            status = tn_params_set_rows(params, latent->param, latent->values, error);
    }
    return status;
}

tn_status tn_latents_backward(tn_latents *latents, const tn_params *params, tn_error *error)
{
    for (size_t i = 0; i < latents->count; i++) {
        tn_latent *latent = &latents->item[i];
        const float *dvalues = tn_params_gradient_rows(params, latent->param);
        tn_status status = TN_OK;
        if (!dvalues) {
            status = tn_params_get_gradient_rows(params, latent->param, latent->values, error);
            dvalues = latent->values;
        }
        if (status != TN_OK)
            return status;
        latent->scheme.quantizer->backward(&latent->scheme, &latent->weight, latent->w,
                                           &latent->state, dvalues, latent->dw, latent->dscale,
                                           latent->dscale_neg);
    }
    return TN_OK;
}

void tn_latents_constrain(tn_latents *latents)
{
    for (size_t i = 0; i < latents->count; i++) {
        tn_latent *latent = &latents->item[i];
        latent->scheme.quantizer->constrain(&latent->scheme, &latent->weight, &latent->state);
    }
}

void tn_latent_flips(tn_latent *latent, int64_t *flips, int64_t *zeros)
{
    int64_t n = latent->weight.rows * latent->weight.cols, changed = 0, zero = 0;
    for (int64_t i = 0; i < n; i++) {
        changed += latent->codes[i] != latent->codes_before[i];
        zero += latent->codes[i] == 0 && !latent->weight.zero;
    }
    memcpy(latent->codes_before, latent->codes, (size_t)n * sizeof *latent->codes);
    *flips = changed;
    *zeros = zero;
}

void tn_latents_export(tn_latents *latents)
{
    for (size_t l = 0; l < latents->count; l++) {
        tn_latent *latent = &latents->item[l];
        tn_qweight *weight = &latent->weight;
        size_t scales = (size_t)weight->n_scales;
        quantize(latent, false, latent->values);
        memcpy(weight->codes, latent->codes,
               (size_t)(weight->rows * weight->cols) * sizeof *weight->codes);
        memcpy(weight->scale, latent->state.scale, scales * sizeof(float));
        if (weight->scale_neg)
            memcpy(weight->scale_neg, latent->state.scale_neg, scales * sizeof(float));
        if (weight->zero)
            memcpy(weight->zero, latent->state.zero, scales * sizeof(float));
    }
}
