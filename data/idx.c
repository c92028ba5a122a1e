/* IDX files as MNIST has them (http://yann.lecun.com/exdb/mnist): big-endian header, bytes; plain
 * or .gz. Images [n, h, w] or [n, h, w, 3], labels [n]. */
#include "data/reader.h"

#include "core/checked.h"
#include "data/inflate.h"

#include <stdio.h>
#include <string.h>

enum { MAX_RANK = 4, MAX_HEADER = 4 + 4 * MAX_RANK };

typedef struct idx_file {
    tn_source source;
    bool packed;
    int rank;
    size_t dims[MAX_RANK];
    size_t header, elements;
} idx_file;

typedef struct idx_pictures {
    unsigned char *pixels; /* all of them */
    const char *name;
} idx_pictures;

/* Names of the two files of each part; a .gz may follow. */
static const char *const parts[2][2][2] = {
    {{"train-images-idx3-ubyte", "train-labels-idx1-ubyte"},
     {"train-images.idx3-ubyte", "train-labels.idx1-ubyte"}},
    {{"t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"},
     {"t10k-images.idx3-ubyte", "t10k-labels.idx1-ubyte"}},
};

/* The file or its .gz in the folder; false when neither is there. */
static bool find_file(const char *folder, const char *name, char *found, size_t size)
{
    const char *const names[2][2] = {{name, NULL}, {found, NULL}};
    snprintf(found, size, "%s.gz", name);
    if (tn_path_first_file(folder, names[1]))
        return true;
    snprintf(found, size, "%s", name);
    return tn_path_first_file(folder, names[0]) != NULL;
}

static bool find_part(const char *folder, tn_split split, char images[64], char labels[64])
{
    for (int style = 0; style < 2; style++)
        if (find_file(folder, parts[split][style][0], images, 64) &&
            find_file(folder, parts[split][style][1], labels, 64))
            return true;
    return false;
}

static bool match(const tn_location *where)
{
    char images[64], labels[64];
    return where->is_folder && (find_part(where->path, TN_SPLIT_TRAIN, images, labels) ||
                                find_part(where->path, TN_SPLIT_VAL, images, labels));
}

static tn_status read_bytes(const idx_file *file, bool whole, void *dst, size_t bytes,
                            tn_error *error)
{
    return file->packed ? tn_inflate(&file->source, 0, file->source.size, TN_DEFLATE_GZIP, whole,
                                     dst, bytes, error)
                        : tn_source_read(&file->source, 0, dst, bytes, error);
}

/* Opens, reads the header, and checks it against the file's size before anything is allocated. */
static tn_status open_file(const char *path, idx_file *file, tn_error *error)
{
    unsigned char head[MAX_HEADER];
    size_t n = strlen(path), elements = 1;
    tn_status status = tn_source_open(path, &file->source, error);
    if (status != TN_OK)
        return status;
    file->packed = n > 3 && strcmp(path + n - 3, ".gz") == 0;
    status = read_bytes(file, false, head, 4, error);
    if (status != TN_OK)
        return status;
    file->rank = head[3];
    if (head[0] || head[1] || head[2] != 8 ||
        (file->rank != 1 && file->rank != 3 && file->rank != 4))
        return tn_fail(error, TN_ERROR_DATA,
                       "%s is no IDX file of bytes with 1, 3 or 4 dimensions (it begins with "
                       "%02x%02x%02x%02x)",
                       tn_quote(path), head[0], head[1], head[2], head[3]);
    file->header = 4 + 4 * (size_t)file->rank;
    status = read_bytes(file, false, head, file->header, error);
    if (status != TN_OK)
        return status;
    bool fits = true;
    for (int i = 0; i < file->rank; i++) {
        const unsigned char *d = head + 4 + 4 * i;
        file->dims[i] = (size_t)d[0] << 24 | (size_t)d[1] << 16 | (size_t)d[2] << 8 | d[3];
        fits = fits && tn_checked_mul_size(elements, file->dims[i], &elements);
    }
    uint64_t most = file->packed ? file->source.size * TN_DEFLATE_MAX_RATIO : file->source.size;
    if (!fits || elements > most || (!file->packed && elements + file->header != most))
        return tn_fail(error, TN_ERROR_DATA,
                       "%s: the header promises %zu images or labels, but the file has %llu bytes",
                       tn_quote(path), file->dims[0], (unsigned long long)file->source.size);
    file->elements = elements;
    return TN_OK;
}

/* All elements, in memory of tn_alloc. */
static tn_status load(const idx_file *file, unsigned char **elements, tn_error *error)
{
    unsigned char *bytes = tn_alloc(file->header + file->elements);
    if (!bytes)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %s (%zu bytes)",
                       tn_quote(file->source.path), file->elements);
    tn_status status = read_bytes(file, true, bytes, file->header + file->elements, error);
    if (status != TN_OK) {
        tn_free(bytes);
        return status;
    }
    memmove(bytes, bytes + file->header, file->elements);
    *elements = bytes;
    return TN_OK;
}

static tn_status check_pair(const idx_file *images, const idx_file *labels, tn_error *error)
{
    if (images->rank < 3 || labels->rank != 1 || images->dims[0] != labels->dims[0])
        return tn_fail(error, TN_ERROR_DATA,
                       "%s and %s do not belong together: %zu images, %zu labels",
                       tn_quote(images->source.path), tn_quote(labels->source.path),
                       images->dims[0], labels->dims[0]);
    if (images->rank == 4 && images->dims[3] != 3 && images->dims[3] != 1)
        return tn_fail(error, TN_ERROR_DATA, "%s: pictures of %zu channels; 1 or 3 are read",
                       tn_quote(images->source.path), images->dims[3]);
    return tn_image_check_size(images->dims[2], images->dims[1], error);
}

static tn_status fill(tn_dataset *dataset, const idx_file *images, const idx_file *labels,
                      tn_split split, tn_error *error)
{
    idx_pictures *pictures = dataset->store;
    unsigned char *classes = NULL;
    tn_status status = check_pair(images, labels, error);
    if (status == TN_OK)
        status = load(images, &pictures->pixels, error);
    if (status == TN_OK)
        status = load(labels, &classes, error);
    if (status != TN_OK)
        return status;
    dataset->count = images->dims[0];
    dataset->shape = (tn_sample_shape){.width = (int)images->dims[2],
                                       .height = (int)images->dims[1],
                                       .channels = images->rank == 4 ? (int)images->dims[3] : 1};
    dataset->labels = tn_arena_array(&dataset->arena, dataset->count + 1, sizeof *dataset->labels);
    if (!dataset->labels) {
        tn_free(classes);
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu labels", dataset->count);
    }
    dataset->classes = 10; /* a part without the last digit is still one of ten */
    for (size_t i = 0; i < dataset->count; i++) {
        dataset->labels[i] = classes[i];
        if (classes[i] >= dataset->classes)
            dataset->classes = classes[i] + 1;
    }
    tn_free(classes);
    tn_dataset_hash_add(dataset, pictures->pixels, images->elements);
    snprintf(dataset->description, sizeof dataset->description,
             "IDX (MNIST's layout), %s: %zu images of %dx%d, %d classes", tn_split_phrase(split),
             dataset->count, dataset->shape.width, dataset->shape.height, dataset->classes);
    return TN_OK;
}

static tn_status open_idx(tn_dataset *dataset, const tn_location *where, tn_error *error)
{
    char image_name[64], label_name[64];
    tn_split split = where->split;
    idx_file images = {.source.descriptor = -1}, labels = {.source.descriptor = -1};
    idx_pictures *pictures = tn_arena_alloc(&dataset->arena, sizeof *pictures);
    dataset->store = pictures;
    bool present = find_part(where->path, split, image_name, label_name);
    if (!present && where->split_asked)
        return tn_fail(error, TN_ERROR_DATA, "%s has no %s (%s and %s)", tn_quote(where->path),
                       tn_split_phrase(split), parts[split][0][0], parts[split][0][1]);
    if (!present) {
        split = split == TN_SPLIT_TRAIN ? TN_SPLIT_VAL : TN_SPLIT_TRAIN;
        find_part(where->path, split, image_name, label_name);
    }
    dataset->part = split;
    const char *image_path = tn_path_join(&dataset->arena, where->path, image_name);
    const char *label_path = tn_path_join(&dataset->arena, where->path, label_name);
    if (!pictures || !image_path || !label_path)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    pictures->name = tn_arena_strdup(&dataset->arena, image_name);
    tn_status status = open_file(image_path, &images, error);
    if (status == TN_OK)
        status = open_file(label_path, &labels, error);
    if (status == TN_OK)
        status = fill(dataset, &images, &labels, split, error);
    tn_source_close(&images.source);
    tn_source_close(&labels.source);
    return status;
}

static tn_status read_picture(const tn_dataset *dataset, size_t index, tn_image *image,
                              tn_error *error)
{
    const idx_pictures *pictures = dataset->store;
    const tn_sample_shape *s = &dataset->shape;
    size_t bytes = (size_t)s->width * (size_t)s->height * (size_t)s->channels;
    tn_status status = tn_image_reserve(image, s->width, s->height, s->channels, error);
    if (status == TN_OK)
        memcpy(image->pixels, pictures->pixels + index * bytes, bytes);
    return status;
}

static void sample_name(const tn_dataset *dataset, size_t index, char *name, size_t size)
{
    const idx_pictures *pictures = dataset->store;
    snprintf(name, size, "%s#%zu", pictures->name ? pictures->name : "", index);
}

static void close_idx(tn_dataset *dataset)
{
    idx_pictures *pictures = dataset->store;
    if (pictures)
        tn_free(pictures->pixels);
}

const tn_reader tn_reader_idx = {
    .id = "idx",
    .summary = "MNIST's IDX files, plain or .gz: train-images-idx3-ubyte and so on",
    .match = match,
    .open = open_idx,
    .read = read_picture,
    .name = sample_name,
    .close = close_idx,
};
