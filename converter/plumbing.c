#include "converter/packer.h"

#include "onnx_io/names.h"

#include <string.h>

enum { LARGEST_CONSTANT = 1024 }; /* larger results stay computed: that is smaller */

static bool is_weight(const tn_packer *packer, const tn_value *value)
{
    for (size_t i = 0; i < packer->count; i++) {
        if (packer->items[i].layer->weight == value)
            return true;
    }
    return false;
}

static bool is_small(const tn_packer *packer, const tn_node *node)
{
    for (size_t i = 0; i < node->n_outputs; i++) {
        const tn_value *value = node->outputs[i];
        if (!value)
            continue;
        if (!value->constant || value->constant->dtype == TN_STRING || value->is_output ||
            value->constant->bytes > LARGEST_CONSTANT || is_weight(packer, value))
            return false;
    }
    return true;
}

tn_status tn_packer_flatten_plumbing(tn_packer *packer, tn_error *error)
{
    tn_model *model = packer->model;
    for (size_t i = 0; i < packer->graph->n_nodes; i++) {
        const tn_node *node = packer->graph->nodes[i];
        if (!node->folded || !is_small(packer, node))
            continue;
        for (size_t k = 0; k < node->n_outputs; k++) {
            const tn_value *value = node->outputs[k];
            if (!value)
                continue;
            const tn_tensor *tensor = value->constant;
            if (!tn_edit_add_initializer(model, value->name, tensor->dtype, tensor->rank,
                                         tensor->dims, tensor->data, tensor->bytes, true))
                return tn_fail(error, TN_ERROR_LIMIT, "out of memory packing the model");
        }
        tn_edit_remove_node(model, tn_packer_node(packer, node));
    }
    return TN_OK;
}
