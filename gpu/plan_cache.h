/* Which engine cuDNN computes each convolution with, kept between runs in
 *
 *     $XDG_CACHE_HOME/ternion/cudnn-VERSION-HASH.plans    (else ~/.cache/ternion/)
 *
 * one file for each GPU and version of cuDNN: a later start need not rank engines anew, and
 * computes with the same ones. A file that is damaged, of another format or of another GPU counts
 * as absent; without a folder, or with TERNION_CUDNN_CACHE=off, nothing is read or written. No call
 * fails. */
#ifndef TERNION_GPU_PLAN_CACHE_H
#define TERNION_GPU_PLAN_CACHE_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TN_PLAN_KNOBS = 24, TN_PLAN_KEY = 320 };

/* An engine by its number in the library, and its settings. */
typedef struct tn_plan_choice {
    int64_t engine;
    int knobs;
    int64_t type[TN_PLAN_KNOBS], value[TN_PLAN_KNOBS];
} tn_plan_choice;

typedef struct tn_plan_cache tn_plan_cache;

/* NULL: none. gpu: its name and what else decides; one line. */
tn_plan_cache *tn_plan_cache_open(const char *gpu, size_t version);
/* Writes what is new, together with what others have written since. NULL is fine. */
void tn_plan_cache_close(tn_plan_cache *cache);

/* key: one line without '=', shorter than TN_PLAN_KEY. */
bool tn_plan_cache_find(const tn_plan_cache *cache, const char *key, tn_plan_choice *choice);
void tn_plan_cache_keep(tn_plan_cache *cache, const char *key, const tn_plan_choice *choice);

size_t tn_plan_cache_count(const tn_plan_cache *cache);
const char *tn_plan_cache_path(const tn_plan_cache *cache);

#endif
