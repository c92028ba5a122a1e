#include "converter/unpack.h"

#include "converter/biases.h"
#include "converter/recognize.h"
#include "converter/record.h"
#include "core/memory.h"

#include <stdlib.h>
#include <string.h>

static const tn_layer *find_layer(const tn_layers *layers, const char *weight)
{
    for (size_t i = 0; i < layers->count; i++) {
        if (strcmp(layers->layer[i].weight->name, weight) == 0)
            return &layers->layer[i];
    }
    return NULL;
}

static tn_status add(tn_graph *graph, tn_unpacked *unpacked, const tn_layer *layer,
                     const tn_qweight *weight, tn_error *error)
{
    tn_qweight *kept = tn_arena_alloc(&graph->arena, sizeof *kept);
    if (!kept)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory unpacking the model");
    *kept = *weight;
    unpacked->item[unpacked->count++] = (tn_pack_item){layer, kept};
    return TN_OK;
}

static tn_status read_layer(tn_graph *graph, const tn_layer *layer, const tn_record_layer *entry,
                            tn_unpacked *unpacked, tn_error *error)
{
    tn_qweight weight;
    if (!layer)
        return tn_fail(error, TN_ERROR_MODEL, "the weight %s of the record belongs to no layer",
                       tn_quote(entry->weight));
    if (!entry->form)
        return add(graph, unpacked, layer, &entry->shape, error);
    tn_status status = tn_record_read(entry, graph, &weight, error);
    if (status != TN_OK)
        return status;
    if (weight.axis != layer->axis || weight.rows != layer->rows || weight.cols != layer->cols)
        status = tn_fail(error, TN_ERROR_MODEL, "the record of layer %s has another shape",
                         tn_quote(entry->node));
    if (status == TN_OK)
        status = add(graph, unpacked, layer, &weight, error);
    if (status != TN_OK)
        tn_qweight_done(&weight);
    return status;
}

static void drop_items(tn_unpacked *unpacked)
{
    for (size_t i = 0; i < unpacked->count; i++) {
        tn_qweight weight = *unpacked->item[i].weight;
        tn_qweight_done(&weight);
    }
    unpacked->count = 0;
}

static bool make_room(tn_graph *graph, tn_unpacked *unpacked, size_t count)
{
    unpacked->item = tn_arena_array(&graph->arena, count + 1, sizeof *unpacked->item);
    return unpacked->item != NULL;
}

static tn_status read_record(tn_graph *graph, const tn_layers *layers, tn_unpacked *unpacked,
                             tn_error *error)
{
    tn_record record = {0};
    tn_layers biases = {NULL, 0};
    tn_status status = tn_record_parse(graph->model, &record, error);
    if (status == TN_OK)
        status = tn_biases_find(graph, layers, &biases, error);
    if (status == TN_OK && record.count > layers->count + biases.count)
        status = tn_fail(error, TN_ERROR_MODEL, "the record has more layers than the model");
    if (status == TN_OK && !make_room(graph, unpacked, record.count))
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory unpacking the model");
    for (size_t i = 0; status == TN_OK && i < record.count; i++) {
        const char *name = record.layer[i].weight;
        const tn_layer *layer = find_layer(layers, name);
        layer = layer ? layer : find_layer(&biases, name);
        status = read_layer(graph, layer, &record.layer[i], unpacked, error);
    }
    if (status == TN_OK && record.json) {
        unpacked->from_record = true;
        unpacked->preprocess = tn_record_object(&record, "preprocess");
        unpacked->recipe = tn_record_object(&record, "recipe");
        unpacked->activations = tn_record_object(&record, "activations");
        unpacked->rest_float16 = record.rest_float16;
    }
    if (status != TN_OK)
        drop_items(unpacked);
    tn_record_done(&record);
    return status;
}

static tn_status recognize_all(tn_graph *graph, const tn_layers *layers, tn_unpacked *unpacked,
                               tn_error *error)
{
    tn_status status = TN_OK;
    if (!make_room(graph, unpacked, layers->count))
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory unpacking the model");
    for (size_t i = 0; status == TN_OK && i < layers->count; i++) {
        tn_qweight weight;
        bool found = false;
        status = tn_recognize(&layers->layer[i], &weight, &found, error);
        if (status != TN_OK || !found)
            continue;
        status = add(graph, unpacked, &layers->layer[i], &weight, error);
        if (status != TN_OK)
            tn_qweight_done(&weight);
    }
    return status;
}

tn_status tn_unpack(tn_graph *graph, const tn_reporter *reporter, tn_unpacked *unpacked,
                    tn_error *error)
{
    tn_unpacked result = {0};
    tn_layers layers;
    tn_error ignored = {0};
    tn_status status = tn_layers_find(graph, &layers, error);
    if (status != TN_OK)
        return status;
    status = read_record(graph, &layers, &result, &ignored);
    if (status == TN_ERROR_LIMIT)
        return tn_fail(error, status, "%s", ignored.message);
    if (status != TN_OK)
        tn_log(reporter, TN_LOG_WARNING, "the model's record is ignored: %s", ignored.message);
    status = result.from_record ? TN_OK : recognize_all(graph, &layers, &result, error);
    if (status == TN_OK)
        *unpacked = result;
    else
        tn_unpacked_done(&result);
    return status;
}

void tn_unpacked_done(tn_unpacked *unpacked)
{
    drop_items(unpacked);
    free(unpacked->preprocess);
    free(unpacked->recipe);
    free(unpacked->activations);
    unpacked->preprocess = unpacked->recipe = unpacked->activations = NULL;
}
