#include "finetune/calibrate_chunks.h"

#include "core/memory.h"

#include <string.h>

int64_t tn_walk_chunks(const tn_walk *walk)
{
    return (walk->images + walk->chunk_images - 1) / walk->chunk_images;
}

/* What is the same in both networks is kept once. */
size_t tn_walk_key(const tn_walk *walk, int network, size_t id, int64_t chunk)
{
    size_t which =
        network == TN_WALK_QUANTIZED && walk->touched[id] ? TN_WALK_QUANTIZED : TN_WALK_FLOAT;
    return ((size_t)chunk * tn_plan_buffer_count(walk->plan) + id) * TN_WALK_NETWORKS + which;
}

tn_status tn_walk_fetch(const tn_walk *walk, int network, const tn_plan_buffer *buffer,
                        int64_t chunk, tn_error *error)
{
    return tn_activation_store_get(walk->store, tn_walk_key(walk, network, buffer->id, chunk),
                                   buffer->data, (size_t)buffer->count, error);
}

int64_t tn_walk_images_in(const tn_walk *walk, int64_t chunk, int64_t of)
{
    int64_t left = of - chunk * walk->chunk_images;
    return left < 0 ? 0 : left < walk->chunk_images ? left : walk->chunk_images;
}

int64_t tn_walk_image_floats(const tn_walk *walk)
{
    const int64_t *dims = walk->graph->inputs[0]->dims;
    return dims[1] * dims[2] * dims[3];
}

/* The place of a buffer among walk->here and walk->fresh. */
static size_t place_of(const tn_walk *walk, int network, size_t id)
{
    return (size_t)network * tn_plan_buffer_count(walk->plan) + id;
}

tn_status tn_walk_need(tn_walk *walk, int network, const tn_plan_buffer *buffer, int64_t chunk,
                       tn_error *error)
{
    bool *here = &walk->here[place_of(walk, network, buffer->id)];
    tn_status status = *here ? TN_OK : tn_walk_fetch(walk, network, buffer, chunk, error);
    *here = status == TN_OK;
    return status;
}

void tn_walk_forget(tn_walk *walk)
{
    size_t places = TN_WALK_NETWORKS * tn_plan_buffer_count(walk->plan);
    memset(walk->here, 0, places * sizeof *walk->here);
    memset(walk->fresh, 0, places * sizeof *walk->fresh);
}

/* Whether steps [first, last) of a network read or write a buffer. */
static bool used(const tn_walk *walk, int network, size_t id, size_t first, size_t last)
{
    const tn_plan *plan = network == TN_WALK_FLOAT ? walk->float_plan : walk->plan;
    bool found = false;
    walk->marked[id] = true;
    for (size_t i = first; !found && i < last; i++) {
        tn_plan_buffer output;
        found = tn_plan_step_reads(plan, i, walk->marked) ||
                (tn_plan_step_buffer(plan, i, -1, &output) && output.id == id);
    }
    walk->marked[id] = false;
    return found;
}

/* What the networks need of a chunk for steps up to float_end and end; of what they keep for later
 * ones, all or nothing. */
static tn_status load_chunk(tn_walk *walk, int64_t chunk, size_t float_end, size_t end, bool all,
                            tn_error *error)
{
    tn_plan *plan[TN_WALK_NETWORKS] = {walk->float_plan, walk->plan};
    const size_t at[TN_WALK_NETWORKS] = {walk->float_at, walk->at};
    const size_t to[TN_WALK_NETWORKS] = {float_end, end};
    const float *images = walk->values + chunk * walk->chunk_images * tn_walk_image_floats(walk);
    size_t buffers = tn_plan_buffer_count(walk->plan);
    tn_status status = TN_OK;
    tn_walk_forget(walk);
    for (int k = 0; status == TN_OK && k < TN_WALK_NETWORKS; k++) {
        if (at[k] == 0) {
            status = tn_plan_write_input(plan[k], 0, images,
                                         tn_walk_images_in(walk, chunk, walk->images), error);
            memset(walk->here + place_of(walk, k, 0), true, buffers * sizeof *walk->here);
            memset(walk->fresh + place_of(walk, k, 0), true, buffers * sizeof *walk->fresh);
            continue;
        }
        size_t n = tn_plan_live(plan[k], at[k], walk->scratch);
        for (size_t i = 0; status == TN_OK && i < n; i++)
            if (all || used(walk, k, walk->scratch[i].id, at[k], to[k]))
                status = tn_walk_need(walk, k, &walk->scratch[i], chunk, error);
    }
    return status;
}

tn_status tn_walk_load(tn_walk *walk, int64_t chunk, tn_error *error)
{
    return load_chunk(walk, chunk, walk->float_at, walk->at, true, error);
}

static void mark_made(tn_walk *walk, int network, const tn_plan *plan, size_t step)
{
    tn_plan_buffer output;
    if (!tn_plan_step_buffer(plan, step, -1, &output))
        return;
    walk->here[place_of(walk, network, output.id)] = true;
    walk->fresh[place_of(walk, network, output.id)] = true;
}

/* Steps up to, and without, float_end and end. Untouched steps run in the float network alone. */
tn_status tn_walk_steps(tn_walk *walk, size_t float_end, size_t end, tn_error *error)
{
    tn_status status = TN_OK;
    size_t last = float_end > end ? float_end : end;
    for (size_t i = walk->at; status == TN_OK && i < last; i++) {
        if (i >= walk->float_at && i < float_end) {
            status = tn_plan_forward(walk->float_plan, TN_RUN_INFERENCE, i, i + 1, error);
            mark_made(walk, TN_WALK_FLOAT, walk->float_plan, i);
        }
        if (status != TN_OK || i >= end)
            continue;
        tn_plan_buffer from, to;
        if (walk->touched_step[i])
            status = tn_plan_forward(walk->plan, TN_RUN_INFERENCE, i, i + 1, error);
        else if (tn_plan_step_buffer(walk->float_plan, i, -1, &from) &&
                 tn_plan_step_buffer(walk->plan, i, -1, &to))
            status = walk->device->type->copy(walk->device, to.data, from.data,
                                              (size_t)to.count * sizeof *to.data, error);
        mark_made(walk, TN_WALK_QUANTIZED, walk->plan, i);
    }
    return status;
}

/* Keeps what either network needs from its step on and drops the rest of the chunk. What was not
 * made on the way is kept already. */
static tn_status save_chunk(tn_walk *walk, int64_t chunk, size_t float_end, size_t end,
                            tn_error *error)
{
    size_t buffers = tn_plan_buffer_count(walk->plan);
    size_t first = tn_walk_key(walk, TN_WALK_FLOAT, 0, chunk), keys = buffers * TN_WALK_NETWORKS;
    bool *kept = tn_alloc_zero(keys + 1, sizeof *kept);
    if (!kept)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu activations", keys);
    tn_status status = TN_OK;
    /* what an independent fit or the shared part of both networks reads at the layer's own step */
    const struct {
        tn_plan *plan;
        int network;
        size_t step;
        bool all;
    } sources[] = {{walk->float_plan, TN_WALK_FLOAT, float_end, true},
                   {walk->plan, TN_WALK_QUANTIZED, end, true},
                   {walk->float_plan, TN_WALK_FLOAT, end, walk->options->independent}};
    for (size_t s = 0; status == TN_OK && s < sizeof sources / sizeof sources[0]; s++) {
        size_t n =
            sources[s].all ? tn_plan_live(sources[s].plan, sources[s].step, walk->scratch) : 0;
        for (size_t i = 0; status == TN_OK && i < n; i++) {
            const tn_plan_buffer *buffer = &walk->scratch[i];
            size_t key = tn_walk_key(walk, sources[s].network, buffer->id, chunk);
            if (kept[key - first])
                continue;
            kept[key - first] = true;
            if (walk->fresh[place_of(walk, sources[s].network, buffer->id)])
                status = tn_activation_store_put(walk->store, key, buffer->data,
                                                 (size_t)buffer->count, error);
        }
    }
    for (size_t i = 0; i < keys; i++)
        if (!kept[i])
            tn_activation_store_drop(walk->store, first + i);
    tn_free(kept);
    return status;
}

static tn_status move_chunk(tn_walk *walk, int64_t chunk, size_t float_end, size_t end, bool all,
                            tn_error *error)
{
    tn_status status = load_chunk(walk, chunk, float_end, end, all, error);
    if (status == TN_OK)
        status = tn_walk_steps(walk, float_end, end, error);
    return status == TN_OK ? save_chunk(walk, chunk, float_end, end, error) : status;
}

tn_status tn_walk_advance(tn_walk *walk, int64_t chunk, size_t float_end, size_t end,
                          tn_error *error)
{
    return move_chunk(walk, chunk, float_end, end, true, error);
}

tn_status tn_walk_pass(tn_walk *walk, int64_t chunk, size_t float_end, size_t end, tn_error *error)
{
    return move_chunk(walk, chunk, float_end, end, false, error);
}

void tn_walk_stand_at(tn_walk *walk, size_t float_at, size_t at)
{
    walk->float_at = float_at;
    walk->at = at;
}
