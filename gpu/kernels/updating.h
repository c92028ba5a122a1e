/* Optimizer bodies: every tensor of a network in one launch. */
#ifndef TERNION_GPU_KERNELS_UPDATING_H
#define TERNION_GPU_KERNELS_UPDATING_H

#include "gpu/kernels/tiles.h"

typedef struct tn_update_entry { /* one tensor; entries lie in device memory */
    int64_t element, chunk;      /* its first thread: by element, by chunk of a sum */
    float *value;
    const float *gradient;
    float *first, *second, *average;
    int64_t count;
    float rate, decay, floor; /* rate: factor on the learning rate */
} tn_update_entry;

typedef struct tn_update_args {
    const tn_update *header; /* what changes from step to step; before the entries */
    const tn_step_state *step;
    const tn_update_entry *entries; /* [n] */
    int n;
    tn_optimizer_rule rule;
    double *partial; /* [chunks] */
    double *total;
    int64_t chunks;
} tn_update_args;

/* The last entry that begins at or before chunk or element `at`. */
TN_BODY const tn_update_entry *tn_update_at(const tn_update_args *k, int64_t at, bool chunk)
{
    int low = 0, high = k->n - 1;
    while (low < high) {
        int middle = (low + high + 1) / 2;
        const tn_update_entry *e = &k->entries[middle];
        if ((chunk ? e->chunk : e->element) <= at)
            low = middle;
        else
            high = middle - 1;
    }
    return &k->entries[low];
}

TN_BODY void tn_update_body(const tn_update_args *k, int64_t i)
{
    if (!k->step->updates)
        return;
    const tn_update_entry *e = tn_update_at(k, i, false);
    const tn_update_factors *f = &k->header->after[k->step->dropped];
    float rate = (float)(k->header->lr * (double)e->rate), scale = k->step->gradient_scale;
    int64_t at = i - e->element;
    float value = e->value[at], first = e->first[at];
    if (k->rule.kind == TN_OPTIMIZER_SGD) {
        tn_sgd_element(&k->rule, rate, e->decay, scale, e->gradient[at], &value, &first);
    } else {
        float second = e->second[at];
        tn_adam_element(&k->rule, rate, e->decay, scale, f->unbias1, f->unbias2, e->gradient[at],
                        &value, &first, &second);
        e->second[at] = second;
    }
    e->first[at] = first;
    if (e->average)
        e->average[at] = tn_average_element(e->average[at], value, f->keep);
    e->value[at] = value < e->floor ? e->floor : value;
}

/* A block's chunk of TN_NORM_CHUNK elements, in the order of tn_norm_chunk. */
TN_BODY void tn_squares_phase(const tn_update_args *k, tn_tile_shared *s, int64_t block, int thread,
                              int phase)
{
    if (phase > 0) {
        tn_block_finish(s, thread, phase, k->partial + block);
        return;
    }
    const tn_update_entry *e = tn_update_at(k, block, true);
    double sum = 0.0;
    int64_t first = (block - e->chunk) * TN_NORM_CHUNK, last = first + TN_NORM_CHUNK;
    last = last < e->count ? last : e->count;
    for (int64_t at = first + thread; at < last; at += TN_NORM_LANES)
        sum += (double)e->gradient[at] * (double)e->gradient[at];
    s->sums[0][thread] = sum;
}

/* One block adds the chunks, likewise. */
TN_BODY void tn_squares_total_phase(const tn_update_args *k, tn_tile_shared *s, int64_t block,
                                    int thread, int phase)
{
    if (phase > 0) {
        tn_block_finish(s, thread, phase, k->total + block);
        return;
    }
    double sum = 0.0;
    for (int64_t chunk = thread; chunk < k->chunks; chunk += TN_NORM_LANES)
        sum += k->partial[chunk];
    s->sums[0][thread] = sum;
}

typedef struct tn_step_args {
    tn_step_state *state;
    const float *sums; /* TALLY: of a batch's loss */
    bool adds;
    const double *squares; /* JUDGE */
    double clip;
} tn_step_args;

/* One thread. */
TN_BODY void tn_tally_body(const tn_step_args *k, int64_t i)
{
    tn_step_state *s = k->state + i;
    s->loss = (k->adds ? s->loss : 0.0) + (double)k->sums[0];
    s->top1 = (k->adds ? s->top1 : 0.0) + (double)k->sums[1];
}

/* One thread. */
TN_BODY void tn_judge_body(const tn_step_args *k, int64_t i)
{
    tn_step_state *s = k->state + i;
    double norm = sqrt(*k->squares);
    bool good = tn_step_is_good(s->loss, norm);
    tn_step_record record = {s->loss, s->top1, norm, good ? 1.0 : 0.0};
    s->updates = good;
    s->dropped += !good;
    s->gradient_scale = (float)tn_clip_factor(k->clip, norm);
    if (s->noted < TN_STEP_LOG)
        s->log[s->noted++] = record;
}

#endif
