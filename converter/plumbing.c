#include "converter/packer.h"

#include "onnx_io/names.h"

#include <stdlib.h>
#include <string.h>
#include <xxhash.h>

enum { LARGEST_CONSTANT = 1024 }; /* larger results stay computed: that is smaller */

static bool is_weight(const tn_packer *packer, const tn_value *value)
{
    for (size_t i = 0; i < packer->count; i++) {
        if (packer->items[i].layer->weight == value)
            return true;
    }
    return false;
}

/* What --rest float16 wrote: the result would be twice as large. */
static bool widens_half(const tn_node *node)
{
    const tn_node *cast = node;
    if (strcmp(node->type, "Split") == 0 && node->inputs[0] && node->inputs[0]->producer)
        cast = node->inputs[0]->producer;
    const tn_value *from = cast->n_inputs > 0 ? cast->inputs[0] : NULL;
    return strcmp(cast->type, "Cast") == 0 && from && from->initializer && from->constant &&
           from->constant->dtype == TN_FLOAT16;
}

static bool is_small(const tn_packer *packer, const tn_node *node)
{
    if (widens_half(node))
        return false;
    for (size_t i = 0; i < node->n_outputs; i++) {
        const tn_value *value = node->outputs[i];
        if (!value)
            continue;
        if (!value->constant || value->constant->dtype == TN_STRING || value->is_output ||
            value->constant->bytes > LARGEST_CONSTANT || is_weight(packer, value))
            return false;
    }
    return true;
}

/* A constant of the copy, for finding equals. */
typedef struct constant {
    Onnx__TensorProto *proto;
    uint64_t hash;
} constant;

static int compare_constants(const void *a, const void *b)
{
    const constant *x = a, *y = b;
    size_t left = strlen(tn_text(x->proto->name)), right = strlen(tn_text(y->proto->name));
    if (x->hash != y->hash)
        return x->hash < y->hash ? -1 : 1;
    return left != right ? (left < right ? -1 : 1)
                         : strcmp(tn_text(x->proto->name), tn_text(y->proto->name));
}

static bool are_equal(const Onnx__TensorProto *a, const Onnx__TensorProto *b)
{
    return a->data_type == b->data_type && a->n_dims == b->n_dims &&
           (a->n_dims == 0 || memcmp(a->dims, b->dims, a->n_dims * sizeof *a->dims) == 0) &&
           a->raw_data.len == b->raw_data.len &&
           memcmp(a->raw_data.data, b->raw_data.data, a->raw_data.len) == 0;
}

/* Small constants are alike in most exports: users of equal ones share the one with the shortest
 * name. `names` gets what each replaced one is called now. */
static tn_status find_equals(tn_packer *packer, tn_names *names, tn_error *error)
{
    Onnx__GraphProto *graph = packer->model->proto->graph;
    size_t n = 0;
    constant *list = tn_alloc_array(graph->n_initializer, sizeof *list);
    tn_status status = TN_OK;
    if (!list)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory packing the model");
    for (size_t i = 0; i < graph->n_initializer; i++) {
        Onnx__TensorProto *proto = graph->initializer[i];
        const tn_value *value = tn_graph_value(packer->graph, tn_text(proto->name));
        if (proto->has_raw_data && proto->raw_data.len <= LARGEST_CONSTANT && value &&
            !value->is_output && !value->initializer)
            list[n++] = (constant){proto, XXH3_64bits(proto->raw_data.data, proto->raw_data.len)};
    }
    qsort(list, n, sizeof *list, compare_constants);
    for (size_t i = 1, first = 0; status == TN_OK && i < n; i++) {
        if (!are_equal(list[first].proto, list[i].proto))
            first = i;
        else if (!tn_names_set(names, list[i].proto->name, list[first].proto->name))
            status = tn_fail(error, TN_ERROR_LIMIT, "out of memory packing the model");
    }
    tn_free(list);
    return status;
}

static tn_status share_equals(tn_packer *packer, tn_error *error)
{
    Onnx__GraphProto *graph = packer->model->proto->graph;
    tn_names names;
    if (packer->has_subgraphs)
        return TN_OK;
    tn_names_init(&names);
    tn_status status = find_equals(packer, &names, error);
    for (size_t i = 0; status == TN_OK && i < graph->n_node; i++) {
        Onnx__NodeProto *node = graph->node[i];
        for (size_t k = 0; k < node->n_input; k++) {
            char *shared = tn_names_get(&names, node->input[k]);
            if (shared)
                node->input[k] = shared;
        }
    }
    tn_names_done(&names);
    return status;
}

tn_status tn_packer_flatten_plumbing(tn_packer *packer, tn_error *error)
{
    tn_model *model = packer->model;
    for (size_t i = 0; i < packer->graph->n_nodes; i++) {
        const tn_node *node = packer->graph->nodes[i];
        if (!node->folded || node->holder || !is_small(packer, node))
            continue;
        for (size_t k = 0; k < node->n_outputs; k++) {
            const tn_value *value = node->outputs[k];
            if (!value)
                continue;
            const tn_tensor *tensor = value->constant;
            if (!tn_edit_add_initializer(model, value->name, tensor->dtype, tensor->rank,
                                         tensor->dims, tensor->data, tensor->bytes, true))
                return tn_fail(error, TN_ERROR_LIMIT, "out of memory packing the model");
        }
        tn_edit_remove_node(model, tn_packer_node(packer, node));
    }
    return share_equals(packer, error);
}
