/* Batches of a data set, decoded and prepared by threads ahead of their use, in an order that
 * depends on (seed, epoch) alone: not on threads, ranks, or where a run was resumed. */
#ifndef TERNION_DATA_LOADER_H
#define TERNION_DATA_LOADER_H

#include "core/reporter.h"
#include "data/augment.h"
#include "data/preprocess.h"

enum { TN_BAD_SAMPLE = -2 }; /* label of a corrupt sample that was not replaced; its pixels are 0 */

typedef enum tn_loader_output {
    TN_LOADER_VALUES_NCHW, /* floats, normalized and augmented */
    TN_LOADER_VALUES_NHWC,
    TN_LOADER_PIXELS /* bytes with their augmentations: the device does the rest */
} tn_loader_output;

typedef struct tn_loader_options {
    const tn_preprocess *preprocess;   /* copied; fitted to the network (tn_preprocess_fit) */
    const tn_augment_options *augment; /* copied; NULL: none */
    tn_loader_output output;
    size_t batch; /* samples in a batch, of all ranks together; divisible by ranks (even parts of
                     it with mixup) */
    uint64_t seed;
    bool shuffle;           /* else in the data set's (or subset's) order */
    bool drop_last;         /* leave out a last batch that is not full */
    bool replace_bad;       /* training: the next good sample stands in for a corrupt one */
    size_t max_bad;         /* corrupt samples allowed */
    const uint32_t *subset; /* borrowed: these samples only; NULL: all */
    size_t n_subset;
    int rank, ranks;    /* ranks 0 means 1; this one gets its contiguous part of every batch */
    int threads;        /* 0: one for sets of bytes, one a processor where pictures are decoded */
    size_t cache_bytes; /* decoded samples kept in memory if they all fit; 0: 1 GiB; 1: none */
} tn_loader_options;

typedef struct tn_loader tn_loader;

/* Arrays belong to the loader, have room for `capacity` samples, and stay valid until the next call
 * of tn_loader_next, tn_loader_start or tn_loader_destroy. */
typedef struct tn_batch {
    size_t number;          /* in the epoch */
    size_t count, capacity; /* of this rank */
    size_t total;           /* of all ranks */
    int width, height, channels;
    const float *values;                  /* NULL with TN_LOADER_PIXELS */
    const unsigned char *pixels;          /* [count][height][width][channels]; NULL otherwise */
    const int32_t *labels;                /* TN_NO_LABEL, TN_BAD_SAMPLE */
    const uint32_t *indices;              /* in the data set */
    const tn_augmentation *augmentations; /* one each */
    const int32_t *partner_labels;        /* mixup; the partner of position i is i ^ 1 */
    const float *partner_shares;          /* 0 .. 1/2, 0 without a partner */
} tn_batch;

/* Borrows the data set. DATA when samples differ in size and nothing makes them equal, USAGE for
 * options that contradict each other. Threads start here. */
tn_status tn_loader_create(const tn_dataset *dataset, const tn_loader_options *options,
                           tn_loader **loader, tn_error *error) TN_MUST_CHECK;
void tn_loader_destroy(tn_loader *loader); /* NULL is fine; stops the threads */

/* Begins (or begins anew) an epoch at one of its batches. */
tn_status tn_loader_start(tn_loader *loader, uint32_t epoch, size_t first_batch,
                          tn_error *error) TN_MUST_CHECK;
/* The next batch, *batch = NULL behind the last. DATA when more than max_bad samples were corrupt,
 * naming the last. */
tn_status tn_loader_next(tn_loader *loader, const tn_batch **batch, tn_error *error) TN_MUST_CHECK;

size_t tn_loader_batches(const tn_loader *loader); /* in an epoch */
size_t tn_loader_samples(const tn_loader *loader); /* in an epoch, of all ranks */
/* Width, height, channels of every sample. */
tn_sample_shape tn_loader_shape(const tn_loader *loader);
tn_normalization tn_loader_normalization(const tn_loader *loader);
/* Whether anything is drawn for samples; if not, the value of each byte of every channel,
 * table[shape.channels][256], is their whole preparation. */
bool tn_loader_augments(const tn_loader *loader);
void tn_loader_table(const tn_loader *loader, float *table);
/* Whether a sample's bytes are the same in every epoch. */
bool tn_loader_repeats(const tn_loader *loader);

/* Different corrupt samples met so far, and the message of each (the first 16). */
size_t tn_loader_bad_count(const tn_loader *loader);
const char *tn_loader_bad_message(const tn_loader *loader, size_t i); /* NULL past the end */

#endif
