#include "onnx_io/check.h"

#include "onnx_io/names.h"
#include "onnx_io/order.h"
#include "onnx_io/payload.h"
#include "onnx_io/walk.h"

#include <inttypes.h>
#include <string.h>

static const char *domain_of(const Onnx__OperatorSetIdProto *import)
{
    const char *domain = tn_text(import->domain);
    return strcmp(domain, "ai.onnx") == 0 ? "" : domain;
}

static int64_t version_of(const Onnx__OperatorSetIdProto *import)
{
    return import->has_version ? import->version : 0;
}

tn_status tn_check_versions(tn_model *model, tn_error *error)
{
    const Onnx__ModelProto *proto = model->proto;
    const Onnx__OperatorSetIdProto *standard = NULL;
    if (!proto->graph)
        return tn_fail(error, TN_ERROR_MODEL, "not an ONNX model: it has no graph");
    if (!proto->has_ir_version || proto->ir_version < TN_MIN_IR || proto->ir_version > TN_MAX_IR)
        return tn_fail(error, TN_ERROR_MODEL,
                       "the model has IR version %" PRId64 "; %d to %d are supported",
                       proto->has_ir_version ? proto->ir_version : 0, TN_MIN_IR, TN_MAX_IR);
    for (size_t i = 0; i < proto->n_opset_import; i++) {
        const Onnx__OperatorSetIdProto *import = proto->opset_import[i];
        if (domain_of(import)[0])
            continue;
        /* "" and "ai.onnx" are one domain: some exporters write both */
        if (standard && version_of(standard) != version_of(import))
            return tn_fail(error, TN_ERROR_MODEL,
                           "the model imports the default operator set twice, as opset %" PRId64
                           " and as %" PRId64 ": remove one from its opset_import",
                           version_of(standard), version_of(import));
        standard = import;
    }
    if (!standard)
        return tn_fail(error, TN_ERROR_MODEL,
                       "the model does not say which version of the ONNX operators it uses "
                       "(opset_import has no default domain)");
    int64_t opset = version_of(standard);
    if (opset < TN_MIN_OPSET || opset > TN_MAX_OPSET)
        return tn_fail(error, TN_ERROR_MODEL,
                       "the model uses opset %" PRId64 "; %d to %d are supported: convert it with "
                       "onnx.version_converter, or export it again",
                       opset, TN_MIN_OPSET, TN_MAX_OPSET);
    model->ir_version = proto->ir_version;
    model->opset = opset;
    return TN_OK;
}

static tn_status check_tensor(void *context, Onnx__TensorProto *tensor, tn_error *error)
{
    tn_payload payload;
    (void)context;
    return tn_payload_find(tensor, &payload, error);
}

/* The names of one graph; the value tells who gives the name. */
typedef struct scope {
    const struct scope *parent;
    tn_names names;
} scope;

static char input_mark[] = "a graph input", initializer_mark[] = "an initializer";

static const char *giver_text(void *giver)
{
    if (giver == input_mark || giver == initializer_mark)
        return giver;
    return tn_quote(tn_order_label(giver));
}

static void *find(const scope *s, const char *name)
{
    void *giver = NULL;
    for (; s && !giver; s = s->parent)
        giver = tn_names_get(&s->names, name);
    return giver;
}

static tn_status give(scope *s, const char *name, void *giver, tn_error *error)
{
    if (!name[0])
        return giver == input_mark || giver == initializer_mark
                   ? tn_fail(error, TN_ERROR_MODEL, "%s has no name", giver_text(giver))
                   : TN_OK; /* an omitted output */
    void *other = find(s, name);
    if (other)
        return tn_fail(error, TN_ERROR_MODEL, "the value %s is given twice: by %s and by %s",
                       tn_quote(name), giver_text(other), giver_text(giver));
    return tn_names_set(&s->names, name, giver)
               ? TN_OK
               : tn_fail(error, TN_ERROR_LIMIT, "out of memory checking the model");
}

static tn_status give_all(scope *s, const Onnx__GraphProto *graph, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < graph->n_initializer; i++)
        status = give(s, tn_text(graph->initializer[i]->name), initializer_mark, error);
    for (size_t i = 0; status == TN_OK && i < graph->n_sparse_initializer; i++) {
        const Onnx__SparseTensorProto *sparse = graph->sparse_initializer[i];
        status =
            give(s, sparse->values ? tn_text(sparse->values->name) : "", initializer_mark, error);
    }
    for (size_t i = 0; status == TN_OK && i < graph->n_input; i++) {
        const char *name = tn_text(graph->input[i]->name);
        /* an initializer may be listed as input: then the input is its default (IR 3 demands it) */
        if (tn_names_get(&s->names, name) == initializer_mark)
            continue;
        status = give(s, name, input_mark, error);
    }
    for (size_t i = 0; status == TN_OK && i < graph->n_node; i++)
        for (size_t k = 0; status == TN_OK && k < graph->node[i]->n_output; k++)
            status = give(s, graph->node[i]->output[k], graph->node[i], error);
    return status;
}

static tn_status check_graph(const Onnx__GraphProto *graph, const scope *parent, tn_error *error);

static tn_status check_node(const Onnx__NodeProto *node, const scope *s, tn_error *error)
{
    tn_status status = TN_OK;
    if (!tn_text(node->op_type)[0])
        return tn_fail(error, TN_ERROR_MODEL, "node %s has no operator type",
                       tn_quote(tn_order_label(node)));
    for (size_t i = 0; i < node->n_input; i++)
        if (node->input[i][0] && !find(s, node->input[i]))
            return tn_fail(error, TN_ERROR_MODEL,
                           "node %s uses %s, which nothing in the graph gives",
                           tn_quote(tn_order_label(node)), tn_quote(node->input[i]));
    for (size_t i = 0; status == TN_OK && i < node->n_attribute; i++) {
        const Onnx__AttributeProto *attribute = node->attribute[i];
        if (attribute->g)
            status = check_graph(attribute->g, s, error);
        for (size_t k = 0; status == TN_OK && k < attribute->n_graphs; k++)
            status = check_graph(attribute->graphs[k], s, error);
    }
    return status;
}

static tn_status check_order(const Onnx__GraphProto *graph, tn_error *error)
{
    size_t *order = tn_alloc_array(graph->n_node + 1, sizeof *order);
    if (!order)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory checking the model");
    tn_status status = tn_order_nodes(graph, order, error);
    tn_free(order);
    return status;
}

/* Recurses once per level of subgraphs, which the scan has bounded. */
static tn_status check_graph(const Onnx__GraphProto *graph, const scope *parent, tn_error *error)
{
    scope s = {.parent = parent};
    tn_names_init(&s.names);
    tn_status status = give_all(&s, graph, error);
    if (status == TN_OK)
        status = check_order(graph, error);
    for (size_t i = 0; status == TN_OK && i < graph->n_node; i++)
        status = check_node(graph->node[i], &s, error);
    for (size_t i = 0; status == TN_OK && i < graph->n_output; i++) {
        const char *name = tn_text(graph->output[i]->name);
        if (!find(&s, name))
            status =
                tn_fail(error, TN_ERROR_MODEL,
                        "the graph's output %s is given by nothing in the graph", tn_quote(name));
    }
    tn_names_done(&s.names);
    return status;
}

tn_status tn_check_model(const tn_model *model, tn_error *error)
{
    tn_status status = tn_walk_tensors(&model->proto->base, check_tensor, NULL, error);
    if (status == TN_OK)
        status = check_graph(model->proto->graph, NULL, error);
    return status;
}
