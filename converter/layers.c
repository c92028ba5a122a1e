#include "converter/layers.h"

#include "converter/policy.h"
#include "onnx_io/order.h"

#include <regex.h>
#include <stdio.h>
#include <string.h>

static bool is_type(const tn_node *node, const char *type)
{
    bool standard = node->domain[0] == '\0' || strcmp(node->domain, "ai.onnx") == 0;
    return standard && strcmp(node->type, type) == 0;
}

/* The layer that a node is, or false when it has no eligible weight. */
static tn_status examine(tn_node *node, tn_layer *layer, bool *eligible, tn_error *error)
{
    *eligible = false;
    bool conv = is_type(node, "Conv"), transposed_conv = is_type(node, "ConvTranspose");
    bool gemm = is_type(node, "Gemm"), matmul = is_type(node, "MatMul");
    if ((!conv && !transposed_conv && !gemm && !matmul) || node->folded || node->n_inputs < 2 ||
        node->inputs[0] == NULL || node->inputs[1] == NULL)
        return TN_OK;
    tn_value *weight = node->inputs[1];
    const tn_tensor *tensor = weight->constant;
    if (tensor == NULL || !tn_dtype_is_float(tensor->dtype) || node->inputs[0]->constant != NULL)
        return TN_OK;
    bool shaped = conv || transposed_conv ? tensor->rank >= 3 : tensor->rank == 2;
    int64_t count;
    if (!shaped || !tn_dims_count(tensor->rank, tensor->dims, &count) || count == 0)
        return TN_OK;
    *layer = (tn_layer){.node = node, .weight = weight, .input = 1, .groups = 1};
    tn_status status = TN_OK;
    int64_t trans_b = 0;
    if (conv || transposed_conv)
        status = tn_node_int(node, "group", 1, &layer->groups, error);
    else if (gemm)
        status = tn_node_int(node, "transB", 0, &trans_b, error);
    if (status != TN_OK)
        return status;
    layer->is_linear = gemm || matmul;
    layer->axis = conv || (gemm && trans_b != 0) ? 0 : 1;
    layer->transpose = (gemm && trans_b == 0) || (matmul && node->inputs[0]->rank == 2);
    layer->rows = tensor->dims[layer->axis];
    layer->cols = count / layer->rows;
    *eligible = true;
    return TN_OK;
}

/* A weight that several nodes use is one layer; they must agree on what its channels are. */
static tn_status collect(tn_graph *graph, tn_layers *layers, size_t *layer_of,
                         size_t *layer_of_value, tn_error *error)
{
    layers->count = 0;
    for (size_t i = 0; i < graph->n_values; i++)
        layer_of_value[i] = SIZE_MAX;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        tn_layer found;
        bool eligible;
        tn_status status = examine(graph->nodes[i], &found, &eligible, error);
        layer_of[i] = SIZE_MAX;
        if (status != TN_OK)
            return status;
        if (!eligible)
            continue;
        size_t known = layer_of_value[found.weight->index];
        tn_layer *layer = &layers->layer[known != SIZE_MAX ? known : layers->count];
        if (known == SIZE_MAX) {
            layer_of_value[found.weight->index] = layers->count++;
            *layer = found;
            layer->users = tn_arena_array(&graph->arena, found.weight->n_users, sizeof(tn_node *));
            if (layer->users == NULL)
                return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the layers");
        } else if (layer->axis != found.axis || layer->transpose != found.transpose ||
                   layer->groups != found.groups) {
            layer->reason = "shared by layers that read it in different ways";
        }
        layer->users[layer->n_users++] = graph->nodes[i];
        layer_of[i] = (size_t)(layer - layers->layer);
    }
    return TN_OK;
}

typedef struct walk {
    tn_graph *graph;
    tn_layers *layers;
    const size_t *layer_of;
    tn_value **stack;
    bool *seen; /* per value */
    size_t depth;
} walk;

static void push(walk *w, tn_value *value)
{
    if (value == NULL || w->seen[value->index])
        return;
    w->seen[value->index] = true;
    w->stack[w->depth++] = value;
}

static void mark_first(walk *w)
{
    for (size_t i = 0; i < w->graph->n_inputs; i++)
        push(w, w->graph->inputs[i]);
    while (w->depth > 0) {
        tn_value *value = w->stack[--w->depth];
        for (size_t u = 0; u < value->n_users; u++) {
            tn_node *user = value->users[u];
            if (w->layer_of[user->index] != SIZE_MAX) {
                w->layers->layer[w->layer_of[user->index]].first = true;
                continue;
            }
            for (size_t o = 0; o < user->n_outputs; o++)
                push(w, user->outputs[o]);
        }
    }
}

static bool push_captured(void *context, const char *name)
{
    walk *w = context;
    push(w, tn_graph_value(w->graph, name));
    return true;
}

static void mark_last(walk *w)
{
    for (size_t i = 0; i < w->graph->n_outputs; i++)
        push(w, w->graph->outputs[i]);
    while (w->depth > 0) {
        tn_node *producer = w->stack[--w->depth]->producer;
        if (producer == NULL)
            continue;
        if (w->layer_of[producer->index] != SIZE_MAX) {
            w->layers->layer[w->layer_of[producer->index]].last = true;
            continue;
        }
        for (size_t i = 0; i < producer->n_inputs; i++)
            push(w, producer->inputs[i]);
        (void)tn_order_visit_captures(producer->proto, push_captured, w);
    }
}

static tn_status mark_ends(tn_graph *graph, tn_layers *layers, const size_t *layer_of,
                           tn_error *error)
{
    walk w = {.graph = graph, .layers = layers, .layer_of = layer_of};
    w.stack = tn_alloc_array(graph->n_values, sizeof *w.stack);
    w.seen = tn_alloc_zero(graph->n_values, sizeof *w.seen);
    tn_status status = TN_OK;
    if (w.stack == NULL || w.seen == NULL) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the layers");
        goto end;
    }
    mark_first(&w);
    memset(w.seen, 0, graph->n_values * sizeof *w.seen);
    mark_last(&w);
end:
    tn_free(w.stack);
    tn_free(w.seen);
    return status;
}

/* What a selector may have meant: the layers' names and the parts of them between slashes. */
typedef struct candidates {
    const char *name[512];
    size_t count, used;
    char parts[8192];
} candidates;

static void add_candidates(candidates *all, const char *label)
{
    const size_t most = sizeof all->name / sizeof all->name[0];
    if (all->count < most)
        all->name[all->count++] = label;
    for (const char *part = label; strchr(label, '/') != NULL && part != NULL;) {
        const char *slash = strchr(part, '/');
        size_t length = slash != NULL ? (size_t)(slash - part) : strlen(part);
        if (length > 0 && all->count < most && all->used + length < sizeof all->parts) {
            char *copy = all->parts + all->used;
            memcpy(copy, part, length);
            copy[length] = '\0';
            all->used += length + 1;
            all->name[all->count++] = copy;
        }
        part = slash != NULL ? slash + 1 : NULL;
    }
}

/* The layers' names, as many as fit. */
static void list_names(const tn_layers *layers, char *list, size_t size)
{
    enum { MOST = 24, TAIL = 40 };
    size_t used = 0, listed = 0;
    for (; listed < layers->count && listed < MOST; listed++) {
        const char *name = tn_quote(tn_node_label(layers->layer[listed].node));
        const char *comma = listed > 0 ? ", " : "";
        if (used + strlen(comma) + strlen(name) + TAIL > size)
            break;
        used += (size_t)snprintf(list + used, size - used, "%s%s", comma, name);
    }
    if (listed < layers->count)
        (void)snprintf(list + used, size - used, ", ... (%zu in all)", layers->count);
}

static tn_status fail_with_names(const tn_layers *layers, const char *wrong, const char *what,
                                 tn_error *error)
{
    char list[900] = "", hint[160] = "";
    candidates names = {.count = 0};
    list_names(layers, list, sizeof list);
    for (size_t i = 0; i < layers->count; i++)
        add_candidates(&names, tn_node_label(layers->layer[i].node));
    if (wrong != NULL)
        tn_suggest(wrong, names.name, names.count, hint, sizeof hint);
    return tn_fail(error, TN_ERROR_USAGE, "%s%s; the layers are: %s", what, hint,
                   layers->count > 0 ? list
                                     : "none (no Conv, ConvTranspose, Gemm or MatMul with a "
                                       "constant floating-point weight)");
}

static tn_status compile(const char *pattern, const char *option, regex_t *regex, tn_error *error)
{
    char why[200];
    int code = regcomp(regex, pattern, REG_EXTENDED | REG_NOSUB);
    if (code == 0)
        return TN_OK;
    (void)regerror(code, regex, why, sizeof why);
    return tn_fail(error, TN_ERROR_USAGE, "%s: %s is no regular expression: %s", option,
                   tn_quote(pattern), why);
}

static bool matches(const tn_layer *layer, const regex_t *regex)
{
    if (regexec(regex, layer->weight->name, 0, NULL, 0) == 0)
        return true;
    for (size_t i = 0; i < layer->n_users; i++)
        if (regexec(regex, tn_node_label(layer->users[i]), 0, NULL, 0) == 0)
            return true;
    return false;
}

typedef struct chooser {
    tn_graph *graph;
    const tn_policy *policy;
    tn_layers *layers;
    tn_request *request; /* per layer */
} chooser;

static tn_status apply_rule(const chooser *choose, const char *rule, tn_error *error)
{
    const char *equals = strrchr(rule, '=');
    if (equals == NULL || equals == rule || equals[1] == '\0')
        return tn_fail(error, TN_ERROR_USAGE,
                       "--layer: %s is no rule; expected REGEX=BITS, REGEX=SCHEME, "
                       "REGEX=SCHEME:BITS or REGEX=keep",
                       tn_quote(rule));
    char *pattern = tn_arena_strndup(&choose->graph->arena, rule, (size_t)(equals - rule));
    char *reason = tn_arena_alloc(&choose->graph->arena, strlen(rule) + 16);
    if (pattern == NULL || reason == NULL)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a rule");
    (void)snprintf(reason, strlen(rule) + 16, "--layer %s", rule);
    regex_t regex;
    tn_status status = compile(pattern, "--layer", &regex, error);
    if (status != TN_OK)
        return status;
    size_t hits = 0;
    for (size_t i = 0; status == TN_OK && i < choose->layers->count; i++) {
        if (!matches(&choose->layers->layer[i], &regex))
            continue;
        hits++;
        choose->request[i].reason = reason;
        status = tn_policy_apply_choice(equals + 1, "--layer", &choose->request[i], error);
    }
    regfree(&regex);
    if (status != TN_OK || hits > 0)
        return status;
    char what[300];
    (void)snprintf(what, sizeof what, "--layer: %s matches no layer", tn_quote(pattern));
    return fail_with_names(choose->layers, pattern, what, error);
}

static tn_status exclude(const chooser *choose, const char *pattern, tn_error *error)
{
    regex_t regex;
    tn_status status = compile(pattern, "--nodes-to-exclude", &regex, error);
    if (status != TN_OK)
        return status;
    size_t hits = 0;
    for (size_t i = 0; i < choose->layers->count; i++) {
        if (!matches(&choose->layers->layer[i], &regex))
            continue;
        hits++;
        choose->request[i].keep = true;
        choose->request[i].reason = "excluded";
    }
    regfree(&regex);
    if (hits > 0)
        return TN_OK;
    char what[300];
    (void)snprintf(what, sizeof what, "--nodes-to-exclude: %s matches no layer", tn_quote(pattern));
    return fail_with_names(choose->layers, pattern, what, error);
}

/* --first-layer and --last-layer: kept unless a width is given. */
static tn_status apply_end(const char *choice, const char *option, const char *kept,
                           tn_request *request, tn_error *error)
{
    if (choice == NULL || strcmp(choice, "keep") == 0) {
        request->keep = true;
        request->reason = kept;
        return TN_OK;
    }
    request->reason = option;
    return tn_policy_apply_choice(choice, option, request, error);
}

/* What the options say of each layer, the narrower ones later. */
static tn_status choose_requests(const chooser *choose, const tn_request *standard, tn_error *error)
{
    const tn_policy *policy = choose->policy;
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < choose->layers->count; i++) {
        const tn_layer *layer = &choose->layers->layer[i];
        tn_request *request = &choose->request[i];
        const char *width = layer->is_linear ? policy->linear_bits : policy->conv_bits;
        const char *option = layer->is_linear ? "--linear-bits" : "--conv-bits";
        *request = *standard;
        if (width != NULL) {
            request->reason = option;
            status = tn_policy_apply_choice(width, option, request, error);
        }
        if (status == TN_OK && layer->first)
            status = apply_end(policy->first_layer, "--first-layer", "first layer", request, error);
        if (status == TN_OK && layer->last && !(layer->first && request->keep))
            status = apply_end(policy->last_layer, "--last-layer", "last layer", request, error);
    }
    for (size_t i = 0; status == TN_OK && i < policy->n_layer_rules; i++)
        status = apply_rule(choose, policy->layer_rules[i], error);
    for (size_t i = 0; status == TN_OK && i < policy->n_excluded; i++)
        status = exclude(choose, policy->excluded[i], error);
    return status;
}

static tn_status check_layer(const tn_layer *layer, tn_error *error)
{
    bool grouped_transpose = is_type(layer->node, "ConvTranspose") && layer->groups > 1;
    if (!grouped_transpose || layer->scheme.quantizer->plain ||
        layer->scheme.granularity == TN_PER_TENSOR)
        return TN_OK;
    return tn_fail(error, TN_ERROR_USAGE,
                   "node %s: a ConvTranspose with group %lld can only be quantized with "
                   "--granularity tensor; leave it out with --nodes-to-exclude",
                   tn_quote(tn_node_label(layer->node)), (long long)layer->groups);
}

static tn_status settle(const chooser *choose, tn_error *error)
{
    size_t quantized = 0;
    bool training = false;
    for (size_t i = 0; i < choose->layers->count; i++) {
        tn_layer *layer = &choose->layers->layer[i];
        const tn_request *request = &choose->request[i];
        bool torn = layer->reason != NULL; /* users disagree */
        if (!torn)
            layer->reason = request->reason != NULL ? request->reason : "";
        if (request->keep || torn)
            continue;
        tn_status status = tn_policy_resolve(choose->policy, request, layer, error);
        if (status == TN_OK)
            status = check_layer(layer, error);
        if (status != TN_OK) {
            tn_error_note_node(error, tn_node_label(layer->node));
            return status;
        }
        if (strcmp(layer->scheme.quantizer->id, "float") == 0) {
            layer->reason = layer->reason[0] != '\0' ? layer->reason : "scheme float";
            training = true;
            continue;
        }
        layer->quantized = true;
        quantized++;
    }
    if (quantized == 0 && !training)
        return fail_with_names(choose->layers, NULL,
                               "nothing would be quantized: every layer is kept (first and last "
                               "are unless --first-layer, --last-layer say otherwise)",
                               error);
    return TN_OK;
}

tn_status tn_layers_find(tn_graph *graph, tn_layers *layers, tn_error *error)
{
    tn_layers found = {.layer = tn_arena_array(&graph->arena, graph->n_nodes, sizeof(tn_layer))};
    tn_status status = TN_OK;
    size_t *layer_of = tn_alloc_array(graph->n_nodes, sizeof *layer_of);
    size_t *layer_of_value = tn_alloc_array(graph->n_values, sizeof *layer_of_value);
    if (layer_of_value == NULL || found.layer == NULL || layer_of == NULL)
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the layers");
    if (status == TN_OK)
        status = collect(graph, &found, layer_of, layer_of_value, error);
    if (status == TN_OK)
        status = mark_ends(graph, &found, layer_of, error);
    if (status == TN_OK)
        *layers = found;
    tn_free(layer_of);
    tn_free(layer_of_value);
    return status;
}

tn_status tn_layers_select(tn_graph *graph, const tn_policy *policy, tn_layers *layers,
                           tn_error *error)
{
    static const tn_policy defaults;
    tn_layers found = {NULL, 0};
    chooser choose = {graph, policy != NULL ? policy : &defaults, &found, NULL};
    tn_request standard;
    tn_status status = tn_policy_check(choose.policy, &standard, error);
    if (status == TN_OK)
        status = tn_layers_find(graph, &found, error);
    if (status != TN_OK)
        return status;
    choose.request = tn_alloc_zero(found.count, sizeof *choose.request);
    if (choose.request == NULL)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the layers");
    status = choose_requests(&choose, &standard, error);
    if (status == TN_OK)
        status = settle(&choose, error);
    if (status == TN_OK)
        *layers = found;
    tn_free(choose.request);
    return status;
}

tn_status tn_layer_rows(const tn_layer *layer, float *rows, tn_error *error)
{
    return tn_layer_read_rows(layer, 0, layer->rows, rows, error);
}

tn_status tn_layer_read_rows(const tn_layer *layer, int64_t first, int64_t count, float *rows,
                             tn_error *error)
{
    const tn_tensor *tensor = layer->weight->constant;
    int64_t outer = 1, inner = 1, channels = tensor->dims[layer->axis];
    for (int i = 0; i < layer->axis; i++)
        outer *= tensor->dims[i];
    for (int i = layer->axis + 1; i < tensor->rank; i++)
        inner *= tensor->dims[i];
    if (outer == 1)
        return tn_tensor_read_float(tensor, first * inner, count * inner, rows, error);
    /* channels are strided: some at a time pass through a small buffer */
    enum { BUFFER = 1024 };
    float some[BUFFER];
    tn_status status = TN_OK;
    for (int64_t a = 0; status == TN_OK && a < outer; a++) {
        int64_t from = (a * channels + first) * inner, left = count * inner, done = 0;
        for (; status == TN_OK && done < left; done += BUFFER) {
            int64_t n = left - done < BUFFER ? left - done : BUFFER;
            status = tn_tensor_read_float(tensor, from + done, n, some, error);
            for (int64_t e = 0; status == TN_OK && e < n; e++) {
                int64_t channel = (done + e) / inner, within = (done + e) % inner;
                rows[(channel * outer + a) * inner + within] = some[e];
            }
        }
    }
    return status;
}
