/* Processes that a launcher such as mpirun started together, as its environment tells. */
#ifndef TERNION_FINETUNE_LAUNCHER_H
#define TERNION_FINETUNE_LAUNCHER_H

#include <stdbool.h>

typedef struct tn_launch {
    const char *name; /* what was recognized ("Open MPI's mpirun"); NULL: no launcher */
    int rank, size;   /* 0 of 1 without a launcher */
    int local_rank;   /* among those on this machine: which of its GPUs is this process's */
    int local_size;
} tn_launch;

tn_launch tn_launcher_read(void);

/* Threads for each process where the launcher leaves all processors to all of them: its part of
 * them. 0: what this process may run on is its own. */
int tn_launcher_threads(const tn_launch *launch);

#endif
