#include "network/collective.h"

static tn_collective single = {.size = 1};

tn_collective *tn_collective_single(void)
{
    return &single;
}

void tn_collective_destroy(tn_collective *collective)
{
    if (collective && collective->type)
        collective->type->destroy(collective);
}

tn_status tn_collective_sum(tn_collective *collective, const tn_span *spans, size_t n,
                            tn_error *error)
{
    return collective->size > 1 ? collective->type->sum(collective, spans, n, error) : TN_OK;
}

tn_status tn_collective_sum_double(tn_collective *collective, double *host, int64_t count,
                                   tn_error *error)
{
    return collective->size > 1 ? collective->type->sum_double(collective, host, count, error)
                                : TN_OK;
}

tn_status tn_collective_broadcast(tn_collective *collective, void *data, int64_t bytes, int root,
                                  tn_error *error)
{
    return collective->size > 1 ? collective->type->broadcast(collective, data, bytes, root, error)
                                : TN_OK;
}

tn_status tn_collective_barrier(tn_collective *collective, tn_error *error)
{
    return collective->size > 1 ? collective->type->barrier(collective, error) : TN_OK;
}

void tn_collective_fail(tn_collective *collective, tn_error *error)
{
    if (collective->size > 1 && !collective->ended)
        collective->type->fail(collective, error);
}
