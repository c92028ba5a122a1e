#include "converter/pack.h"

#include "converter/packer.h"
#include "converter/record.h"
#include "onnx_io/opset.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { LONGEST_BASE = 20, LONGEST_TAIL = 14 };

static tn_status out_of_memory(tn_error *error)
{
    return tn_fail(error, TN_ERROR_LIMIT, "out of memory packing the model");
}

static int compare_pairs(const void *a, const void *b)
{
    const Onnx__NodeProto *x = ((const struct proto_pair *)a)->original;
    const Onnx__NodeProto *y = ((const struct proto_pair *)b)->original;
    return (x > y) - (x < y);
}

Onnx__NodeProto *tn_packer_node(const tn_packer *packer, const tn_node *node)
{
    struct proto_pair key = {.original = node->proto};
    struct proto_pair *pair =
        bsearch(&key, packer->pairs, packer->n_pairs, sizeof *pair, compare_pairs);
    return pair ? pair->copy : NULL;
}

/* A copy has the original's nodes in the original's order. */
static tn_status pair_nodes(tn_packer *packer, tn_error *error)
{
    const Onnx__GraphProto *original = packer->graph->model->proto->graph;
    const Onnx__GraphProto *copy = packer->model->proto->graph;
    packer->n_pairs = original->n_node;
    packer->pairs = tn_arena_array(&packer->model->arena, packer->n_pairs, sizeof *packer->pairs);
    packer->decoded = tn_arena_array(&packer->model->arena, packer->count, sizeof *packer->decoded);
    if (!packer->pairs || !packer->decoded)
        return out_of_memory(error);
    for (size_t i = 0; i < packer->n_pairs; i++) {
        packer->pairs[i] = (struct proto_pair){original->node[i], copy->node[i]};
        for (size_t k = 0; k < copy->node[i]->n_attribute; k++) {
            const Onnx__AttributeProto *attribute = copy->node[i]->attribute[k];
            if (attribute->g || attribute->n_graphs > 0)
                packer->has_subgraphs = true;
        }
    }
    if (packer->n_pairs > 0)
        qsort(packer->pairs, packer->n_pairs, sizeof *packer->pairs, compare_pairs);
    return TN_OK;
}

void tn_packer_forget_type(tn_packer *packer, const char *name)
{
    Onnx__GraphProto *graph = packer->model->proto->graph;
    size_t kept = 0;
    for (size_t i = 0; i < graph->n_value_info; i++) {
        if (strcmp(tn_text(graph->value_info[i]->name), name) != 0)
            graph->value_info[kept++] = graph->value_info[i];
    }
    graph->n_value_info = kept;
}

/* Which input of a user is the layer's weight. A bias is another input of a Gemm than of an Add. */
static size_t input_of(const tn_layer *layer, const tn_node *user)
{
    size_t input = layer->input;
    if (input < user->n_inputs && user->inputs[input] == layer->weight)
        return input;
    for (input = 0; input + 1 < user->n_inputs && user->inputs[input] != layer->weight;)
        input++;
    return input;
}

/* Gives the decoded weight a name of its own, and to the layer's users. */
static tn_status rename_for_users(tn_packer *packer, size_t i, tn_error *error)
{
    const tn_layer *layer = packer->items[i].layer;
    size_t room = strlen(layer->weight->name) + 16;
    char *wanted = tn_arena_alloc(&packer->model->arena, room);
    tn_status status = TN_OK;
    if (!wanted)
        return out_of_memory(error);
    snprintf(wanted, room, "%s_quantized", layer->weight->name);
    const char *name = tn_edit_unique_name(packer->model, wanted);
    if (!name)
        return out_of_memory(error);
    packer->decoded[i] = name;
    for (size_t u = 0; status == TN_OK && u < layer->n_users; u++) {
        const tn_node *user = layer->users[u];
        status = tn_edit_set_input(packer->model, tn_packer_node(packer, user),
                                   input_of(layer, user), name, error);
    }
    return status;
}

/* Frees the weight's name, so that the decoded weight can take it and users stay as they are. Where
 * others may read the weight, the decoded one gets a new name: pruning then tells whether anything
 * still reads the old. */
static tn_status detach(tn_packer *packer, size_t i, tn_error *error)
{
    const tn_layer *layer = packer->items[i].layer;
    const tn_value *value = layer->weight;
    bool exclusive = value->n_users == layer->n_users && !value->is_output &&
                     !packer->has_subgraphs &&
                     (value->initializer || (value->producer && value->producer->n_outputs == 1));
    packer->decoded[i] = value->name;
    if (!exclusive)
        return rename_for_users(packer, i, error);
    if (value->initializer)
        tn_edit_remove_initializer(packer->model, value->name);
    else
        tn_edit_remove_node(packer->model, tn_packer_node(packer, value->producer));
    if (layer->transpose)
        tn_packer_forget_type(packer, value->name);
    return TN_OK;
}

/* Names that only the replaced weights may have needed: everything upstream of them. */
static tn_status list_upstream(tn_packer *packer, const char ***names, tn_error *error)
{
    const tn_graph *graph = packer->graph;
    const char **list = tn_arena_array(&packer->model->arena, graph->n_values + 1, sizeof *list);
    const tn_value **stack = tn_arena_array(&packer->model->arena, graph->n_values, sizeof *stack);
    bool *seen = tn_arena_array(&packer->model->arena, graph->n_values, sizeof *seen);
    size_t n = 0, depth = 0;
    if (!list || !stack || !seen)
        return out_of_memory(error);
    for (size_t i = 0; i < packer->count; i++) {
        const tn_value *value = packer->items[i].layer->weight;
        if (!seen[value->index]) {
            seen[value->index] = true;
            stack[depth++] = value;
        }
    }
    while (depth > 0) {
        const tn_value *value = stack[--depth];
        list[n++] = value->name;
        for (size_t i = 0; value->producer && i < value->producer->n_inputs; i++) {
            const tn_value *input = value->producer->inputs[i];
            if (input && !seen[input->index]) {
                seen[input->index] = true;
                stack[depth++] = input;
            }
        }
    }
    *names = list;
    return TN_OK;
}

static tn_status prune(tn_packer *packer, tn_error *error)
{
    const char **names = NULL;
    if (packer->options->prune_dead) {
        tn_status status = tn_packer_flatten_plumbing(packer, error);
        return status == TN_OK ? tn_edit_prune(packer->model, error) : status;
    }
    tn_status status = list_upstream(packer, &names, error);
    return status == TN_OK ? tn_edit_prune_names(packer->model, names, error) : status;
}

/* Stem of the names a weight's nodes and initializers get: its own name without ".weight", or of a
 * long one the last part and the number of the layer, because every name appears several times in
 * the file. */
static const char *make_base(tn_packer *packer, size_t i)
{
    static const char suffix[] = "weight";
    const char *name = packer->items[i].layer->weight->name, *tail = name;
    size_t length = strlen(name), cut = sizeof suffix - 1;
    if (length > cut + 1 && strcmp(name + length - cut, suffix) == 0 &&
        strchr("._/", name[length - cut - 1]))
        length -= cut + 1;
    bool whole = length <= LONGEST_BASE;
    for (const char *c = name + length - 1; !whole && c > name + length - LONGEST_TAIL; c--) {
        if (strchr("./:", *c) && c + 1 < name + length)
            tail = c + 1;
    }
    if (!whole && tail == name)
        tail = name + length - LONGEST_TAIL;
    while ((*tail & 0xc0) == 0x80) /* never inside a UTF-8 sequence */
        tail++;
    size_t room = LONGEST_BASE + 24;
    char *base = tn_arena_alloc(&packer->model->arena, room);
    int used = (int)(name + length - tail);
    if (base && whole)
        snprintf(base, room, "%.*s", used, name);
    else if (base)
        snprintf(base, room, "%.*s.%zu", used, tail, i);
    return base;
}

static const char *make_stem(tn_packer *packer, size_t i)
{
    char *stem = tn_arena_alloc(&packer->model->arena, 24);
    if (stem)
        snprintf(stem, 24, "w%zu", i);
    return stem;
}

static tn_status make_site(tn_packer *packer, size_t i, tn_form_site *site, tn_error *error)
{
    const tn_pack_item *item = &packer->items[i];
    const tn_value *value = item->layer->weight;
    *site = (tn_form_site){.model = packer->model,
                           .weight = item->weight,
                           .dtype = value->dtype,
                           .rank = value->rank,
                           .axis = item->layer->axis,
                           .output = packer->decoded[i],
                           .compact = packer->options->prune_dead,
                           .position = &packer->position};
    memcpy(site->dims, value->dims, sizeof site->dims);
    if (item->layer->transpose) {
        site->rank = 2;
        site->axis = 0;
        site->dims[0] = item->layer->rows;
        site->dims[1] = item->layer->cols;
    }
    site->base = site->compact ? make_stem(packer, i) : make_base(packer, i);
    return site->base ? TN_OK : out_of_memory(error);
}

static tn_status transpose_users(tn_packer *packer, size_t i, tn_error *error)
{
    const tn_layer *layer = packer->items[i].layer;
    tn_status status = TN_OK;
    for (size_t u = 0; layer->transpose && status == TN_OK && u < layer->n_users; u++)
        status = tn_packer_make_gemm(packer, layer->users[u], packer->decoded[i], error);
    return status;
}

static tn_status replace(tn_packer *packer, size_t i, tn_error *error)
{
    const tn_pack_item *item = &packer->items[i];
    const tn_form *form = packer->plan->choice[i].form;
    tn_form_site site;
    tn_form_names names = {0};
    tn_status status = make_site(packer, i, &site, error);
    if (status == TN_OK)
        status = form ? form->write(&site, &names, error)
                      : tn_packer_add_half(&site, item->layer, &names, error);
    if (status == TN_OK)
        status = transpose_users(packer, i, error);
    if (status == TN_OK)
        status = tn_record_add(packer->record, tn_node_label(item->layer->node), form, &site,
                               &names, error);
    if (status != TN_OK)
        tn_error_note_node(error, tn_node_label(item->layer->node));
    return status;
}

/* Under IR 3 every initializer is listed as input and constant; from IR 4 on a listed one can be
 * overridden and is folded no more. */
static void unlist_initializers(tn_packer *packer)
{
    Onnx__GraphProto *graph = packer->model->proto->graph;
    size_t kept = 0;
    for (size_t i = 0; i < graph->n_input; i++) {
        const tn_value *value = tn_graph_value(packer->graph, tn_text(graph->input[i]->name));
        if (!value || !value->initializer)
            graph->input[kept++] = graph->input[i];
    }
    graph->n_input = kept;
}

static tn_status set_versions(tn_packer *packer, tn_error *error)
{
    if (packer->model->ir_version < 4)
        unlist_initializers(packer);
    if (packer->plan->opset > packer->model->opset) {
        tn_status status = tn_opset_raise(packer->model, packer->plan->opset, error);
        if (status != TN_OK)
            return status;
    }
    return tn_edit_set_versions(packer->model, packer->plan->ir, packer->plan->opset, error);
}

static tn_status edit(tn_packer *packer, tn_error *error)
{
    tn_status status = pair_nodes(packer, error);
    if (status == TN_OK) /* while the copy is whole */
        status = set_versions(packer, error);
    for (size_t i = 0; status == TN_OK && i < packer->count; i++)
        status = detach(packer, i, error);
    if (status == TN_OK)
        status = prune(packer, error);
    if (status == TN_OK && packer->options->rest_float16)
        status = tn_packer_store_half(packer, error);
    if (status == TN_OK) {
        const tn_pack_options *options = packer->options;
        const tn_record_head head = {options->preprocess, options->recipe, options->activations,
                                     options->rest_float16 || options->rest_was_float16};
        status = tn_record_create(&head, &packer->record, error);
    }
    for (size_t i = 0; status == TN_OK && i < packer->count; i++) {
        status = tn_cancelled(packer->options->reporter)
                     ? tn_fail(error, TN_ERROR_CANCELLED, "packing was stopped")
                     : replace(packer, i, error);
        tn_progress(packer->options->reporter, "packing", i + 1, packer->count);
    }
    if (status == TN_OK && packer->options->prune_dead)
        status = tn_packer_compact(packer, error);
    if (status == TN_OK)
        status = tn_record_store(packer->record, packer->options->prune_dead, packer->model, error);
    return status;
}

tn_status tn_pack(tn_graph *graph, const tn_pack_item *items, size_t count,
                  const tn_pack_options *options, tn_pack_plan *plan, tn_model **packed,
                  tn_error *error)
{
    tn_pack_plan own;
    tn_packer packer = {
        .graph = graph, .items = items, .count = count, .options = options, .plan = &own};
    tn_status status = tn_pack_choose(graph, items, count, options, &own, error);
    if (status == TN_OK)
        status = tn_model_copy(graph->model, &packer.model, error);
    if (status == TN_OK)
        status = edit(&packer, error);
    tn_record_release(packer.record);
    if (status != TN_OK) {
        tn_model_destroy(packer.model);
        return status;
    }
    if (plan)
        *plan = own;
    *packed = packer.model;
    return TN_OK;
}
