#include "converter/layer_edges.h"

#include "core/memory.h"

#include <stdlib.h>

#define NOBODY SIZE_MAX

typedef struct walk {
    size_t *layer_of; /* each node's, or NOBODY */
    size_t *owner;    /* of each value, or NOBODY: an input's, a constant's */
    tn_layer_edges *edges;
} walk;

static void add_edge(walk *w, size_t from, size_t to, bool joins)
{
    if (from != NOBODY && from < to)
        w->edges->edge[w->edges->count++] = (tn_layer_edge){from, to, joins};
}

static size_t owner_of(const walk *w, const tn_value *value)
{
    return !value || value->constant ? NOBODY : w->owner[value->index];
}

/* The last of the layers that meet in a node. */
static size_t last_owner(const walk *w, const tn_node *node)
{
    size_t last = NOBODY;
    for (size_t i = 0; i < node->n_inputs; i++) {
        size_t owner = owner_of(w, node->inputs[i]);
        if (owner != NOBODY && (last == NOBODY || owner > last))
            last = owner;
    }
    return last;
}

static void visit(walk *w, const tn_node *node)
{
    size_t layer = w->layer_of[node->index];
    size_t owner = layer != NOBODY ? layer : last_owner(w, node);
    for (size_t i = 0; i < node->n_inputs && owner != NOBODY; i++)
        add_edge(w, owner_of(w, node->inputs[i]), owner, layer == NOBODY);
    for (size_t i = 0; i < node->n_outputs; i++)
        if (node->outputs[i])
            w->owner[node->outputs[i]->index] = owner;
}

static int compare(const void *a, const void *b)
{
    const tn_layer_edge *x = a, *y = b;
    if (x->to != y->to)
        return x->to < y->to ? -1 : 1;
    if (x->from != y->from)
        return x->from < y->from ? -1 : 1;
    return (int)x->joins - (int)y->joins;
}

static void keep_one_of_each(tn_layer_edges *edges)
{
    size_t kept = 0;
    qsort(edges->edge, edges->count, sizeof *edges->edge, compare);
    for (size_t i = 0; i < edges->count; i++)
        if (kept == 0 || compare(&edges->edge[i], &edges->edge[kept - 1]) != 0)
            edges->edge[kept++] = edges->edge[i];
    edges->count = kept;
}

tn_status tn_layer_edges_find(const tn_graph *graph, const tn_layers *layers, tn_layer_edges *edges,
                              tn_error *error)
{
    size_t uses = 1; /* no more edges than uses of values */
    for (size_t i = 0; i < graph->n_nodes; i++)
        uses += graph->nodes[i]->n_inputs;
    *edges = (tn_layer_edges){tn_alloc_array(uses, sizeof *edges->edge), 0};
    walk w = {tn_alloc_array(graph->n_nodes + 1, sizeof *w.layer_of),
              tn_alloc_array(graph->n_values + 1, sizeof *w.owner), edges};
    bool complete = edges->edge && w.layer_of && w.owner;
    for (size_t i = 0; i < graph->n_nodes && complete; i++)
        w.layer_of[i] = NOBODY;
    for (size_t i = 0; i < graph->n_values && complete; i++)
        w.owner[i] = NOBODY;
    for (size_t i = 0; i < layers->count && complete; i++)
        for (size_t u = 0; u < layers->layer[i].n_users; u++)
            w.layer_of[layers->layer[i].users[u]->index] = i;
    for (size_t i = 0; i < graph->n_nodes && complete; i++)
        visit(&w, graph->nodes[i]);
    tn_free(w.layer_of);
    tn_free(w.owner);
    if (!complete) {
        tn_free(edges->edge);
        *edges = (tn_layer_edges){NULL, 0};
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the layers");
    }
    keep_one_of_each(edges);
    return TN_OK;
}
