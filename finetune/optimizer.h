/* The optimizer of a training run: SGD with momentum, Adam, AdamW over slots. A slot is one tensor
 * the optimizer may change, with its gradient. All arithmetic is fp32 per element in an order that
 * does not depend on threads. */
#ifndef TERNION_FINETUNE_OPTIMIZER_H
#define TERNION_FINETUNE_OPTIMIZER_H

#include "network/training.h"

#include <stddef.h>

typedef struct tn_slot {
    char name[160];        /* unique; the checkpoint's tensor name */
    float *value;          /* [count], borrowed, host memory */
    const float *gradient; /* [count], borrowed */
    int64_t count;
    float rate;  /* factor on the learning rate */
    float decay; /* weight decay; 0 for scales, BN, biases */
    float floor; /* where the device updates: values stay at or above it; -infinity: anywhere */
    bool frozen;
    float *first;   /* momentum, or Adam's first moment */
    float *second;  /* Adam's second moment; NULL for SGD */
    float *average; /* exponential moving average of value; NULL without EMA */
} tn_slot;

typedef struct tn_optimizer {
    tn_optimizer_rule rule;
    float ema; /* decay of the moving average; 0: none */
    tn_slot *slots;
    size_t n_slots, capacity;
    uint64_t steps; /* updates made: Adam's bias correction, EMA's warm-up */
} tn_optimizer;

/* "PREFIX.NAME", or NAME without a prefix, in `size` bytes: what is too long is cut and told apart
 * by a hash. */
void tn_slot_name(const char *prefix, const char *name, char *text, size_t size);

/* Adds a slot and its buffers (zeros; the average starts at the value). LIMIT without memory. */
tn_status tn_optimizer_add(tn_optimizer *optimizer, const char *name, float *value,
                           const float *gradient, int64_t count, float rate, float decay,
                           tn_error *error) TN_MUST_CHECK;
void tn_optimizer_done(tn_optimizer *optimizer);

/* Euclidean norm of all unfrozen gradients, in double, the same bits for every number of threads.
 * Not finite when any gradient is not. */
double tn_optimizer_gradient_norm(const tn_optimizer *optimizer);

/* What an update is made with after `updates` others. */
tn_update_factors tn_optimizer_factors(const tn_optimizer *optimizer, uint64_t updates);

/* One update of every unfrozen slot with gradients times `gradient_scale` (clipping). */
void tn_optimizer_step(tn_optimizer *optimizer, double lr, double gradient_scale);

/* Averages start at the values as they are now. */
void tn_optimizer_start_averages(tn_optimizer *optimizer);

/* Exchanges values and moving averages (for evaluation and export; a second call undoes it). */
void tn_optimizer_swap_averages(tn_optimizer *optimizer);

#endif
