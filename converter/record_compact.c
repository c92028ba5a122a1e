/* Schema 2 of the record: what all layers have in common stands once.
 *
 * - "common": {"form", "scheme", "bits", "granularity", "group"}: of layers that do not say
 *   otherwise. A key is there when every layer had it.
 * - "node" is left out where it is the name of the first node that reads the weight.
 * - "codes" and "scale" are left out together where they are called w<i>_codes and w<i>_scale, i
 *   being the layer's place in the list. */
#include "converter/record.h"

#include "core/memory.h"

#include <jansson.h>
#include <stdio.h>
#include <string.h>

static const char *const COMMON[] = {"form", "scheme", "bits", "granularity", "group"};

enum { N_COMMON = sizeof COMMON / sizeof *COMMON };

/* Name of the first node that reads `weight`; NULL when it has none. */
static const char *reader_of(const tn_model *model, const char *weight)
{
    const Onnx__GraphProto *graph = model->proto->graph;
    for (size_t i = 0; weight && graph && i < graph->n_node; i++)
        for (size_t k = 0; k < graph->node[i]->n_input; k++)
            if (strcmp(tn_text(graph->node[i]->input[k]), weight) == 0)
                return tn_text(graph->node[i]->name)[0] ? graph->node[i]->name : NULL;
    return NULL;
}

static const char *text_of(json_t *entry, const char *key)
{
    return json_string_value(json_object_get(entry, key));
}

static bool is_called(json_t *entry, const char *key, size_t i)
{
    char name[48];
    const char *text = text_of(entry, key);
    snprintf(name, sizeof name, "w%zu_%s", i, key);
    return text && strcmp(text, name) == 0;
}

static bool call(json_t *entry, const char *key, size_t i)
{
    char name[48];
    snprintf(name, sizeof name, "w%zu_%s", i, key);
    return json_object_set_new(entry, key, json_string(name)) == 0;
}

static void shorten_entry(json_t *entry, size_t i, const tn_model *model)
{
    const char *node = text_of(entry, "node"), *reader = reader_of(model, text_of(entry, "weight"));
    if (node && reader && strcmp(node, reader) == 0)
        json_object_del(entry, "node");
    if (is_called(entry, "codes", i) && is_called(entry, "scale", i)) {
        json_object_del(entry, "codes");
        json_object_del(entry, "scale");
    }
}

static bool shorten_key(json_t *layers, json_t *common, const char *key)
{
    json_t *first = json_object_get(json_array_get(layers, 0), key);
    for (size_t i = 0; i < json_array_size(layers); i++)
        if (!json_object_get(json_array_get(layers, i), key))
            return true;
    if (!first)
        return true;
    if (json_object_set(common, key, first) != 0)
        return false;
    first = json_object_get(common, key);
    for (size_t i = 0; i < json_array_size(layers); i++) {
        json_t *entry = json_array_get(layers, i);
        if (json_equal(json_object_get(entry, key), first))
            json_object_del(entry, key);
    }
    return true;
}

bool tn_record_shorten(json_t *json, const tn_model *model)
{
    json_t *layers = json_object_get(json, "layers"), *common = json_object();
    bool ok = common != NULL;
    for (size_t i = 0; i < json_array_size(layers); i++)
        shorten_entry(json_array_get(layers, i), i, model);
    for (size_t k = 0; ok && k < N_COMMON; k++)
        ok = shorten_key(layers, common, COMMON[k]);
    ok = ok && json_object_set_new(json, "schema", json_integer(TN_RECORD_COMPACT)) == 0;
    if (ok && json_object_size(common) > 0)
        ok = json_object_set(json, "common", common) == 0;
    json_decref(common);
    return ok;
}

bool tn_record_expand(json_t *json, const tn_model *model)
{
    json_t *layers = json_object_get(json, "layers"), *common = json_object_get(json, "common");
    bool ok = true;
    for (size_t i = 0; ok && i < json_array_size(layers); i++) {
        json_t *entry = json_array_get(layers, i);
        if (!json_is_object(entry))
            return false;
        for (size_t k = 0; ok && k < N_COMMON; k++) {
            json_t *value = json_object_get(common, COMMON[k]);
            if (value && !json_object_get(entry, COMMON[k]))
                ok = json_object_set(entry, COMMON[k], value) == 0;
        }
        const char *reader = reader_of(model, text_of(entry, "weight")),
                   *form = text_of(entry, "form");
        if (ok && reader && !json_object_get(entry, "node"))
            ok = json_object_set_new(entry, "node", json_string(reader)) == 0;
        if (ok && form && strcmp(form, "half") != 0 && !json_object_get(entry, "codes") &&
            !json_object_get(entry, "scale"))
            ok = call(entry, "codes", i) && call(entry, "scale", i);
    }
    return ok;
}
