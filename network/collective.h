/* Several processes (ranks) that train one network: what the training loop asks of them. The one
 * process of an ordinary run is a collective of size 1 whose operations do nothing. MPI's is in
 * finetune/, NCCL's in gpu/. */
#ifndef TERNION_NETWORK_COLLECTIVE_H
#define TERNION_NETWORK_COLLECTIVE_H

#include "core/status.h"

#include <stdint.h>

typedef struct tn_collective tn_collective;

typedef struct tn_collective_class {
    void (*destroy)(tn_collective *collective);
    /* In place, element by element, in an order fixed by the number of ranks. Memory of the device
     * the collective was made for. */
    tn_status (*sum)(tn_collective *collective, float *data, int64_t count, tn_error *error);
    tn_status (*sum_double)(tn_collective *collective, double *host, int64_t count,
                            tn_error *error);
    tn_status (*broadcast)(tn_collective *collective, void *data, int64_t bytes, int root,
                           tn_error *error);
    tn_status (*barrier)(tn_collective *collective, tn_error *error);
} tn_collective_class;

struct tn_collective { /* implementations embed it first */
    const tn_collective_class *type;
    int rank, size;
};

/* Rank 0 of 1. Static: need not be destroyed. */
tn_collective *tn_collective_single(void);

void tn_collective_destroy(tn_collective *collective); /* NULL is fine */

tn_status tn_collective_sum(tn_collective *collective, float *data, int64_t count,
                            tn_error *error) TN_MUST_CHECK;
tn_status tn_collective_sum_double(tn_collective *collective, double *host, int64_t count,
                                   tn_error *error) TN_MUST_CHECK;
tn_status tn_collective_broadcast(tn_collective *collective, void *data, int64_t bytes, int root,
                                  tn_error *error) TN_MUST_CHECK;
tn_status tn_collective_barrier(tn_collective *collective, tn_error *error) TN_MUST_CHECK;

#endif
