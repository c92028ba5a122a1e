/* Inside the loader: what its threads (loader.c) and the making of one sample (loader_sample.c)
 * share. */
#ifndef TERNION_DATA_LOADER_STATE_H
#define TERNION_DATA_LOADER_STATE_H

#include "data/loader.h"

#include <pthread.h>
#include <stdatomic.h>

enum {
    TN_LOADER_DEPTH = 4,
    TN_LOADER_THREADS = 64,
    TN_LOADER_MESSAGES = 16,
    TN_LOADER_TRIES = 256
};

typedef struct loader_slot {
    tn_batch batch;
    float *values;
    unsigned char *pixels;
    int32_t *labels, *partner_labels;
    float *partner_shares;
    bool *bad; /* corrupt, perhaps replaced; the consumer counts them */
    uint32_t *indices;
    tn_augmentation *augmentations;
    size_t chunks_left;
    tn_status status; /* the worst that happened, apart from corrupt samples */
    size_t failed_at;
    tn_error error;
} loader_slot;

typedef struct loader_worker {
    tn_loader *loader;
    pthread_t thread;
    tn_image decoded, scratch, final;
} loader_worker;

struct tn_loader {
    const tn_dataset *dataset;
    tn_loader_options options;
    tn_preprocess preprocess;
    tn_augment_options augment;
    tn_sample_shape shape; /* of what comes out */
    tn_normalization normalization;
    uint32_t epoch;
    uint32_t *order; /* samples of the epoch */
    size_t n_order, n_batches, local_batch, chunk;
    /* guarded by the lock */
    pthread_mutex_t lock;
    pthread_cond_t work, done;
    size_t next_batch, next_chunk; /* to be handed to a worker */
    size_t consumed;               /* batches given back by the consumer */
    size_t busy;                   /* workers inside a chunk */
    bool holding, running, stop;
    loader_slot slots[TN_LOADER_DEPTH];
    loader_worker workers[TN_LOADER_THREADS];
    int n_threads, n_started;
    /* decoded samples; flags go from EMPTY to FULL once */
    unsigned char *cache;
    atomic_uchar *cached;
    /* corrupt samples, touched by the consumer alone */
    unsigned char *bad_seen;
    size_t n_bad;
    char bad_message[TN_LOADER_MESSAGES][320];
};

/* Values (or bytes) of a sample. */
size_t tn_loader_elements(const tn_loader *loader);

/* Position `i` of a slot: pixels (or values) and label. Corrupt samples are marked or replaced. */
tn_status tn_loader_fill(loader_worker *worker, loader_slot *slot, size_t i, tn_error *error);

/* Positions [first, last), all filled: partners, and values from the slot's pixels where the host
 * augments. Chunks are even, so partners lie inside. */
void tn_loader_finish(const tn_loader *loader, loader_slot *slot, size_t first, size_t last);

#endif
