#include "api/network_file.h"

#include "converter/activation_record.h"
#include "converter/byte_census.h"
#include "converter/census.h"
#include "converter/unpack.h"
#include "onnx_io/infer.h"

#include <string.h>

/* The first dimension as the file declares it: the graph here was made for one image. */
static int64_t declared_batch(Onnx__ValueInfoProto *const *infos, size_t count, const char *name,
                              int64_t otherwise)
{
    for (size_t i = 0; i < count; i++) {
        const Onnx__TypeProto *type = infos[i]->type;
        if (strcmp(tn_text(infos[i]->name), name) != 0 || !type ||
            type->value_case != ONNX__TYPE_PROTO__VALUE_TENSOR_TYPE || !type->tensor_type ||
            !type->tensor_type->shape || type->tensor_type->shape->n_dim == 0)
            continue;
        const Onnx__TensorShapeProto__Dimension *dim = type->tensor_type->shape->dim[0];
        return dim->value_case == ONNX__TENSOR_SHAPE_PROTO__DIMENSION__VALUE_DIM_VALUE
                   ? dim->dim_value
                   : -1;
    }
    return otherwise;
}

static tn_status list_values(tn_value *const *values, size_t count,
                             Onnx__ValueInfoProto *const *infos, size_t n_infos, tn_arena *arena,
                             tn_value_report **list, tn_error *error)
{
    tn_value_report *made = tn_arena_array(arena, count + 1, sizeof *made);
    if (!made)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    for (size_t i = 0; i < count; i++) {
        made[i].name = tn_arena_strdup(arena, values[i]->name);
        made[i].dtype = tn_dtype_name(values[i]->dtype);
        made[i].shape.rank = values[i]->rank;
        memcpy(made[i].shape.dims, values[i]->dims, sizeof made[i].shape.dims);
        if (values[i]->rank > 0)
            made[i].shape.dims[0] =
                declared_batch(infos, n_infos, values[i]->name, values[i]->dims[0]);
        if (!made[i].name)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    }
    *list = made;
    return TN_OK;
}

static tn_status list_tensors(const tn_model *model, tn_inspect_report *report, tn_error *error)
{
    const Onnx__GraphProto *graph = model->proto->graph;
    tn_arena *arena = tn_result_arena(report);
    report->tensors = tn_arena_array(arena, graph->n_initializer + 1, sizeof *report->tensors);
    if (!report->tensors)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    for (size_t i = 0; i < graph->n_initializer; i++) {
        const Onnx__TensorProto *proto = graph->initializer[i];
        tn_value_report *row = &report->tensors[report->n_tensors++];
        int64_t count;
        size_t bytes;
        row->name = tn_arena_strdup(arena, tn_text(proto->name));
        row->dtype = tn_dtype_name((tn_dtype)proto->data_type);
        row->shape.rank = proto->n_dims <= TN_SHAPE_MAX ? (int)proto->n_dims : -1;
        for (int d = 0; d < row->shape.rank; d++)
            row->shape.dims[d] = proto->dims[d];
        if (row->shape.rank >= 0 && tn_dims_count(row->shape.rank, proto->dims, &count) &&
            tn_dtype_bytes((tn_dtype)proto->data_type, (uint64_t)count, &bytes))
            row->bytes = bytes;
        if (!row->name)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    }
    return TN_OK;
}

static const tn_pack_item *item_of(const tn_unpacked *unpacked, const tn_value *weight)
{
    for (size_t i = 0; i < unpacked->count; i++)
        if (unpacked->item[i].layer->weight == weight)
            return &unpacked->item[i];
    return NULL;
}

/* Of a quantized bias: the item that its reader, the layer's node or an Add behind it, has. */
static int bias_bits(const tn_layer *layer, const tn_unpacked *unpacked)
{
    const tn_value *product = layer->node->outputs[0];
    for (size_t i = 0; i < unpacked->count; i++) {
        const tn_layer *bias = unpacked->item[i].layer;
        if (bias->weight == layer->weight || !unpacked->item[i].weight)
            continue;
        for (size_t u = 0; u < bias->n_users; u++)
            if ((bias->users[u] == layer->node && bias->input != layer->input) ||
                (product && product->n_users == 1 && product->users[0] == bias->users[u] &&
                 strcmp(bias->users[u]->type, "Add") == 0))
                return unpacked->item[i].weight->bits;
    }
    return 0;
}

/* Stored bits: those of the record, or of the tensor where values were only recognized. */
static tn_status report_layer(const tn_layer *layer, const tn_unpacked *unpacked,
                              tn_layer_report *row, tn_arena *arena, tn_error *error)
{
    tn_census census = {0, 0};
    const tn_pack_item *item = item_of(unpacked, layer->weight);
    tn_status status = tn_layer_report_name(row, layer, arena, error);
    if (status == TN_OK)
        status = tn_census_take(layer->weight->constant, &census, error);
    if (status != TN_OK)
        return status;
    if (item) {
        double stored = row->bits;
        tn_layer_report_scheme(row, item->weight, arena);
        if (!unpacked->from_record) {
            row->bits = stored;
            row->reason = "few values, stored as they are";
        }
    }
    row->activation_bits = tn_activation_bits(layer->node->inputs[0]);
    row->bias_bits = bias_bits(layer, unpacked);
    row->distinct = census.distinct;
    row->zeros = census.zeros;
    return TN_OK;
}

static bool could_be_layer(const tn_node *node)
{
    static const char *const types[] = {"Conv", "ConvTranspose", "Gemm", "MatMul"};
    for (size_t i = 0; i < sizeof types / sizeof types[0]; i++)
        if (!node->folded && strcmp(node->type, types[i]) == 0)
            return true;
    return false;
}

static const tn_layer *layer_of(const tn_layers *layers, const tn_node *node)
{
    for (size_t i = 0; i < layers->count; i++)
        if (layers->layer[i].node == node)
            return &layers->layer[i];
    return NULL;
}

static bool is_shared_user(const tn_layers *layers, const tn_node *node)
{
    for (size_t i = 0; i < layers->count; i++)
        if (node->n_inputs > 1 && layers->layer[i].weight == node->inputs[1])
            return true;
    return false;
}

static tn_status report_layers(const tn_graph *graph, const tn_layers *layers,
                               const tn_unpacked *unpacked, const tn_reporter *reporter,
                               tn_inspect_report *report, tn_error *error)
{
    tn_arena *arena = tn_result_arena(report);
    tn_status status = TN_OK;
    report->layers = tn_arena_array(arena, graph->n_nodes + 1, sizeof *report->layers);
    if (!report->layers)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    for (size_t i = 0; i < graph->n_nodes && status == TN_OK; i++) {
        const tn_node *node = graph->nodes[i];
        const tn_layer *layer = layer_of(layers, node);
        tn_layer_report *row = &report->layers[report->n_layers];
        tn_progress(reporter, "inspecting", i, graph->n_nodes);
        if (tn_cancelled(reporter))
            return tn_fail(error, TN_ERROR_CANCELLED, "stopped");
        if (layer) {
            status = report_layer(layer, unpacked, row, arena, error);
        } else if (could_be_layer(node) && !is_shared_user(layers, node)) {
            *row = (tn_layer_report){.name = tn_arena_strdup(arena, tn_node_label(node)),
                                     .op = tn_arena_strdup(arena, node->type),
                                     .weight = "",
                                     .reason = "its weight is not constant",
                                     .scheme = "float",
                                     .granularity = ""};
            if (!row->name || !row->op)
                status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
        } else {
            continue;
        }
        report->n_layers++;
    }
    return status;
}

static tn_status report_head(const char *path, const tn_network_file *file,
                             tn_inspect_report *report, tn_error *error)
{
    const tn_model *model = file->model;
    const tn_graph *graph = file->graph;
    const Onnx__GraphProto *proto = model->proto->graph;
    tn_arena *arena = tn_result_arena(report);
    report->file = tn_arena_strdup(arena, path);
    report->producer = tn_arena_strdup(arena, tn_text(model->proto->producer_name));
    report->bytes = file->bytes;
    report->ir = model->ir_version;
    report->opset = model->opset;
    tn_byte_census bytes = {0};
    tn_status status = tn_byte_census_take(model, &bytes, error);
    if (status != TN_OK)
        return status;
    report->bytes_codes = bytes.codes;
    report->bytes_scales = bytes.scales;
    report->bytes_tensors = bytes.tensors;
    report->bytes_record = bytes.record;
    report->n_inputs = graph->n_inputs;
    report->n_outputs = graph->n_outputs;
    report->flops = tn_graph_flops(graph);
    if (!report->file || !report->producer)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    status = tn_census_parameters(graph, &report->parameters, error);
    if (status == TN_OK)
        status = list_values(graph->inputs, graph->n_inputs, proto->input, proto->n_input, arena,
                             &report->inputs, error);
    if (status == TN_OK)
        status = list_values(graph->outputs, graph->n_outputs, proto->output, proto->n_output,
                             arena, &report->outputs, error);
    if (status == TN_OK)
        status = list_tensors(model, report, error);
    return status;
}

tn_status tn_inspect_file(const char *path, const tn_input_options *given,
                          const tn_reporter *reporter, tn_inspect_report **report, tn_error *error)
{
    static const tn_input_options standard;
    tn_network_file file = {NULL, NULL, 0};
    tn_layers layers = {NULL, 0};
    tn_unpacked unpacked = {.count = 0};
    tn_inspect_report *made = NULL;
    tn_status status =
        tn_network_file_open(path, given ? given : &standard, 1, reporter, &file, error);
    if (status == TN_OK && !(made = tn_result_create(sizeof *made)))
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the report");
    if (status == TN_OK)
        status = report_head(path, &file, made, error);
    if (status == TN_OK)
        status = tn_network_file_layers(&file, &layers, error);
    if (status == TN_OK)
        status = tn_unpack(file.graph, reporter, &unpacked, error);
    if (status == TN_OK)
        status = report_layers(file.graph, &layers, &unpacked, reporter, made, error);
    if (status == TN_OK)
        *report = made;
    else
        tn_result_free(made);
    tn_unpacked_done(&unpacked);
    tn_network_file_close(&file);
    return status;
}

void tn_inspect_report_free(tn_inspect_report *report)
{
    tn_result_free(report);
}
