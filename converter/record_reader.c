#include "converter/record.h"

#include "converter/base64.h"
#include "core/memory.h"

#include <jansson.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

uint64_t tn_record_hash(const tn_qweight *weight)
{
    XXH3_state_t *state = XXH3_createState();
    if (!state)
        return 0;
    XXH3_64bits_reset(state);
    int64_t header[] = {weight->rows, weight->cols, weight->n_scales, weight->scale_neg != NULL,
                        weight->zero != NULL};
    size_t scales = (size_t)weight->n_scales * sizeof(float);
    XXH3_64bits_update(state, header, sizeof header);
    XXH3_64bits_update(state, weight->codes,
                       (size_t)weight->rows * (size_t)weight->cols * sizeof *weight->codes);
    XXH3_64bits_update(state, weight->scale, scales);
    if (weight->scale_neg)
        XXH3_64bits_update(state, weight->scale_neg, scales);
    for (int64_t i = 0; weight->zero && i < weight->n_scales; i++) {
        float zero = weight->zero[i] + 0.0f; /* -0 and 0 are one zero point */
        XXH3_64bits_update(state, &zero, sizeof zero);
    }
    uint64_t hash = XXH3_64bits_digest(state);
    XXH3_freeState(state);
    return hash;
}

uint64_t tn_record_bytes_hash(const void *bytes, size_t count)
{
    return XXH3_64bits(bytes, count);
}

void tn_record_done(tn_record *record)
{
    json_decref(record->json);
    tn_free(record->layer);
    *record = (tn_record){0};
}

char *tn_record_object(const tn_record *record, const char *key)
{
    json_t *object = record->json ? json_object_get(record->json, key) : NULL;
    return json_is_object(object) ? json_dumps(object, JSON_COMPACT) : NULL;
}

static tn_status broken(const tn_record_layer *layer, const char *what, tn_error *error)
{
    return tn_fail(error, TN_ERROR_MODEL, "the record of layer %s has no legal %s",
                   tn_quote(layer->node), what);
}

static bool get_int(json_t *entry, const char *key, int64_t standard, int64_t low, int64_t high,
                    int64_t *value)
{
    json_t *item = json_object_get(entry, key);
    *value = item ? json_integer_value(item) : standard;
    return (!item || json_is_integer(item)) && *value >= low && *value <= high;
}

static bool get_shape(json_t *entry, tn_qweight *shape)
{
    json_t *list = json_object_get(entry, "shape");
    size_t rank = json_array_size(list);
    int64_t axis, count;
    if (rank < 1 || rank > TN_MAX_RANK || !get_int(entry, "axis", 0, 0, (int64_t)rank - 1, &axis))
        return false;
    shape->rank = (int)rank;
    shape->axis = (int)axis;
    for (size_t i = 0; i < rank; i++) {
        shape->dims[i] = json_integer_value(json_array_get(list, i));
        if (shape->dims[i] <= 0)
            return false;
    }
    return tn_dims_count(shape->rank, shape->dims, &count) && count <= INT64_MAX / 64;
}

static bool get_bits(json_t *entry, tn_qweight *shape)
{
    json_t *bits = json_object_get(entry, "bits");
    shape->ternary = json_is_real(bits);
    shape->bits = shape->ternary ? 2 : (int)json_integer_value(bits);
    if (shape->ternary ? fabs(json_real_value(bits) - 1.58) > 0.01
                       : !json_is_integer(bits) || shape->bits < 2 || shape->bits > 16)
        return false;
    int64_t least = -(1 << (shape->bits - 1)), most = (1 << (shape->bits - 1)) - 1, low, high;
    json_t *params = json_object_get(entry, "params");
    if (!get_int(params, "low", shape->ternary ? -1 : least, least, most, &low) ||
        !get_int(params, "high", shape->ternary ? 1 : most, low, most, &high))
        return false;
    shape->low = (int)low;
    shape->high = (int)high;
    return true;
}

static bool get_granularity(json_t *entry, tn_qweight *shape)
{
    const char *word = json_string_value(json_object_get(entry, "granularity"));
    if (!get_int(entry, "group", 0, 0, INT64_MAX / 64, &shape->group))
        return false;
    shape->granularity = shape->group > 0                      ? TN_PER_GROUP
                         : word && strcmp(word, "tensor") == 0 ? TN_PER_TENSOR
                                                               : TN_PER_CHANNEL;
    return true;
}

static const char *static_scheme(json_t *entry)
{
    const char *id = json_string_value(json_object_get(entry, "scheme"));
    const tn_quantizer *quantizer = id ? tn_quantizer_find(id) : NULL;
    return quantizer ? quantizer->id : NULL;
}

static tn_status parse_layer(json_t *entry, tn_record_layer *layer, tn_error *error)
{
    const char *form = json_string_value(json_object_get(entry, "form"));
    layer->entry = entry;
    layer->node = json_string_value(json_object_get(entry, "node"));
    layer->weight = json_string_value(json_object_get(entry, "weight"));
    layer->shape.scheme = static_scheme(entry);
    if (!layer->node || !layer->weight)
        return broken(layer, "names", error);
    if (!form)
        return broken(layer, "form", error);
    if (strcmp(form, "half") == 0)
        return TN_OK;
    layer->form = tn_form_find(form);
    if (!layer->form)
        return broken(layer, "form", error);
    if (!layer->shape.scheme)
        return broken(layer, "scheme", error);
    if (!get_shape(entry, &layer->shape))
        return broken(layer, "shape", error);
    if (!get_bits(entry, &layer->shape))
        return broken(layer, "bits", error);
    return get_granularity(entry, &layer->shape) ? TN_OK : broken(layer, "group", error);
}

tn_status tn_record_parse(const tn_model *model, tn_record *record, tn_error *error)
{
    const char *text = tn_model_metadata(model, "ternion");
    tn_record result = {0};
    if (!text) {
        *record = result;
        return TN_OK;
    }
    int64_t schema;
    json_error_t where;
    result.json = json_loads(text, JSON_REJECT_DUPLICATES, &where);
    json_t *layers = json_object_get(result.json, "layers");
    tn_status status = TN_OK;
    if (!result.json)
        status = tn_fail(error, TN_ERROR_MODEL, "the record is no JSON: %s", tn_quote(where.text));
    else if (!get_int(result.json, "schema", 0, TN_RECORD_SCHEMA, TN_RECORD_COMPACT, &schema))
        status = tn_fail(error, TN_ERROR_MODEL, "the record has another schema than %d and %d",
                         TN_RECORD_SCHEMA, TN_RECORD_COMPACT);
    else if (schema == TN_RECORD_COMPACT && !tn_record_expand(result.json, model))
        status = tn_fail(error, TN_ERROR_MODEL, "the record is no record of schema %d",
                         TN_RECORD_COMPACT);
    else if (!json_is_array(layers))
        status = tn_fail(error, TN_ERROR_MODEL, "the record has no layers");
    if (status != TN_OK)
        goto fail;
    const char *rest = json_string_value(json_object_get(result.json, "rest"));
    result.rest_float16 = rest && strcmp(rest, "float16") == 0;
    result.count = json_array_size(layers);
    result.layer = tn_alloc_zero(result.count, sizeof *result.layer);
    if (!result.layer) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the record");
        goto fail;
    }
    for (size_t i = 0; status == TN_OK && i < result.count; i++)
        status = parse_layer(json_array_get(layers, i), &result.layer[i], error);
    if (status == TN_OK) {
        *record = result;
        return TN_OK;
    }
fail:
    tn_record_done(&result);
    return status;
}

static const tn_tensor *initializer(const tn_graph *graph, json_t *name)
{
    const tn_value *value =
        json_is_string(name) ? tn_graph_value(graph, json_string_value(name)) : NULL;
    return value && value->initializer ? value->constant : NULL;
}

/* `count` numbers: inline, or of an initializer, where one stands for all. */
static bool get_numbers(json_t *entry, const char *key, const tn_graph *graph, int64_t count,
                        float *numbers)
{
    json_t *item = json_object_get(entry, key);
    const char *text = json_string_value(json_object_get(item, "base64"));
    if (text)
        return tn_base64_decode(text, numbers, (size_t)count * sizeof *numbers);
    const tn_tensor *tensor = initializer(graph, item);
    int64_t held = tensor ? tn_tensor_count(tensor) : 0;
    if (held != count && held != 1)
        return false;
    if (tn_tensor_read_float(tensor, 0, held, numbers, NULL) != TN_OK)
        return false;
    for (int64_t i = held; i < count; i++)
        numbers[i] = numbers[0];
    return true;
}

static bool are_positive(const float *numbers, int64_t count)
{
    for (int64_t i = 0; numbers && i < count; i++) {
        if (!(numbers[i] > 0.0f && isfinite(numbers[i])))
            return false;
    }
    return true;
}

static bool are_finite(const float *numbers, int64_t count)
{
    for (int64_t i = 0; numbers && i < count; i++) {
        if (!isfinite(numbers[i]))
            return false;
    }
    return true;
}

/* Allocation follows the shape of a value the model really has: a record cannot claim more. */
static tn_status check_value(const tn_record_layer *layer, const tn_graph *graph, tn_error *error)
{
    const tn_value *value = tn_graph_value(graph, layer->weight);
    const tn_qweight *shape = &layer->shape;
    bool same = value && (value->rank == TN_RANK_UNKNOWN || value->rank == shape->rank);
    for (int i = 0; same && value->rank != TN_RANK_UNKNOWN && i < shape->rank; i++)
        same = value->dims[i] == TN_DIM_UNKNOWN || value->dims[i] == shape->dims[i];
    return same ? TN_OK : broken(layer, "shape", error);
}

static tn_status read_codes(const tn_record_layer *layer, const tn_graph *graph, tn_qweight *weight,
                            tn_error *error)
{
    json_t *names = json_object_get(layer->entry, "codes");
    const tn_tensor *codes[TN_FORM_MAX_PLANES] = {0};
    if (json_is_array(names)) {
        for (size_t i = 0; i < TN_FORM_MAX_PLANES; i++)
            codes[i] = initializer(graph, json_array_get(names, i));
    } else {
        codes[0] = initializer(graph, names);
    }
    tn_status status =
        layer->form->read(codes, tn_graph_value(graph, layer->weight)->constant, weight, error);
    if (status != TN_OK)
        tn_error_prepend(error, "layer %s", tn_quote(layer->node));
    return status;
}

/* The size of the codes bounds what is allocated for them. */
static bool is_backed(const tn_record_layer *layer, const tn_graph *graph)
{
    json_t *names = json_object_get(layer->entry, "codes");
    const tn_tensor *tensor =
        initializer(graph, json_is_array(names) ? json_array_get(names, 0) : names);
    if (!names)
        tensor = tn_graph_value(graph, layer->weight)->constant;
    int64_t count = 1;
    for (int i = 0; i < layer->shape.rank; i++)
        count *= layer->shape.dims[i];
    return tensor && (uint64_t)count / 8 <= tensor->bytes;
}

static bool has_hash(const tn_record_layer *layer, uint64_t hash)
{
    const char *said = json_string_value(json_object_get(layer->entry, "hash"));
    char text[17];
    snprintf(text, sizeof text, "%016llx", (unsigned long long)hash);
    return said && strcmp(said, text) == 0;
}

static tn_status check_codes(const tn_record_layer *layer, const tn_qweight *weight,
                             tn_error *error)
{
    int16_t least = weight->codes[0], most = least;
    int64_t count = weight->rows * weight->cols;
    for (int64_t i = 1; i < count; i++) {
        least = weight->codes[i] < least ? weight->codes[i] : least;
        most = weight->codes[i] > most ? weight->codes[i] : most;
    }
    bool legal = least >= weight->low && most <= weight->high;
    for (int64_t i = 0; !legal && i < count; i++) {
        if (weight->codes[i] < weight->low || weight->codes[i] > weight->high)
            return tn_fail(error, TN_ERROR_MODEL, "code %d of layer %s at %lld is outside [%d, %d]",
                           weight->codes[i], tn_quote(layer->node), (long long)i, weight->low,
                           weight->high);
    }
    if (!has_hash(layer, tn_record_hash(weight)))
        return tn_fail(error, TN_ERROR_MODEL,
                       "codes or scales of layer %s changed since they were written",
                       tn_quote(layer->node));
    return TN_OK;
}

tn_status tn_record_read(const tn_record_layer *layer, const tn_graph *graph, tn_qweight *weight,
                         tn_error *error)
{
    tn_qweight result = layer->shape;
    json_t *entry = layer->entry;
    tn_status status = check_value(layer, graph, error);
    if (status != TN_OK)
        return status;
    if (!is_backed(layer, graph))
        return broken(layer, "codes", error);
    status = tn_qweight_init(&result, json_object_get(entry, "scale_neg") != NULL,
                             json_object_get(entry, "zero") != NULL, error);
    if (status != TN_OK)
        return status;
    if (!get_numbers(entry, "scale", graph, result.n_scales, result.scale) ||
        !are_positive(result.scale, result.n_scales))
        status = broken(layer, "scale", error);
    else if (result.scale_neg &&
             (!get_numbers(entry, "scale_neg", graph, result.n_scales, result.scale_neg) ||
              !are_positive(result.scale_neg, result.n_scales)))
        status = broken(layer, "scale_neg", error);
    else if (result.zero && (!get_numbers(entry, "zero", graph, result.n_scales, result.zero) ||
                             !are_finite(result.zero, result.n_scales)))
        status = broken(layer, "zero", error);
    if (status == TN_OK)
        status = read_codes(layer, graph, &result, error);
    if (status == TN_OK)
        status = check_codes(layer, &result, error);
    if (status == TN_OK)
        *weight = result;
    else
        tn_qweight_done(&result);
    return status;
}

tn_status tn_record_check_half(const tn_record_layer *layer, const tn_graph *graph, tn_error *error)
{
    const tn_value *value = tn_graph_value(graph, layer->weight);
    const tn_node *cast = value ? value->producer : NULL;
    const bool casts = cast && strcmp(cast->type, "Cast") == 0 && cast->n_inputs > 0;
    const tn_tensor *stored =
        casts && cast->inputs[0]->initializer ? cast->inputs[0]->constant : NULL;
    if (!stored || stored->dtype != TN_FLOAT16)
        return broken(layer, "FLOAT16 weights", error);
    if (!json_object_get(layer->entry, "hash")) /* not written up to 0.1.0 */
        return TN_OK;
    if (!has_hash(layer, tn_record_bytes_hash(stored->data, stored->bytes)))
        return tn_fail(error, TN_ERROR_MODEL,
                       "FLOAT16 weights of layer %s changed since they were written",
                       tn_quote(layer->node));
    return TN_OK;
}
