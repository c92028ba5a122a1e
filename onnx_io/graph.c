#include "onnx_io/graph.h"

#include "onnx_io/branches.h"
#include "onnx_io/infer.h"
#include "onnx_io/names.h"
#include "onnx_io/order.h"

#include <string.h>

enum { BRANCH_ROUNDS = 8 };

struct tn_graph_store {
    tn_names names;
    struct owned_tensor *owned; /* initializers that had to be converted */
};

struct owned_tensor {
    struct owned_tensor *next;
    tn_tensor tensor;
};

static tn_status out_of_memory(tn_error *error)
{
    return tn_fail(error, TN_ERROR_LIMIT, "out of memory building the graph");
}

void tn_graph_destroy(tn_graph *graph)
{
    if (!graph)
        return;
    tn_graph_release_folds(graph);
    for (struct owned_tensor *owned = graph->store->owned; owned; owned = owned->next)
        tn_tensor_done(&owned->tensor);
    tn_names_done(&graph->store->names);
    tn_arena_done(&graph->arena);
    tn_free(graph);
}

tn_value *tn_graph_value(const tn_graph *graph, const char *name)
{
    return name[0] ? tn_names_get(&graph->store->names, name) : NULL;
}

tn_value *tn_graph_output(const tn_graph *graph, const char *name)
{
    for (size_t i = 0; name && i < graph->n_outputs; i++)
        if (strcmp(graph->outputs[i]->name, name) == 0)
            return graph->outputs[i];
    return graph->n_outputs > 0 ? graph->outputs[0] : NULL;
}

static bool is_channels(int64_t n)
{
    return n == 1 || n == 3;
}

bool tn_input_channels_last(int rank, const int64_t *dims)
{
    return rank == 4 && !is_channels(dims[1]) && is_channels(dims[3]);
}

bool tn_value_is_own(const tn_value *value)
{
    return value && value->constant && value->n_users == 1 && !value->is_output;
}

const char *tn_node_label(const tn_node *node)
{
    return tn_order_label(node->proto);
}

/* Room for everything at once: the counts are known. */
static tn_status reserve(tn_graph *graph, const Onnx__GraphProto *proto, tn_error *error)
{
    size_t n_values = proto->n_input + proto->n_initializer + proto->n_sparse_initializer;
    for (size_t i = 0; i < proto->n_node; i++)
        n_values += proto->node[i]->n_output;
    tn_arena *arena = &graph->arena;
    graph->nodes = tn_arena_array(arena, proto->n_node, sizeof *graph->nodes);
    graph->values = tn_arena_array(arena, n_values, sizeof *graph->values);
    graph->inputs = tn_arena_array(arena, proto->n_input, sizeof *graph->inputs);
    graph->outputs = tn_arena_array(arena, proto->n_output, sizeof *graph->outputs);
    if (!graph->nodes || !graph->values || !graph->inputs || !graph->outputs)
        return out_of_memory(error);
    return TN_OK;
}

static tn_status add_value(tn_graph *graph, const char *name, tn_value **value, tn_error *error)
{
    if (!name[0])
        return tn_fail(error, TN_ERROR_MODEL, "a graph input or initializer has no name");
    if (tn_graph_value(graph, name))
        return tn_fail(error, TN_ERROR_MODEL, "the value %s is given twice", tn_quote(name));
    tn_value *result = tn_arena_alloc(&graph->arena, sizeof *result);
    if (!result || !tn_names_set(&graph->store->names, name, result))
        return out_of_memory(error);
    result->name = name;
    result->index = graph->n_values;
    result->rank = TN_RANK_UNKNOWN;
    graph->values[graph->n_values++] = result;
    *value = result;
    return TN_OK;
}

/* The declared type of a value: dense tensors only, the rest stays unknown. */
static void set_type(tn_value *value, const Onnx__TypeProto *type)
{
    if (!type || type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE || !type->tensor_type)
        return;
    const Onnx__TensorShapeProto *shape = type->tensor_type->shape;
    value->dtype = (tn_dtype)type->tensor_type->elem_type;
    if (!shape || shape->n_dim > TN_MAX_RANK)
        return;
    value->rank = (int)shape->n_dim;
    for (size_t i = 0; i < shape->n_dim; i++) {
        const Onnx__TensorShapeProto__Dimension *dim = shape->dim[i];
        bool known = dim->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE &&
                     dim->dim_value >= 0;
        value->dims[i] = known ? dim->dim_value : TN_DIM_UNKNOWN;
    }
}

static void set_constant(tn_value *value, const tn_tensor *tensor)
{
    value->constant = tensor;
    value->dtype = tensor->dtype;
    value->rank = tensor->rank;
    memcpy(value->dims, tensor->dims, sizeof value->dims);
}

static tn_status add_initializer(tn_graph *graph, Onnx__TensorProto *proto, tn_error *error)
{
    tn_value *value = NULL;
    tn_status status = add_value(graph, tn_text(proto->name), &value, error);
    if (status != TN_OK)
        return status;
    value->initializer = proto;
    value->dtype = (tn_dtype)proto->data_type;
    if (value->dtype == TN_STRING)
        return TN_OK;
    struct owned_tensor *entry = tn_arena_alloc(&graph->arena, sizeof *entry);
    if (!entry)
        return out_of_memory(error);
    status = tn_model_tensor(graph->model, proto, &entry->tensor, error);
    if (status != TN_OK)
        return status;
    entry->next = graph->store->owned;
    graph->store->owned = entry;
    set_constant(value, &entry->tensor);
    return TN_OK;
}

static tn_status add_sparse(tn_graph *graph, const Onnx__SparseTensorProto *proto, tn_error *error)
{
    tn_value *value = NULL;
    const Onnx__TensorProto *values = proto->values;
    tn_status status = add_value(graph, values ? tn_text(values->name) : "", &value, error);
    if (status != TN_OK)
        return status;
    value->dtype = (tn_dtype)values->data_type;
    if (proto->n_dims <= TN_MAX_RANK) {
        value->rank = (int)proto->n_dims;
        memcpy(value->dims, proto->dims, proto->n_dims * sizeof *value->dims);
    }
    return TN_OK;
}

/* The graph's inputs as `options` wants them. */
static void override_input(tn_value *value, bool is_first, const tn_graph_options *options)
{
    if (!options || value->rank < 1)
        return;
    if (options->batch > 0)
        value->dims[0] = options->batch;
    if (is_first && options->input_rank > 0 && options->input_rank == value->rank - 1)
        for (int i = 0; i < options->input_rank; i++)
            value->dims[i + 1] = options->input_dims[i];
}

static tn_status add_sources(tn_graph *graph, const Onnx__GraphProto *proto,
                             const tn_graph_options *options, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < proto->n_initializer; i++)
        status = add_initializer(graph, proto->initializer[i], error);
    for (size_t i = 0; status == TN_OK && i < proto->n_sparse_initializer; i++)
        status = add_sparse(graph, proto->sparse_initializer[i], error);
    for (size_t i = 0; status == TN_OK && i < proto->n_input; i++) {
        tn_value *value = tn_graph_value(graph, tn_text(proto->input[i]->name));
        if (value && !value->is_input)
            continue; /* an initializer listed as input (IR 3) */
        status = add_value(graph, tn_text(proto->input[i]->name), &value, error);
        if (status != TN_OK)
            break;
        value->is_input = true;
        set_type(value, proto->input[i]->type);
        override_input(value, graph->n_inputs == 0, options);
        graph->inputs[graph->n_inputs++] = value;
    }
    if (status == TN_OK && options && options->input_rank > 0 &&
        (graph->n_inputs == 0 || graph->inputs[0]->rank != options->input_rank + 1))
        status = tn_fail(error, TN_ERROR_USAGE,
                         "the model's first input does not have a batch and %d more dimensions",
                         options->input_rank);
    return status;
}

static tn_status add_node(tn_graph *graph, Onnx__NodeProto *proto, Onnx__NodeProto *holder,
                          tn_error *error)
{
    tn_arena *arena = &graph->arena;
    tn_node *node = tn_arena_alloc(arena, sizeof *node);
    if (!node)
        return out_of_memory(error);
    node->name = tn_text(proto->name);
    node->type = tn_text(proto->op_type);
    node->domain = strcmp(tn_text(proto->domain), "ai.onnx") == 0 ? "" : tn_text(proto->domain);
    node->index = graph->n_nodes;
    node->proto = proto;
    node->holder = holder;
    node->model = graph->model;
    node->n_inputs = proto->n_input;
    node->n_outputs = proto->n_output;
    node->inputs = tn_arena_array(arena, proto->n_input, sizeof *node->inputs);
    node->outputs = tn_arena_array(arena, proto->n_output, sizeof *node->outputs);
    if (!node->inputs || !node->outputs)
        return out_of_memory(error);
    for (size_t i = 0; i < proto->n_output; i++) {
        if (!proto->output[i][0])
            continue;
        tn_status status = add_value(graph, proto->output[i], &node->outputs[i], error);
        if (status != TN_OK)
            return status;
        node->outputs[i]->producer = node;
    }
    graph->nodes[graph->n_nodes++] = node;
    return TN_OK;
}

static tn_status add_nodes(tn_graph *graph, const tn_branches *source, tn_error *error)
{
    const Onnx__GraphProto *proto = source->proto;
    size_t *order = tn_alloc_array(proto->n_node + 1, sizeof *order);
    if (!order)
        return out_of_memory(error);
    tn_status status = tn_order_nodes(proto, order, error);
    for (size_t i = 0; status == TN_OK && i < proto->n_node; i++)
        status = add_node(graph, proto->node[order[i]],
                          source->holders ? source->holders[order[i]] : NULL, error);
    tn_free(order);
    return status;
}

/* Every use of a value by a node, also by the subgraphs inside it: counted, then recorded. */
typedef struct use_visit {
    tn_graph *graph;
    tn_node *node;
    bool record;
} use_visit;

static bool visit_use(void *context, const char *name)
{
    use_visit *visit = context;
    tn_value *value = tn_graph_value(visit->graph, name);
    if (value && visit->record)
        value->users[value->n_users] = visit->node;
    if (value)
        value->n_users++;
    return true;
}

static void visit_uses(tn_graph *graph, bool record)
{
    for (size_t i = 0; i < graph->n_nodes; i++) {
        use_visit visit = {graph, graph->nodes[i], record};
        const Onnx__NodeProto *proto = graph->nodes[i]->proto;
        for (size_t k = 0; k < proto->n_input; k++)
            visit_use(&visit, proto->input[k]);
        (void)tn_order_visit_captures(proto, visit_use, &visit);
    }
}

static tn_status link_nodes(tn_graph *graph, tn_error *error)
{
    for (size_t i = 0; i < graph->n_nodes; i++) {
        tn_node *node = graph->nodes[i];
        for (size_t k = 0; k < node->n_inputs; k++) {
            const char *name = node->proto->input[k];
            if (!name[0])
                continue;
            node->inputs[k] = tn_graph_value(graph, name);
            if (!node->inputs[k])
                return tn_fail(error, TN_ERROR_MODEL,
                               "node %s uses %s, which nothing in the graph gives",
                               tn_quote(tn_node_label(node)), tn_quote(name));
        }
    }
    visit_uses(graph, false);
    for (size_t i = 0; i < graph->n_values; i++) {
        tn_value *value = graph->values[i];
        value->users = tn_arena_array(&graph->arena, value->n_users, sizeof *value->users);
        if (!value->users)
            return out_of_memory(error);
        value->n_users = 0;
    }
    visit_uses(graph, true);
    return TN_OK;
}

static tn_status link_outputs(tn_graph *graph, const Onnx__GraphProto *proto,
                              const tn_graph_options *options, tn_error *error)
{
    const char *only = options ? options->output : NULL;
    for (size_t i = 0; i < proto->n_output; i++) {
        const char *name = tn_text(proto->output[i]->name);
        tn_value *value = tn_graph_value(graph, name);
        if (!value)
            return tn_fail(error, TN_ERROR_MODEL,
                           "the graph's output %s is given by nothing in the graph",
                           tn_quote(name));
        if (only && strcmp(only, name) != 0)
            continue;
        value->is_output = true;
        graph->outputs[graph->n_outputs++] = value;
    }
    if (only && graph->n_outputs == 0)
        return tn_fail(error, TN_ERROR_USAGE, "the model has no output %s", tn_quote(only));
    return TN_OK;
}

/* The model's graph; with `before`, an earlier one, its decided `If` nodes are replaced. */
static tn_status build(const tn_model *model, const tn_graph_options *options,
                       const tn_graph *before, tn_graph **graph, tn_error *error)
{
    tn_branches source = {.proto = model->proto->graph};
    tn_graph *result = tn_alloc_zero(1, sizeof *result);
    if (!result)
        return out_of_memory(error);
    tn_arena_init(&result->arena);
    result->model = model;
    result->store = tn_arena_alloc(&result->arena, sizeof *result->store);
    if (!result->store) {
        tn_free(result);
        return out_of_memory(error);
    }
    tn_names_init(&result->store->names);
    tn_status status = TN_OK;
    if (before)
        status = tn_branches_take(before, source.proto, &result->arena, &source, error);
    if (status == TN_OK)
        status = reserve(result, source.proto, error);
    if (status == TN_OK)
        status = add_sources(result, source.proto, options, error);
    if (status == TN_OK)
        status = add_nodes(result, &source, error);
    if (status == TN_OK)
        status = link_nodes(result, error);
    if (status == TN_OK)
        status = link_outputs(result, source.proto, options, error);
    if (status == TN_OK)
        status = tn_graph_infer(result, options, error);
    if (status != TN_OK) {
        tn_graph_destroy(result);
        return status;
    }
    *graph = result;
    return TN_OK;
}

tn_status tn_graph_create(const tn_model *model, const tn_graph_options *options, tn_graph **graph,
                          tn_error *error)
{
    tn_graph *result = NULL;
    tn_status status = build(model, options, NULL, &result, error);
    /* one `If` may decide the next; each round costs as much as the graph itself */
    for (int round = 0; status == TN_OK && round < BRANCH_ROUNDS && tn_branches_decided(result);
         round++) {
        tn_graph *next = NULL;
        status = build(model, options, result, &next, error);
        tn_graph_destroy(result);
        result = next;
    }
    if (status == TN_OK)
        *graph = result;
    return status;
}

static int64_t batch_of(const tn_graph *graph)
{
    const tn_value *input = graph->n_inputs > 0 ? graph->inputs[0] : NULL;
    return input && input->rank > 0 ? input->dims[0] : TN_DIM_UNKNOWN;
}

static bool keeps_batch(const tn_graph *graph)
{
    int64_t batch = batch_of(graph);
    for (size_t i = 0; i < graph->n_outputs; i++)
        if (graph->outputs[i]->rank < 1 || graph->outputs[i]->dims[0] != batch)
            return false;
    return batch > 0;
}

tn_status tn_graph_create_near(const tn_model *model, tn_graph_options *options, tn_graph **graph,
                               tn_error *error)
{
    tn_error why = {0};
    tn_graph_options own = *options;
    tn_graph *result = NULL, *fixed = NULL;
    tn_status status = tn_graph_create(model, options, &result, &why);
    bool torn = status == TN_ERROR_MODEL || (status == TN_OK && !keeps_batch(result));
    own.batch = 0;
    if (torn && options->batch > 0 && tn_graph_create(model, &own, &fixed, NULL) == TN_OK &&
        (keeps_batch(fixed) || (status != TN_OK && batch_of(fixed) > 0))) {
        tn_graph_destroy(result);
        result = fixed;
        fixed = NULL;
        options->batch = batch_of(result);
        status = TN_OK;
    }
    tn_graph_destroy(fixed);
    if (status == TN_OK)
        *graph = result;
    else if (error && error->code == TN_OK)
        *error = why;
    return status;
}
