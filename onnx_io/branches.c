#include "onnx_io/branches.h"

#include "onnx_io/names.h"

#include <string.h>

/* What a branch may consist of: nothing with weights, which would have to be found in the file. */
static const char *const MOVES[] = {"Constant",  "Identity", "Squeeze",        "Unsqueeze",
                                    "Reshape",   "Flatten",  "Cast",           "Shape",
                                    "Gather",    "Concat",   "Slice",          "Expand",
                                    "Transpose", "Size",     "ConstantOfShape"};

static bool is_move(const Onnx__NodeProto *node)
{
    const char *domain = tn_text(node->domain);
    if (domain[0] && strcmp(domain, "ai.onnx") != 0)
        return false;
    for (size_t i = 0; i < sizeof MOVES / sizeof *MOVES; i++)
        if (strcmp(MOVES[i], tn_text(node->op_type)) == 0)
            return true;
    return false;
}

static bool has_own_names(const tn_graph *graph, const Onnx__GraphProto *branch)
{
    for (size_t i = 0; i < branch->n_node; i++)
        for (size_t k = 0; k < branch->node[i]->n_output; k++)
            if (tn_graph_value(graph, branch->node[i]->output[k]))
                return false;
    return true;
}

/* The branch that is taken, NULL where the node is no decided `If`. */
static const Onnx__GraphProto *find_branch(const tn_graph *graph, const tn_node *node)
{
    if (strcmp(node->type, "If") != 0 || node->domain[0] || node->n_inputs != 1 ||
        !node->inputs[0] || !node->inputs[0]->constant)
        return NULL;
    const tn_tensor *condition = node->inputs[0]->constant;
    if (condition->dtype != TN_BOOL || condition->bytes != 1)
        return NULL;
    const char *name = *(const unsigned char *)condition->data ? "then_branch" : "else_branch";
    const Onnx__GraphProto *branch = NULL;
    for (size_t i = 0; i < node->proto->n_attribute; i++)
        if (strcmp(tn_text(node->proto->attribute[i]->name), name) == 0)
            branch = node->proto->attribute[i]->g;
    if (!branch || branch->n_input || branch->n_initializer || branch->n_sparse_initializer ||
        branch->n_output != node->n_outputs)
        return NULL;
    for (size_t i = 0; i < branch->n_node; i++)
        if (!is_move(branch->node[i]))
            return NULL;
    return has_own_names(graph, branch) ? branch : NULL;
}

bool tn_branches_decided(const tn_graph *graph)
{
    for (size_t i = 0; i < graph->n_nodes; i++)
        if (find_branch(graph, graph->nodes[i]))
            return true;
    return false;
}

/* Two branches may use the same names: false for the second, which then stays. */
static bool claim_names(tn_names *names, const Onnx__GraphProto *branch, bool *out_of_memory)
{
    for (size_t i = 0; i < branch->n_node; i++)
        for (size_t k = 0; k < branch->node[i]->n_output; k++)
            if (tn_names_get(names, branch->node[i]->output[k]))
                return false;
    for (size_t i = 0; i < branch->n_node; i++)
        for (size_t k = 0; k < branch->node[i]->n_output; k++)
            if (branch->node[i]->output[k][0] &&
                !tn_names_set(names, branch->node[i]->output[k], branch->node[i])) {
                *out_of_memory = true;
                return false;
            }
    return true;
}

/* The `If`'s output from the branch's. */
static Onnx__NodeProto *make_identity(tn_arena *arena, char *from, char *to)
{
    static char type[] = "Identity";
    Onnx__NodeProto *node = tn_arena_alloc(arena, sizeof *node);
    char **names = tn_arena_array(arena, 2, sizeof *names);
    if (!node || !names)
        return NULL;
    onnx__node_proto__init(node);
    names[0] = from;
    names[1] = to;
    node->op_type = type;
    node->n_input = node->n_output = 1;
    node->input = names;
    node->output = names + 1;
    return node;
}

static bool append(tn_branches *to, Onnx__NodeProto *node, Onnx__NodeProto *holder)
{
    if (!node)
        return false;
    to->holders[to->proto->n_node] = holder;
    to->proto->node[to->proto->n_node++] = node;
    return true;
}

static bool append_branch(tn_branches *to, tn_arena *arena, const tn_node *node,
                          const Onnx__GraphProto *branch)
{
    Onnx__NodeProto *holder = node->holder ? node->holder : node->proto;
    bool done = true;
    for (size_t i = 0; done && i < branch->n_node; i++)
        done = append(to, branch->node[i], holder);
    for (size_t i = 0; done && i < branch->n_output; i++)
        if (node->outputs[i])
            done = append(to, make_identity(arena, branch->output[i]->name, node->proto->output[i]),
                          holder);
    return done;
}

tn_status tn_branches_take(const tn_graph *graph, const Onnx__GraphProto *proto, tn_arena *arena,
                           tn_branches *branches, tn_error *error)
{
    tn_branches taken = {.proto = tn_arena_alloc(arena, sizeof *taken.proto)};
    tn_names names;
    bool out_of_memory = !taken.proto;
    size_t room = graph->n_nodes;
    tn_names_init(&names);
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const Onnx__GraphProto *branch = find_branch(graph, graph->nodes[i]);
        room += branch ? branch->n_node + branch->n_output : 0;
    }
    if (taken.proto) {
        *taken.proto = *proto;
        taken.proto->n_node = 0;
        taken.proto->node = tn_arena_array(arena, room, sizeof *taken.proto->node);
        taken.holders = tn_arena_array(arena, room, sizeof *taken.holders);
        out_of_memory = !taken.proto->node || !taken.holders;
    }
    for (size_t i = 0; !out_of_memory && i < graph->n_nodes; i++) {
        const tn_node *node = graph->nodes[i];
        const Onnx__GraphProto *branch = find_branch(graph, node);
        if (branch && claim_names(&names, branch, &out_of_memory))
            out_of_memory = !append_branch(&taken, arena, node, branch);
        else if (!out_of_memory)
            out_of_memory = !append(&taken, node->proto, node->holder);
    }
    tn_names_done(&names);
    if (out_of_memory)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the branches of If nodes");
    *branches = taken;
    return TN_OK;
}
