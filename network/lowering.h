/* How graph nodes become steps: what the files in ops/ work with, and the plan they fill.
 *
 * A plan value is a tensor as it lies in memory. A value of the graph can have two: in the model's
 * order (plain) and channels-last; the first one made is canonical. A view shares its root's memory
 * and gradient. */
#ifndef TERNION_NETWORK_LOWERING_H
#define TERNION_NETWORK_LOWERING_H

#include "network/plan.h"

enum { TN_STEP_PARAMS = 8 };
#define TN_NONE SIZE_MAX

typedef enum tn_layout { TN_LAYOUT_ANY, TN_LAYOUT_PLAIN, TN_LAYOUT_LAST } tn_layout;

typedef struct tn_plan_value {
    const tn_value *value;     /* of the graph; NULL: only inside the plan */
    int rank;                  /* of `dims` */
    int64_t dims[TN_MAX_RANK]; /* in the model's order */
    bool last;                 /* lies channels-last; never set below rank 3 */
    int64_t count;
    size_t root;  /* owner of memory and gradient; itself unless a view */
    size_t param; /* memory is this parameter's master; TN_NONE */
    bool keep;    /* readable after forward: output, tap, input */
    bool bf16;    /* memory and gradient are stored as bf16; views as their roots */
    bool keep_gradient, inject;
    bool needs_gradient;
    float *data, *gradient;
    bool gradient_live;  /* something to propagate */
    bool gradient_valid; /* something to read */
} tn_plan_value;

/* When a buffer is in use; of roots. */
typedef struct tn_plan_span {
    size_t first_write; /* step, when written: inputs are not */
    size_t read_before; /* the last step that reads it, plus 1; 0: none */
    bool written, kept; /* kept: stays readable */
} tn_plan_span;

typedef struct tn_plan_node { /* one step */
    tn_task task;
    const tn_node *node; /* first node it computes */
    char fused[120];     /* types of the others, joined by '+' */
    size_t *src;
    int n_src;
    size_t dst;
    size_t params[TN_STEP_PARAMS];
    int n_params;
    size_t *views; /* nodes it computes besides `node`: graph node indices */
    int n_views;
    int64_t flops;
    bool dead;
    /* after preparation */
    tn_kernel *kernel;
    bool backward;   /* has something to propagate */
    uint64_t packed; /* sum of parameter versions the packed copy is of */
    const float **src_data;
    float **src_gradient;
    bool *accumulate;
    void *saved, *state;
} tn_plan_node;

struct tn_plan {
    const tn_graph *graph;
    tn_device *device;
    tn_plan_options options;
    tn_precision precision;
    int64_t batch;
    tn_params *params;
    bool owns_params;
    tn_arena arena; /* of the plan's own structures */
    tn_plan_value *values;
    size_t n_values, values_capacity;
    tn_plan_node *steps;
    size_t n_steps, steps_capacity;
    tn_plan_span *spans;  /* [n_values], for buffers.c */
    size_t *plain, *last; /* plan values of graph values; TN_NONE */
    size_t *step_of_node; /* of graph nodes */
    const char *logits;
    tn_kernel *loss;
    size_t loss_value; /* plain [batch, classes] */
    float *loss_result;
    int32_t *labels, *partners;
    float *mix;
    float *teacher, *staging; /* device; host, of the largest value */
    tn_draw *draw;            /* Dropout's, on the device; NULL without */
    bool *param_written;      /* in the current backward */
    void *memory, *workspace;
    tn_plan_memory sizes;
};

typedef tn_status tn_lower(tn_plan *plan, const tn_node *node, tn_error *error);

/* The lowering of an operator, or NULL. */
tn_lower *tn_lowering_find(const tn_node *node);

/* Turns every node that outputs or taps need into steps. */
tn_status tn_plan_lower(tn_plan *plan, tn_error *error) TN_MUST_CHECK;
/* Merges steps where the device can (fusion.c). */
tn_status tn_plan_fuse(tn_plan *plan, tn_error *error) TN_MUST_CHECK;
/* Decides which values a bf16 plan stores as bf16, and tells the tasks (storage.c). */
void tn_plan_choose_storage(tn_plan *plan);
/* Bytes of a value's memory. */
size_t tn_plan_value_bytes(const tn_plan_value *v);
/* Between a value's memory (or gradient) and host fp32 in the model's order, or as it lies when
 * `raw`. The store writes the first `count` samples and zeroes the rest. */
tn_status tn_plan_fetch(const tn_plan *plan, const tn_plan_value *v, const float *data, bool raw,
                        float *dst, tn_error *error) TN_MUST_CHECK;
tn_status tn_plan_store(const tn_plan *plan, const tn_plan_value *v, float *data, const float *src,
                        int64_t count, bool raw, tn_error *error) TN_MUST_CHECK;
/* Prepares kernels, then places every buffer in one arena (placement.c). */
tn_status tn_plan_place(tn_plan *plan, tn_error *error) TN_MUST_CHECK;

/* Fills plan->spans (buffers.c). */
tn_status tn_plan_find_spans(tn_plan *plan, tn_error *error) TN_MUST_CHECK;

/* The canonical plan value of a name. USAGE when it has none. */
tn_status tn_plan_find_value(const tn_plan *plan, const char *name, size_t *index,
                             tn_error *error) TN_MUST_CHECK;

/* --- for ops/ ------------------------------------------------------------------------------ */

/* The plan value of a node's input in a layout (a conversion step or a view is added when needed;
 * ANY: canonical). Constants become values over their parameter. */
tn_status tn_lower_input(tn_plan *plan, const tn_value *value, tn_layout layout, size_t *index,
                         tn_error *error) TN_MUST_CHECK;
/* The same, seen with leading axes of size 1 up to `rank`. */
tn_status tn_lower_operand(tn_plan *plan, const tn_value *value, int rank, tn_layout layout,
                           size_t *index, tn_error *error) TN_MUST_CHECK;
/* A new value for the node's output k, lying as said. */
tn_status tn_lower_output(tn_plan *plan, const tn_node *node, size_t k, tn_layout layout,
                          size_t *index, tn_error *error) TN_MUST_CHECK;
/* A value inside the plan. */
tn_status tn_lower_temporary(tn_plan *plan, int rank, const int64_t *dims, bool last, size_t *index,
                             tn_error *error) TN_MUST_CHECK;
/* Output k is a view of plan value `of`, which lies plain. */
tn_status tn_lower_view(tn_plan *plan, const tn_node *node, size_t k, size_t of,
                        tn_error *error) TN_MUST_CHECK;
/* A view with other dims. */
tn_status tn_lower_alias(tn_plan *plan, size_t of, int rank, const int64_t *dims, bool last,
                         size_t *index, tn_error *error) TN_MUST_CHECK;
/* The parameter behind a constant input, which must have `count` elements. */
tn_status tn_lower_param(tn_plan *plan, const tn_node *node, size_t input, int64_t count,
                         size_t *param, tn_error *error) TN_MUST_CHECK;
/* Adds a step; the task's precision and backward are filled in here. */
tn_status tn_lower_step(tn_plan *plan, const tn_node *node, const tn_task *task, const size_t *src,
                        int n_src, size_t dst, const size_t *params, int n_params,
                        tn_error *error) TN_MUST_CHECK;

/* As it lies. */
tn_extent tn_lower_extent(const tn_plan *plan, size_t value);
/* Where an axis of the model lies. */
int tn_lower_axis(const tn_plan *plan, size_t value, int axis);

/* A list of integers given as input `input` (a constant) or as attribute `name`; room for
 * 2 * TN_MAX_RANK. *present is false when neither is given. */
tn_status tn_lower_ints(const tn_node *node, size_t input, const char *name, int64_t *list, int *n,
                        bool *present, tn_error *error) TN_MUST_CHECK;
/* A float from input `input` (a constant of one element), else attribute `name`, else standard. */
tn_status tn_lower_scalar(const tn_node *node, size_t input, const char *name, float standard,
                          float *value, tn_error *error) TN_MUST_CHECK;
/* 0 <= axis < rank after resolving negatives, else a MODEL error. */
tn_status tn_lower_resolve(const tn_node *node, int64_t axis, int rank, int *resolved,
                           tn_error *error) TN_MUST_CHECK;

tn_status tn_lower_unsupported(const tn_node *node, tn_error *error, const char *what);

tn_lower tn_lower_conv, tn_lower_gemm, tn_lower_matmul, tn_lower_batch_norm, tn_lower_pool,
    tn_lower_global_pool, tn_lower_unary, tn_lower_clip, tn_lower_cast, tn_lower_binary,
    tn_lower_sum, tn_lower_concat, tn_lower_slice, tn_lower_split, tn_lower_gather, tn_lower_pad,
    tn_lower_transpose, tn_lower_reshape, tn_lower_identity, tn_lower_reduce, tn_lower_softmax,
    tn_lower_lrn, tn_lower_quantize, tn_lower_dropout;

#endif
