#include "onnx_io/model.h"

#include "onnx_io/edit.h"
#include "onnx_io/model_store.h"

#include <string.h>

const char *tn_text(const char *optional)
{
    return optional ? optional : "";
}

tn_model *tn_model_new(const char *path)
{
    tn_model *model = tn_alloc_zero(1, sizeof *model);
    if (!model)
        return NULL;
    tn_arena_init(&model->arena);
    model->path = tn_arena_strdup(&model->arena, path);
    model->store = tn_arena_alloc(&model->arena, sizeof *model->store);
    if (!model->path || !model->store) {
        tn_arena_done(&model->arena);
        tn_free(model);
        return NULL;
    }
    tn_names_init(&model->store->taken);
    return model;
}

void tn_model_destroy(tn_model *model)
{
    if (!model)
        return;
    for (struct tn_model_map *map = model->store->maps; map; map = map->next)
        if (!map->borrowed)
            tn_file_map_close(&map->map);
    tn_names_done(&model->store->taken);
    tn_arena_done(&model->arena);
    tn_free(model);
}

void tn_model_forget_pages(const tn_model *model)
{
    for (const struct tn_model_map *map = model->store->maps; map; map = map->next)
        tn_file_map_forget(&map->map);
}

bool tn_model_keep_map(tn_model *model, const tn_file_map *map, bool borrowed)
{
    struct tn_model_map *kept = tn_arena_alloc(&model->arena, sizeof *kept);
    if (!kept)
        return false;
    *kept = (struct tn_model_map){model->store->maps, *map, borrowed};
    model->store->maps = kept;
    return true;
}

tn_status tn_model_create(const char *graph_name, int64_t ir_version, int64_t opset,
                          tn_model **model, tn_error *error)
{
    tn_model *result = tn_model_new("");
    tn_status status = TN_OK;
    Onnx__ModelProto *proto = result ? tn_arena_alloc(&result->arena, sizeof *proto) : NULL;
    Onnx__GraphProto *graph = result ? tn_arena_alloc(&result->arena, sizeof *graph) : NULL;
    char *name = result ? tn_arena_strdup(&result->arena, graph_name) : NULL;
    if (!proto || !graph || !name) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for a new model");
        goto done;
    }
    onnx__model_proto__init(proto);
    onnx__graph_proto__init(graph);
    graph->name = name;
    proto->graph = graph;
    result->proto = proto;
    status = tn_edit_set_versions(result, ir_version, opset, error);
done:
    if (status != TN_OK)
        tn_model_destroy(result);
    else
        *model = result;
    return status;
}

const char *tn_model_metadata(const tn_model *model, const char *key)
{
    for (size_t i = 0; i < model->proto->n_metadata_props; i++) {
        const Onnx__StringStringEntryProto *entry = model->proto->metadata_props[i];
        if (strcmp(tn_text(entry->key), key) == 0)
            return tn_text(entry->value);
    }
    return NULL;
}
