/* A look at a float network on some hundred images before time is spent on it: does the
 * preprocessing fit? */
#ifndef TERNION_FINETUNE_PREFLIGHT_H
#define TERNION_FINETUNE_PREFLIGHT_H

#include "finetune/evaluate.h"

enum { TN_PREFLIGHT_VARIANTS = 12, TN_PREFLIGHT_IMAGES = 256 };

typedef struct tn_preflight_variant {
    char name[64];    /* "channel order BGR" */
    char option[192]; /* "--channel-order bgr" */
    tn_preprocess preprocess;
    double top1, loss;
} tn_preflight_variant;

typedef struct tn_preflight {
    size_t images;
    double top1, loss, chance; /* with the preprocessing as it is */
    bool near_chance;          /* top1 is not clearly above chance */
    /* near chance, or weak (under half and under five times chance): the variants that were tried,
     * best first; the first n_better are clearly better than what was asked for */
    tn_preflight_variant variants[TN_PREFLIGHT_VARIANTS];
    size_t n_variants, n_better;
    char message[1024]; /* one paragraph for people; "" when all is well */
} tn_preflight;

/* Evaluates TN_PREFLIGHT_IMAGES images (or all), and the variants (BGR, 0..255, other mean and
 * deviation) when the result is near chance or weak. Not finding a fault is no
 * error; what to do about one is the caller's business. */
tn_status tn_preflight_run(const tn_model *model, const tn_dataset *dataset, tn_device *device,
                           const tn_evaluate_options *options, tn_preflight *preflight,
                           tn_error *error) TN_MUST_CHECK;

#endif
