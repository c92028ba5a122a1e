/* Part of a network as a model of its own. */
#ifndef TERNION_ONNX_IO_EXTRACT_H
#define TERNION_ONNX_IO_EXTRACT_H

#include "onnx_io/graph.h"

/* The nodes [first, last) of the graph, and what folds to their constants, between the values
 * `inputs` [n_inputs], which become inputs of the shapes they have in the graph, and `output`.
 * Shares payloads with the graph's model, which must outlive it. USAGE when a shape is unknown. */
tn_status tn_model_extract(const tn_graph *graph, size_t first, size_t last,
                           tn_value *const *inputs, size_t n_inputs, const tn_value *output,
                           tn_model **model, tn_error *error) TN_MUST_CHECK;

#endif
