/* Thresholds of least squared error and of a given sparsity: a block sorts a run's magnitudes and
 * sums what each cut between two of them keeps.
 *
 * The sort is bitonic with comparisons that all point one way, so that what lies beyond the run,
 * never looked at, counts as smaller than all of it. Runs of up to TN_SORT_SHARED weights are
 * sorted in the block's memory, longer ones where the keys lie. */
#ifndef TERNION_GPU_KERNELS_CUTTING_H
#define TERNION_GPU_KERNELS_CUTTING_H

#include "gpu/kernels/quantizing.h"

enum {
    TN_CUT_LOG = 15,
    TN_CUT_RUN = 1 << TN_CUT_LOG, /* weights of a run; longer ones are left to the host */
    TN_CUT_STAGES = TN_CUT_LOG * (TN_CUT_LOG + 1) / 2,
    TN_CUT_PHASES = TN_CUT_STAGES + 8, /* notes, load, sort, put back, five of tn_cut_choose */
    TN_CUT_GROUP = 16,                 /* threads whose sums are added first */
    TN_CUT_SUMS = 4 /* weights kept, their magnitudes; the same of TTQ's negative side */
};

/* Where sums[1] holds what: sums of groups, then bests of threads and of groups. */
enum {
    TN_CUT_BEST = TN_GPU_BLOCK,
    TN_CUT_BEST_KEY = 2 * TN_GPU_BLOCK,
    TN_CUT_LAST = 3 * TN_GPU_BLOCK
};

/* One stage of a sort in descending order. */
TN_BODY void tn_sort_stage(uint32_t *keys, int count, int stage, int thread)
{
    int log = 1; /* of the blocks that this stage merges */
    while (stage >= log)
        stage -= log++;
    const bool flip = stage == 0; /* else the halves of smaller blocks */
    const int half = log - 1 - stage;
    for (int t = thread; t < count; t += TN_GPU_BLOCK) {
        int low = (t >> half << (half + 1)) + (t & ((1 << half) - 1));
        int high = flip ? (t >> half << (half + 1)) + (2 << half) - 1 - (t & ((1 << half) - 1))
                        : low + (1 << half);
        if (high >= count)
            continue;
        uint32_t a = keys[low], b = keys[high];
        keys[low] = a > b ? a : b;
        keys[high] = a > b ? b : a;
    }
}

/* Adds what keeping a weight adds. A key is the magnitude's bits, then the sign. */
TN_BODY void tn_cut_keep(bool two_scales, uint32_t key, double sums[TN_CUT_SUMS])
{
    uint32_t bits = key >> 1;
    float magnitude;
    memcpy(&magnitude, &bits, sizeof(magnitude));
    if (bits == 0)
        return;
    bool other = two_scales && (key & 1u) != 0;
    sums[0] += other ? 0.0 : 1.0;
    sums[1] += other ? 0.0 : (double)magnitude;
    sums[2] += other ? 1.0 : 0.0;
    sums[3] += other ? (double)magnitude : 0.0;
}

/* What a cut takes off the squared error. */
TN_BODY double tn_cut_score(const double sums[TN_CUT_SUMS])
{
    double score = sums[0] > 0.0 ? sums[1] * (sums[1] / sums[0]) : 0.0;
    return score + (sums[2] > 0.0 ? sums[3] * (sums[3] / sums[2]) : 0.0);
}

/* The better of two cuts; of equal ones the one that keeps least. */
TN_BODY void tn_cut_better(double score, double key, double *best, double *best_key)
{
    if (score > *best || (score == *best && score > 0.0 && key > *best_key)) {
        *best = score;
        *best_key = key;
    }
}

/* The best of a group of the bests that lie from `at` on, keys from `key_at` on. */
TN_BODY void tn_cut_best_of(const tn_tile_shared *s, int at, int key_at, double *best,
                            double *best_key)
{
    *best = *best_key = 0.0;
    for (int i = 0; i < TN_CUT_GROUP; i++)
        tn_cut_better(s->sums[1][at + i], s->sums[1][key_at + i], best, best_key);
}

/* The weights of a thread among the sorted ones. */
TN_BODY void tn_cut_share(int count, int thread, int *first, int *last)
{
    int each = (count + TN_GPU_BLOCK - 1) / TN_GPU_BLOCK;
    *first = thread * each < count ? thread * each : count;
    *last = *first + each < count ? *first + each : count;
}

/* The best of a thread's cuts, from the sums of threads and groups before it. */
TN_BODY void tn_cut_search(tn_tile_shared *s, bool two_scales, const uint32_t *keys, int count,
                           int thread)
{
    double sums[TN_CUT_SUMS], best = 0.0, best_key = 0.0;
    int group = thread / TN_CUT_GROUP, first, last;
    for (int q = 0; q < TN_CUT_SUMS; q++) {
        sums[q] = 0.0;
        for (int i = 0; i < group; i++)
            sums[q] += s->sums[1][i * TN_CUT_SUMS + q];
        for (int i = group * TN_CUT_GROUP; i < thread; i++)
            sums[q] += s->sums[0][i * TN_CUT_SUMS + q];
    }
    tn_cut_share(count, thread, &first, &last);
    for (int i = first; i < last; i++) {
        tn_cut_keep(two_scales, keys[i], sums);
        if (i + 1 == count || keys[i] >> 1 != keys[i + 1] >> 1)
            tn_cut_better(tn_cut_score(sums), (double)(keys[i] >> 1), &best, &best_key);
    }
    s->sums[1][TN_CUT_BEST + thread] = best;
    s->sums[1][TN_CUT_BEST_KEY + thread] = best_key;
}

/* What follows the sort, the keys being where they stay: the best cut into *cut. */
TN_BODY void tn_cut_choose(tn_tile_shared *s, bool two_scales, const uint32_t *keys, int count,
                           int thread, int phase, uint32_t *cut)
{
    double sums[TN_CUT_SUMS] = {0.0, 0.0, 0.0, 0.0}, best, best_key;
    int first, last;
    switch (phase) {
    case 0: /* threads */
        tn_cut_share(count, thread, &first, &last);
        for (int i = first; i < last; i++)
            tn_cut_keep(two_scales, keys[i], sums);
        for (int q = 0; q < TN_CUT_SUMS; q++)
            s->sums[0][thread * TN_CUT_SUMS + q] = sums[q];
        break;
    case 1: /* groups */
        if (thread >= TN_GPU_BLOCK / TN_CUT_GROUP * TN_CUT_SUMS)
            break;
        first = thread / TN_CUT_SUMS * TN_CUT_GROUP;
        for (int i = first; i < first + TN_CUT_GROUP; i++)
            sums[0] += s->sums[0][i * TN_CUT_SUMS + thread % TN_CUT_SUMS];
        s->sums[1][thread] = sums[0];
        break;
    case 2:
        tn_cut_search(s, two_scales, keys, count, thread);
        break;
    case 3:
        if (thread >= TN_CUT_GROUP)
            break;
        tn_cut_best_of(s, TN_CUT_BEST + thread * TN_CUT_GROUP,
                       TN_CUT_BEST_KEY + thread * TN_CUT_GROUP, &best, &best_key);
        s->sums[1][TN_CUT_LAST + thread] = best;
        s->sums[1][TN_CUT_LAST + TN_CUT_GROUP + thread] = best_key;
        break;
    default:
        if (thread > 0)
            break;
        tn_cut_best_of(s, TN_CUT_LAST, TN_CUT_LAST + TN_CUT_GROUP, &best, &best_key);
        *cut = (uint32_t)best_key;
    }
}

/* A run's best cut, or for a sparsity the largest magnitude that becomes 0. */
TN_BODY void tn_latent_cut_phase(const tn_quantizing_args *k, tn_tile_shared *s, int64_t block,
                                 int thread, int phase)
{
    /* The run, found once: later phases read it here. */
    if (phase == 0 && thread == 0) {
        int64_t run = block;
        s->notes[0] = tn_latent_at(k, TN_WALK_CUTS, &run) - k->entries;
        s->notes[1] = run;
    }
    if (phase == 0)
        return;
    const tn_latent_entry *e = &k->entries[s->notes[0]];
    int64_t run = s->notes[1], longest;
    const float *w = e->w + tn_latent_run(e, run, &longest);
    int count = (int)longest, log = 0;
    uint32_t *kept = k->keys + e->key + run * e->longest;
    uint32_t *keys = count <= TN_SORT_SHARED ? s->keys : kept;
    while (1 << log < count)
        log++;
    if (phase == 1) {
        for (int i = thread; i < count; i += TN_GPU_BLOCK)
            keys[i] = tn_magnitude_key(w[i]) << 1 | (w[i] < 0.0f);
    } else if (phase < 2 + TN_CUT_STAGES) {
        if (phase - 2 < log * (log + 1) / 2)
            tn_sort_stage(keys, count, phase - 2, thread);
    } else if (phase == 2 + TN_CUT_STAGES) {
        for (int i = thread; i < count && keys != kept; i += TN_GPU_BLOCK)
            kept[i] = keys[i];
    } else if (e->threshold_kind == TN_THRESHOLD_OPTIMAL) {
        tn_cut_choose(s, e->kind == TN_LATENT_TTQ, kept, count, thread, phase - 3 - TN_CUT_STAGES,
                      &k->cuts[e->cut + run]);
    } else if (thread == 0 && phase == 3 + TN_CUT_STAGES) {
        int64_t zeros = tn_zeros_wanted(e, count);
        k->cuts[e->cut + run] = zeros > 0 ? kept[count - zeros] >> 1 : 0;
    }
}

#endif
