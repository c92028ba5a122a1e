#include "gpu/nccl.h"

#include "core/memory.h"
#include "gpu/fault.h"
#include "gpu/gpu.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

/* What nccl.h declares, which need not be there when this is compiled. */
typedef struct nccl_id {
    char internal[128];
} nccl_id;
typedef struct nccl_communicator nccl_communicator;
enum { NCCL_SUCCESS = 0, NCCL_FLOAT32 = 7, NCCL_SUM = 0 };

typedef struct nccl {
    tn_collective base;
    tn_collective *control;
    tn_gpu *gpu;
    void *library;
    nccl_communicator *communicator;
    int (*get_id)(nccl_id *id);
    int (*begin)(nccl_communicator **communicator, int ranks, nccl_id id, int rank);
    int (*end)(nccl_communicator *communicator);
    int (*all_reduce)(const void *src, void *dst, size_t count, int type, int operation,
                      nccl_communicator *communicator, void *stream);
    int (*group_start)(void);
    int (*group_end)(void);
    const char *(*describe)(int code);
} nccl;

static void *open_library(void)
{
    const char *wish = getenv("TERNION_NCCL");
    if (wish && strcmp(wish, "off") == 0)
        return NULL;
    return dlopen("libnccl.so.2", RTLD_NOW | RTLD_LOCAL);
}

bool tn_nccl_found(void)
{
    void *library = open_library();
    if (library)
        dlclose(library);
    return library != NULL;
}

static tn_status load(nccl *n, tn_error *error)
{
    n->library = open_library();
    if (!n->library)
        return tn_fail(error, TN_ERROR_DEVICE, "NCCL (libnccl.so.2) is not there");
    const struct {
        void *to;
        const char *name;
    } symbols[] = {{&n->get_id, "ncclGetUniqueId"},     {&n->begin, "ncclCommInitRank"},
                   {&n->end, "ncclCommDestroy"},        {&n->all_reduce, "ncclAllReduce"},
                   {&n->group_start, "ncclGroupStart"}, {&n->group_end, "ncclGroupEnd"},
                   {&n->describe, "ncclGetErrorString"}};
    for (size_t i = 0; i < sizeof symbols / sizeof *symbols; i++) {
        void *address = dlsym(n->library, symbols[i].name);
        if (!address)
            return tn_fail(error, TN_ERROR_DEVICE, "NCCL (libnccl.so.2) has no %s",
                           symbols[i].name);
        memcpy(symbols[i].to, &address, sizeof address);
    }
    return TN_OK;
}

static tn_status check(const nccl *n, int code, const char *what, tn_error *error)
{
    if (tn_gpu_fault())
        return tn_fail(error, TN_ERROR_DEVICE, "NCCL: %s failed: asked to", what);
    if (code == NCCL_SUCCESS)
        return TN_OK;
    return tn_fail(error, TN_ERROR_DEVICE, "NCCL: %s failed on process %d: %s", what, n->base.rank,
                   n->describe(code));
}

/* The order of additions is NCCL's: fixed for a number of ranks, a topology and its version, and
 * the same bits on all ranks. */
static tn_status nccl_sum(tn_collective *base, const tn_span *spans, size_t count, tn_error *error)
{
    const nccl *n = (const nccl *)base;
    tn_status status = check(n, n->group_start(), "a sum", error);
    if (status != TN_OK)
        return status;
    for (size_t i = 0; i < count && status == TN_OK; i++)
        status =
            check(n,
                  n->all_reduce(spans[i].data, spans[i].data, (size_t)spans[i].count, NCCL_FLOAT32,
                                NCCL_SUM, n->communicator, tn_gpu_stream(n->gpu)),
                  "a sum", error);
    int code = n->group_end(); /* also after a failure */
    return status == TN_OK ? check(n, code, "a sum", error) : status;
}

static tn_status nccl_sum_double(tn_collective *base, double *host, int64_t count, tn_error *error)
{
    nccl *n = (nccl *)base;
    tn_status status = tn_collective_sum_double(n->control, host, count, error);
    base->ended = n->control->ended;
    return status;
}

static tn_status nccl_broadcast(tn_collective *base, void *data, int64_t bytes, int root,
                                tn_error *error)
{
    nccl *n = (nccl *)base;
    tn_status status = tn_collective_broadcast(n->control, data, bytes, root, error);
    base->ended = n->control->ended;
    return status;
}

static tn_status nccl_barrier(tn_collective *base, tn_error *error)
{
    nccl *n = (nccl *)base;
    tn_status status = tn_collective_barrier(n->control, error);
    base->ended = n->control->ended;
    return status;
}

static void nccl_fail(tn_collective *base, tn_error *error)
{
    nccl *n = (nccl *)base;
    base->ended = true;
    if (error->code == TN_ERROR_DEVICE) /* the others' GPUs may be waiting for this one's */
        base->broken = n->control->ended = n->control->broken = true;
    else
        tn_collective_fail(n->control, error);
}

static void nccl_destroy(tn_collective *base)
{
    nccl *n = (nccl *)base;
    if (n->communicator && !n->control->ended) /* else it would wait for the others */
        (void)n->end(n->communicator);
    if (n->library)
        dlclose(n->library);
    tn_free(n);
}

static const tn_collective_class nccl_class = {nccl_destroy,   nccl_sum,     nccl_sum_double,
                                               nccl_broadcast, nccl_barrier, nccl_fail};

tn_status tn_nccl_create(tn_device *device, tn_collective *control, tn_collective **collective,
                         tn_error *error)
{
    nccl_id id = {{0}};
    nccl *n = tn_alloc_zero(1, sizeof *n);
    if (!n)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    n->base = (tn_collective){
        .type = &nccl_class, .rank = control->rank, .size = control->size, .on_device = true};
    n->control = control;
    n->gpu = ((tn_gpu_device *)device)->gpu;
    tn_status status = load(n, error);
    if (status == TN_OK && control->rank == 0)
        status = check(n, n->get_id(&id), "an id", error);
    if (status == TN_OK)
        status = tn_collective_broadcast(control, &id, sizeof id, 0, error);
    if (status == TN_OK)
        status = check(n, n->begin(&n->communicator, control->size, id, control->rank), "its start",
                       error);
    if (status == TN_OK)
        *collective = &n->base;
    else
        nccl_destroy(&n->base);
    return status;
}
