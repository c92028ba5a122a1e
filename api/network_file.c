#include "api/network_file.h"

#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

/* Payloads that the model keeps in other files. */
static uint64_t external_bytes(const tn_model *model)
{
    const Onnx__GraphProto *graph = model->proto->graph;
    uint64_t total = 0;
    for (size_t i = 0; i < graph->n_initializer; i++) {
        const Onnx__TensorProto *tensor = graph->initializer[i];
        int64_t count;
        size_t bytes;
        if (tensor->data_location == ONNX__TENSOR_PROTO__DATA_LOCATION__EXTERNAL &&
            tensor->n_dims <= TN_MAX_RANK &&
            tn_dims_count((int)tensor->n_dims, tensor->dims, &count) &&
            tn_dtype_bytes((tn_dtype)tensor->data_type, (uint64_t)count, &bytes))
            total += bytes;
    }
    return total;
}

uint64_t tn_network_file_bytes(const char *path, const tn_model *model)
{
    struct stat info;
    return (stat(path, &info) == 0 ? (uint64_t)info.st_size : 0) + external_bytes(model);
}

tn_status tn_network_file_open(const char *path, const tn_input_options *in, int64_t batch,
                               const tn_reporter *reporter, tn_network_file *file, tn_error *error)
{
    tn_network_file opened = {NULL, NULL, 0};
    const tn_read_options read = tn_boundary_read(in, reporter);
    const tn_graph_options options = {.batch = batch};
    tn_status status = tn_model_read(path, &read, &opened.model, error);
    if (status != TN_OK)
        return status;
    status = tn_graph_create(opened.model, &options, &opened.graph, error);
    if (status != TN_OK) {
        tn_error_prepend(error, "%s", tn_quote(path));
        tn_network_file_close(&opened);
        return status;
    }
    opened.bytes = tn_network_file_bytes(path, opened.model);
    *file = opened;
    return TN_OK;
}

void tn_network_file_close(tn_network_file *file)
{
    tn_graph_destroy(file->graph);
    tn_model_destroy(file->model);
    file->graph = NULL;
    file->model = NULL;
}

tn_status tn_network_file_layers(const tn_network_file *file, tn_layers *layers, tn_error *error)
{
    return tn_layers_find(file->graph, layers, error);
}

static const char *copy(tn_arena *arena, const char *text, bool *complete)
{
    const char *made = tn_arena_strdup(arena, text ? text : "");
    *complete &= made != NULL;
    return made;
}

tn_status tn_layer_report_name(tn_layer_report *report, const tn_layer *layer, tn_arena *arena,
                               tn_error *error)
{
    const tn_tensor *weight = layer->weight->constant;
    bool complete = true;
    *report = (tn_layer_report){.name = copy(arena, tn_node_label(layer->node), &complete),
                                .op = copy(arena, layer->node->type, &complete),
                                .weight = copy(arena, layer->weight->name, &complete),
                                .reason = copy(arena, layer->reason, &complete),
                                .shape = {.rank = weight->rank},
                                .weights = layer->rows * layer->cols,
                                .eligible = true,
                                .scheme = "float",
                                .granularity = "",
                                .bits = tn_dtype_bits(weight->dtype)};
    memcpy(report->shape.dims, weight->dims, sizeof weight->dims);
    if (!complete)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    return TN_OK;
}

void tn_layer_report_scheme(tn_layer_report *report, const tn_qweight *weight, tn_arena *arena)
{
    report->quantized = true;
    if (!weight || !weight->codes) {
        report->scheme = "half";
        report->bits = 16;
        return;
    }
    report->scheme = weight->scheme ? weight->scheme : "fixed";
    report->bits = weight->ternary ? 1.58 : weight->bits;
    report->granularity = weight->granularity == TN_PER_TENSOR ? "tensor" : "channel";
    if (weight->granularity == TN_PER_GROUP) {
        char text[40];
        snprintf(text, sizeof text, "group:%lld", (long long)weight->group);
        const char *made = tn_arena_strdup(arena, text);
        report->granularity = made ? made : "group";
    }
}

void tn_layer_report_figures(tn_layer_report *report, const tn_weight_figures *figures)
{
    report->relmse = figures->relmse;
    report->sqnr_db = figures->sqnr_db;
    report->zeros = figures->zeros;
    report->scale_min = (double)figures->scale_min;
    report->scale_max = (double)figures->scale_max;
}
