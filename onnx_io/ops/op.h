/* The operator table: what the library knows of each ONNX operator. One operator (or a family with
 * one shape, like the elementwise ones) is one file here, listed once in ops.c. */
#ifndef TERNION_ONNX_IO_OPS_OP_H
#define TERNION_ONNX_IO_OPS_OP_H

#include "onnx_io/graph.h"

typedef struct tn_op {
    const char *type;
    const char *domain;          /* "" is ai.onnx */
    int first_opset, last_opset; /* inclusive; last 0: still current */
    int min_inputs, max_inputs, min_outputs, max_outputs;
    /* Checks attributes and inputs and sets dtype, rank, dims of the outputs from those of the
     * inputs (and their constants). Unknown stays unknown. MODEL on nonsense. */
    tn_status (*infer)(tn_node *node, tn_error *error);
    /* Multiply-adds x 2, from inferred shapes; NULL: not counted. -1 when shapes are unknown. */
    int64_t (*flops)(const tn_node *node);
    /* Plain-C evaluation for constant folding: inputs as in node->inputs (NULL entries for omitted
     * ones), outputs are initialized by the callee (n_outputs of them) and may borrow the data of
     * an input. Shapes and types of the node's values must have been inferred in full. USAGE where
     * it cannot evaluate (say, an odd type): nothing is folded then. NULL: never folded. Exact in
     * the sense of the runtime: fp32 arithmetic in fp32. */
    tn_status (*evaluate)(const tn_node *node, const tn_tensor *const *inputs, tn_tensor *outputs,
                          tn_error *error);
    bool by_shape; /* evaluate needs the inputs' shapes alone: Shape, Size */
} tn_op;

/* The entry that covers the model's opset, or NULL. *known (may be NULL) tells whether the type is
 * known at some other opset. */
const tn_op *tn_op_find(const char *domain, const char *type, int64_t opset, bool *known);
const tn_op *tn_op_at(size_t i); /* walks the table; NULL at its end */

/* Parameters of the operators that devices run and converters look into, parsed and checked.
 * pads: begins then ends per spatial axis, auto_pad resolved (needs known spatial dims then). */
enum { TN_MAX_SPATIAL = 3 };

typedef struct tn_window { /* Conv, ConvTranspose, pooling */
    int spatial;           /* number of spatial axes, 1 to 3 */
    int64_t kernel[TN_MAX_SPATIAL], stride[TN_MAX_SPATIAL], dilation[TN_MAX_SPATIAL];
    int64_t pad_begin[TN_MAX_SPATIAL], pad_end[TN_MAX_SPATIAL];
    int64_t group;                          /* Conv, ConvTranspose; 1 otherwise */
    bool ceil_mode, count_include_pad;      /* pooling */
    int64_t output_padding[TN_MAX_SPATIAL]; /* ConvTranspose */
} tn_window;

/* node is Conv, ConvTranspose, MaxPool, AveragePool (LpPool not). Shapes of inputs must be known.
 */
tn_status tn_window_parse(const tn_node *node, tn_window *window, tn_error *error) TN_MUST_CHECK;

typedef struct tn_gemm_params {
    float alpha, beta;
    bool trans_a, trans_b;
} tn_gemm_params;
tn_status tn_gemm_parse(const tn_node *node, tn_gemm_params *params, tn_error *error) TN_MUST_CHECK;

/* Axes of Squeeze, Unsqueeze, Slice, Reduce*, Pad in attribute or input form, by opset: filled by
 * functions beside those operators' files. */

#endif
