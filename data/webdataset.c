/* WebDataset: tar files whose neighbouring members "KEY.jpg" and "KEY.cls" make a sample; a key
 * ends at the first dot of its name. Pictures are read in place; nothing is ever extracted. Links,
 * devices and the like are counted and left alone. DATA is a .tar or a folder of them (named
 * *train* and *val* where both parts are there). */
#include "data/reader.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

enum { BLOCK = 512, NAME_LIMIT = 4096, CLS_LIMIT = 64 };

typedef struct tar_sample {
    uint64_t offset, bytes;
    const char *key;
    uint32_t shard;
    int32_t label;
} tar_sample;

typedef struct tar_shards {
    tn_source *file;
    size_t n_files;
    tar_sample *sample; /* heap */
    size_t room, ignored;
    const char *dotted; /* a picture with further dots behind its key, or NULL */
} tar_shards;

typedef struct tar_member {
    char name[NAME_LIMIT];
    char type;
    uint64_t offset, bytes; /* of the contents */
} tar_member;

/* One shard being scanned: the sample under construction. */
typedef struct tar_scan {
    tn_dataset *dataset;
    uint32_t shard;
    char key[NAME_LIMIT];
    bool has_image, has_label;
    uint64_t image_offset, image_bytes;
    int32_t label;
} tar_scan;

static bool is_tar(const char *name)
{
    size_t n = strlen(name);
    return n > 4 && strcasecmp(name + n - 4, ".tar") == 0;
}

static bool match(const tn_location *where)
{
    if (!where->is_folder)
        return is_tar(where->path);
    return tn_path_count_fitting(where->path, is_tar, 1, NULL, 0) > 0;
}

/* Octal, or base 256 for large sizes (GNU); false when neither. */
static bool parse_number(const unsigned char *field, size_t n, uint64_t *value)
{
    uint64_t v = 0;
    if (field[0] & 0x80) {
        for (size_t i = 1; i < n; i++) {
            if (v >> 56)
                return false;
            v = v << 8 | field[i];
        }
        *value = v;
        return field[0] == 0x80;
    }
    size_t i = 0;
    while (i < n && field[i] == ' ')
        i++;
    for (; i < n && field[i] >= '0' && field[i] <= '7'; i++)
        v = v << 3 | (uint64_t)(field[i] - '0');
    *value = v;
    return i == n || field[i] == 0 || field[i] == ' ';
}

static bool checksum_fits(const unsigned char *block)
{
    uint64_t stored;
    unsigned sum = 8 * ' ';
    for (int i = 0; i < BLOCK; i++)
        if (i < 148 || i >= 156)
            sum += block[i];
    return parse_number(block + 148, 8, &stored) && stored == sum;
}

/* "path=NAME" of a pax header. */
static void pax_name(const char *text, size_t size, char *name)
{
    for (size_t at = 0; at < size;) {
        char *end;
        unsigned long length = strtoul(text + at, &end, 10);
        if (length < 5 || length > size - at || *end != ' ')
            return;
        const char *key = end + 1, *stop = text + at + length - 1;
        if (stop - key > 5 && strncmp(key, "path=", 5) == 0 && stop - key - 5 < NAME_LIMIT) {
            memcpy(name, key + 5, (size_t)(stop - key - 5));
            name[stop - key - 5] = 0;
        }
        at += length;
    }
}

static tn_status read_text(const tn_source *file, const tar_member *member, char *text, size_t room,
                           tn_error *error)
{
    size_t n = member->bytes < room - 1 ? (size_t)member->bytes : room - 1;
    tn_status status = tn_source_read(file, member->offset, text, n, error);
    text[status == TN_OK ? n : 0] = 0;
    return status;
}

/* The name in a header block: prefix/name, unless a long one came before. */
static void header_name(const unsigned char *block, char *name)
{
    size_t n = 0;
    if (memcmp(block + 257, "ustar", 5) == 0 && block[263] == '0' && block[345]) {
        n = strnlen((const char *)block + 345, 155);
        memcpy(name, block + 345, n);
        name[n++] = '/';
    }
    size_t m = strnlen((const char *)block, 100);
    memcpy(name + n, block, m);
    name[n + m] = 0;
}

/* Reads the member at *at and moves *at behind it; *end when the archive is over. Long names (GNU
 * 'L', pax 'x') are joined to the member they belong to. */
static tn_status next_member(const tn_source *file, uint64_t *at, tar_member *member, bool *end,
                             tn_error *error)
{
    unsigned char block[BLOCK];
    char text[NAME_LIMIT];
    bool named = false;
    *end = false;
    for (;;) {
        if (*at >= file->size) {
            *end = true; /* archives without the two empty blocks exist */
            return TN_OK;
        }
        tn_status status = tn_source_read(file, *at, block, BLOCK, error);
        if (status != TN_OK)
            return status;
        if (block[0] == 0) {
            *end = true;
            return TN_OK;
        }
        uint64_t bytes;
        if (!checksum_fits(block) || !parse_number(block + 124, 12, &bytes) ||
            bytes > file->size - *at - BLOCK)
            return tn_fail(error, TN_ERROR_DATA,
                           "%s: the tar header at byte %llu is broken, or the archive is cut off",
                           tn_quote(file->path), (unsigned long long)*at);
        member->type = (char)block[156];
        member->offset = *at + BLOCK;
        member->bytes = bytes;
        *at += BLOCK + (bytes + BLOCK - 1) / BLOCK * BLOCK;
        bool extends = member->type == 'L' || member->type == 'x';
        if (!extends && member->type != 'g' && member->type != 'K') {
            if (!named)
                header_name(block, member->name);
            return TN_OK;
        }
        if (!extends)
            continue;
        status = read_text(file, member, text, sizeof text, error);
        if (status != TN_OK)
            return status;
        member->name[0] = 0;
        if (member->type == 'L')
            memcpy(member->name, text, sizeof text);
        else
            pax_name(text, strlen(text), member->name);
        named = member->name[0] != 0;
    }
}

static tn_status flush_sample(tar_scan *scan, tn_error *error)
{
    tn_dataset *dataset = scan->dataset;
    tar_shards *shards = dataset->store;
    if (!scan->has_image)
        return TN_OK;
    if (dataset->count == shards->room) {
        size_t room = shards->room ? 2 * shards->room : 1024;
        tar_sample *grown = tn_realloc(shards->sample, room * sizeof *grown);
        if (!grown)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu samples", room);
        shards->sample = grown;
        shards->room = room;
    }
    const char *key = tn_arena_strdup(&dataset->arena, scan->key);
    if (!key)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for sample names");
    tn_dataset_hash_add(dataset, key, strlen(key));
    tn_dataset_hash_add(dataset, &scan->image_bytes, sizeof scan->image_bytes);
    shards->sample[dataset->count++] =
        (tar_sample){scan->image_offset, scan->image_bytes, key, scan->shard,
                     scan->has_label ? scan->label : TN_NO_LABEL};
    scan->has_image = scan->has_label = false;
    return TN_OK;
}

static tn_status take_member(tar_scan *scan, const tn_source *file, const tar_member *member,
                             tn_error *error)
{
    tar_shards *shards = scan->dataset->store;
    const char *base = strrchr(member->name, '/');
    base = base ? base + 1 : member->name;
    const char *dot = strchr(base, '.');
    if ((member->type != '0' && member->type != 0) || !dot || dot == base) {
        shards->ignored += member->type != '5';
        return TN_OK;
    }
    size_t length = (size_t)(dot - member->name);
    if (strncmp(scan->key, member->name, length) != 0 || scan->key[length] != 0) {
        tn_status status = flush_sample(scan, error);
        if (status != TN_OK)
            return status;
        memcpy(scan->key, member->name, length);
        scan->key[length] = 0;
        scan->has_label = false;
    }
    const bool picture = tn_path_is_image(base);
    if (picture && strchr(dot + 1, '.')) { /* KEY.seg.png is a mask or the like */
        if (!shards->dotted)
            shards->dotted = tn_arena_strdup(&scan->dataset->arena, member->name);
    } else if (picture && scan->has_image) {
        return tn_fail(error, TN_ERROR_DATA,
                       "%s: %s is a second picture of its sample; one KEY.jpg or KEY.png each is "
                       "expected (masks and the like are KEY.NAME.png)",
                       tn_quote(file->path), tn_quote(member->name));
    } else if (picture) {
        scan->has_image = true;
        scan->image_offset = member->offset;
        scan->image_bytes = member->bytes;
    } else if (strcmp(dot, ".cls") == 0) {
        char text[CLS_LIMIT], *stop;
        tn_status status = read_text(file, member, text, sizeof text, error);
        if (status != TN_OK)
            return status;
        long value = strtol(text, &stop, 10);
        stop += strspn(stop, " \r\n");
        if (stop == text || *stop || value < 0 || value >= 1000000)
            return tn_fail(error, TN_ERROR_DATA, "%s: %s holds no class number but %s",
                           tn_quote(file->path), tn_quote(member->name), tn_quote(text));
        scan->label = (int32_t)value;
        scan->has_label = true;
    }
    return TN_OK;
}

static tn_status scan_shard(tn_dataset *dataset, uint32_t shard, tn_error *error)
{
    tar_shards *shards = dataset->store;
    const tn_source *file = &shards->file[shard];
    tar_scan *scan = tn_alloc_zero(1, sizeof *scan);
    tar_member *member = tn_alloc_zero(1, sizeof *member);
    tn_status status = TN_OK;
    uint64_t at = 0;
    bool end = false;
    if (!scan || !member) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
        goto done;
    }
    scan->dataset = dataset;
    scan->shard = shard;
    while (status == TN_OK) {
        status = next_member(file, &at, member, &end, error);
        if (status != TN_OK || end)
            break;
        status = take_member(scan, file, member, error);
    }
    if (status == TN_OK)
        status = flush_sample(scan, error);
done:
    tn_free(scan);
    tn_free(member);
    return status;
}

/* Whether a shard belongs to the part: by name, where names speak of parts. */
static bool in_part(const char *name, tn_split split)
{
    /* trainval.tar is for training, and not for both */
    bool val = !strstr(name, "train") && (strstr(name, "val") || strstr(name, "test"));
    return val == (split == TN_SPLIT_VAL);
}

static tn_status list_shards(tn_dataset *dataset, const tn_location *where, const char ***paths,
                             size_t *count, tn_error *error)
{
    tn_listing listing;
    tn_arena *arena = &dataset->arena;
    tn_status status = tn_listing_read(arena, where->path, &listing, error);
    if (status != TN_OK)
        return status;
    size_t n = 0, tars = 0;
    const char **kept = tn_arena_array(arena, listing.count + 1, sizeof *kept);
    for (int pass = 0; kept && pass < 2 && n == 0; pass++)
        for (size_t i = 0; i < listing.count; i++) {
            if (listing.is_folder[i] || !is_tar(listing.names[i]))
                continue;
            tars++;
            /* nothing belongs to the part: then, unless it was asked for, all do */
            if (pass == 1 ? where->split_asked : !in_part(listing.names[i], where->split))
                continue;
            dataset->part = in_part(listing.names[i], TN_SPLIT_VAL) ? TN_SPLIT_VAL : TN_SPLIT_TRAIN;
            kept[n] = tn_path_join(arena, where->path, listing.names[i]);
            if (!kept[n++])
                kept = NULL;
            if (!kept)
                break;
        }
    if (!kept)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for file names");
    if (n == 0)
        return tn_fail(error, TN_ERROR_DATA, "%s has no %s: none of its tar files is named for it",
                       tn_quote(where->path), tn_split_phrase(where->split));
    *paths = kept;
    *count = n;
    return TN_OK;
}

/* Labels out of the samples; all or none must have one. */
static tn_status finish(tn_dataset *dataset, const tn_location *where, tn_error *error)
{
    tar_shards *shards = dataset->store;
    size_t labelled = 0;
    if (dataset->count == 0 && shards->dotted)
        return tn_fail(error, TN_ERROR_DATA,
                       "%s holds no picture KEY.jpg or KEY.png, for a key ends at the first dot: "
                       "rename those like %s",
                       tn_quote(where->path), tn_quote(shards->dotted));
    for (size_t i = 0; i < dataset->count; i++)
        labelled += shards->sample[i].label >= 0;
    if (labelled < dataset->count && !where->allow_unlabelled)
        return tn_fail(error, TN_ERROR_DATA, "%s: %zu of %zu samples have no .cls member",
                       tn_quote(where->path), dataset->count - labelled, dataset->count);
    if (labelled == dataset->count && labelled > 0) {
        dataset->labels = tn_arena_array(&dataset->arena, dataset->count, sizeof *dataset->labels);
        if (!dataset->labels)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu labels", dataset->count);
        for (size_t i = 0; i < dataset->count; i++) {
            dataset->labels[i] = shards->sample[i].label;
            if (dataset->labels[i] >= dataset->classes)
                dataset->classes = dataset->labels[i] + 1;
        }
    }
    int n = snprintf(dataset->description, sizeof dataset->description,
                     "WebDataset, %zu tar file%s: %zu images, %d classes", shards->n_files,
                     shards->n_files == 1 ? "" : "s", dataset->count, dataset->classes);
    if (shards->ignored > 0 && n > 0 && (size_t)n < sizeof dataset->description)
        snprintf(dataset->description + n, sizeof dataset->description - (size_t)n,
                 "; %zu links, devices and nameless members ignored", shards->ignored);
    return TN_OK;
}

static tn_status open_tars(tn_dataset *dataset, const tn_location *where, tn_error *error)
{
    const char *single[1] = {where->path}, **paths = single;
    size_t n = 1;
    tn_status status = TN_OK;
    tar_shards *shards = tn_arena_alloc(&dataset->arena, sizeof *shards);
    if (!shards)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    dataset->store = shards;
    dataset->shape.channels = 3;
    if (where->is_folder)
        status = list_shards(dataset, where, &paths, &n, error);
    if (status != TN_OK)
        return status;
    shards->file = tn_arena_array(&dataset->arena, n, sizeof *shards->file);
    if (!shards->file)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    for (uint32_t i = 0; status == TN_OK && i < n; i++) {
        status = tn_source_open(paths[i], &shards->file[i], error);
        if (status == TN_OK) {
            shards->n_files++;
            status = scan_shard(dataset, i, error);
        }
    }
    return status == TN_OK ? finish(dataset, where, error) : status;
}

static tn_status read_picture(const tn_dataset *dataset, size_t index, tn_image *image,
                              tn_error *error)
{
    const tar_shards *shards = dataset->store;
    const tar_sample *sample = &shards->sample[index];
    if (sample->bytes > TN_IMAGE_MAX_ENCODED)
        return tn_fail(error, TN_ERROR_DATA, "%s: a picture of %llu bytes", tn_quote(sample->key),
                       (unsigned long long)sample->bytes);
    unsigned char *bytes = tn_alloc((size_t)sample->bytes);
    if (!bytes)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %s", tn_quote(sample->key));
    tn_status status = tn_source_read(&shards->file[sample->shard], sample->offset, bytes,
                                      (size_t)sample->bytes, error);
    if (status == TN_OK)
        status = tn_image_decode(bytes, (size_t)sample->bytes, image, error);
    if (status != TN_OK)
        tn_error_prepend(error, "%s", tn_quote(sample->key));
    tn_free(bytes);
    return status;
}

static void sample_name(const tn_dataset *dataset, size_t index, char *name, size_t size)
{
    const tar_shards *shards = dataset->store;
    const tar_sample *sample = &shards->sample[index];
    const char *path = shards->file[sample->shard].path, *slash = strrchr(path, '/');
    snprintf(name, size, "%s:%s", slash ? slash + 1 : path, sample->key);
}

static void close_tars(tn_dataset *dataset)
{
    tar_shards *shards = dataset->store;
    if (!shards)
        return;
    for (size_t i = 0; i < shards->n_files; i++)
        tn_source_close(&shards->file[i]);
    tn_free(shards->sample);
}

const tn_reader tn_reader_webdataset = {
    .id = "webdataset",
    .summary = "tar files (WebDataset) with members KEY.jpg or KEY.png and KEY.cls, read in place",
    .match = match,
    .open = open_tars,
    .read = read_picture,
    .name = sample_name,
    .close = close_tars,
};
