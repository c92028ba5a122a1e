/* Blocks of a network: short runs of nodes around layers that are learned together, with one value
 * that the rest of the network sees of them. A residual block with its sum and ReLU, the layers of
 * one entry of a dense block, a fire module, two layers of a chain with what activates them. */
#ifndef TERNION_FINETUNE_BLOCK_H
#define TERNION_FINETUNE_BLOCK_H

#include "converter/layers.h"

typedef struct tn_block {
    size_t first, last; /* nodes [first, last) of the graph */
    tn_value **inputs;  /* what they read and do not make */
    size_t n_inputs;
    const tn_value *output; /* the one value they make that others read */
    size_t *layers;         /* positions of the layers that are learned, in node order */
    size_t n_layers;
} tn_block;

typedef struct tn_blocks {
    tn_block *block; /* in node order, without overlap */
    size_t count;
    tn_arena arena;
} tn_blocks;

/* The blocks of a graph that hold the layers marked `usable` [layers->count]; each such layer is
 * in one block, or in none when what stands around it has no part of this kind. A block ends where
 * a single value is alive, if that comes within a few layers, else where what it makes is read
 * outside in one value. LIMIT when out of memory. */
tn_status tn_blocks_find(const tn_graph *graph, const tn_layers *layers, const bool *usable,
                         tn_blocks *blocks, tn_error *error) TN_MUST_CHECK;
void tn_blocks_done(tn_blocks *blocks);

#endif
