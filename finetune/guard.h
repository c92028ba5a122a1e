/* Watches a run for divergence. Its state is small and part of the checkpoint, so that a resumed
 * run decides as the stopped one would have. */
#ifndef TERNION_FINETUNE_GUARD_H
#define TERNION_FINETUNE_GUARD_H

#include <stdbool.h>
#include <stdint.h>

enum { TN_GUARD_WINDOW = 101, TN_GUARD_BAD_STEPS = 3, TN_GUARD_ROLLBACKS = 3 };

typedef enum tn_verdict {
    TN_STEP_GOOD,
    TN_STEP_DROP,     /* loss or gradient not finite: no update */
    TN_STEP_ROLL_BACK /* 3 in a row, such or with a loss > 10 x the window's median and > guessing
                       */
} tn_verdict;

typedef struct tn_guard {
    float window[TN_GUARD_WINDOW]; /* the last good losses, a ring */
    uint32_t seen;                 /* good losses so far */
    uint32_t bad;                  /* steps in a row that were not finite or jumped */
    uint32_t dropped;              /* not finite in all */
    uint32_t rollbacks;
} tn_guard;

/* Judges one step's mean loss and gradient norm and records it. `guessing`: the loss of a network
 * that knows nothing, log(classes): below it no run has diverged, however small its losses were. */
tn_verdict tn_guard_judge(tn_guard *guard, double loss, double gradient_norm, double guessing);

#endif
