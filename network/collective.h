/* Several processes (ranks) that train one network: what the training loop asks of them. The one
 * process of an ordinary run is a collective of size 1 whose operations do nothing. MPI's is in
 * finetune/, NCCL's in gpu/.
 *
 * Every rank must call the same operations in the same order. A rank that cannot go on calls
 * tn_collective_fail instead of its next operation: it then fails on all ranks, with that rank's
 * error, so that nobody waits for ever. */
#ifndef TERNION_NETWORK_COLLECTIVE_H
#define TERNION_NETWORK_COLLECTIVE_H

#include "core/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tn_collective tn_collective;

typedef struct tn_span {
    float *data;
    int64_t count;
} tn_span;

typedef struct tn_collective_class {
    void (*destroy)(tn_collective *collective);
    tn_status (*sum)(tn_collective *collective, const tn_span *spans, size_t n, tn_error *error);
    tn_status (*sum_double)(tn_collective *collective, double *host, int64_t count,
                            tn_error *error);
    tn_status (*broadcast)(tn_collective *collective, void *data, int64_t bytes, int root,
                           tn_error *error);
    tn_status (*barrier)(tn_collective *collective, tn_error *error);
    void (*fail)(tn_collective *collective, tn_error *error);
} tn_collective_class;

struct tn_collective { /* implementations embed it first */
    const tn_collective_class *type;
    int rank, size;
    bool on_device; /* sum takes memory of the device, else of the host */
    bool ended;     /* an operation failed, on this rank or another: there are no more */
    bool broken;    /* and this rank cannot tell the others: the launcher must end them */
};

/* Rank 0 of 1. Static: need not be destroyed. */
tn_collective *tn_collective_single(void);

void tn_collective_destroy(tn_collective *collective); /* NULL is fine */

/* Every element of every span becomes its sum over the ranks, the same bits on all of them: added
 * in an order that the number of ranks fixes, never that of arrival. */
tn_status tn_collective_sum(tn_collective *collective, const tn_span *spans, size_t n,
                            tn_error *error) TN_MUST_CHECK;
/* The same of a few numbers in host memory, in rank order. */
tn_status tn_collective_sum_double(tn_collective *collective, double *host, int64_t count,
                                   tn_error *error) TN_MUST_CHECK;
/* Host memory of `root` to all others. */
tn_status tn_collective_broadcast(tn_collective *collective, void *data, int64_t bytes, int root,
                                  tn_error *error) TN_MUST_CHECK;
/* Returns when every rank has called it. */
tn_status tn_collective_barrier(tn_collective *collective, tn_error *error) TN_MUST_CHECK;

/* This rank failed with `error`: tells the others, in whose next operation they are. Nothing to do
 * where they know, or where there are none. */
void tn_collective_fail(tn_collective *collective, tn_error *error);

#endif
