/* `If` nodes that are decided: their condition is a constant once shapes are known, and the branch
 * it takes only brings values into other shapes. torch writes them around Squeeze, for example in
 * its LocalResponseNorm. */
#ifndef TERNION_ONNX_IO_BRANCHES_H
#define TERNION_ONNX_IO_BRANCHES_H

#include "onnx_io/graph.h"

/* The main graph with the nodes of the branches in place of their `If`. The file's ModelProto stays
 * as it is. */
typedef struct tn_branches {
    Onnx__GraphProto *proto;
    Onnx__NodeProto **holders; /* per node of proto: the file's `If` it comes from; NULL: itself */
} tn_branches;

/* Whether the graph has such a node. */
bool tn_branches_decided(const tn_graph *graph);

/* `graph`, which may come from an earlier call, with all of them replaced that have names of their
 * own. `proto` is what it was built from; memory is the arena's. */
tn_status tn_branches_take(const tn_graph *graph, const Onnx__GraphProto *proto, tn_arena *arena,
                           tn_branches *branches, tn_error *error) TN_MUST_CHECK;

#endif
