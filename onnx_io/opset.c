#include "onnx_io/opset.h"

#include "onnx_io/edit.h"
#include "onnx_io/opset_steps.h"
#include "onnx_io/order.h"

#include <stdio.h>
#include <string.h>

/* Nodes that cannot be converted, as text. */
typedef struct refusals {
    size_t count, shown, length;
    char text[1100];
} refusals;

static void refuse(refusals *list, const Onnx__NodeProto *node, const char *reason)
{
    size_t room = sizeof list->text - list->length;
    int n = snprintf(list->text + list->length, room, "%s%s %s (%s)", list->count ? "; " : "",
                     tn_text(node->op_type), tn_quote(tn_order_label(node)), reason);
    if (list->shown == list->count && n > 0 && (size_t)n < room) {
        list->length += (size_t)n;
        list->shown++;
    } else {
        list->text[list->length] = '\0';
    }
    list->count++;
}

static bool is_standard(const char *domain)
{
    return !domain[0] || strcmp(domain, "ai.onnx") == 0;
}

static tn_status climb_node(tn_opset_climb *climb, Onnx__NodeProto *node, int64_t from, int64_t to,
                            refusals *refused, tn_error *error)
{
    const tn_opset_step *step;
    if (!is_standard(tn_text(node->domain)))
        return TN_OK;
    for (size_t i = 0; (step = tn_opset_step_at(i)) != NULL; i++) {
        /* The type may change on the way: Upsample becomes Resize. */
        if (step->opset <= from || step->opset > to ||
            strcmp(step->type, tn_text(node->op_type)) != 0)
            continue;
        tn_error reason = {0};
        tn_status status = step->convert(climb, node, &reason);
        if (status == TN_ERROR_MODEL) {
            refuse(refused, node, reason.message);
            return TN_OK;
        }
        if (status != TN_OK)
            return tn_fail(error, status, "%s", reason.message);
    }
    return TN_OK;
}

/* All nodes of a graph; recurses into subgraphs (at most 32 levels: the reader's limit). */
static tn_status climb_graph(tn_opset_climb *climb, Onnx__GraphProto *graph, int64_t from,
                             int64_t to, refusals *refused, tn_error *error)
{
    /* Edits insert nodes: walk over those that were there before. */
    size_t n = graph->n_node;
    Onnx__NodeProto **nodes = tn_alloc_array(n + 1, sizeof *nodes);
    if (!nodes)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    if (n)
        memcpy(nodes, graph->node, n * sizeof *nodes);
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < n; i++) {
        status = climb_node(climb, nodes[i], from, to, refused, error);
        bool outer = climb->in_subgraph;
        climb->in_subgraph = true;
        for (size_t k = 0; status == TN_OK && k < nodes[i]->n_attribute; k++) {
            Onnx__AttributeProto *attribute = nodes[i]->attribute[k];
            if (attribute->g)
                status = climb_graph(climb, attribute->g, from, to, refused, error);
            for (size_t g = 0; status == TN_OK && g < attribute->n_graphs; g++)
                status = climb_graph(climb, attribute->graphs[g], from, to, refused, error);
        }
        climb->in_subgraph = outer;
    }
    tn_free(nodes);
    return status;
}

/* Bodies of model-local functions are not rewritten: any that uses an operator which changed is
 * refused; others move along. */
static void refuse_functions(tn_model *model, int64_t from, int64_t to, refusals *refused)
{
    for (size_t i = 0; i < model->proto->n_functions; i++) {
        const Onnx__FunctionProto *function = model->proto->functions[i];
        for (size_t k = 0; k < function->n_node; k++) {
            const Onnx__NodeProto *node = function->node[k];
            const tn_opset_step *step;
            bool changed = false;
            for (size_t s = 0; (step = tn_opset_step_at(s)) != NULL; s++)
                changed |= step->opset > from && step->opset <= to &&
                           is_standard(tn_text(node->domain)) &&
                           strcmp(step->type, tn_text(node->op_type)) == 0;
            if (changed)
                refuse(refused, node, "inside a model-local function");
        }
    }
}

static void raise_functions(tn_model *model, int64_t to)
{
    for (size_t i = 0; i < model->proto->n_functions; i++) {
        Onnx__FunctionProto *function = model->proto->functions[i];
        for (size_t k = 0; k < function->n_opset_import; k++)
            if (is_standard(tn_text(function->opset_import[k]->domain)))
                function->opset_import[k]->version = to;
    }
}

static tn_status climb_model(tn_model *model, const tn_graph *graph, int64_t target,
                             tn_error *error)
{
    refusals refused = {0};
    int64_t from = model->opset;
    tn_opset_climb climb = {.model = model, .graph = graph};
    tn_status status = climb_graph(&climb, model->proto->graph, from, target, &refused, error);
    if (status != TN_OK)
        return status;
    refuse_functions(model, from, target, &refused);
    if (refused.count > refused.shown)
        return tn_fail(error, TN_ERROR_MODEL,
                       "cannot raise opset %lld to %lld; not converted: %s; and %zu more",
                       (long long)from, (long long)target, refused.text,
                       refused.count - refused.shown);
    if (refused.count)
        return tn_fail(error, TN_ERROR_MODEL, "cannot raise opset %lld to %lld; not converted: %s",
                       (long long)from, (long long)target, refused.text);
    raise_functions(model, target);
    return tn_edit_set_versions(model, model->ir_version < 4 ? 4 : model->ir_version, target,
                                error);
}

tn_status tn_opset_raise(tn_model *model, int64_t target, tn_error *error)
{
    /* Types and ranks need no weights: they are not folded. */
    const tn_graph_options options = {.fold_limit = 1 << 20};
    tn_model *trial = NULL;
    tn_graph *graph = NULL;
    if (target < 7 || target > TN_OPSET_NEWEST)
        return tn_fail(error, TN_ERROR_USAGE, "opset %lld: 7 to %d expected", (long long)target,
                       TN_OPSET_NEWEST);
    if (model->opset >= target)
        return TN_OK;
    tn_status status = tn_model_copy(model, &trial, error);
    if (status == TN_OK)
        status = tn_graph_create(model, &options, &graph, error);
    if (status == TN_OK)
        status = climb_model(trial, graph, target, error);
    if (status == TN_OK)
        status = climb_model(model, graph, target, error);
    tn_graph_destroy(graph);
    tn_model_destroy(trial);
    return status;
}
