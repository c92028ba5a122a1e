/* The library's allocator and arenas.
 *
 * All heap memory of the library goes through tn_alloc and friends: one place that counts calls
 * and bytes (tests demand no call inside a training step), enforces --max-memory, and can be told
 * to fail the N-th call. Memory of oneDNN, CUDA and mapped files is not counted here. */
#ifndef TERNION_CORE_MEMORY_H
#define TERNION_CORE_MEMORY_H

#include <stddef.h>
#include <stdint.h>

/* 64-byte aligned; NULL when out of memory, over the limit, or made to fail by a test. Size 0
 * gives a valid pointer. */
void *tn_alloc(size_t bytes);
void *tn_alloc_zero(size_t count, size_t bytes_each); /* checked product */
void *tn_alloc_array(size_t count, size_t bytes_each);
/* Grows or shrinks; on failure returns NULL and `old` stays valid. old may be NULL. */
void *tn_realloc(void *old, size_t bytes);
void tn_free(void *memory); /* NULL is fine */
char *tn_strdup(const char *text);

typedef struct tn_memory_stats {
    uint64_t calls;     /* successful allocations and reallocations so far */
    uint64_t live;      /* bytes in use */
    uint64_t highwater; /* the most bytes ever in use */
} tn_memory_stats;

tn_memory_stats tn_memory_stats_get(void);

/* Bytes the library may hold at once; 0 (default) means no limit. */
void tn_memory_set_limit(uint64_t bytes);
uint64_t tn_memory_limit_get(void);

/* Test hook: the n-th call from now on fails (1 = the next), and every later one too when
 * `and_later` is set; n = 0 switches it off. */
void tn_memory_fail_call(uint64_t n, int and_later);

/* A bump allocator: many small objects with one lifetime. */
typedef struct tn_arena {
    struct tn_arena_chunk *chunks;
    size_t used, size; /* of the newest chunk */
} tn_arena;

void tn_arena_init(tn_arena *arena);
void tn_arena_done(tn_arena *arena); /* frees all; may be called again */
/* Zeroed, 16-byte aligned (64 for requests of 4 KiB and more); NULL when out of memory. */
void *tn_arena_alloc(tn_arena *arena, size_t bytes);
void *tn_arena_array(tn_arena *arena, size_t count, size_t bytes_each);
char *tn_arena_strdup(tn_arena *arena, const char *text);
char *tn_arena_strndup(tn_arena *arena, const char *text, size_t length);

#endif
