/* Edits of a model's ModelProto: what forms/ and zoo/ build with. All memory comes from the model's
 * arena. Functions that return pointers return NULL when out of memory. */
#ifndef TERNION_ONNX_IO_EDIT_H
#define TERNION_ONNX_IO_EDIT_H

#include "onnx_io/model.h"

/* `base` itself, or base_1, base_2 ... : a name no node, value or initializer of the model has. */
const char *tn_edit_unique_name(tn_model *model, const char *base);

/* Adds an initializer with raw_data; `data` (little-endian, packed) is copied into the model's
 * arena when `copy`, else borrowed and must outlive the model. */
Onnx__TensorProto *tn_edit_add_initializer(tn_model *model, const char *name, tn_dtype dtype,
                                           int rank, const int64_t *dims, const void *data,
                                           size_t bytes, bool copy);

/* Adds a node. position: index into graph->node it is inserted before, or SIZE_MAX for the end.
 * `inputs` and `outputs` end with NULL; "" is an omitted input. */
Onnx__NodeProto *tn_edit_add_node(tn_model *model, size_t position, const char *type,
                                  const char *name, const char *const *inputs,
                                  const char *const *outputs);

tn_status tn_edit_set_int(tn_model *model, Onnx__NodeProto *node, const char *name, int64_t value,
                          tn_error *error) TN_MUST_CHECK;
tn_status tn_edit_set_float(tn_model *model, Onnx__NodeProto *node, const char *name, float value,
                            tn_error *error) TN_MUST_CHECK;
tn_status tn_edit_set_ints(tn_model *model, Onnx__NodeProto *node, const char *name,
                           const int64_t *values, size_t count, tn_error *error) TN_MUST_CHECK;
tn_status tn_edit_set_string(tn_model *model, Onnx__NodeProto *node, const char *name,
                             const char *value, tn_error *error) TN_MUST_CHECK;
void tn_edit_remove_attribute(Onnx__NodeProto *node, const char *name);

/* Replaces input `index` of a node, growing the list with "" when needed. */
tn_status tn_edit_set_input(tn_model *model, Onnx__NodeProto *node, size_t index, const char *name,
                            tn_error *error) TN_MUST_CHECK;

void tn_edit_remove_node(tn_model *model, const Onnx__NodeProto *node);
/* Removes the initializer and, where it is listed there, the graph input of that name. */
void tn_edit_remove_initializer(tn_model *model, const char *name);

/* Removes nodes and initializers nothing uses any more, those that become unused by it included,
 * and value_info of what went. Subgraphs and graph outputs count as uses. */
tn_status tn_edit_prune(tn_model *model, tn_error *error) TN_MUST_CHECK;
/* The same for values of the given names alone (NULL-ended): a node goes when all its outputs are
 * listed and unused, an initializer when it is listed and unused. */
tn_status tn_edit_prune_names(tn_model *model, const char *const *names,
                              tn_error *error) TN_MUST_CHECK;

tn_status tn_edit_add_input(tn_model *model, const char *name, tn_dtype dtype, int rank,
                            const int64_t *dims, /* -1: symbolic "batch" */
                            tn_error *error) TN_MUST_CHECK;
tn_status tn_edit_add_output(tn_model *model, const char *name, tn_dtype dtype, int rank,
                             const int64_t *dims, tn_error *error) TN_MUST_CHECK;

tn_status tn_edit_set_metadata(tn_model *model, const char *key, const char *value,
                               tn_error *error) TN_MUST_CHECK;
/* Sets proto and model fields; says nothing about operators (onnx_io/opset.h converts those). */
tn_status tn_edit_set_versions(tn_model *model, int64_t ir_version, int64_t opset,
                               tn_error *error) TN_MUST_CHECK;

#endif
