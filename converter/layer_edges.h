/* How the layers of a network follow each other, whatever lies between them. */
#ifndef TERNION_CONVERTER_LAYER_EDGES_H
#define TERNION_CONVERTER_LAYER_EDGES_H

#include "converter/layers.h"

/* A result passes through operators that are no layers; where several meet (Add, Concat), what
 * comes of them counts as the result of the last of those layers, which the others join. So a
 * residual block has one edge past it. */
typedef struct tn_layer_edge {
    size_t from, to; /* positions in tn_layers; to > from */
    bool joins;      /* from's result meets to's; else to reads it */
} tn_layer_edge;

typedef struct tn_layer_edges {
    tn_layer_edge *edge; /* each once, by `to`; free with tn_free */
    size_t count;
} tn_layer_edges;

tn_status tn_layer_edges_find(const tn_graph *graph, const tn_layers *layers, tn_layer_edges *edges,
                              tn_error *error) TN_MUST_CHECK;

#endif
