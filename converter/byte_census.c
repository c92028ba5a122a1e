#include "converter/byte_census.h"

#include "converter/record.h"
#include "onnx_io/names.h"

#include <jansson.h>
#include <string.h>

static char code_mark, scale_mark;

static bool mark(tn_names *names, json_t *name, char *what)
{
    bool ok = !json_is_string(name) || tn_names_set(names, json_string_value(name), what);
    for (size_t i = 0; ok && i < json_array_size(name); i++)
        ok = mark(names, json_array_get(name, i), what);
    return ok;
}

static bool mark_all(tn_names *names, const tn_record *record)
{
    bool ok = true;
    for (size_t i = 0; ok && i < record->count; i++) {
        json_t *entry = record->layer[i].entry;
        ok = mark(names, json_object_get(entry, "codes"), &code_mark) &&
             mark(names, json_object_get(entry, "scale"), &scale_mark) &&
             mark(names, json_object_get(entry, "scale_neg"), &scale_mark) &&
             mark(names, json_object_get(entry, "zero"), &scale_mark);
    }
    return ok;
}

static const void *mark_of(const tn_names *names, const char *value)
{
    return value[0] ? tn_names_get(names, value) : NULL;
}

/* Whether a node passes codes on: as another type or shape, or by what a table has for them. */
static bool passes_codes(const Onnx__NodeProto *node, size_t *from)
{
    const char *type = tn_text(node->op_type);
    *from = strcmp(type, "Gather") == 0;
    return node->n_output == 1 && node->n_input > *from &&
           (*from || strcmp(type, "Cast") == 0 || strcmp(type, "Reshape") == 0 ||
            strcmp(type, "Slice") == 0);
}

/* What codes are looked up in: codes -> Cast -> Gather in a table, which may itself be cast; the
 * entries found may be indices of another table. And the zero points of what is dequantized. */
static bool mark_tables(tn_names *names, const Onnx__GraphProto *graph)
{
    bool ok = true;
    size_t from;
    for (size_t i = 0; ok && i < graph->n_node; i++) {
        const Onnx__NodeProto *node = graph->node[i];
        if (strcmp(tn_text(node->op_type), "DequantizeLinear") == 0 && node->n_input > 2 &&
            mark_of(names, node->input[0]) == &code_mark && node->input[2][0])
            ok = tn_names_set(names, node->input[2], &scale_mark);
        if (!passes_codes(node, &from) || mark_of(names, node->input[from]) != &code_mark)
            continue;
        ok = tn_names_set(names, node->output[0], &code_mark) &&
             (from == 0 || tn_names_set(names, node->input[0], &scale_mark));
    }
    for (size_t i = 0; ok && i < graph->n_node; i++) {
        const Onnx__NodeProto *node = graph->node[i];
        if (strcmp(tn_text(node->op_type), "Cast") == 0 && node->n_output == 1 &&
            node->n_input == 1 && mark_of(names, node->output[0]) == &scale_mark)
            ok = tn_names_set(names, node->input[0], &scale_mark);
    }
    return ok;
}

static uint64_t payload(const Onnx__TensorProto *proto)
{
    int64_t count;
    size_t bytes;
    return proto->n_dims <= TN_MAX_RANK && tn_dims_count((int)proto->n_dims, proto->dims, &count) &&
                   tn_dtype_bytes((tn_dtype)proto->data_type, (uint64_t)count, &bytes)
               ? bytes
               : 0;
}

tn_status tn_byte_census_take(const tn_model *model, tn_byte_census *census, tn_error *error)
{
    const Onnx__GraphProto *graph = model->proto->graph;
    const char *text = tn_model_metadata(model, "ternion");
    tn_byte_census made = {.record = text ? strlen(text) : 0};
    tn_record record = {0};
    tn_names names;
    tn_error ignored = {0};
    tn_names_init(&names);
    tn_status status = tn_record_parse(model, &record, &ignored);
    if (status == TN_ERROR_LIMIT ||
        (status == TN_OK && !(mark_all(&names, &record) && mark_tables(&names, graph))))
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the names of the record");
    else
        status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < graph->n_initializer; i++) {
        const char *what = tn_names_get(&names, tn_text(graph->initializer[i]->name));
        uint64_t bytes = payload(graph->initializer[i]);
        *(what == &code_mark    ? &made.codes
          : what == &scale_mark ? &made.scales
                                : &made.tensors) += bytes;
    }
    if (status == TN_OK)
        *census = made;
    tn_names_done(&names);
    tn_record_done(&record);
    return status;
}
