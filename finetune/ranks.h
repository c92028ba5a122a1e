/* The processes that mpirun started, as a collective over MPI. */
#ifndef TERNION_FINETUNE_RANKS_H
#define TERNION_FINETUNE_RANKS_H

#include "network/collective.h"

/* Without a launcher: tn_collective_single. With one, starts MPI unless the caller has (destroy
 * then ends it, and it cannot be started again: one such run in a process). USAGE where several
 * processes were started and this build has no MPI, or another one: each would do all the work and
 * write the same files. */
tn_status tn_ranks_open(tn_collective **collective, tn_error *error) TN_MUST_CHECK;

#endif
