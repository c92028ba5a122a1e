/* Settings of operators that are attributes in one opset and constant inputs in another. */
#include "network/lowering.h"

#include <string.h>

tn_status tn_lower_ints(const tn_node *node, size_t input, const char *name, int64_t *list, int *n,
                        bool *present, tn_error *error)
{
    *present = false;
    *n = 0;
    if (input < node->n_inputs && node->inputs[input]) {
        const tn_tensor *constant = node->inputs[input]->constant;
        if (!constant)
            return tn_lower_unsupported(node, error, "settings that are computed from its input");
        int64_t count = tn_tensor_count(constant);
        if (count > 2 * TN_MAX_RANK)
            return tn_lower_unsupported(node, error, "so many axes");
        *present = true;
        *n = (int)count;
        return tn_tensor_read_int64(constant, 0, count, list, error);
    }
    const int64_t *values;
    size_t count;
    tn_status status = tn_node_ints(node, name, &values, &count, error);
    if (status != TN_OK)
        return status;
    if (count > 2 * TN_MAX_RANK)
        return tn_lower_unsupported(node, error, "so many axes");
    *present = values != NULL || tn_node_has_attribute(node, name);
    *n = (int)count;
    if (count)
        memcpy(list, values, count * sizeof(int64_t));
    return TN_OK;
}

tn_status tn_lower_scalar(const tn_node *node, size_t input, const char *name, float standard,
                          float *value, tn_error *error)
{
    if (input < node->n_inputs && node->inputs[input]) {
        const tn_tensor *constant = node->inputs[input]->constant;
        if (!constant || tn_tensor_count(constant) != 1)
            return tn_lower_unsupported(node, error, "settings that are computed from its input");
        return tn_tensor_read_float(constant, 0, 1, value, error);
    }
    return tn_node_float(node, name, standard, value, error);
}

tn_status tn_lower_resolve(const tn_node *node, int64_t axis, int rank, int *resolved,
                           tn_error *error)
{
    if (axis < -rank || axis >= rank)
        return tn_fail(error, TN_ERROR_MODEL, "node %s: axis %lld of a tensor of rank %d",
                       tn_quote(tn_node_label(node)), (long long)axis, rank);
    *resolved = (int)(axis < 0 ? axis + rank : axis);
    return TN_OK;
}
