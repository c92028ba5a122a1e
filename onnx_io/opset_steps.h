/* The operators whose form or meaning changed between opsets 7 and 25, and what to do about it. */
#ifndef TERNION_ONNX_IO_OPSET_STEPS_H
#define TERNION_ONNX_IO_OPSET_STEPS_H

#include "onnx_io/graph.h"

/* One model on its way up. */
typedef struct tn_opset_climb {
    tn_model *model;       /* being edited */
    const tn_graph *graph; /* types and ranks of the values, from before the edits */
    bool in_subgraph;      /* whether the node lies in one: no nodes are added there */
    struct tn_opset_constant *constants; /* made so far, to be shared */
} tn_opset_climb;

typedef struct tn_opset_step {
    const char *type;
    int opset; /* the version that brought the change */
    /* Rewrites the node from the form before `opset` to the form at it. MODEL where that is not
     * possible; the message is a reason, without the node's name. */
    tn_status (*convert)(tn_opset_climb *climb, Onnx__NodeProto *node, tn_error *error);
} tn_opset_step;

/* Ordered by opset; NULL at the end. */
const tn_opset_step *tn_opset_step_at(size_t i);

#endif
