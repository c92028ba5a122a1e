/* libnccl.so.2 of one rank, where a sum changes nothing: counts calls and keeps what they were
 * given, for nccl_test.c to look at. */
#include <stddef.h>
#include <string.h>

typedef struct fake_id {
    char internal[128];
} fake_id;

typedef struct fake_record {
    int ids, begins, ends, groups, open, reduces, outside, ranks, rank, fail_at;
    size_t counts[8];
    const void *places[8];
    int in_place, type, operation;
    void *stream;
    fake_id id;
} fake_record;

__attribute__((visibility("default"))) fake_record fake_nccl;

#define EXPORT __attribute__((visibility("default")))

EXPORT int ncclGetUniqueId(fake_id *id);
EXPORT int ncclCommInitRank(void **communicator, int ranks, fake_id id, int rank);
EXPORT int ncclCommDestroy(void *communicator);
EXPORT int ncclGroupStart(void);
EXPORT int ncclGroupEnd(void);
EXPORT int ncclAllReduce(const void *src, void *dst, size_t count, int type, int operation,
                         void *communicator, void *stream);
EXPORT const char *ncclGetErrorString(int code);

int ncclGetUniqueId(fake_id *id)
{
    memset(id, 0x5a, sizeof *id);
    fake_nccl.ids++;
    return 0;
}

int ncclCommInitRank(void **communicator, int ranks, fake_id id, int rank)
{
    fake_nccl.begins++;
    fake_nccl.ranks = ranks;
    fake_nccl.rank = rank;
    fake_nccl.id = id;
    *communicator = &fake_nccl;
    return 0;
}

int ncclCommDestroy(void *communicator)
{
    fake_nccl.ends += communicator == (void *)&fake_nccl;
    return 0;
}

int ncclGroupStart(void)
{
    fake_nccl.groups++;
    fake_nccl.open++;
    return 0;
}

int ncclGroupEnd(void)
{
    fake_nccl.open--;
    return 0;
}

int ncclAllReduce(const void *src, void *dst, size_t count, int type, int operation,
                  void *communicator, void *stream)
{
    int i = fake_nccl.reduces++ % 8;
    fake_nccl.outside += fake_nccl.open != 1 || communicator != (void *)&fake_nccl;
    fake_nccl.counts[i] = count;
    fake_nccl.places[i] = dst;
    fake_nccl.in_place += src == dst;
    fake_nccl.type = type;
    fake_nccl.operation = operation;
    fake_nccl.stream = stream;
    return fake_nccl.fail_at && fake_nccl.reduces == fake_nccl.fail_at ? 3 : 0;
}

const char *ncclGetErrorString(int code)
{
    return code == 3 ? "internal error - please report" : "no error";
}
