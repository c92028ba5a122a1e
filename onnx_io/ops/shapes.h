/* What the operators' shape inference shares: outputs, axes, integer lists, broadcasting. Messages
 * name no node: tn_graph_infer puts it in front. */
#ifndef TERNION_ONNX_IO_OPS_SHAPES_H
#define TERNION_ONNX_IO_OPS_SHAPES_H

#include "onnx_io/ops/op.h"

/* A shape as inference sees it: rank may be TN_RANK_UNKNOWN, dims TN_DIM_UNKNOWN. */
typedef struct tn_shape {
    int rank;
    int64_t dims[TN_MAX_RANK];
} tn_shape;

/* A list that an operator takes as attribute or as input, by opset. */
enum { TN_INT_LIST_MAX = 2 * TN_MAX_RANK };
typedef struct tn_int_list {
    bool present; /* given at all */
    bool known;   /* values are filled in; an absent list is known and empty */
    int count;
    int64_t values[TN_INT_LIST_MAX];
} tn_int_list;

/* The i-th input or output; NULL when omitted. */
static inline tn_value *tn_op_input(const tn_node *node, size_t i)
{
    return i < node->n_inputs ? node->inputs[i] : NULL;
}

static inline tn_value *tn_op_output(const tn_node *node, size_t i)
{
    return i < node->n_outputs ? node->outputs[i] : NULL;
}

static inline const tn_tensor *tn_op_constant(const tn_node *node, size_t i)
{
    const tn_value *value = tn_op_input(node, i);
    return value ? value->constant : NULL;
}

/* inputs[0, n) = constants of the node's inputs, NULL where unknown or omitted: what `evaluate`
 * gets, so that both can share one parser. */
void tn_op_constants(const tn_node *node, const tn_tensor **inputs, size_t n);

tn_shape tn_op_shape(const tn_value *value); /* NULL: unknown rank */
bool tn_shape_is_known(const tn_shape *shape);
/* Product of all dims, or TN_DIM_UNKNOWN. */
int64_t tn_shape_count(const tn_shape *shape);

/* Sets output k (which may be omitted) after checking rank, signs and that the element count fits.
 */
tn_status tn_op_set_output(tn_node *node, size_t k, tn_dtype dtype, const tn_shape *shape,
                           tn_error *error) TN_MUST_CHECK;
/* Output k has the type and shape of `value`. */
tn_status tn_op_set_like(tn_node *node, size_t k, const tn_value *value,
                         tn_error *error) TN_MUST_CHECK;

/* Resolves a negative axis; rank must be known. */
tn_status tn_axis_resolve(int64_t axis, int rank, int *resolved, tn_error *error) TN_MUST_CHECK;
/* Resolves every axis of a list and refuses doubles: marks[axis] = position in the list + 1. */
tn_status tn_axes_mark(const tn_int_list *axes, int rank, int marks[TN_MAX_RANK],
                       tn_error *error) TN_MUST_CHECK;

/* Numpy broadcasting. */
tn_status tn_shape_broadcast(const tn_shape *a, const tn_shape *b, tn_shape *result,
                             tn_error *error) TN_MUST_CHECK;
/* a and b can be equal. */
bool tn_dims_agree(int64_t a, int64_t b);

/* A list of at most TN_INT_LIST_MAX integers from a rank 0 or 1 tensor. */
tn_status tn_int_list_from_tensor(const tn_tensor *tensor, const char *what, tn_int_list *list,
                                  tn_error *error) TN_MUST_CHECK;
tn_status tn_int_list_from_attribute(const tn_node *node, const char *name, tn_int_list *list,
                                     tn_error *error) TN_MUST_CHECK;
/* From input `index` (`tensor` is its constant, or NULL when unknown). */
tn_status tn_int_list_from_input(const tn_node *node, size_t index, const tn_tensor *tensor,
                                 const char *what, tn_int_list *list,
                                 tn_error *error) TN_MUST_CHECK;

#endif
