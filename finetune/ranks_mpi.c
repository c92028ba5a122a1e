/* Sums, broadcasts and barriers over MPI.
 *
 * Sums do not use MPI_Allreduce, whose order of addition is the library's own business: every rank
 * owns one slice, gets the others' parts of it, adds them in rank order, and gives the result to
 * all. That moves the same bytes as a ring, 2 (n - 1) / n of the data per rank (Patarasuk and Yuan
 * 2009), and an element is added once, so all ranks hold the same bits. */
#include "finetune/ranks.h"

#include "core/memory.h"
#include "finetune/launcher.h"

#include <mpi.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

enum { BLOCK = 1 << 22, /* floats */ BROADCAST_BLOCK = 1 << 28, NUMBERS = 32 };

typedef struct ranks {
    tn_collective base;
    MPI_Comm world;
    bool started;                   /* by us: we end it */
    float *block, *parts;           /* of the spans; the ranks' parts of my slice of it */
    size_t room;                    /* floats of either */
    int *counts, *starts;           /* of every rank's slice */
    int *part_counts, *part_starts; /* of every rank's part of mine */
    struct intention *intentions;   /* every rank's */
} ranks;

typedef enum operation { SUM, SUM_DOUBLE, BROADCAST, BARRIER, FAILURE } operation;

static const char *const operation_names[] = {"a sum", "a sum of figures", "a broadcast",
                                              "a barrier"};

/* What a rank is about to do: compared before it is done. */
typedef struct intention {
    int64_t operation, count;
} intention;

typedef struct failure {
    int code;
    char message[1400];
} failure;

static tn_status check(ranks *r, int code, const char *what, tn_error *error)
{
    char text[MPI_MAX_ERROR_STRING] = "";
    int length = 0;
    if (code == MPI_SUCCESS)
        return TN_OK;
    r->base.ended = r->base.broken = true;
    MPI_Error_string(code, text, &length);
    return tn_fail(error, TN_ERROR_DEVICE, "MPI: %s failed on process %d: %.300s", what,
                   r->base.rank, text);
}

/* Others may be minutes away (validating, writing): after a short while sleep between looks. */
static tn_status wait_for(ranks *r, MPI_Request *request, tn_error *error)
{
    enum { SPINS = 4000 };
    int done = 0;
    for (int i = 0;; i++) {
        tn_status status =
            check(r, MPI_Test(request, &done, MPI_STATUS_IGNORE), "waiting for the others", error);
        if (status != TN_OK || done)
            return status;
        if (i < SPINS)
            sched_yield();
        else
            nanosleep(&(struct timespec){.tv_nsec = 200000}, NULL);
    }
}

/* All ranks get the lowest failed one's error. */
static tn_status spread_failure(ranks *r, int from, tn_error *error)
{
    failure sent = {0};
    r->base.ended = true;
    if (from == r->base.rank && error) {
        sent.code = (int)error->code;
        snprintf(sent.message, sizeof sent.message, "%.1399s", error->message);
    }
    tn_status status = check(r, MPI_Bcast(&sent, (int)sizeof sent, MPI_BYTE, from, r->world),
                             "spreading an error", error);
    if (status != TN_OK)
        return status;
    sent.message[sizeof sent.message - 1] = '\0';
    tn_status code = sent.code == TN_OK ? TN_ERROR_DEVICE : (tn_status)sent.code;
    return from == 0 ? tn_fail(error, code, "%s", sent.message)
                     : tn_fail(error, code, "process %d: %s", from, sent.message);
}

/* Waits until every rank is about to do the same. */
static tn_status agree(ranks *r, operation what, int64_t count, tn_error *error)
{
    const intention mine = {(int64_t)what, count};
    MPI_Request request;
    if (r->base.ended)
        return tn_fail(error, TN_ERROR_DEVICE, "the processes' common work has ended");
    tn_status status = check(r,
                             MPI_Iallgather(&mine, (int)sizeof mine, MPI_BYTE, r->intentions,
                                            (int)sizeof mine, MPI_BYTE, r->world, &request),
                             operation_names[what == FAILURE ? BARRIER : what], error);
    if (status == TN_OK)
        status = wait_for(r, &request, error);
    if (status != TN_OK)
        return status;
    for (int i = 0; i < r->base.size; i++)
        if (r->intentions[i].operation == FAILURE)
            return spread_failure(r, i, error);
    for (int i = 1; i < r->base.size; i++) {
        const intention *first = &r->intentions[0], *other = &r->intentions[i];
        if (other->operation == first->operation && other->count == first->count)
            continue;
        r->base.ended = true;
        return tn_fail(error, TN_ERROR_DIFFERS,
                       "process 0 is at %s of %lld, process %d at %s of %lld: they do not train "
                       "the same network on the same data",
                       operation_names[first->operation], (long long)first->count, i,
                       operation_names[other->operation], (long long)other->count);
    }
    return TN_OK;
}

/* --- sums ---------------------------------------------------------------------------------- */

/* Slices of a block of n floats, one a rank; the first ones are one longer where it does not
 * divide. */
static void divide(const ranks *r, int n)
{
    const int size = r->base.size, mine = n / size + (r->base.rank < n % size);
    for (int i = 0, start = 0; i < size; i++) {
        r->counts[i] = n / size + (i < n % size);
        r->starts[i] = start;
        start += r->counts[i];
        r->part_counts[i] = mine;
        r->part_starts[i] = i * mine;
    }
}

static void add_parts(const float *restrict parts, int n_parts, int n, float *restrict sum)
{
    for (int i = 0; i < n; i++) {
        double total = 0;
        for (int part = 0; part < n_parts; part++)
            total += (double)parts[(size_t)part * (size_t)n + (size_t)i];
        sum[i] = (float)total;
    }
}

/* r->block becomes its sum over the ranks. */
static tn_status sum_block(ranks *r, int n, tn_error *error)
{
    divide(r, n);
    float *slice = r->block + r->starts[r->base.rank];
    const int mine = r->counts[r->base.rank];
    tn_status status = check(r,
                             MPI_Alltoallv(r->block, r->counts, r->starts, MPI_FLOAT, r->parts,
                                           r->part_counts, r->part_starts, MPI_FLOAT, r->world),
                             "a sum", error);
    if (status != TN_OK)
        return status;
    add_parts(r->parts, r->base.size, mine, slice);
    return check(r,
                 MPI_Allgatherv(MPI_IN_PLACE, 0, MPI_DATATYPE_NULL, r->block, r->counts, r->starts,
                                MPI_FLOAT, r->world),
                 "a sum", error);
}

/* Between the spans, seen as one array, and r->block. */
static void move_block(const ranks *r, const tn_span *spans, size_t n, int64_t first, int64_t count,
                       bool into_block)
{
    float *block = r->block;
    for (size_t i = 0; i < n && count > 0; i++) {
        if (first >= spans[i].count) {
            first -= spans[i].count;
            continue;
        }
        int64_t left = spans[i].count - first, take = left < count ? left : count;
        float *data = spans[i].data + first;
        memcpy(into_block ? block : data, into_block ? data : block, (size_t)take * sizeof *block);
        block += take;
        count -= take;
        first = 0;
    }
}

static tn_status make_room(ranks *r, int64_t total, tn_error *error)
{
    size_t room = (size_t)(total < BLOCK ? total : BLOCK) + (size_t)r->base.size;
    if (room <= r->room)
        return TN_OK;
    tn_free(r->block);
    tn_free(r->parts);
    r->block = tn_alloc_array(room, sizeof *r->block);
    r->parts = tn_alloc_array(room, sizeof *r->parts);
    r->room = r->block && r->parts ? room : 0;
    return r->room ? TN_OK
                   : tn_fail(error, TN_ERROR_LIMIT, "out of memory for sums over processes");
}

static tn_status ranks_sum(tn_collective *base, const tn_span *spans, size_t n, tn_error *error)
{
    ranks *r = (ranks *)base;
    int64_t total = 0;
    for (size_t i = 0; i < n; i++)
        total += spans[i].count;
    tn_status status = make_room(r, total, error);
    if (status == TN_OK)
        status = agree(r, SUM, total, error);
    for (int64_t first = 0; first < total && status == TN_OK; first += BLOCK) {
        int64_t count = total - first < BLOCK ? total - first : BLOCK;
        move_block(r, spans, n, first, count, true);
        status = sum_block(r, (int)count, error);
        if (status == TN_OK)
            move_block(r, spans, n, first, count, false);
    }
    return status;
}

static tn_status ranks_sum_double(tn_collective *base, double *host, int64_t count, tn_error *error)
{
    ranks *r = (ranks *)base;
    double mine[NUMBERS];
    if (count > NUMBERS)
        return tn_fail(error, TN_ERROR_LIMIT, "%lld figures to be added over processes: at most %d",
                       (long long)count, NUMBERS);
    double *all = tn_alloc_array((size_t)(count * base->size), sizeof *all);
    tn_status status =
        all ? agree(r, SUM_DOUBLE, count, error) : tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    memcpy(mine, host, (size_t)count * sizeof *mine);
    if (status == TN_OK)
        status = check(
            r, MPI_Allgather(mine, (int)count, MPI_DOUBLE, all, (int)count, MPI_DOUBLE, r->world),
            "a sum of figures", error);
    for (int64_t i = 0; i < count && status == TN_OK; i++) {
        host[i] = 0;
        for (int rank = 0; rank < base->size; rank++)
            host[i] += all[rank * count + i];
    }
    tn_free(all);
    return status;
}

/* --- the rest ------------------------------------------------------------------------------ */

static tn_status ranks_broadcast(tn_collective *base, void *data, int64_t bytes, int root,
                                 tn_error *error)
{
    ranks *r = (ranks *)base;
    tn_status status = agree(r, BROADCAST, bytes, error);
    for (int64_t first = 0; first < bytes && status == TN_OK; first += BROADCAST_BLOCK) {
        int64_t count = bytes - first < BROADCAST_BLOCK ? bytes - first : BROADCAST_BLOCK;
        status = check(r, MPI_Bcast((char *)data + first, (int)count, MPI_BYTE, root, r->world),
                       "a broadcast", error);
    }
    return status;
}

static tn_status ranks_barrier(tn_collective *base, tn_error *error)
{
    return agree((ranks *)base, BARRIER, 0, error);
}

static void ranks_fail(tn_collective *base, tn_error *error)
{
    (void)!agree((ranks *)base, FAILURE, 0, error);
}

static void ranks_destroy(tn_collective *base)
{
    ranks *r = (ranks *)base;
    if (!r->base.broken && r->world != MPI_COMM_NULL)
        MPI_Comm_free(&r->world);
    if (r->started &&
        !r->base.broken) /* else the launcher sees an end without MPI's and ends the rest */
        MPI_Finalize();
    tn_free(r->block);
    tn_free(r->parts);
    tn_free(r->counts);
    tn_free(r->intentions);
    tn_free(r);
}

static const tn_collective_class ranks_class = {ranks_destroy,   ranks_sum,     ranks_sum_double,
                                                ranks_broadcast, ranks_barrier, ranks_fail};

/* --- opening ------------------------------------------------------------------------------- */

/* MPI_Init takes over signals that the caller may be waiting for. */
static int start_mpi(void)
{
    static const int numbers[] = {SIGBUS, SIGSEGV, SIGABRT, SIGFPE, SIGINT, SIGTERM};
    enum { N = sizeof numbers / sizeof *numbers };
    struct sigaction before[N];
    int provided;
    for (int i = 0; i < N; i++)
        sigaction(numbers[i], NULL, &before[i]);
    int code = MPI_Init_thread(NULL, NULL, MPI_THREAD_FUNNELED, &provided);
    for (int i = 0; i < N; i++)
        sigaction(numbers[i], &before[i], NULL);
    return code;
}

static tn_status begin(ranks *r, const tn_launch *launch, tn_error *error)
{
    int running = 0, over = 0;
    MPI_Initialized(&running);
    MPI_Finalized(&over);
    if (over)
        return tn_fail(error, TN_ERROR_USAGE,
                       "MPI has ended in this process: it can be started only once");
    if (!running) {
        if (start_mpi() != MPI_SUCCESS)
            return tn_fail(error, TN_ERROR_DEVICE, "MPI does not start");
        r->started = true;
    }
    MPI_Comm_set_errhandler(MPI_COMM_WORLD, MPI_ERRORS_RETURN);
    tn_status status =
        check(r, MPI_Comm_dup(MPI_COMM_WORLD, &r->world), "a communicator of its own", error);
    if (status != TN_OK)
        return status;
    MPI_Comm_rank(r->world, &r->base.rank);
    MPI_Comm_size(r->world, &r->base.size);
    if (r->base.size != launch->size)
        return tn_fail(error, TN_ERROR_USAGE,
                       "%s started %d processes, but the MPI of this build sees %d: start it with "
                       "that MPI's own mpirun",
                       launch->name, launch->size, r->base.size);
    const size_t size = (size_t)r->base.size;
    r->counts = tn_alloc_array(4 * size, sizeof *r->counts);
    r->intentions = tn_alloc_array(size, sizeof *r->intentions);
    if (!r->counts || !r->intentions)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    r->starts = r->counts + size;
    r->part_counts = r->starts + size;
    r->part_starts = r->part_counts + size;
    return TN_OK;
}

tn_status tn_ranks_open(tn_collective **collective, tn_error *error)
{
    const tn_launch launch = tn_launcher_read();
    if (!launch.name) {
        *collective = tn_collective_single();
        return TN_OK;
    }
    ranks *r = tn_alloc_zero(1, sizeof *r);
    if (!r)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    r->base.type = &ranks_class;
    r->world = MPI_COMM_NULL;
    tn_status status = begin(r, &launch, error);
    if (status == TN_OK)
        *collective = &r->base;
    else
        ranks_destroy(&r->base);
    return status;
}
