#include "finetune/new_resolution.h"

#include "onnx_io/graph.h"

#include <string.h>

static Onnx__TensorShapeProto *shape_of(tn_model *model, const char *input)
{
    Onnx__GraphProto *graph = model->proto->graph;
    for (size_t i = 0; i < graph->n_input; i++)
        if (!strcmp(tn_text(graph->input[i]->name), input) && graph->input[i]->type &&
            graph->input[i]->type->tensor_type)
            return graph->input[i]->type->tensor_type->shape;
    return NULL;
}

/* The asked C, H, W in the order of the network's input. */
static tn_status order_dims(const tn_model *model, const int64_t input[3], int64_t dims[3],
                            tn_error *error)
{
    tn_graph *graph = NULL;
    tn_status status = tn_graph_create(model, NULL, &graph, error);
    if (status != TN_OK)
        return status;
    const tn_value *value = graph->n_inputs > 0 ? graph->inputs[0] : NULL;
    bool last = value && tn_input_channels_last(value->rank, value->dims);
    for (int d = 0; d < 3; d++)
        dims[d] = input[last ? (d + 1) % 3 : d];
    tn_graph_destroy(graph);
    return TN_OK;
}

tn_status tn_new_resolution(tn_model *model, const int64_t input[3], tn_error *error)
{
    int64_t dims[3] = {0};
    tn_graph *graph = NULL;
    tn_status status = order_dims(model, input, dims, error);
    const tn_graph_options asked = {
        .batch = 1, .input_rank = 3, .input_dims = {dims[0], dims[1], dims[2]}};
    if (status == TN_OK)
        status = tn_graph_create(model, &asked, &graph, error);
    Onnx__TensorShapeProto *shape =
        status == TN_OK ? shape_of(model, graph->inputs[0]->name) : NULL;
    if (status == TN_OK && (!shape || shape->n_dim != 4))
        status = tn_fail(error, TN_ERROR_MODEL, "its first input has no shape of four dimensions");
    for (size_t i = 0; status == TN_OK && i < graph->n_outputs; i++)
        if (graph->outputs[i]->rank < 0)
            status = tn_fail(error, TN_ERROR_MODEL, "the shape of output %s is not known",
                             tn_quote(graph->outputs[i]->name));
    if (status == TN_OK) {
        for (size_t d = 0; d < 3; d++) {
            shape->dim[d + 1]->value_case = ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE;
            shape->dim[d + 1]->dim_value = dims[d];
        }
        model->proto->graph->n_value_info = 0; /* optional, and perhaps wrong now */
    } else {
        tn_error_prepend(error, "with an input of %lldx%lldx%lld", (long long)input[0],
                         (long long)input[1], (long long)input[2]);
    }
    tn_graph_destroy(graph);
    return status;
}
