#include "data/reader.h"

#include "core/random.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

/* In the order of looking: the more special before the more general. */
static const tn_reader *const readers[] = {
    &tn_reader_cifar_binary,  &tn_reader_cifar_python, &tn_reader_tiny_imagenet,
    &tn_reader_idx,           &tn_reader_numpy,        &tn_reader_webdataset,
    &tn_reader_imagenet_list, &tn_reader_csv,          &tn_reader_image_folder,
};
enum { N_READERS = sizeof readers / sizeof readers[0] };

size_t tn_reader_count(void)
{
    return N_READERS;
}

const char *tn_reader_id(size_t which)
{
    return readers[which]->id;
}

const char *tn_reader_summary(size_t which)
{
    return readers[which]->summary;
}

const char *tn_split_phrase(tn_split split)
{
    static const char *const phrases[] = {"training part", "validation part", "one part"};
    return phrases[split];
}

bool tn_path_is_folder(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISDIR(info.st_mode);
}

bool tn_path_is_file(const char *path)
{
    struct stat info;
    return stat(path, &info) == 0 && S_ISREG(info.st_mode);
}

static const char *first_that_exists(const char *folder, const char *const *names, bool folders)
{
    struct stat info;
    int descriptor = open(folder, O_PATH | O_DIRECTORY | O_CLOEXEC);
    if (descriptor < 0)
        return NULL;
    const char *found = NULL;
    for (; *names && !found; names++)
        if (fstatat(descriptor, *names, &info, 0) == 0 &&
            (folders ? S_ISDIR(info.st_mode) : S_ISREG(info.st_mode)))
            found = *names;
    close(descriptor);
    return found;
}

const char *tn_path_first_folder(const char *folder, const char *const *names)
{
    return first_that_exists(folder, names, true);
}

const char *tn_path_first_file(const char *folder, const char *const *names)
{
    return first_that_exists(folder, names, false);
}

size_t tn_path_count_fitting(const char *folder, bool (*fits)(const char *name), size_t most,
                             char *name, size_t size)
{
    DIR *stream = opendir(folder);
    size_t n = 0;
    if (!stream)
        return 0;
    for (struct dirent *entry; n < most && (entry = readdir(stream));) {
        if (entry->d_name[0] == '.' || !fits(entry->d_name))
            continue;
        n++;
        if (name)
            snprintf(name, size, "%s", entry->d_name);
    }
    closedir(stream);
    return n;
}

/* Whether the name ends in one of the NULL-ended `endings`, in either case. */
static bool ends_in(const char *name, const char *const *endings)
{
    size_t length = strlen(name);
    for (; *endings; endings++) {
        size_t n = strlen(*endings);
        if (length > n && strcasecmp(name + length - n, *endings) == 0)
            return true;
    }
    return false;
}

bool tn_path_is_image(const char *name)
{
    static const char *const endings[] = {".jpg", ".jpeg", ".png", ".jfif", NULL};
    return ends_in(name, endings);
}

bool tn_path_is_unread_image(const char *name)
{
    static const char *const endings[] = {".bmp",  ".webp", ".gif", ".tif",
                                          ".tiff", ".ppm",  ".pgm", NULL};
    return ends_in(name, endings);
}

char *tn_path_join(tn_arena *arena, const char *folder, const char *name)
{
    size_t a = strlen(folder), b = strlen(name);
    char *path = tn_arena_alloc(arena, a + b + 2);
    if (!path)
        return NULL;
    memcpy(path, folder, a);
    if (a > 0 && folder[a - 1] != '/')
        path[a++] = '/';
    memcpy(path + a, name, b + 1);
    return path;
}

void tn_dataset_hash_add(tn_dataset *dataset, const void *bytes, size_t size)
{
    dataset->hash = XXH3_64bits_withSeed(bytes, size, dataset->hash);
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static tn_status collect_names(tn_arena *arena, DIR *stream, const char *folder,
                               const char ***names, size_t *count, tn_error *error)
{
    const char **list = NULL;
    size_t n = 0, room = 0;
    for (struct dirent *entry; (entry = readdir(stream));) {
        if (entry->d_name[0] == '.')
            continue;
        if (n == room) {
            room = room ? 2 * room : 64;
            const char **grown = tn_realloc(list, room * sizeof *list);
            if (!grown)
                goto memory;
            list = grown;
        }
        list[n] = tn_arena_strdup(arena, entry->d_name);
        if (!list[n++])
            goto memory;
    }
    if (n > 0)
        qsort(list, n, sizeof *list, compare_names);
    *names = list;
    *count = n;
    return TN_OK;
memory:
    tn_free(list);
    return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the names in %s", tn_quote(folder));
}

tn_status tn_listing_read(tn_arena *arena, const char *folder, tn_listing *listing, tn_error *error)
{
    DIR *stream = opendir(folder);
    if (!stream)
        return tn_fail(error, TN_ERROR_IO, "cannot open the folder %s: %s", tn_quote(folder),
                       strerror(errno));
    const char **names = NULL;
    size_t n = 0;
    tn_status status = collect_names(arena, stream, folder, &names, &n, error);
    if (status != TN_OK)
        goto done;
    tn_listing result = {tn_arena_array(arena, n, sizeof *names),
                         tn_arena_array(arena, n, sizeof(bool)), n};
    if (!result.names || !result.is_folder) {
        status =
            tn_fail(error, TN_ERROR_LIMIT, "out of memory for the names in %s", tn_quote(folder));
        goto done;
    }
    for (size_t i = 0; i < n; i++) {
        struct stat info;
        result.names[i] = names[i];
        /* pictures by name need no look at the disk: millions of files */
        result.is_folder[i] = !tn_path_is_image(names[i]) &&
                              fstatat(dirfd(stream), names[i], &info, 0) == 0 &&
                              S_ISDIR(info.st_mode);
    }
    *listing = result;
done:
    tn_free(names);
    closedir(stream);
    return status;
}

void tn_listing_keep_folders(tn_listing *listing)
{
    size_t kept = 0;
    for (size_t i = 0; i < listing->count; i++)
        if (listing->is_folder[i]) {
            listing->names[kept] = listing->names[i];
            listing->is_folder[kept++] = true;
        }
    listing->count = kept;
}

tn_status tn_image_read_file(const char *path, const char *name, tn_image *image, tn_error *error)
{
    unsigned char *bytes = NULL;
    size_t size = 0;
    tn_status status = tn_source_read_all(path, TN_IMAGE_MAX_ENCODED, &bytes, &size, error);
    if (status != TN_OK)
        return status;
    status = tn_image_decode(bytes, size, image, error);
    if (status != TN_OK)
        tn_error_prepend(error, "%s", tn_quote(name));
    tn_free(bytes);
    return status;
}

tn_status tn_image_read_planes(const tn_source *source, uint64_t offset, int side, tn_image *image,
                               tn_error *error)
{
    unsigned char planes[3 * 32 * 32];
    size_t plane = (size_t)side * (size_t)side;
    if (3 * plane > sizeof planes)
        return tn_fail(error, TN_ERROR_USAGE, "planes of %d pixels a side", side);
    tn_status status = tn_source_read(source, offset, planes, 3 * plane, error);
    if (status == TN_OK)
        status = tn_image_reserve(image, side, side, 3, error);
    for (size_t i = 0; status == TN_OK && i < plane; i++)
        for (size_t c = 0; c < 3; c++)
            image->pixels[3 * i + c] = planes[c * plane + i];
    return status;
}

size_t tn_dataset_path_length(const char *spec, tn_split *split)
{
    static const struct {
        const char *suffix;
        tn_split split;
    } suffixes[] = {{":train", TN_SPLIT_TRAIN}, {":val", TN_SPLIT_VAL}};
    size_t length = strlen(spec);
    if (tn_path_is_folder(spec) || tn_path_is_file(spec))
        return length;
    for (size_t i = 0; i < 2; i++) {
        size_t n = strlen(suffixes[i].suffix);
        if (length <= n || strcmp(spec + length - n, suffixes[i].suffix) != 0)
            continue;
        if (split)
            *split = suffixes[i].split;
        return length - n;
    }
    return length;
}

static tn_status locate(tn_arena *arena, const char *spec, tn_split split, tn_location *where,
                        tn_error *error)
{
    *where = (tn_location){.split = split};
    size_t length = tn_dataset_path_length(spec, &where->split);
    where->split_asked = spec[length] != '\0';
    while (length > 1 && spec[length - 1] == '/')
        length--;
    where->path = tn_arena_strndup(arena, spec, length);
    if (!where->path)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    where->is_folder = tn_path_is_folder(where->path);
    if (!where->is_folder && !tn_path_is_file(where->path))
        return tn_fail(
            error, TN_ERROR_IO,
            "no data set at %s: there is no such folder or file (DATA is a path, perhaps "
            "followed by :train or :val)",
            tn_quote(where->path));
    return TN_OK;
}

static tn_status not_recognized(const tn_location *where, tn_error *error)
{
    char known[512];
    size_t at = 0;
    for (size_t i = 0; i < N_READERS && at < sizeof known; i++)
        at +=
            (size_t)snprintf(known + at, sizeof known - at, "%s%s", i ? ", " : "", readers[i]->id);
    return tn_fail(error, TN_ERROR_DATA,
                   "%s looks like none of the layouts that are read (%s): `ternion help "
                   "--catalog` describes them",
                   tn_quote(where->path), known);
}

static tn_status check_opened(const tn_dataset *dataset, const tn_location *where, tn_error *error)
{
    if (where->split_asked && dataset->part == TN_SPLIT_NONE)
        return tn_fail(error, TN_ERROR_DATA, "%s has no parts: leave out %s", tn_quote(where->path),
                       where->split == TN_SPLIT_TRAIN ? ":train" : ":val");
    if (dataset->count == 0)
        return tn_fail(error, TN_ERROR_DATA, "the data set %s holds no images",
                       tn_quote(where->path));
    if (dataset->count > UINT32_MAX)
        return tn_fail(error, TN_ERROR_LIMIT, "the data set %s holds %zu images; at most %u",
                       tn_quote(where->path), dataset->count, UINT32_MAX);
    for (size_t i = 0; dataset->labels && i < dataset->count; i++)
        if (dataset->labels[i] < 0 || dataset->labels[i] >= dataset->classes) {
            char name[256];
            tn_dataset_sample_name(dataset, i, name, sizeof name);
            return tn_fail(error, TN_ERROR_DATA, "%s: label %d is outside the %d classes",
                           tn_quote(name), dataset->labels[i], dataset->classes);
        }
    return TN_OK;
}

static void describe_unread(tn_dataset *dataset)
{
    size_t n = strlen(dataset->description);
    if (dataset->unread > 0)
        snprintf(dataset->description + n, sizeof dataset->description - n,
                 "; %zu pictures in formats that are not read", dataset->unread);
}

tn_status tn_dataset_open(const char *spec, tn_split split, const tn_dataset_options *options,
                          tn_dataset **dataset, tn_error *error)
{
    tn_location where;
    tn_dataset *opened = tn_alloc_zero(1, sizeof *opened);
    if (!opened)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    tn_arena_init(&opened->arena);
    opened->part = TN_SPLIT_NONE;
    tn_status status = locate(&opened->arena, spec, split, &where, error);
    if (status != TN_OK)
        goto done;
    where.allow_unlabelled = options && options->allow_unlabelled;
    for (size_t i = 0; i < N_READERS && !opened->reader; i++)
        if (readers[i]->match(&where))
            opened->reader = readers[i];
    if (!opened->reader) {
        status = not_recognized(&where, error);
        goto done;
    }
    tn_dataset_hash_add(opened, opened->reader->id, strlen(opened->reader->id));
    status = opened->reader->open(opened, &where, error);
    if (status == TN_OK)
        status = check_opened(opened, &where, error);
    if (status == TN_OK && opened->labels)
        tn_dataset_hash_add(opened, opened->labels, opened->count * sizeof *opened->labels);
    if (status == TN_OK) {
        describe_unread(opened);
        *dataset = opened;
        opened = NULL;
    }
done:
    tn_dataset_close(opened);
    return status;
}

void tn_dataset_close(tn_dataset *dataset)
{
    if (!dataset)
        return;
    if (dataset->reader && dataset->reader->close)
        dataset->reader->close(dataset);
    tn_arena_done(&dataset->arena);
    tn_free(dataset);
}

size_t tn_dataset_unread(const tn_dataset *dataset)
{
    return dataset->unread;
}

tn_split tn_dataset_part(const tn_dataset *dataset)
{
    return dataset->part;
}

size_t tn_dataset_count(const tn_dataset *dataset)
{
    return dataset->count;
}

int tn_dataset_classes(const tn_dataset *dataset)
{
    return dataset->classes;
}

const char *tn_dataset_class_name(const tn_dataset *dataset, int label)
{
    static _Thread_local char number[16];
    if (dataset->class_names && label >= 0 && label < dataset->classes)
        return dataset->class_names[label];
    snprintf(number, sizeof number, "%d", label);
    return number;
}

int32_t tn_dataset_label(const tn_dataset *dataset, size_t index)
{
    return dataset->labels ? dataset->labels[index] : TN_NO_LABEL;
}

const char *tn_dataset_description(const tn_dataset *dataset)
{
    return dataset->description;
}

const char *tn_dataset_reader_id(const tn_dataset *dataset)
{
    return dataset->reader->id;
}

void tn_dataset_sample_name(const tn_dataset *dataset, size_t index, char *name, size_t size)
{
    dataset->reader->name(dataset, index, name, size);
}

tn_sample_shape tn_dataset_shape(const tn_dataset *dataset)
{
    return dataset->shape;
}

uint64_t tn_dataset_hash(const tn_dataset *dataset)
{
    return dataset->hash;
}

tn_status tn_dataset_read(const tn_dataset *dataset, size_t index, tn_image *image, tn_error *error)
{
    if (index >= dataset->count)
        return tn_fail(error, TN_ERROR_USAGE, "sample %zu of a data set of %zu", index,
                       dataset->count);
    return dataset->reader->read(dataset, index, image, error);
}

tn_status tn_dataset_draw(const tn_dataset *dataset, uint64_t seed, size_t n, uint32_t *indices,
                          tn_error *error)
{
    if (n > dataset->count)
        return tn_fail(error, TN_ERROR_USAGE, "%zu images asked of a data set that holds %zu", n,
                       dataset->count);
    uint32_t *order = tn_alloc_array(dataset->count, sizeof *order);
    if (!order)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the order of %zu images",
                       dataset->count);
    tn_random_permutation(seed, TN_PURPOSE_CALIBRATE, 0, dataset->count, order);
    memcpy(indices, order, n * sizeof *indices);
    tn_free(order);
    return TN_OK;
}
