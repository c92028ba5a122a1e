#include "converter/record.h"

#include "converter/base64.h"
#include "core/memory.h"

#include <jansson.h>
#include <stdlib.h>
#include <string.h>

static const char record_key[] = "ternion";

static tn_status out_of_memory(tn_error *error)
{
    return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the record");
}

/* One JSON object from text. */
static json_t *parse_object(const char *text)
{
    json_t *object = json_loads(text, JSON_REJECT_DUPLICATES, NULL);
    if (object && !json_is_object(object)) {
        json_decref(object);
        object = NULL;
    }
    return object;
}

static tn_status set_object(json_t *json, const char *key, const char *text, tn_error *error)
{
    if (!text)
        return TN_OK;
    json_t *object = parse_object(text);
    if (!object)
        return tn_fail(error, TN_ERROR_USAGE, "%s is no JSON object", key);
    return json_object_set_new(json, key, object) ? out_of_memory(error) : TN_OK;
}

tn_status tn_record_create(const tn_record_head *head, json_t **json, tn_error *error)
{
    json_t *record =
        json_pack("{s:i,s:s}", "schema", TN_RECORD_SCHEMA, "tool", "ternion " TERNION_VERSION);
    if (!record)
        return out_of_memory(error);
    tn_status status = set_object(record, "preprocess", head->preprocess, error);
    if (status == TN_OK)
        status = set_object(record, "recipe", head->recipe, error);
    if (status == TN_OK)
        status = set_object(record, "activations", head->activations, error);
    if (status == TN_OK && head->rest_float16 &&
        json_object_set_new(record, "rest", json_string("float16")))
        status = out_of_memory(error);
    if (status == TN_OK && json_object_set_new(record, "layers", json_array()))
        status = out_of_memory(error);
    if (status == TN_OK)
        *json = record;
    else
        json_decref(record);
    return status;
}

void tn_record_release(json_t *json)
{
    json_decref(json);
}

/* Sets `key` and remembers failures in *ok. Names that are no UTF-8 cannot come here: the reader
 * refuses them. */
static void set(json_t *object, const char *key, json_t *value, bool *ok)
{
    if (!value || json_object_set_new(object, key, value))
        *ok = false;
}

static void set_shape(json_t *entry, int rank, const int64_t *dims, bool *ok)
{
    json_t *shape = json_array();
    for (int i = 0; i < rank; i++) {
        if (json_array_append_new(shape, json_integer(dims[i])))
            *ok = false;
    }
    set(entry, "shape", shape, ok);
}

static void set_codes(json_t *entry, const tn_form_names *names, bool *ok)
{
    if (!names->codes[0])
        return;
    if (!names->codes[1]) {
        set(entry, "codes", json_string(names->codes[0]), ok);
        return;
    }
    json_t *list = json_array();
    for (int i = 0; i < TN_FORM_MAX_PLANES && names->codes[i]; i++) {
        if (json_array_append_new(list, json_string(names->codes[i])))
            *ok = false;
    }
    set(entry, "codes", list, ok);
}

/* Numbers: the name of their initializer, or themselves. */
static void set_numbers(json_t *entry, const char *key, const char *name, const float *numbers,
                        int64_t count, bool *ok)
{
    if (!numbers)
        return;
    if (name) {
        set(entry, key, json_string(name), ok);
        return;
    }
    size_t bytes = (size_t)count * sizeof *numbers;
    char *text = tn_alloc(tn_base64_size(bytes));
    if (!text) {
        *ok = false;
        return;
    }
    tn_base64_encode(numbers, bytes, text);
    json_t *inline_numbers = json_pack("{s:s}", "base64", text);
    tn_free(text);
    set(entry, key, inline_numbers, ok);
}

static void standard_range(const tn_qweight *weight, int *low, int *high)
{
    *low = weight->ternary ? -1 : -(1 << (weight->bits - 1));
    *high = weight->ternary ? 1 : (1 << (weight->bits - 1)) - 1;
}

static void set_scheme(json_t *entry, const tn_form_site *site, bool *ok)
{
    const tn_qweight *weight = site->weight;
    int low, high;
    set(entry, "bits", weight->ternary ? json_real(1.58) : json_integer(weight->bits), ok);
    if (site->axis != 0)
        set(entry, "axis", json_integer(site->axis), ok);
    if (weight->granularity == TN_PER_GROUP)
        set(entry, "group", json_integer(weight->group), ok);
    else if (weight->granularity == TN_PER_TENSOR)
        set(entry, "granularity", json_string("tensor"), ok);
    standard_range(weight, &low, &high);
    if (weight->low != low || weight->high != high)
        set(entry, "params", json_pack("{s:i,s:i}", "low", weight->low, "high", weight->high), ok);
}

tn_status tn_record_add(json_t *json, const char *node, const tn_form *form,
                        const tn_form_site *site, const tn_form_names *names, tn_error *error)
{
    const tn_qweight *weight = site->weight;
    char hash[17];
    bool ok = true;
    json_t *entry = json_object();
    set(entry, "node", json_string(node), &ok);
    set(entry, "weight", json_string(site->output), &ok);
    set(entry, "form", json_string(form ? form->id : "half"), &ok);
    set(entry, "scheme", json_string(weight && weight->scheme ? weight->scheme : "half"), &ok);
    if (form) {
        set_scheme(entry, site, &ok);
        set_shape(entry, site->rank, site->dims, &ok);
        set_codes(entry, names, &ok);
        set_numbers(entry, "scale", names->scale, weight->scale, weight->n_scales, &ok);
        set_numbers(entry, "scale_neg", names->scale_neg, weight->scale_neg, weight->n_scales, &ok);
        set_numbers(entry, "zero", names->zero, weight->zero, weight->n_scales, &ok);
    } else {
        set(entry, "bits", json_integer(16), &ok);
    }
    snprintf(hash, sizeof hash, "%016llx",
             (unsigned long long)(form ? tn_record_hash(weight) : names->half_hash));
    set(entry, "hash", json_string(hash), &ok);
    if (!ok) {
        json_decref(entry);
        return tn_fail(error, TN_ERROR_LIMIT, "the record cannot hold layer %s", tn_quote(node));
    }
    return json_array_append_new(json_object_get(json, "layers"), entry) ? out_of_memory(error)
                                                                         : TN_OK;
}

tn_status tn_record_store(json_t *json, bool compact, tn_model *model, tn_error *error)
{
    if (compact && !tn_record_shorten(json, model))
        return out_of_memory(error);
    char *text = json_dumps(json, JSON_COMPACT | JSON_REAL_PRECISION(6));
    if (!text)
        return out_of_memory(error);
    tn_status status = tn_edit_set_metadata(model, record_key, text, error);
    free(text);
    return status;
}
