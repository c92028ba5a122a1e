#include "onnx_io/order.h"

#include "onnx_io/names.h"

const char *tn_order_label(const Onnx__NodeProto *node)
{
    if (tn_text(node->name)[0])
        return node->name;
    for (size_t i = 0; i < node->n_output; i++)
        if (node->output[i][0])
            return node->output[i];
    return tn_text(node->op_type);
}

static bool visit_graph(const Onnx__GraphProto *graph, bool (*visit)(void *, const char *),
                        void *context)
{
    for (size_t i = 0; i < graph->n_node; i++) {
        const Onnx__NodeProto *node = graph->node[i];
        for (size_t k = 0; k < node->n_input; k++)
            if (!visit(context, node->input[k]))
                return false;
        if (!tn_order_visit_captures(node, visit, context))
            return false;
    }
    for (size_t i = 0; i < graph->n_output; i++)
        if (!visit(context, tn_text(graph->output[i]->name)))
            return false;
    return true;
}

bool tn_order_visit_captures(const Onnx__NodeProto *node, bool (*visit)(void *, const char *),
                             void *context)
{
    for (size_t i = 0; i < node->n_attribute; i++) {
        const Onnx__AttributeProto *attribute = node->attribute[i];
        if (attribute->g && !visit_graph(attribute->g, visit, context))
            return false;
        for (size_t k = 0; k < attribute->n_graphs; k++)
            if (!visit_graph(attribute->graphs[k], visit, context))
                return false;
    }
    return true;
}

/* Depth-first search over producers. */
typedef struct search {
    const Onnx__GraphProto *graph;
    tn_names producers; /* value name -> &graph->node[i] */
    size_t *edges;      /* producers of all nodes, node after node */
    size_t n_edges, room;
    size_t *first; /* edges of node i: first[i] .. first[i + 1] */
    size_t *stack, *next;
    unsigned char *state; /* 0 new, 1 on the stack, 2 done */
} search;

static bool add_edge(void *context, const char *name)
{
    search *s = context;
    Onnx__NodeProto **producer = tn_names_get(&s->producers, name);
    if (!producer)
        return true;
    if (s->n_edges == s->room) {
        size_t room = s->room * 2 + 64;
        size_t *edges = tn_realloc(s->edges, room * sizeof *edges);
        if (!edges)
            return false;
        s->edges = edges;
        s->room = room;
    }
    s->edges[s->n_edges++] = (size_t)(producer - s->graph->node);
    return true;
}

static tn_status out_of_memory(tn_error *error)
{
    return tn_fail(error, TN_ERROR_LIMIT, "out of memory sorting the graph's nodes");
}

static tn_status find_producers(search *s, tn_error *error)
{
    for (size_t i = 0; i < s->graph->n_node; i++) {
        const Onnx__NodeProto *node = s->graph->node[i];
        for (size_t k = 0; k < node->n_output; k++) {
            const char *name = node->output[k];
            if (!name[0])
                continue;
            Onnx__NodeProto **other = tn_names_get(&s->producers, name);
            if (other)
                return tn_fail(error, TN_ERROR_MODEL, "nodes %s and %s both give the value %s",
                               tn_quote(tn_order_label(*other)), tn_quote(tn_order_label(node)),
                               tn_quote(name));
            if (!tn_names_set(&s->producers, name, &s->graph->node[i]))
                return out_of_memory(error);
        }
    }
    return TN_OK;
}

static tn_status find_edges(search *s, tn_error *error)
{
    for (size_t i = 0; i < s->graph->n_node; i++) {
        const Onnx__NodeProto *node = s->graph->node[i];
        s->first[i] = s->n_edges;
        for (size_t k = 0; k < node->n_input; k++)
            if (!add_edge(s, node->input[k]))
                return out_of_memory(error);
        if (!tn_order_visit_captures(node, add_edge, s))
            return out_of_memory(error);
    }
    s->first[s->graph->n_node] = s->n_edges;
    return TN_OK;
}

static tn_status walk(search *s, size_t root, size_t *order, size_t *n_order, tn_error *error)
{
    size_t depth = 0;
    if (s->state[root] != 0)
        return TN_OK;
    s->stack[depth++] = root;
    s->state[root] = 1;
    s->next[root] = s->first[root];
    while (depth > 0) {
        size_t node = s->stack[depth - 1];
        if (s->next[node] == s->first[node + 1]) {
            s->state[node] = 2;
            order[(*n_order)++] = node;
            depth--;
            continue;
        }
        size_t producer = s->edges[s->next[node]++];
        if (s->state[producer] == 1)
            return tn_fail(error, TN_ERROR_MODEL,
                           "the graph has a cycle: node %s needs %s, which needs it in turn",
                           tn_quote(tn_order_label(s->graph->node[node])),
                           tn_quote(tn_order_label(s->graph->node[producer])));
        if (s->state[producer] == 0) {
            s->state[producer] = 1;
            s->next[producer] = s->first[producer];
            s->stack[depth++] = producer;
        }
    }
    return TN_OK;
}

tn_status tn_order_nodes(const Onnx__GraphProto *graph, size_t *order, tn_error *error)
{
    size_t n = graph->n_node, n_order = 0;
    search s = {.graph = graph};
    tn_names_init(&s.producers);
    s.first = tn_alloc_array(n + 1, sizeof *s.first);
    s.stack = tn_alloc_array(n + 1, sizeof *s.stack);
    s.next = tn_alloc_array(n + 1, sizeof *s.next);
    s.state = tn_alloc_zero(n + 1, 1);
    tn_status status =
        s.first && s.stack && s.next && s.state ? find_producers(&s, error) : out_of_memory(error);
    if (status == TN_OK)
        status = find_edges(&s, error);
    for (size_t i = 0; status == TN_OK && i < n; i++)
        status = walk(&s, i, order, &n_order, error);
    tn_names_done(&s.producers);
    tn_free(s.edges);
    tn_free(s.first);
    tn_free(s.stack);
    tn_free(s.next);
    tn_free(s.state);
    return status;
}
