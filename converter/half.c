/* FLOAT16 storage: scheme half for single weights, --rest float16 for all that is not quantized. */
#include "converter/packer.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const float largest_half = 65504.0f, smallest_normal_half = 6.103515625e-5f;

enum { FEWEST_HALVES = 64 }; /* below, the Cast costs more than it saves */

static tn_status out_of_memory(tn_error *error)
{
    return tn_fail(error, TN_ERROR_LIMIT, "out of memory storing float16");
}

/* In place: halves into the front of the floats' memory. False when one does not fit. */
static bool halve(float *values, int64_t count, bool keep_small)
{
    for (int64_t i = 0; i < count; i++) {
        float size = fabsf(values[i]);
        if (!(size <= largest_half) || (keep_small && size > 0.0f && size < smallest_normal_half))
            return false;
    }
    for (int64_t i = 0; i < count; i++) {
        uint16_t half = tn_float_to_half(values[i]);
        memcpy((char *)values + (size_t)i * sizeof half, &half, sizeof half);
    }
    return true;
}

static tn_status add_cast(tn_model *model, size_t *position, const char *from, const char *to,
                          tn_dtype dtype, tn_error *error)
{
    const char *inputs[] = {from, NULL}, *outputs[] = {to, NULL};
    Onnx__NodeProto *node = tn_edit_add_node(model, *position, "Cast", "", inputs, outputs);
    if (!node)
        return out_of_memory(error);
    ++*position;
    return tn_edit_set_int(model, node, "to", dtype, error);
}

tn_status tn_packer_add_half(const tn_form_site *site, const tn_layer *layer, tn_error *error)
{
    tn_model *model = site->model;
    int64_t count = layer->rows * layer->cols;
    float *layout = tn_arena_array(&model->arena, (size_t)count, sizeof *layout);
    float *rows = site->axis == 0 ? layout : tn_alloc_array((size_t)count, sizeof *rows);
    tn_status status = layout && rows ? tn_layer_rows(layer, rows, error) : out_of_memory(error);
    if (status == TN_OK && rows != layout)
        tn_rows_to_layout(rows, site->rank, site->dims, site->axis, layout);
    if (rows != layout)
        tn_free(rows);
    if (status != TN_OK)
        return status;
    if (!halve(layout, count, false))
        return tn_fail(error, TN_ERROR_USAGE, "weight %s does not fit FLOAT16: keep it float",
                       tn_quote(site->output));
    char wanted[64];
    snprintf(wanted, sizeof wanted, "%s_half", site->base);
    const char *name = tn_edit_unique_name(model, wanted);
    if (!name || !tn_edit_add_initializer(model, name, TN_FLOAT16, site->rank, site->dims, layout,
                                          (size_t)count * 2, false))
        return out_of_memory(error);
    return add_cast(model, site->position, name, site->output, site->dtype, error);
}

/* Variances and the like divide: their small values keep FLOAT. */
static bool feeds_normalization(const tn_value *value)
{
    for (size_t i = 0; i < value->n_users; i++) {
        if (strstr(value->users[i]->type, "Normalization"))
            return true;
    }
    return false;
}

static bool is_listed_input(const Onnx__GraphProto *graph, const char *name)
{
    for (size_t i = 0; i < graph->n_input; i++) {
        if (strcmp(tn_text(graph->input[i]->name), name) == 0)
            return true;
    }
    return false;
}

static tn_status store_one(tn_packer *packer, Onnx__TensorProto *proto, tn_error *error)
{
    tn_model *model = packer->model;
    const tn_value *value = tn_graph_value(packer->graph, tn_text(proto->name));
    const tn_tensor *tensor = value ? value->constant : NULL;
    int64_t count = tensor ? tn_tensor_count(tensor) : 0;
    if (!value || value->initializer == NULL || value->is_output || count < FEWEST_HALVES ||
        tensor->dtype != TN_FLOAT || is_listed_input(model->proto->graph, value->name))
        return TN_OK;
    float *values = tn_arena_array(&model->arena, (size_t)count, sizeof *values);
    if (!values)
        return out_of_memory(error);
    tn_status status = tn_tensor_read_float(tensor, 0, count, values, error);
    if (status != TN_OK || !halve(values, count, feeds_normalization(value)))
        return status;
    size_t room = strlen(value->name) + 8;
    char *wanted = tn_arena_alloc(&model->arena, room);
    if (!wanted)
        return out_of_memory(error);
    snprintf(wanted, room, "%s_half", value->name);
    const char *name = tn_edit_unique_name(model, wanted);
    if (!name)
        return out_of_memory(error);
    tn_edit_remove_initializer(model, value->name);
    if (!tn_edit_add_initializer(model, name, TN_FLOAT16, tensor->rank, tensor->dims, values,
                                 (size_t)count * 2, false))
        return out_of_memory(error);
    return add_cast(model, &packer->position, name, value->name, TN_FLOAT, error);
}

tn_status tn_packer_store_half(tn_packer *packer, tn_error *error)
{
    Onnx__GraphProto *graph = packer->model->proto->graph;
    size_t n = graph->n_initializer;
    Onnx__TensorProto **list = tn_arena_array(&packer->model->arena, n, sizeof *list);
    tn_status status = list ? TN_OK : out_of_memory(error);
    if (status == TN_OK && n > 0)
        memcpy(list, graph->initializer, n * sizeof *list);
    for (size_t i = 0; status == TN_OK && i < n; i++)
        status = store_one(packer, list[i], error);
    return status;
}
