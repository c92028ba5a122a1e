#include "onnx_io/names.h"

#include "core/memory.h"

#include <string.h>
#include <sys/random.h>
#include <xxhash.h>

struct tn_name_entry {
    const char *name;
    void *value; /* NULL: free */
    uint64_t hash;
};

void tn_names_init(tn_names *names)
{
    *names = (tn_names){0};
    if (getrandom(&names->seed, sizeof names->seed, GRND_NONBLOCK) < 0)
        names->seed = (uintptr_t)names;
}

void tn_names_done(tn_names *names)
{
    tn_free(names->entries);
    *names = (tn_names){0};
}

/* The entry of `name`, or the free one where it belongs. */
static struct tn_name_entry *find(const tn_names *names, const char *name, uint64_t hash)
{
    size_t at = (size_t)hash & (names->capacity - 1);
    for (;; at = (at + 1) & (names->capacity - 1)) {
        struct tn_name_entry *entry = &names->entries[at];
        if (!entry->value || (entry->hash == hash && strcmp(entry->name, name) == 0))
            return entry;
    }
}

void *tn_names_get(const tn_names *names, const char *name)
{
    if (names->count == 0)
        return NULL;
    return find(names, name, XXH3_64bits_withSeed(name, strlen(name), names->seed))->value;
}

static bool grow(tn_names *names)
{
    tn_names larger = *names;
    larger.capacity = names->capacity ? names->capacity * 2 : 64;
    larger.entries = tn_alloc_zero(larger.capacity, sizeof *larger.entries);
    if (!larger.entries)
        return false;
    for (size_t i = 0; i < names->capacity; i++) {
        const struct tn_name_entry *entry = &names->entries[i];
        if (entry->value)
            *find(&larger, entry->name, entry->hash) = *entry;
    }
    tn_free(names->entries);
    *names = larger;
    return true;
}

bool tn_names_set(tn_names *names, const char *name, void *value)
{
    if (names->count * 2 >= names->capacity && !grow(names))
        return false;
    uint64_t hash = XXH3_64bits_withSeed(name, strlen(name), names->seed);
    struct tn_name_entry *entry = find(names, name, hash);
    if (!entry->value)
        names->count++;
    *entry = (struct tn_name_entry){name, value, hash};
    return true;
}
