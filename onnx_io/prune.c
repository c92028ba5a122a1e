#include "onnx_io/edit.h"

#include "onnx_io/names.h"
#include "onnx_io/order.h"

#include <string.h>

/* Uses of every value of the main graph, by name. */
typedef struct usage {
    tn_names uses;  /* name -> its counter */
    tn_names names; /* what may go, unless everything may */
    bool limited;
    bool out_of_memory;
    tn_arena arena;
} usage;

static bool change_use(usage *u, const char *name, int change)
{
    if (!name[0])
        return true;
    int64_t *counter = tn_names_get(&u->uses, name);
    if (!counter) {
        counter = tn_arena_alloc(&u->arena, sizeof *counter);
        if (!counter || !tn_names_set(&u->uses, name, counter)) {
            u->out_of_memory = true;
            return false;
        }
    }
    *counter += change;
    return true;
}

static bool add_use(void *context, const char *name)
{
    return change_use(context, name, 1);
}

static bool drop_use(void *context, const char *name)
{
    return change_use(context, name, -1);
}

static void visit_inputs(const Onnx__NodeProto *node, bool (*visit)(void *, const char *), usage *u)
{
    for (size_t i = 0; i < node->n_input; i++)
        if (!visit(u, node->input[i]))
            return;
    (void)tn_order_visit_captures(node, visit, u);
}

static bool may_go(const usage *u, const char *name)
{
    const int64_t *counter = tn_names_get(&u->uses, name);
    return (!counter || *counter == 0) && (!u->limited || tn_names_get(&u->names, name));
}

static bool is_dead(const usage *u, const Onnx__NodeProto *node)
{
    bool has_output = false;
    for (size_t i = 0; i < node->n_output; i++) {
        if (!node->output[i][0])
            continue;
        has_output = true;
        if (!may_go(u, node->output[i]))
            return false;
    }
    return has_output;
}

/* Nodes are sorted in most files, so that one pass from the end does nearly all. */
static void drop_nodes(usage *u, Onnx__GraphProto *graph, tn_names *gone)
{
    bool again = true;
    while (again && !u->out_of_memory) {
        again = false;
        for (size_t i = graph->n_node; i-- > 0 && !u->out_of_memory;) {
            Onnx__NodeProto *node = graph->node[i];
            if (!node || !is_dead(u, node))
                continue;
            again = true;
            visit_inputs(node, drop_use, u);
            for (size_t k = 0; k < node->n_output; k++)
                if (node->output[k][0] && !tn_names_set(gone, node->output[k], node))
                    u->out_of_memory = true;
            graph->node[i] = NULL;
        }
    }
    size_t kept = 0;
    for (size_t i = 0; i < graph->n_node; i++)
        if (graph->node[i])
            graph->node[kept++] = graph->node[i];
    graph->n_node = kept;
}

static void drop_initializers(usage *u, Onnx__GraphProto *graph, tn_names *gone)
{
    size_t kept = 0;
    for (size_t i = 0; i < graph->n_initializer; i++) {
        Onnx__TensorProto *tensor = graph->initializer[i];
        if (!may_go(u, tn_text(tensor->name)))
            graph->initializer[kept++] = tensor;
        else if (!tn_names_set(gone, tn_text(tensor->name), tensor))
            u->out_of_memory = true;
    }
    graph->n_initializer = kept;
}

/* Inputs that only listed an initializer, and types of values that are no more. */
static void drop_infos(Onnx__ValueInfoProto **list, size_t *count, const tn_names *gone)
{
    size_t kept = 0;
    for (size_t i = 0; i < *count; i++)
        if (!tn_names_get(gone, tn_text(list[i]->name)))
            list[kept++] = list[i];
    *count = kept;
}

static tn_status prune(tn_model *model, const char *const *names, tn_error *error)
{
    Onnx__GraphProto *graph = model->proto->graph;
    tn_names gone;
    usage u = {.limited = names != NULL};
    tn_names_init(&gone);
    tn_names_init(&u.uses);
    tn_names_init(&u.names);
    tn_arena_init(&u.arena);
    for (size_t i = 0; names && names[i] && !u.out_of_memory; i++)
        u.out_of_memory = !tn_names_set(&u.names, names[i], model);
    for (size_t i = 0; i < graph->n_output && !u.out_of_memory; i++)
        add_use(&u, tn_text(graph->output[i]->name));
    for (size_t i = 0; i < graph->n_node && !u.out_of_memory; i++)
        visit_inputs(graph->node[i], add_use, &u);
    if (!u.out_of_memory)
        drop_nodes(&u, graph, &gone);
    if (!u.out_of_memory)
        drop_initializers(&u, graph, &gone);
    drop_infos(graph->input, &graph->n_input, &gone);
    drop_infos(graph->value_info, &graph->n_value_info, &gone);
    tn_status status =
        u.out_of_memory ? tn_fail(error, TN_ERROR_LIMIT, "out of memory pruning the model") : TN_OK;
    tn_names_done(&gone);
    tn_names_done(&u.uses);
    tn_names_done(&u.names);
    tn_arena_done(&u.arena);
    return status;
}

tn_status tn_edit_prune(tn_model *model, tn_error *error)
{
    return prune(model, NULL, error);
}

tn_status tn_edit_prune_names(tn_model *model, const char *const *names, tn_error *error)
{
    return prune(model, names, error);
}
