/* FLOAT16 storage: scheme half for single weights, --rest float16 for all that is not quantized. */
#include "converter/packer.h"
#include "converter/record.h"

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

tn_status tn_packer_add_half(const tn_form_site *site, const tn_layer *layer, tn_form_names *names,
                             tn_error *error)
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
    names->half_hash = tn_record_bytes_hash(layout, (size_t)count * 2);
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

/* The tensor of an initializer that can be stored as FLOAT16, or NULL. */
static const tn_tensor *candidate(const tn_packer *packer, const Onnx__TensorProto *proto,
                                  const tn_value **found)
{
    const tn_value *value = tn_graph_value(packer->graph, tn_text(proto->name));
    if (!value || !value->initializer || !value->constant || value->is_output ||
        value->constant->dtype != TN_FLOAT ||
        is_listed_input(packer->model->proto->graph, value->name))
        return NULL;
    *found = value;
    return value->constant;
}

/* The halves of a candidate, in the model's arena; NULL where one does not fit. */
static tn_status read_halves(tn_packer *packer, const tn_value *value, float **halves,
                             tn_error *error)
{
    int64_t count = tn_tensor_count(value->constant);
    float *values = tn_arena_array(&packer->model->arena, (size_t)count, sizeof *values);
    if (!values)
        return out_of_memory(error);
    tn_status status = tn_tensor_read_float(value->constant, 0, count, values, error);
    if (status == TN_OK)
        *halves = halve(values, count, feeds_normalization(value)) ? values : NULL;
    return status;
}

static tn_status store_one(tn_packer *packer, Onnx__TensorProto *proto, tn_error *error)
{
    tn_model *model = packer->model;
    const tn_value *value = NULL;
    const tn_tensor *tensor = candidate(packer, proto, &value);
    float *halves = NULL;
    if (!tensor || tn_tensor_count(tensor) < FEWEST_HALVES)
        return TN_OK;
    tn_status status = read_halves(packer, value, &halves, error);
    if (status != TN_OK || !halves)
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
    if (!tn_edit_add_initializer(model, name, TN_FLOAT16, tensor->rank, tensor->dims, halves,
                                 (size_t)tn_tensor_count(tensor) * 2, false))
        return out_of_memory(error);
    return add_cast(model, &packer->position, name, value->name, TN_FLOAT, error);
}

/* Vectors of one length, as one tensor. */
typedef struct bundle {
    const char **names; /* ends with NULL */
    uint16_t *halves;   /* [count, length] */
    size_t count;
    int64_t length;
} bundle;

static tn_status add_to_bundle(tn_packer *packer, const Onnx__TensorProto *proto, bundle *b,
                               tn_error *error)
{
    const tn_value *value = NULL;
    const tn_tensor *tensor = candidate(packer, proto, &value);
    float *halves = NULL;
    if (!tensor)
        return TN_OK;
    tn_status status = read_halves(packer, value, &halves, error);
    if (status == TN_OK && halves) {
        memcpy(b->halves + b->count * (size_t)b->length, halves, (size_t)b->length * 2);
        b->names[b->count++] = value->name;
    }
    return status;
}

/* One FLOAT16 tensor -> Cast -> Split into the vectors: an initializer and a Cast for each would
 * take more bytes than they save. */
static tn_status write_bundle(tn_packer *packer, const bundle *b, tn_error *error)
{
    enum { OPSET_NUM_OUTPUTS = 18 };
    tn_model *model = packer->model;
    char wanted[32];
    snprintf(wanted, sizeof wanted, "half_%lld", (long long)b->length);
    const char *name = tn_edit_unique_name(model, wanted);
    snprintf(wanted, sizeof wanted, "float_%lld", (long long)b->length);
    const char *cast = tn_edit_unique_name(model, wanted), *inputs[] = {cast, NULL};
    int64_t total = b->length * (int64_t)b->count;
    for (size_t i = 0; i < b->count; i++)
        tn_edit_remove_initializer(model, b->names[i]);
    if (!name || !cast ||
        !tn_edit_add_initializer(model, name, TN_FLOAT16, 1, &total, b->halves, (size_t)total * 2,
                                 false))
        return out_of_memory(error);
    tn_status status = add_cast(model, &packer->position, name, cast, TN_FLOAT, error);
    if (status != TN_OK)
        return status;
    Onnx__NodeProto *split =
        tn_edit_add_node(model, packer->position, "Split", "", inputs, b->names);
    if (!split)
        return out_of_memory(error);
    split->name = NULL;
    ++packer->position;
    return model->opset < OPSET_NUM_OUTPUTS
               ? TN_OK
               : tn_edit_set_int(model, split, "num_outputs", (int64_t)b->count, error);
}

static bool belongs(const Onnx__TensorProto *proto, int64_t length)
{
    return proto->n_dims == 1 && proto->dims[0] == length;
}

/* Bundles the vectors of each length, 32 at a time, where that saves bytes. */
static tn_status store_bundles(tn_packer *packer, Onnx__TensorProto *const *list, size_t n,
                               tn_error *error)
{
    enum { MOST = 32, FIXED_BYTES = 120, EACH_BYTES = 10 };
    tn_arena *arena = &packer->model->arena;
    tn_status status = TN_OK;
    bool *seen = tn_arena_array(arena, n + 1, sizeof *seen);
    if (!seen)
        return out_of_memory(error);
    for (size_t first = 0; status == TN_OK && first < n; first++) {
        if (seen[first] || list[first]->n_dims != 1 || list[first]->dims[0] < 1)
            continue;
        bundle b = {.length = list[first]->dims[0]};
        b.names = tn_arena_array(arena, MOST + 1, sizeof *b.names);
        b.halves = tn_arena_array(arena, MOST, (size_t)b.length * 2);
        if (!b.names || !b.halves)
            return out_of_memory(error);
        for (size_t i = first; status == TN_OK && i < n && b.count < MOST; i++)
            if (!seen[i] && belongs(list[i], b.length)) {
                seen[i] = true;
                status = add_to_bundle(packer, list[i], &b, error);
            }
        if (status == TN_OK && b.count > 1 &&
            b.count * (2 * (size_t)b.length + EACH_BYTES) > FIXED_BYTES)
            status = write_bundle(packer, &b, error);
    }
    return status;
}

static bool has_initializer(const Onnx__GraphProto *graph, const Onnx__TensorProto *proto)
{
    for (size_t i = 0; i < graph->n_initializer; i++)
        if (graph->initializer[i] == proto)
            return true;
    return false;
}

tn_status tn_packer_store_half(tn_packer *packer, tn_error *error)
{
    Onnx__GraphProto *graph = packer->model->proto->graph;
    size_t n = graph->n_initializer;
    Onnx__TensorProto **list = tn_arena_array(&packer->model->arena, n, sizeof *list);
    tn_status status = list ? TN_OK : out_of_memory(error);
    if (status == TN_OK && n > 0)
        memcpy(list, graph->initializer, n * sizeof *list);
    if (status == TN_OK && packer->options->prune_dead && !packer->has_subgraphs)
        status = store_bundles(packer, list, n, error);
    for (size_t i = 0; status == TN_OK && i < n; i++)
        if (has_initializer(graph, list[i]))
            status = store_one(packer, list[i], error);
    return status;
}
