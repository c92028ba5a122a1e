/* Which weights of a graph get quantized, and how: SPEC "Weights, axes, groups, bits". */
#ifndef TERNION_CONVERTER_LAYERS_H
#define TERNION_CONVERTER_LAYERS_H

#include "converter/quantizer.h"
#include "onnx_io/graph.h"

/* What the user may say; zero-initialized means the defaults of `quantize`. */
typedef struct tn_policy {
    const char *scheme;      /* NULL: "twn" */
    const char *bits;        /* "1.58", "2".."8", "16"; NULL: the scheme's */
    const char *granularity; /* "tensor" | "channel" | "group:N"; NULL: "channel" */
    const char *threshold;   /* "optimal" | "mean:0.7" | ...; NULL: "optimal" */
    const char *levels;      /* "A:B" or NULL */
    bool narrow;
    const char *first_layer; /* "keep" or bits; NULL: keep */
    const char *last_layer;
    const char *conv_bits, *linear_bits; /* NULL: bits */
    const char *const *layer_rules;      /* "REGEX=BITS|scheme|scheme:BITS|keep", last match wins */
    size_t n_layer_rules;
    const char *const *excluded; /* REGEX */
    size_t n_excluded;
} tn_policy;

/* One eligible weight. */
typedef struct tn_layer {
    tn_node *node;    /* the first user */
    tn_value *weight; /* what the node's weight input is; weight->constant holds it */
    size_t input;     /* which input of the node */
    tn_node **users;  /* all eligible users of that weight */
    size_t n_users;
    int axis; /* channel axis in the model's layout */
    int64_t rows, cols;
    int64_t groups; /* Conv group */
    bool transpose; /* Gemm transB=0 or MatMul + rank 2: written as Gemm(transB=1) */
    bool is_linear; /* Gemm, MatMul */
    bool first, last;
    bool quantized;
    const char *reason; /* why not, or which rule; static or graph-arena string */
    tn_scheme scheme;   /* when quantized */
} tn_layer;

typedef struct tn_layers {
    tn_layer *layer;
    size_t count;
} tn_layers;

/* All eligible layers in graph order, none chosen: quantized is false, reason NULL or why the
 * layer's users cannot agree. count 0 when there is none. Memory is the graph's arena. */
tn_status tn_layers_find(tn_graph *graph, tn_layers *layers, tn_error *error) TN_MUST_CHECK;

/* All eligible layers in graph order, with the policy applied. USAGE when a selector matches
 * nothing or nothing would be quantized (the message lists the layer names; "did you mean"). Memory
 * is the graph's arena. */
tn_status tn_layers_select(tn_graph *graph, const tn_policy *policy, tn_layers *layers,
                           tn_error *error) TN_MUST_CHECK;

/* Rows [first, first + count) of the layer's weight as fp32, [count, cols] in `rows`. */
tn_status tn_layer_read_rows(const tn_layer *layer, int64_t first, int64_t count, float *rows,
                             tn_error *error) TN_MUST_CHECK;

/* The layer's weight as fp32 rows [rows, cols] in `rows`. */
tn_status tn_layer_rows(const tn_layer *layer, float *rows, tn_error *error) TN_MUST_CHECK;

#endif
