#include "core/memory.h"

#include "core/checked.h"

#include <malloc.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

static atomic_uint_fast64_t calls, live, highwater, limit, fail_at;
static atomic_int fail_later;

static int refused(size_t bytes)
{
    uint64_t most = atomic_load_explicit(&limit, memory_order_relaxed);
    if (most && atomic_load_explicit(&live, memory_order_relaxed) + bytes > most)
        return 1;
    uint64_t left = atomic_load_explicit(&fail_at, memory_order_relaxed);
    if (left == 0)
        return 0;
    if (left > 1) {
        atomic_fetch_sub(&fail_at, 1);
        return 0;
    }
    if (!atomic_load(&fail_later))
        atomic_store(&fail_at, 0);
    return 1;
}

static void *counted(void *memory)
{
    if (!memory)
        return NULL;
    uint64_t now = atomic_fetch_add(&live, malloc_usable_size(memory)) + malloc_usable_size(memory);
    uint64_t high = atomic_load(&highwater);
    while (now > high && !atomic_compare_exchange_weak(&highwater, &high, now))
        ;
    atomic_fetch_add(&calls, 1);
    return memory;
}

/* Large arrays lie on pages of 2 MB, where the system has them for the asking: a training step walks through hundreds of
   megabytes, and looking up their pages of 4 kB is a twentieth of it on a virtual machine (docs/results/network.md). */
static void *on_huge_pages(size_t bytes)
{
    const size_t page = (size_t)2 << 20;
    void *memory;
    if (posix_memalign(&memory, page, bytes))
        return NULL;
    (void)madvise(memory, bytes & ~(page - 1), MADV_HUGEPAGE); /* whole pages: no more than was asked for */
    return memory;
}

void *tn_alloc(size_t bytes)
{
    const size_t large = (size_t)4 << 20;
    if (bytes == 0)
        bytes = 1;
    size_t rounded;
    if (!tn_checked_add_size(bytes, 63, &rounded) || refused(bytes))
        return NULL;
    rounded &= ~(size_t)63;
    return counted(rounded < large ? aligned_alloc(64, rounded) : on_huge_pages(rounded));
}

void *tn_alloc_array(size_t count, size_t bytes_each)
{
    size_t bytes;
    return tn_checked_mul_size(count, bytes_each, &bytes) ? tn_alloc(bytes) : NULL;
}

void *tn_alloc_zero(size_t count, size_t bytes_each)
{
    size_t bytes;
    if (!tn_checked_mul_size(count, bytes_each, &bytes))
        return NULL;
    void *memory = tn_alloc(bytes);
    if (memory)
        memset(memory, 0, bytes);
    return memory;
}

void *tn_realloc(void *old, size_t bytes)
{
    if (!old)
        return tn_alloc(bytes);
    size_t had = malloc_usable_size(old);
    if (bytes <= had && bytes >= had / 2)
        return old;
    void *memory = tn_alloc(bytes);
    if (!memory)
        return NULL;
    memcpy(memory, old, had < bytes ? had : bytes);
    tn_free(old);
    return memory;
}

void tn_free(void *memory)
{
    if (!memory)
        return;
    atomic_fetch_sub(&live, malloc_usable_size(memory));
    free(memory);
}

char *tn_strdup(const char *text)
{
    size_t bytes = strlen(text) + 1;
    char *copy = tn_alloc(bytes);
    return copy ? memcpy(copy, text, bytes) : NULL;
}

tn_memory_stats tn_memory_stats_get(void)
{
    return (tn_memory_stats){atomic_load(&calls), atomic_load(&live), atomic_load(&highwater)};
}

void tn_memory_set_limit(uint64_t bytes)
{
    atomic_store(&limit, bytes);
}

uint64_t tn_memory_limit_get(void)
{
    return atomic_load(&limit);
}

void tn_memory_fail_call(uint64_t n, int and_later)
{
    atomic_store(&fail_later, and_later);
    atomic_store(&fail_at, n);
}

struct tn_arena_chunk {
    struct tn_arena_chunk *next;
    _Alignas(64) unsigned char bytes[];
};

enum { FIRST_CHUNK = 4096, LARGEST_CHUNK = 1 << 20 };

void tn_arena_init(tn_arena *arena)
{
    memset(arena, 0, sizeof *arena);
}

void tn_arena_done(tn_arena *arena)
{
    while (arena->chunks) {
        struct tn_arena_chunk *next = arena->chunks->next;
        tn_free(arena->chunks);
        arena->chunks = next;
    }
    tn_arena_init(arena);
}

void *tn_arena_alloc(tn_arena *arena, size_t bytes)
{
    size_t align = bytes >= 4096 ? 64 : 16, start;
    if (bytes > SIZE_MAX / 2)
        return NULL;
    start = (arena->used + align - 1) & ~(align - 1);
    if (!arena->chunks || start + bytes > arena->size) {
        size_t size = arena->size ? arena->size * 2 : FIRST_CHUNK;
        size = size > LARGEST_CHUNK ? LARGEST_CHUNK : size;
        size = size < bytes ? bytes : size;
        struct tn_arena_chunk *chunk = tn_alloc(sizeof *chunk + size);
        if (!chunk)
            return NULL;
        chunk->next = arena->chunks;
        arena->chunks = chunk;
        arena->size = size;
        start = 0;
    }
    arena->used = start + bytes;
    return memset(arena->chunks->bytes + start, 0, bytes);
}

void *tn_arena_array(tn_arena *arena, size_t count, size_t bytes_each)
{
    size_t bytes;
    return tn_checked_mul_size(count, bytes_each, &bytes) ? tn_arena_alloc(arena, bytes) : NULL;
}

char *tn_arena_strndup(tn_arena *arena, const char *text, size_t length)
{
    if (length == SIZE_MAX)
        return NULL;
    char *copy = tn_arena_alloc(arena, length + 1);
    if (copy && length)
        memcpy(copy, text, length);
    return copy;
}

char *tn_arena_strdup(tn_arena *arena, const char *text)
{
    return tn_arena_strndup(arena, text, strlen(text));
}
