/* CIFAR-10 and CIFAR-100, binary version (https://www.cs.toronto.edu/~kriz/cifar.html): records of
 * 1 (10 classes) or 2 (coarse, fine: 100 classes) label bytes and 3072 bytes of planar RGB. */
#include "data/reader.h"

#include <stdio.h>
#include <string.h>
#include <xxhash.h>

enum { SIDE = 32, PLANE = SIDE * SIDE, MAX_FILES = 64 };

typedef struct cifar_files {
    tn_source file[MAX_FILES];
    const char *name[MAX_FILES];
    size_t first[MAX_FILES + 1]; /* sample number of each file's first record */
    size_t n_files;
    size_t label_bytes; /* before the pixels; the last one counts */
} cifar_files;

static const char *const train10[] = {"data_batch_1.bin", NULL};
static const char *const test10[] = {"test_batch.bin", NULL};
static const char *const train100[] = {"train.bin", NULL};
static const char *const test100[] = {"test.bin", NULL};

static bool match(const tn_location *where)
{
    return where->is_folder &&
           (tn_path_first_file(where->path, train10) || tn_path_first_file(where->path, test10) ||
            tn_path_first_file(where->path, train100) || tn_path_first_file(where->path, test100));
}

static tn_status add_file(tn_dataset *dataset, cifar_files *files, const char *folder,
                          const char *name, tn_error *error)
{
    size_t record = files->label_bytes + 3 * PLANE;
    size_t k = files->n_files;
    char *path = tn_path_join(&dataset->arena, folder, name);
    files->name[k] = tn_arena_strdup(&dataset->arena, name);
    if (!path || !files->name[k])
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    tn_status status = tn_source_open(path, &files->file[k], error);
    if (status != TN_OK)
        return status;
    files->n_files++;
    uint64_t size = files->file[k].size;
    if (size == 0 || size % record != 0)
        return tn_fail(
            error, TN_ERROR_DATA,
            "%s has %llu bytes, which is no multiple of the %zu of a CIFAR record: it is "
            "cut off or something else",
            tn_quote(path), (unsigned long long)size, record);
    files->first[k + 1] = files->first[k] + (size_t)(size / record);
    return TN_OK;
}

static tn_status add_part(tn_dataset *dataset, cifar_files *files, const tn_location *where,
                          tn_split split, tn_error *error)
{
    if (files->label_bytes == 2)
        return add_file(dataset, files, where->path,
                        split == TN_SPLIT_TRAIN ? train100[0] : test100[0], error);
    if (split == TN_SPLIT_VAL)
        return add_file(dataset, files, where->path, test10[0], error);
    for (unsigned i = 1; i <= MAX_FILES; i++) {
        char name[32];
        snprintf(name, sizeof name, "data_batch_%u.bin", i);
        const char *const names[] = {name, NULL};
        if (!tn_path_first_file(where->path, names))
            break;
        tn_status status = add_file(dataset, files, where->path, name, error);
        if (status != TN_OK)
            return status;
    }
    return TN_OK;
}

/* Class names from batches.meta.txt (or fine_label_names.txt) where it lies beside the batches. */
static void read_class_names(tn_dataset *dataset, const char *folder, bool fine)
{
    char *path =
        tn_path_join(&dataset->arena, folder, fine ? "fine_label_names.txt" : "batches.meta.txt");
    const char **names =
        tn_arena_array(&dataset->arena, (size_t)dataset->classes, sizeof(const char *));
    unsigned char *text = NULL;
    size_t size;
    if (!path || !names || !tn_path_is_file(path) ||
        tn_source_read_all(path, 64 << 10, &text, &size, NULL) != TN_OK)
        return;
    int n = 0;
    char *rest = (char *)text;
    for (char *line; n < dataset->classes && (line = strsep(&rest, "\n"));) {
        line[strcspn(line, "\r")] = 0;
        if (*line && !(names[n++] = tn_arena_strdup(&dataset->arena, line)))
            n = -dataset->classes;
    }
    if (n == dataset->classes)
        dataset->class_names = names;
    tn_free(text);
}

/* One pass over the files: labels, and the fingerprint of all bytes. */
static tn_status scan(tn_dataset *dataset, const cifar_files *files, tn_error *error)
{
    enum { RECORDS = 256 };
    size_t record = files->label_bytes + 3 * PLANE;
    unsigned char *block = tn_alloc_array(RECORDS, record);
    dataset->labels = tn_arena_array(&dataset->arena, dataset->count, sizeof *dataset->labels);
    tn_status status = TN_OK;
    if (!block || !dataset->labels) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu labels", dataset->count);
        goto done;
    }
    for (size_t k = 0; k < files->n_files; k++)
        for (size_t i = files->first[k]; i < files->first[k + 1]; i += RECORDS) {
            size_t n = files->first[k + 1] - i < RECORDS ? files->first[k + 1] - i : RECORDS;
            status = tn_source_read(&files->file[k], (i - files->first[k]) * record, block,
                                    n * record, error);
            if (status != TN_OK)
                goto done;
            tn_dataset_hash_add(dataset, block, n * record);
            for (size_t j = 0; j < n; j++)
                dataset->labels[i + j] = block[j * record + files->label_bytes - 1];
        }
done:
    tn_free(block);
    return status;
}

static tn_status open_batches(tn_dataset *dataset, const tn_location *where, tn_error *error)
{
    cifar_files *files = tn_arena_alloc(&dataset->arena, sizeof *files);
    if (!files)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    dataset->store = files;
    bool ten = tn_path_first_file(where->path, train10) || tn_path_first_file(where->path, test10);
    bool train = tn_path_first_file(where->path, ten ? train10 : train100) != NULL;
    bool test = tn_path_first_file(where->path, ten ? test10 : test100) != NULL;
    files->label_bytes = ten ? 1 : 2;
    tn_split split = where->split;
    bool present = split == TN_SPLIT_TRAIN ? train : test;
    if (!present && where->split_asked)
        return tn_fail(error, TN_ERROR_DATA, "%s has no %s (%s is missing)", tn_quote(where->path),
                       tn_split_phrase(split),
                       split == TN_SPLIT_TRAIN ? (ten ? train10[0] : train100[0])
                                               : (ten ? test10[0] : test100[0]));
    if (!present)
        split = train ? TN_SPLIT_TRAIN : TN_SPLIT_VAL;
    dataset->part = split;
    tn_status status = add_part(dataset, files, where, split, error);
    if (status != TN_OK)
        return status;
    dataset->count = files->first[files->n_files];
    dataset->classes = ten ? 10 : 100;
    dataset->shape = (tn_sample_shape){.width = SIDE, .height = SIDE, .channels = 3};
    read_class_names(dataset, where->path, !ten);
    snprintf(dataset->description, sizeof dataset->description,
             "CIFAR-%d binary, %s: %zu images of %dx%d, %d classes", dataset->classes,
             tn_split_phrase(split), dataset->count, SIDE, SIDE, dataset->classes);
    return scan(dataset, files, error);
}

static size_t file_of(const cifar_files *files, size_t index)
{
    size_t k = 0;
    while (index >= files->first[k + 1])
        k++;
    return k;
}

static tn_status read_record(const tn_dataset *dataset, size_t index, tn_image *image,
                             tn_error *error)
{
    const cifar_files *files = dataset->store;
    size_t k = file_of(files, index), record = files->label_bytes + 3 * PLANE;
    return tn_image_read_planes(&files->file[k],
                                (index - files->first[k]) * record + files->label_bytes, SIDE,
                                image, error);
}

static void sample_name(const tn_dataset *dataset, size_t index, char *name, size_t size)
{
    const cifar_files *files = dataset->store;
    size_t k = file_of(files, index);
    snprintf(name, size, "%s#%zu", files->name[k], index - files->first[k]);
}

static void close_files(tn_dataset *dataset)
{
    cifar_files *files = dataset->store;
    for (size_t k = 0; files && k < files->n_files; k++)
        tn_source_close(&files->file[k]);
}

const tn_reader tn_reader_cifar_binary = {
    .id = "cifar-binary",
    .summary = "CIFAR-10/100 binary version: data_batch_N.bin, test_batch.bin; train.bin, test.bin",
    .match = match,
    .open = open_batches,
    .read = read_record,
    .name = sample_name,
    .close = close_files,
};
