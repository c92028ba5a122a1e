#include "onnx_io/graph.h"

#include <string.h>

static const Onnx__AttributeProto *find(const tn_node *node, const char *name)
{
    for (size_t i = 0; i < node->proto->n_attribute; i++)
        if (strcmp(tn_text(node->proto->attribute[i]->name), name) == 0)
            return node->proto->attribute[i];
    return NULL;
}

bool tn_node_has_attribute(const tn_node *node, const char *name)
{
    return find(node, name) != NULL;
}

/* Finds the attribute and demands its type; a type that the file leaves out is taken for granted.
 */
static tn_status find_typed(const tn_node *node, const char *name,
                            Onnx__AttributeProto__AttributeType type, const char *type_name,
                            const Onnx__AttributeProto **found, tn_error *error)
{
    const Onnx__AttributeProto *attribute = find(node, name);
    if (attribute && attribute->has_type && attribute->type != type &&
        attribute->type != ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__UNDEFINED)
        return tn_fail(error, TN_ERROR_MODEL, "node %s (%s): attribute %s must be %s",
                       tn_quote(tn_node_label(node)), tn_quote(node->type), name, type_name);
    *found = attribute;
    return TN_OK;
}

tn_status tn_node_int(const tn_node *node, const char *name, int64_t standard, int64_t *value,
                      tn_error *error)
{
    const Onnx__AttributeProto *attribute = NULL;
    tn_status status = find_typed(node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INT,
                                  "an integer", &attribute, error);
    if (status == TN_OK)
        *value = !attribute ? standard : attribute->has_i ? attribute->i : 0;
    return status;
}

tn_status tn_node_float(const tn_node *node, const char *name, float standard, float *value,
                        tn_error *error)
{
    const Onnx__AttributeProto *attribute = NULL;
    tn_status status = find_typed(node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__FLOAT,
                                  "a float", &attribute, error);
    if (status == TN_OK)
        *value = !attribute ? standard : attribute->has_f ? attribute->f : 0.0f;
    return status;
}

tn_status tn_node_ints(const tn_node *node, const char *name, const int64_t **values, size_t *count,
                       tn_error *error)
{
    const Onnx__AttributeProto *attribute = NULL;
    tn_status status = find_typed(node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__INTS,
                                  "a list of integers", &attribute, error);
    if (status != TN_OK)
        return status;
    *values = attribute ? attribute->ints : NULL;
    *count = attribute ? attribute->n_ints : 0;
    return TN_OK;
}

tn_status tn_node_string(const tn_node *node, const char *name, const char *standard, char *value,
                         size_t size, tn_error *error)
{
    const Onnx__AttributeProto *attribute = NULL;
    tn_status status = find_typed(node, name, ONNX__ATTRIBUTE_PROTO__ATTRIBUTE_TYPE__STRING,
                                  "a string", &attribute, error);
    if (status != TN_OK)
        return status;
    const void *bytes = attribute ? attribute->s.data : (const void *)standard;
    size_t length = attribute ? attribute->has_s ? attribute->s.len : 0 : strlen(standard);
    if (length >= size)
        return tn_fail(error, TN_ERROR_MODEL,
                       "node %s (%s): attribute %s has %zu characters; %zu are allowed",
                       tn_quote(tn_node_label(node)), tn_quote(node->type), name, length, size - 1);
    if (length > 0)
        memcpy(value, bytes, length);
    value[length] = '\0';
    return TN_OK;
}
