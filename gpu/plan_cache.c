#include "gpu/plan_cache.h"

#include "core/file.h"
#include "core/memory.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

enum { MOST_BYTES = 8 << 20, MOST_ENTRIES = 1 << 14, LINE = TN_PLAN_KEY + 48 * TN_PLAN_KNOBS + 64 };

typedef struct entry {
    char key[TN_PLAN_KEY];
    tn_plan_choice choice;
} entry;

struct tn_plan_cache {
    char gpu[160], path[640];
    size_t version;
    entry *entries;
    size_t count, capacity;
    bool changed;
};

/* FNV-1a, 64 bits: against damage, not against malice; choices are checked when they are used. */
static uint64_t hash_of(const char *text, size_t size)
{
    uint64_t hash = UINT64_C(14695981039346656037);
    for (size_t i = 0; i < size; i++)
        hash = (hash ^ (unsigned char)text[i]) * UINT64_C(1099511628211);
    return hash;
}

/* --- entries -----------------------------------------------------------------------------------
 */

static entry *find(const tn_plan_cache *cache, const char *key)
{
    for (size_t i = 0; i < cache->count; i++)
        if (strcmp(cache->entries[i].key, key) == 0)
            return &cache->entries[i];
    return NULL;
}

static void put(tn_plan_cache *cache, const char *key, const tn_plan_choice *choice)
{
    entry *to = find(cache, key);
    if (!to && cache->count == cache->capacity) {
        size_t capacity = cache->capacity ? 2 * cache->capacity : 64;
        entry *grown =
            capacity > MOST_ENTRIES ? NULL : tn_realloc(cache->entries, capacity * sizeof(*grown));
        if (!grown)
            return; /* planned anew next time */
        cache->entries = grown;
        cache->capacity = capacity;
    }
    if (!to) {
        to = &cache->entries[cache->count++];
        snprintf(to->key, sizeof(to->key), "%s", key);
    }
    to->choice = *choice;
}

bool tn_plan_cache_find(const tn_plan_cache *cache, const char *key, tn_plan_choice *choice)
{
    const entry *found = cache ? find(cache, key) : NULL;
    if (found)
        *choice = found->choice;
    return found != NULL;
}

void tn_plan_cache_keep(tn_plan_cache *cache, const char *key, const tn_plan_choice *choice)
{
    if (!cache || strlen(key) >= TN_PLAN_KEY || strpbrk(key, "=\n"))
        return;
    put(cache, key, choice);
    cache->changed = true;
}

size_t tn_plan_cache_count(const tn_plan_cache *cache)
{
    return cache ? cache->count : 0;
}

const char *tn_plan_cache_path(const tn_plan_cache *cache)
{
    return cache ? cache->path : NULL;
}

/* --- the file ----------------------------------------------------------------------------------
 * A line that says what it is, a line for each entry (KEY=ENGINE TYPE:VALUE ...), and "end HASH" of
 * all before. */

static int write_head(const tn_plan_cache *cache, char *text, size_t size)
{
    return snprintf(text, size, "ternion cuDNN plans 1, cuDNN %zu, %s\n", cache->version,
                    cache->gpu);
}

/* "ENGINE TYPE:VALUE ..." */
static bool parse_choice(const char *text, tn_plan_choice *choice)
{
    int used = 0;
    memset(choice, 0, sizeof(*choice));
    if (sscanf(text, "%" SCNd64 "%n", &choice->engine, &used) != 1)
        return false;
    for (text += used; *text; text += used) {
        if (choice->knobs == TN_PLAN_KNOBS ||
            sscanf(text, " %" SCNd64 ":%" SCNd64 "%n", &choice->type[choice->knobs],
                   &choice->value[choice->knobs], &used) != 2)
            return false;
        choice->knobs++;
    }
    return true;
}

/* The entries between head and end; false at the first line that is none. */
static bool parse_lines(tn_plan_cache *cache, char *text)
{
    for (char *next; *text; text = next) {
        tn_plan_choice choice;
        next = strchr(text, '\n');
        if (!next)
            return false;
        *next++ = '\0';
        char *value = strchr(text, '=');
        if (!value || value - text >= TN_PLAN_KEY || !parse_choice(value + 1, &choice))
            return false;
        *value = '\0';
        if (!find(cache, text)) /* this run's own choices stay */
            put(cache, text, &choice);
    }
    return true;
}

/* Takes what the file has, or nothing of it. */
static void read_file(tn_plan_cache *cache)
{
    char head[256];
    unsigned char *data = NULL;
    size_t size = 0, before = cache->count;
    uint64_t hash = 0;
    if (tn_file_read(cache->path, MOST_BYTES, &data, &size, NULL) != TN_OK)
        return;
    char *text = (char *)data,
         *end = size > 0 && strlen(text) == size ? strstr(text, "\nend ") : NULL;
    size_t head_size = (size_t)write_head(cache, head, sizeof(head));
    if (end && sscanf(end, "\nend %" SCNx64, &hash) == 1 &&
        hash == hash_of(text, (size_t)(end + 1 - text)) && head_size < sizeof(head) &&
        strncmp(text, head, head_size) == 0) {
        end[1] = '\0';
        if (!parse_lines(cache, text + head_size))
            cache->count = before;
    }
    tn_free(data);
}

static bool write_text(tn_file_writer *writer, const char *text, uint64_t *hash)
{
    size_t size = strlen(text);
    for (size_t i = 0; i < size; i++)
        *hash = (*hash ^ (unsigned char)text[i]) * UINT64_C(1099511628211);
    return tn_file_writer_write(writer, text, size, NULL) == TN_OK;
}

static void write_file(const tn_plan_cache *cache)
{
    tn_file_writer *writer;
    char line[LINE];
    uint64_t hash = hash_of("", 0);
    if (tn_file_writer_open(cache->path, true, &writer, NULL) != TN_OK)
        return;
    bool ok = write_head(cache, line, sizeof(line)) > 0 && write_text(writer, line, &hash);
    for (size_t i = 0; ok && i < cache->count; i++) {
        const entry *e = &cache->entries[i];
        int used = snprintf(line, sizeof(line), "%s=%" PRId64, e->key, e->choice.engine);
        for (int k = 0; k < e->choice.knobs; k++)
            used += snprintf(line + used, sizeof(line) - (size_t)used, " %" PRId64 ":%" PRId64,
                             e->choice.type[k], e->choice.value[k]);
        snprintf(line + used, sizeof(line) - (size_t)used, "\n");
        ok = write_text(writer, line, &hash);
    }
    snprintf(line, sizeof(line), "end %016" PRIx64 "\n", hash);
    if (ok && write_text(writer, line, &hash))
        (void)!tn_file_writer_commit(writer, NULL); /* a cache that stays as it was does no harm */
    else
        tn_file_writer_discard(writer);
}

/* --- opening -----------------------------------------------------------------------------------
 */

/* <cache folder>/ternion, made where it is missing; false when there is none. */
static bool find_folder(char *folder, size_t size)
{
    const char *cache = getenv("XDG_CACHE_HOME"), *home = getenv("HOME");
    int used;
    if (cache && *cache == '/') /* relative ones are to be ignored, says the specification */
        used = snprintf(folder, size, "%s", cache);
    else if (home && *home == '/')
        used = snprintf(folder, size, "%s/.cache", home);
    else
        return false;
    if (used < 0 || (size_t)used + sizeof("/ternion") > size)
        return false;
    (void)mkdir(folder,
                0700); /* that it exists, or cannot be made, shows when the file is written */
    snprintf(folder + used, size - (size_t)used, "/ternion");
    (void)mkdir(folder, 0700);
    return true;
}

tn_plan_cache *tn_plan_cache_open(const char *gpu, size_t version)
{
    const char *wish = getenv("TERNION_CUDNN_CACHE");
    char folder[512];
    if ((wish && strcmp(wish, "off") == 0) || !find_folder(folder, sizeof(folder)))
        return NULL;
    tn_plan_cache *cache = tn_alloc_zero(1, sizeof(*cache));
    if (!cache)
        return NULL;
    snprintf(cache->gpu, sizeof(cache->gpu), "%s", gpu);
    cache->version = version;
    snprintf(cache->path, sizeof(cache->path), "%s/cudnn-%zu-%016" PRIx64 ".plans", folder, version,
             hash_of(cache->gpu, strlen(cache->gpu)));
    read_file(cache);
    return cache;
}

void tn_plan_cache_close(tn_plan_cache *cache)
{
    if (!cache)
        return;
    if (cache->changed) {
        read_file(cache);
        write_file(cache);
    }
    tn_free(cache->entries);
    tn_free(cache);
}
