#include "finetune/block.h"

#include <string.h>

/* A block has two layers if it can and at most so many; no more nodes are looked at for its end. */
enum { WANTED_LAYERS = 2, MOST_LAYERS = 8, REACH = 48 };

/* Where a value is made and read last, as positions of nodes. */
typedef struct value_span {
    size_t made, read; /* made: SIZE_MAX by no node; read: SIZE_MAX by the network's caller */
    bool used;
} value_span;

typedef struct block_search {
    const tn_graph *graph;
    const tn_layers *layers;
    const bool *usable;
    value_span *spans; /* [values] */
    size_t *layer_of;  /* [nodes]: the usable layer a node computes; SIZE_MAX */
} block_search;

/* Operators a block may hold: those whose output has the layout of a feature map or of a row of
 * features, and a gradient. */
static bool allowed(const tn_node *node)
{
    static const char *const TYPES[] = {
        "Conv",     "Gemm",    "MatMul",    "Add",     "Concat",      "BatchNormalization",
        "Relu",     "Clip",    "LeakyRelu", "MaxPool", "AveragePool", "GlobalAveragePool",
        "Identity", "Dropout", "Sigmoid",   "Mul",     "HardSigmoid", "HardSwish",
        "Slice",    "Pad"};
    for (size_t i = 0; i < sizeof TYPES / sizeof TYPES[0]; i++)
        if (!strcmp(node->type, TYPES[i]))
            return node->n_outputs > 0;
    return false;
}

/* Works on what it reads alone and keeps its shape: behind a block's last layer it belongs to it.
 */
static bool trails(const tn_node *node)
{
    static const char *const TYPES[] = {"BatchNormalization", "Relu", "Clip", "LeakyRelu"};
    for (size_t i = 0; i < sizeof TYPES / sizeof TYPES[0]; i++)
        if (!strcmp(node->type, TYPES[i]))
            return true;
    return false;
}

static bool made_in(const value_span *span, size_t first, size_t last)
{
    return span->made != SIZE_MAX && span->made >= first && span->made < last;
}

/* How many values of [first, last) are read behind it; one of them. */
static size_t outputs_of(const block_search *search, size_t first, size_t last,
                         const tn_value **output)
{
    size_t count = 0;
    for (size_t i = 0; i < search->graph->n_values; i++) {
        const value_span *span = &search->spans[i];
        if (span->used && made_in(span, first, last) && span->read >= last) {
            *output = search->graph->values[i];
            count++;
        }
    }
    return count;
}

/* Values that are there before node `at` and read from it on. */
static size_t alive(const block_search *search, size_t at)
{
    size_t count = 0;
    for (size_t i = 0; i < search->graph->n_values; i++) {
        const tn_value *value = search->graph->values[i];
        const value_span *span = &search->spans[i];
        bool before = value->is_input || (span->made != SIZE_MAX && span->made < at);
        if (before && !value->constant && span->used && span->read >= at)
            count++;
    }
    return count;
}

static void fill_spans(block_search *search)
{
    for (size_t i = 0; i < search->graph->n_values; i++) {
        const tn_value *value = search->graph->values[i];
        value_span *span = &search->spans[i];
        bool made = value->producer && !value->producer->folded && !value->constant;
        *span = (value_span){.made = made ? value->producer->index : SIZE_MAX};
        for (size_t u = 0; u < value->n_users; u++)
            if (!value->users[u]->folded && (!span->used || value->users[u]->index > span->read)) {
                span->read = value->users[u]->index;
                span->used = true;
            }
        if (value->is_output) {
            span->read = SIZE_MAX;
            span->used = true;
        }
    }
    for (size_t i = 0; i < search->graph->n_nodes; i++)
        search->layer_of[i] = SIZE_MAX;
    for (size_t i = 0; i < search->layers->count; i++)
        if (search->usable[i] && search->layers->layer[i].n_users == 1)
            search->layer_of[search->layers->layer[i].node->index] = i;
}

/* A value no one reads does not count as an output. */
static bool single(const block_search *search, size_t first, size_t last)
{
    const tn_value *output = NULL;
    return outputs_of(search, first, last, &output) == 1 && output->rank >= 2 &&
           output->dtype == TN_FLOAT && !output->is_output;
}

/* Past the nodes that only activate what the block gives. */
static size_t with_trail(const block_search *search, size_t first, size_t last)
{
    const tn_graph *graph = search->graph;
    while (last < graph->n_nodes &&
           (graph->nodes[last]->folded ||
            (trails(graph->nodes[last]) && single(search, first, last + 1))))
        last++;
    while (last > first && graph->nodes[last - 1]->folded)
        last--;
    return last;
}

/* Where a block that begins with the layer at node `first` ends; the layer stands alone at worst.
 */
static size_t end_of(const block_search *search, size_t first)
{
    const tn_graph *graph = search->graph;
    size_t layers = 0, alone = 0, fallback = 0;
    for (size_t i = first; i < graph->n_nodes && i < first + REACH; i++) {
        if (graph->nodes[i]->folded)
            continue;
        if (!allowed(graph->nodes[i]))
            break;
        layers += search->layer_of[i] != SIZE_MAX;
        if (layers > MOST_LAYERS)
            break;
        if (!single(search, first, i + 1))
            continue;
        if (layers == 1)
            alone = i + 1;
        else if (layers == WANTED_LAYERS && !fallback)
            fallback = i + 1;
        if (layers >= WANTED_LAYERS && alive(search, i + 1) == 1)
            return with_trail(search, first, i + 1);
    }
    size_t last = fallback ? fallback : alone;
    return last ? with_trail(search, first, last) : first;
}

static bool has(tn_value *const *list, size_t n, const tn_value *value)
{
    for (size_t i = 0; i < n; i++)
        if (list[i] == value)
            return true;
    return false;
}

static tn_status make_block(const block_search *search, size_t first, size_t last,
                            tn_blocks *blocks, tn_error *error)
{
    const tn_graph *graph = search->graph;
    tn_block *block = &blocks->block[blocks->count];
    *block = (tn_block){.first = first, .last = last};
    size_t room = 1;
    for (size_t i = first; i < last; i++)
        room += graph->nodes[i]->n_inputs;
    block->inputs = tn_arena_array(&blocks->arena, room, sizeof *block->inputs);
    block->layers = tn_arena_array(&blocks->arena, last - first + 1, sizeof *block->layers);
    if (!block->inputs || !block->layers)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a block");
    for (size_t i = first; i < last; i++) {
        const tn_node *node = graph->nodes[i];
        for (size_t k = 0; !node->folded && k < node->n_inputs; k++) {
            tn_value *value = node->inputs[k];
            if (value && !value->constant && !made_in(&search->spans[value->index], first, last) &&
                !has(block->inputs, block->n_inputs, value))
                block->inputs[block->n_inputs++] = value;
        }
        if (search->layer_of[i] != SIZE_MAX)
            block->layers[block->n_layers++] = search->layer_of[i];
    }
    (void)outputs_of(search, first, last, &block->output);
    blocks->count++;
    return TN_OK;
}

tn_status tn_blocks_find(const tn_graph *graph, const tn_layers *layers, const bool *usable,
                         tn_blocks *out, tn_error *error)
{
    tn_blocks blocks = {0};
    tn_arena scratch;
    tn_arena_init(&blocks.arena);
    tn_arena_init(&scratch);
    block_search search = {.graph = graph, .layers = layers, .usable = usable};
    search.spans = tn_arena_array(&scratch, graph->n_values + 1, sizeof *search.spans);
    search.layer_of = tn_arena_array(&scratch, graph->n_nodes + 1, sizeof *search.layer_of);
    blocks.block = tn_arena_array(&blocks.arena, layers->count + 1, sizeof *blocks.block);
    tn_status status = TN_OK;
    if (!search.spans || !search.layer_of || !blocks.block)
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu layers", layers->count);
    else
        fill_spans(&search);
    for (size_t i = 0; status == TN_OK && i < graph->n_nodes; i++) {
        size_t last = search.layer_of[i] == SIZE_MAX ? i : end_of(&search, i);
        if (last == i)
            continue;
        status = make_block(&search, i, last, &blocks, error);
        i = last - 1;
    }
    tn_arena_done(&scratch);
    if (status == TN_OK)
        *out = blocks;
    else
        tn_blocks_done(&blocks);
    return status;
}

void tn_blocks_done(tn_blocks *blocks)
{
    tn_arena_done(&blocks->arena);
    *blocks = (tn_blocks){0};
}
