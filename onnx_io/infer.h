/* Shape inference and constant folding over a linked, sorted graph. */
#ifndef TERNION_ONNX_IO_INFER_H
#define TERNION_ONNX_IO_INFER_H

#include "onnx_io/graph.h"

/* Checks every known operator (number of inputs and outputs, attributes, shapes), sets dtype, rank
 * and dims of all values it can, and folds what depends on constants alone into value->constant
 * and node->folded. Expects linked nodes in topological order, dims of graph inputs set as
 * `options` wants them, and constants of initializers set. Unknown operators keep what their
 * outputs have. A value that would exceed options->fold_limit stays unfolded. With a batch option,
 * shapes of Reshape nodes that begin with the model's static batch are read as beginning with the
 * new one: consumers use the output's dims, not the shape constant. options may be NULL. */
tn_status tn_graph_infer(tn_graph *graph, const tn_graph_options *options,
                         tn_error *error) TN_MUST_CHECK;

/* Frees the folded tensors; called by tn_graph_destroy. */
void tn_graph_release_folds(tn_graph *graph);

/* Floating-point operations (two per multiply-add) of one run of the unfolded nodes; -1 when the
 * shape of a counted node is unknown. */
int64_t tn_graph_flops(const tn_graph *graph);

#endif
