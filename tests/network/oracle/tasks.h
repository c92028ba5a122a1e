/* Random tasks of every verb, small enough for the oracle. */
#ifndef TERNION_TESTS_NETWORK_TASKS_H
#define TERNION_TESTS_NETWORK_TASKS_H

#include "core/random.h"
#include "oracle.h"

/* Draws a task of the verb and fills the counts of `o`. `fused`: with epilogues no backward has.
 * inner (room for 4) backs tn_concat_task. */
void task_draw(tn_random *random, tn_verb verb, bool fused, tn_task *task, int64_t inner[4],
               oracle *o);
/* Fills the counts of `o` for a convolution. */
void task_count_conv(const tn_task *task, oracle *o);

#endif
