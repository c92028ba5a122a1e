/* Learned rounding on a calibration's walk: where a block begins what feeds it is kept, where it
 * ends its layers, until then fitted one by one, are learned together (block_learning.h). */
#ifndef TERNION_FINETUNE_CALIBRATE_BLOCKS_H
#define TERNION_FINETUNE_CALIBRATE_BLOCKS_H

#include "finetune/block.h"
#include "finetune/calibrate_walk.h"

typedef struct tn_walk_blocks {
    tn_blocks blocks;
    size_t *first, *last;       /* [blocks.count] steps [first, last) of each */
    size_t at;                  /* the block under way, or the next */
    tn_activation_store *store; /* of the block under way; NULL between blocks */
} tn_walk_blocks;

/* The blocks of the layers that are to be fitted; none unless the method is learned rounding. */
tn_status tn_walk_blocks_create(const tn_walk *walk, tn_walk_blocks *blocks,
                                tn_error *error) TN_MUST_CHECK;
void tn_walk_blocks_done(tn_walk_blocks *blocks);

/* Whether a layer (a position in walk->layers) is learned in a block. */
bool tn_walk_blocks_hold(const tn_walk_blocks *blocks, size_t layer);

/* Before and after the walk works on a step. */
tn_status tn_walk_blocks_enter(tn_walk *walk, tn_walk_blocks *blocks, size_t step,
                               tn_error *error) TN_MUST_CHECK;
tn_status tn_walk_blocks_leave(tn_walk *walk, tn_walk_blocks *blocks, size_t step,
                               tn_error *error) TN_MUST_CHECK;

#endif
