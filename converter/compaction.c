/* --prune-dead, last part: what no runtime reads and what says nothing. Attributes that repeat
 * their operator's default, inferred shapes, notes of the exporter, long names of values between
 * nodes. */
#include "converter/packer.h"

#include "onnx_io/names.h"

#include <stdio.h>
#include <string.h>

/* Attributes and the integer (all of a list) that they are when absent, in every opset from 7. */
static const struct {
    const char *types, *name; /* types: "|Conv|" */
    int64_t standard;
} DEFAULTS[] = {
    {"|Conv|ConvTranspose|AveragePool|MaxPool|", "strides", 1},
    {"|Conv|ConvTranspose|AveragePool|MaxPool|", "dilations", 1},
    {"|Conv|ConvTranspose|AveragePool|MaxPool|", "pads", 0},
    {"|AveragePool|MaxPool|", "ceil_mode", 0},
    {"|AveragePool|", "count_include_pad", 0},
    {"|MaxPool|", "storage_order", 0},
    {"|Conv|ConvTranspose|", "group", 1},
    {"|BatchNormalization|", "training_mode", 0},
    {"|BatchNormalization|", "spatial", 1},
    {"|Gemm|", "transA", 0},
    {"|Gemm|", "transB", 0},
    {"|Flatten|", "axis", 1},
    {"|Gather|", "axis", 0},
    {"|Reshape|", "allowzero", 0},
};

static bool is_listed(const char *types, const char *type)
{
    const char *at = strstr(types, type);
    return type[0] && at && at[-1] == '|' && at[strlen(type)] == '|';
}

static bool is_all(const Onnx__AttributeProto *attribute, int64_t standard)
{
    if (attribute->n_ints == 0)
        return attribute->has_i && attribute->i == standard;
    for (size_t i = 0; i < attribute->n_ints; i++)
        if (attribute->ints[i] != standard)
            return false;
    return true;
}

static bool is_standard(const Onnx__NodeProto *node, const Onnx__AttributeProto *attribute)
{
    const char *type = tn_text(node->op_type), *name = tn_text(attribute->name);
    if (attribute->ref_attr_name)
        return false;
    if (!strcmp(type, "Gemm") && (!strcmp(name, "alpha") || !strcmp(name, "beta")))
        return attribute->has_f && attribute->f == 1.0f;
    for (size_t i = 0; i < sizeof DEFAULTS / sizeof *DEFAULTS; i++)
        if (!strcmp(DEFAULTS[i].name, name) && is_listed(DEFAULTS[i].types, type))
            return is_all(attribute, DEFAULTS[i].standard);
    return false;
}

static void strip_attributes(Onnx__NodeProto *node)
{
    size_t kept = 0;
    bool trains = false;
    for (size_t i = 0; i < node->n_attribute; i++)
        if (!is_standard(node, node->attribute[i]))
            node->attribute[kept++] = node->attribute[i];
    node->n_attribute = kept;
    for (size_t i = 0; i < kept; i++)
        trains = trains || !strcmp(tn_text(node->attribute[i]->name), "training_mode");
    if (!strcmp(tn_text(node->op_type), "BatchNormalization") && !trains)
        tn_edit_remove_attribute(node, "momentum"); /* of running averages */
}

static void strip_notes(Onnx__NodeProto *node)
{
    node->doc_string = NULL;
    node->n_metadata_props = 0;
}

/* Short names for the values between nodes, where they save bytes. What has a meaning outside keeps
 * its name: inputs, outputs, initializers, decoded weights, values that the record names. */
static tn_status list_names(tn_packer *packer, tn_names *names, tn_error *error)
{
    for (size_t i = 0; i < packer->graph->n_values; i++) {
        const tn_value *value = packer->graph->values[i];
        char wanted[32];
        snprintf(wanted, sizeof wanted, "v%zu", i);
        if (!value->producer || value->constant || value->is_output ||
            strlen(value->name) <= strlen(wanted))
            continue;
        const char *name = tn_edit_unique_name(packer->model, wanted);
        char *kept = name ? tn_arena_strdup(&packer->model->arena, name) : NULL;
        if (!kept || !tn_names_set(names, value->name, kept))
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory packing the model");
    }
    return TN_OK;
}

static void rename_all(const tn_names *names, char **list, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        char *name = tn_names_get(names, list[i]);
        if (name)
            list[i] = name;
    }
}

static tn_status shorten_names(tn_packer *packer, tn_error *error)
{
    Onnx__GraphProto *graph = packer->model->proto->graph;
    tn_names names;
    if (packer->has_subgraphs || packer->options->activations || graph->n_quantization_annotation)
        return TN_OK;
    tn_names_init(&names);
    tn_status status = list_names(packer, &names, error);
    for (size_t i = 0; status == TN_OK && i < graph->n_node; i++) {
        rename_all(&names, graph->node[i]->input, graph->node[i]->n_input);
        rename_all(&names, graph->node[i]->output, graph->node[i]->n_output);
    }
    tn_names_done(&names);
    return status;
}

tn_status tn_packer_compact(tn_packer *packer, tn_error *error)
{
    Onnx__GraphProto *graph = packer->model->proto->graph;
    for (size_t i = 0; i < graph->n_node; i++) {
        Onnx__NodeProto *node = graph->node[i];
        const char *domain = tn_text(node->domain);
        strip_notes(node);
        if (domain[0] == '\0' || !strcmp(domain, "ai.onnx"))
            strip_attributes(node);
    }
    if (!packer->has_subgraphs) /* whose shapes may be needed */
        graph->n_value_info = 0;
    graph->doc_string = NULL;
    return shorten_names(packer, error);
}
