/* Topological order of the nodes of one graph, with the values their subgraphs capture. */
#ifndef TERNION_ONNX_IO_ORDER_H
#define TERNION_ONNX_IO_ORDER_H

#include "onnx_io/model.h"

/* order (graph->n_node entries) gets indices into graph->node, every producer before its users; a
 * graph that is sorted already keeps its order. MODEL when nodes form a cycle or two give the same
 * value, naming them. Iterative over nodes; recurses once per level of subgraphs. */
tn_status tn_order_nodes(const Onnx__GraphProto *graph, size_t *order,
                         tn_error *error) TN_MUST_CHECK;

/* Calls visit(context, name) for every name the nodes and outputs of the subgraphs of `node` refer
 * to, captured or their own. Stops when visit returns false, and returns that. */
bool tn_order_visit_captures(const Onnx__NodeProto *node,
                             bool (*visit)(void *context, const char *name), void *context);

/* The node's name, or its first output's. */
const char *tn_order_label(const Onnx__NodeProto *node);

#endif
