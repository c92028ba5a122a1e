/* Chunks of images on their way through the two networks of a walk (calibrate_walk.h): loaded from
 * the store where the networks stand, run up to where they shall stand, and kept again. */
#ifndef TERNION_FINETUNE_CALIBRATE_CHUNKS_H
#define TERNION_FINETUNE_CALIBRATE_CHUNKS_H

#include "finetune/calibrate_walk.h"

enum { TN_WALK_FLOAT, TN_WALK_QUANTIZED, TN_WALK_NETWORKS };

int64_t tn_walk_chunks(const tn_walk *walk);
/* How many of a chunk's images are among the first `of`. */
int64_t tn_walk_images_in(const tn_walk *walk, int64_t chunk, int64_t of);
int64_t tn_walk_image_floats(const tn_walk *walk);

/* The store's key of a buffer of either network; what is the same in both is kept once. */
size_t tn_walk_key(const tn_walk *walk, int network, size_t id, int64_t chunk);
/* A buffer that was kept, into the plan's array. */
tn_status tn_walk_fetch(const tn_walk *walk, int network, const tn_plan_buffer *buffer,
                        int64_t chunk, tn_error *error) TN_MUST_CHECK;
/* The same unless it is there already: since the chunk was loaded, or tn_walk_forget. */
tn_status tn_walk_need(tn_walk *walk, int network, const tn_plan_buffer *buffer, int64_t chunk,
                       tn_error *error) TN_MUST_CHECK;
void tn_walk_forget(tn_walk *walk);

/* All that the networks need of a chunk from where they stand on. */
tn_status tn_walk_load(tn_walk *walk, int64_t chunk, tn_error *error) TN_MUST_CHECK;
/* Steps up to, and without, float_end and end. Untouched steps run in the float network alone. */
tn_status tn_walk_steps(tn_walk *walk, size_t float_end, size_t end, tn_error *error) TN_MUST_CHECK;
/* Loads a chunk, runs it to the networks' next steps, and keeps what they need there. */
tn_status tn_walk_advance(tn_walk *walk, int64_t chunk, size_t float_end, size_t end,
                          tn_error *error) TN_MUST_CHECK;
/* As tn_walk_advance, but loads only what the steps on the way use: what else is looked at must be
 * asked for by tn_walk_need. */
tn_status tn_walk_pass(tn_walk *walk, int64_t chunk, size_t float_end, size_t end,
                       tn_error *error) TN_MUST_CHECK;
/* After all chunks were advanced. */
void tn_walk_stand_at(tn_walk *walk, size_t float_at, size_t at);

#endif
