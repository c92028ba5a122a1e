/* The main graph of a model as a network of nodes and values: sorted, linked, with shapes inferred
 * and everything that depends on constants alone folded. Built from a model, which it borrows; a
 * model can have several graphs at once (say one per batch size). */
#ifndef TERNION_ONNX_IO_GRAPH_H
#define TERNION_ONNX_IO_GRAPH_H

#include "onnx_io/model.h"

typedef struct tn_node tn_node;
typedef struct tn_value tn_value;
struct tn_op; /* onnx_io/ops/op.h */

enum { TN_DIM_UNKNOWN = -1, TN_RANK_UNKNOWN = -1 };

struct tn_value {
    const char *name;          /* unique in the graph */
    size_t index;              /* in graph->values */
    tn_dtype dtype;            /* TN_UNDEFINED: unknown */
    int rank;                  /* TN_RANK_UNKNOWN: unknown */
    int64_t dims[TN_MAX_RANK]; /* TN_DIM_UNKNOWN where unknown or symbolic */
    tn_node *producer;         /* NULL: graph input or initializer */
    tn_node **users;           /* one entry per use, in node order */
    size_t n_users;
    const tn_tensor *constant;      /* the value when it is known: initializer, Constant, folded */
    Onnx__TensorProto *initializer; /* NULL unless it is one */
    bool is_input, is_output; /* of the graph; an initializer listed as input is not is_input */
};

struct tn_node {
    const char *name; /* may be "" in the file; see tn_node_label */
    const char *type; /* op_type */
    const char *domain;
    size_t index;           /* in graph->nodes: topological order */
    const struct tn_op *op; /* NULL when the operator is unknown */
    tn_value **inputs;      /* NULL entries: omitted optional inputs */
    size_t n_inputs;
    tn_value **outputs; /* NULL entries: unnamed */
    size_t n_outputs;
    Onnx__NodeProto *proto;
    Onnx__NodeProto *holder; /* the file's `If` whose branch the node comes from; NULL: proto itself
                                stands in the file's main graph */
    const tn_model *model;   /* borrowed: opset, payloads of attribute tensors */
    bool folded;             /* all outputs are constants */
};

typedef struct tn_graph {
    const tn_model *model; /* borrowed */
    tn_node **nodes;       /* topological order, stable with regard to the file's */
    size_t n_nodes;
    tn_value **values;
    size_t n_values;
    tn_value **inputs; /* without initializers */
    size_t n_inputs;
    tn_value **outputs;
    size_t n_outputs;
    tn_arena arena;
    struct tn_fold *folds;        /* folded tensors: tn_graph_release_folds (infer.h) frees them */
    struct tn_graph_store *store; /* name table */
} tn_graph;

typedef struct tn_graph_options {
    int64_t batch;  /* > 0: replaces the first dimension of every graph input, also in Reshape
                       constants that begin with the old static batch; 0: as the file has it */
    int input_rank; /* > 0: input_dims replace [C, H, W...] of the first input */
    int64_t input_dims[TN_MAX_RANK];
    uint64_t fold_limit; /* bytes folding may produce; 0: 1 GiB + 4 x file */
    const char *output;  /* use this output alone (SPEC: --output); NULL: all */
} tn_graph_options;

/* Links, sorts (iteratively; cycles are an error naming the nodes), infers shapes, folds; `If`
 * nodes that are decided then give way to their branch (branches.h). options may be NULL. */
tn_status tn_graph_create(const tn_model *model, const tn_graph_options *options, tn_graph **graph,
                          tn_error *error) TN_MUST_CHECK;
/* The same, but where the network does not hold together at options->batch, or loses it on the way
 * to its outputs, at the static batch of its file, which options->batch then becomes: a Squeeze
 * without axes, Flatten(axis=0) or a Reshape to fixed sizes is right at batch 1 alone. */
tn_status tn_graph_create_near(const tn_model *model, tn_graph_options *options, tn_graph **graph,
                               tn_error *error) TN_MUST_CHECK;
void tn_graph_destroy(tn_graph *graph); /* NULL is fine */

tn_value *tn_graph_value(const tn_graph *graph, const char *name); /* NULL when absent */
/* The output of that name; without a name, or when it has none such, the first. */
tn_value *tn_graph_output(const tn_graph *graph, const char *name);

/* Whether an input takes images [N, H, W, C], as TensorFlow exports: only its last dimension is a
 * number of channels (1 or 3). */
bool tn_input_channels_last(int rank, const int64_t *dims);

/* A constant that one use alone reads: changing it changes nothing else. */
bool tn_value_is_own(const tn_value *value);

/* The node's name, or its first output's when it has none (SPEC: unnamed nodes). */
const char *tn_node_label(const tn_node *node);

/* Attributes by name, with the operator's default when absent. A present attribute of another type
 * is a MODEL error. */
bool tn_node_has_attribute(const tn_node *node, const char *name);
tn_status tn_node_int(const tn_node *node, const char *name, int64_t standard, int64_t *value,
                      tn_error *error) TN_MUST_CHECK;
tn_status tn_node_float(const tn_node *node, const char *name, float standard, float *value,
                        tn_error *error) TN_MUST_CHECK;
/* Borrowed; *count = 0 and *values = NULL when absent. */
tn_status tn_node_ints(const tn_node *node, const char *name, const int64_t **values, size_t *count,
                       tn_error *error) TN_MUST_CHECK;
/* Copied into `value` of `size` bytes; too long is an error. */
tn_status tn_node_string(const tn_node *node, const char *name, const char *standard, char *value,
                         size_t size, tn_error *error) TN_MUST_CHECK;

#endif
