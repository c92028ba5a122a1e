#include "finetune/calibrate_blocks.h"

#include "core/memory.h"
#include "finetune/block_learning.h"
#include "finetune/calibrate_chain.h"
#include "finetune/calibrate_chunks.h"
#include "finetune/calibrate_wide.h"
#include "finetune/weight_placement.h"

#include <stdlib.h>
#include <string.h>

/* --- where blocks are ---------------------------------------------------------------------------
 */

/* The steps that compute a block's nodes; views have none. */
static void find_steps(const tn_walk *walk, const tn_block *block, size_t *first, size_t *last)
{
    *first = SIZE_MAX;
    *last = 0;
    for (size_t i = block->first; i < block->last; i++) {
        size_t step = walk->graph->nodes[i]->folded
                          ? SIZE_MAX
                          : tn_plan_step_of_node(walk->plan, tn_node_label(walk->graph->nodes[i]));
        if (step == SIZE_MAX)
            continue;
        *first = step < *first ? step : *first;
        *last = step + 1 > *last ? step + 1 : *last;
    }
}

tn_status tn_walk_blocks_create(const tn_walk *walk, tn_walk_blocks *out, tn_error *error)
{
    tn_walk_blocks blocks = {0};
    bool asked = walk->options->method == TN_CALIBRATE_ADAROUND && !walk->options->independent;
    size_t layers = walk->layers->count;
    bool *usable = tn_alloc_zero(layers + 1, sizeof *usable);
    blocks.first = tn_alloc_zero(layers + 1, 2 * sizeof *blocks.first);
    blocks.last = blocks.first ? blocks.first + layers + 1 : NULL;
    tn_status status = TN_OK;
    if (!usable || !blocks.first)
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu layers", layers);
    for (size_t i = 0; status == TN_OK && i < layers; i++)
        usable[i] = asked && walk->layers->layer[i].quantized && !walk->report[i].reason &&
                    walk->layers->layer[i].cols <= TN_WIDE_COLS;
    if (status == TN_OK)
        status = tn_blocks_find(walk->graph, walk->layers, usable, &blocks.blocks, error);
    for (size_t i = 0; status == TN_OK && i < blocks.blocks.count; i++)
        find_steps(walk, &blocks.blocks.block[i], &blocks.first[i], &blocks.last[i]);
    tn_free(usable);
    if (status == TN_OK)
        *out = blocks;
    else
        tn_walk_blocks_done(&blocks);
    return status;
}

void tn_walk_blocks_done(tn_walk_blocks *blocks)
{
    tn_activation_store_destroy(blocks->store);
    tn_blocks_done(&blocks->blocks);
    tn_free(blocks->first);
    *blocks = (tn_walk_blocks){0};
}

bool tn_walk_blocks_hold(const tn_walk_blocks *blocks, size_t layer)
{
    for (size_t b = 0; b < blocks->blocks.count; b++)
        for (size_t i = 0; i < blocks->blocks.block[b].n_layers; i++)
            if (blocks->blocks.block[b].layers[i] == layer)
                return true;
    return false;
}

/* --- entering -----------------------------------------------------------------------------------
 */

static size_t count_of(const tn_value *value)
{
    size_t count = 1;
    for (int i = 0; i < value->rank; i++)
        count *= (size_t)value->dims[i];
    return count;
}

/* A value of either network, as it is now, into the block's store. */
static tn_status keep(tn_walk_blocks *blocks, const tn_plan *plan, const tn_value *value,
                      size_t key, tn_error *error)
{
    size_t count = count_of(value);
    float *numbers = tn_alloc_array(count, sizeof *numbers);
    if (!numbers)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a block");
    /* reading changes no value */
    union {
        const tn_plan *from;
        tn_plan *to;
    } same = {.from = plan};
    tn_status status = tn_plan_read(same.to, value->name, numbers, error);
    if (status == TN_OK)
        status = tn_activation_store_put(blocks->store, key, numbers, count, error);
    tn_free(numbers);
    return status;
}

tn_status tn_walk_blocks_enter(tn_walk *walk, tn_walk_blocks *blocks, size_t step, tn_error *error)
{
    if (blocks->at >= blocks->blocks.count || blocks->first[blocks->at] != step)
        return TN_OK;
    const tn_block *block = &blocks->blocks.block[blocks->at];
    int64_t chunks = tn_walk_chunks(walk);
    tn_status status = tn_activation_store_create(NULL, tn_block_key(block, chunks, 0),
                                                  walk->options->memory, &blocks->store, error);
    for (int64_t c = 0; status == TN_OK && c < chunks; c++) {
        status = tn_walk_advance(walk, c, step, step, error);
        for (size_t k = 0; status == TN_OK && k < block->n_inputs; k++)
            status = keep(blocks, walk->plan, block->inputs[k], tn_block_key(block, c, k), error);
    }
    tn_walk_stand_at(walk, step, step);
    return status;
}

/* --- leaving ------------------------------------------------------------------------------------
 */

/* What the block now gives, in place of what it gave. */
static tn_status replace_output(tn_walk *walk, tn_block_network *network, const tn_block_data *data,
                                tn_error *error)
{
    const char *name = network->block->output->name;
    tn_plan_buffer buffer;
    tn_status status = TN_OK;
    for (int64_t c = 0; status == TN_OK && c < tn_walk_chunks(walk); c++) {
        status = tn_block_network_run(network, data, c, error);
        if (status == TN_OK)
            status = tn_plan_write_value(walk->plan, name, network->output, error);
        if (status == TN_OK && !tn_plan_value_buffer(walk->plan, name, &buffer))
            status =
                tn_fail(error, TN_ERROR_MODEL, "value %s is missing in the plan", tn_quote(name));
        if (status == TN_OK)
            status = tn_activation_store_put(walk->store,
                                             tn_walk_key(walk, TN_WALK_QUANTIZED, buffer.id, c),
                                             buffer.data, (size_t)buffer.count, error);
    }
    return status;
}

static tn_status take(tn_walk *walk, tn_block_network *network, const tn_block_data *data,
                      tn_error *error)
{
    const tn_block *block = network->block;
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < block->n_layers; i++)
        status = tn_weight_place(walk->params, &walk->layers->layer[block->layers[i]],
                                 &walk->weight[block->layers[i]], error);
    if (status == TN_OK)
        status = tn_block_network_exchange(network, walk->params, false, error);
    return status == TN_OK ? replace_output(walk, network, data, error) : status;
}

static void tell(const tn_walk *walk, const tn_block *block, const tn_block_learned *learned)
{
    const tn_layers *layers = walk->layers;
    for (size_t i = 0; i < block->n_layers; i++) {
        tn_calibrated_layer *report = &walk->report[block->layers[i]];
        report->method =
            tn_calibrate_method_name(learned->kept ? TN_CALIBRATE_ADAROUND : TN_CALIBRATE_CD);
        if (!learned->kept)
            report->reason = "learned rounding of its block was no better on held-out images";
    }
    tn_log(
        walk->options->reporter, TN_LOG_INFO,
        "block of %zu layers from %s to %s: error %.4f to %.4f, held out %.4f to %.4f, %lld codes "
        "changed%s",
        block->n_layers, layers->layer[block->layers[0]].weight->name, block->output->name,
        learned->fitted_before, learned->fitted, learned->held_before, learned->held,
        (long long)learned->flips, learned->kept ? "" : ": not kept");
}

static tn_status learn_block(tn_walk *walk, tn_walk_blocks *blocks, tn_error *error)
{
    const tn_block *block = &blocks->blocks.block[blocks->at];
    int64_t held = walk->fitted / 4;
    tn_chain chain;
    const tn_layer *last = &walk->layers->layer[block->layers[block->n_layers - 1]];
    tn_chain_find(last->node, last->rows, &chain);
    tn_block_data data = {.store = blocks->store,
                          .images = walk->fitted,
                          .chunk_images = walk->chunk_images,
                          .fitted = walk->fitted - held,
                          .centered = chain.output == block->output && chain.bn_later &&
                                      walk->bn != TN_CALIBRATE_BN_KEEP};
    tn_block_learning_options options = {.damping = walk->options->damping,
                                         .positions = walk->options->positions,
                                         .corrections = walk->bn != TN_CALIBRATE_BN_KEEP};
    tn_block_network network = {0};
    tn_block_learned learned = {0};
    tn_status status = tn_block_network_create(walk->graph, block, walk->device, &network, error);
    if (status == TN_OK)
        status = tn_block_learn(&network, &data, walk->layers, &options, walk->weight, walk->params,
                                &learned, error);
    if (status == TN_OK)
        tell(walk, block, &learned);
    if (status == TN_OK && learned.kept)
        status = take(walk, &network, &data, error);
    tn_block_network_done(&network);
    return status;
}

tn_status tn_walk_blocks_leave(tn_walk *walk, tn_walk_blocks *blocks, size_t step, tn_error *error)
{
    if (!blocks->store || blocks->last[blocks->at] != step + 1)
        return TN_OK;
    const tn_block *block = &blocks->blocks.block[blocks->at];
    tn_status status = TN_OK;
    for (int64_t c = 0; status == TN_OK && c < tn_walk_chunks(walk); c++) {
        status = tn_walk_advance(walk, c, step + 1, step + 1, error);
        if (status == TN_OK)
            status = keep(blocks, walk->float_plan, block->output,
                          tn_block_key(block, c, block->n_inputs), error);
    }
    tn_walk_stand_at(walk, step + 1, step + 1);
    if (status == TN_OK)
        status = learn_block(walk, blocks, error);
    walk->spilled += tn_activation_store_spilled(blocks->store);
    tn_activation_store_destroy(blocks->store);
    blocks->store = NULL;
    blocks->at++;
    return status;
}
