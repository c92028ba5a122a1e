#include "onnx_io/extract.h"

#include "onnx_io/edit.h"

/* Marks the file's nodes (by their position there) that the part consists of. */
static void mark_nodes(const tn_graph *graph, size_t first, size_t last, bool *kept)
{
    const Onnx__GraphProto *file = graph->model->proto->graph;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        if (!graph->nodes[i]->folded && (i < first || i >= last))
            continue;
        const tn_node *node = graph->nodes[i];
        for (size_t k = 0; k < file->n_node; k++)
            if (file->node[k] == (node->holder ? node->holder : node->proto))
                kept[k] = true;
    }
}

static tn_status add_values(tn_model *part, tn_value *const *inputs, size_t n_inputs,
                            const tn_value *output, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i <= n_inputs; i++) {
        const tn_value *value = i < n_inputs ? inputs[i] : output;
        bool known = value->rank >= 0;
        for (int d = 0; known && d < value->rank; d++)
            known = value->dims[d] >= 0;
        if (!known)
            return tn_fail(error, TN_ERROR_USAGE, "the shape of %s is not known",
                           tn_quote(value->name));
        status = (i < n_inputs ? tn_edit_add_input : tn_edit_add_output)(
            part, value->name, value->dtype, value->rank, value->dims, error);
    }
    return status;
}

/* Lists of the copy are its own: nodes that go are taken out of them. */
static void cut(tn_model *part, const bool *kept)
{
    Onnx__GraphProto *graph = part->proto->graph;
    size_t n = 0;
    for (size_t i = 0; i < graph->n_node; i++)
        if (kept[i])
            graph->node[n++] = graph->node[i];
    graph->n_node = n;
    graph->n_input = graph->n_output = graph->n_value_info = 0;
}

tn_status tn_model_extract(const tn_graph *graph, size_t first, size_t last,
                           tn_value *const *inputs, size_t n_inputs, const tn_value *output,
                           tn_model **model, tn_error *error)
{
    tn_model *part = NULL;
    bool *kept = tn_alloc_zero(graph->model->proto->graph->n_node + 1, sizeof *kept);
    if (!kept)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu nodes", graph->n_nodes);
    tn_status status = tn_model_copy(graph->model, &part, error);
    if (status == TN_OK) {
        mark_nodes(graph, first, last, kept);
        cut(part, kept);
        status = add_values(part, inputs, n_inputs, output, error);
    }
    if (status == TN_OK)
        status = tn_edit_prune(part, error);
    tn_free(kept);
    if (status == TN_OK)
        *model = part;
    else
        tn_model_destroy(part);
    return status;
}
