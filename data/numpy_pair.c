/* Arrays of images and labels as NumPy saves them: one .npz, or .npy files in a folder. Images are
 * [n, h, w], [n, h, w, c] or [n, c, h, w], bytes or floats; labels [n] or [n, 1] integers. One .npy
 * alone has no labels: bytes are pictures, floats say nothing of their scale and so are taken for
 * what a network reads. */
#include "data/reader.h"

#include "core/checked.h"
#include "data/numpy_array.h"

#include <stdio.h>
#include <string.h>

typedef struct pair_names {
    const char *images, *labels;
} pair_names;

/* What the arrays are called, part by part; the last ones are for sets of one part. */
static const pair_names parts[2][7] = {
    {{"x_train", "y_train"},
     {"X_train", "y_train"},
     {"train_images", "train_labels"},
     {"images_train", "labels_train"},
     {"train_x", "train_y"},
     {NULL, NULL}},
    /* the test part last, where there are three: accuracies choose between networks */
    {{"x_val", "y_val"},
     {"X_val", "y_val"},
     {"val_images", "val_labels"},
     {"x_test", "y_test"},
     {"X_test", "y_test"},
     {"test_images", "test_labels"},
     {NULL, NULL}},
};
static const pair_names whole[] = {{"images", "labels"}, {"x", "y"},         {"X", "y"},
                                   {"data", "labels"},   {"data", "target"}, {"arr_0", "arr_1"},
                                   {NULL, NULL}};

typedef struct array_images {
    tn_source source; /* of the images */
    tn_numpy_array array;
    const char *name;
    unsigned char *elements; /* unpacked; NULL: read in place */
    bool planar;             /* [c, h, w] */
} array_images;

static bool ends_with(const char *path, const char *ending)
{
    size_t n = strlen(path), m = strlen(ending);
    return n > m && strcmp(path + n - m, ending) == 0;
}

static bool has_file(const char *folder, const char *name)
{
    char file[64];
    const char *const names[] = {file, NULL};
    snprintf(file, sizeof file, "%s.npy", name);
    return tn_path_first_file(folder, names) != NULL;
}

/* A folder's pair of .npy files; NULL when there is none. */
static const pair_names *pair_in_folder(const char *folder, const pair_names *names)
{
    for (; names->images; names++)
        if (has_file(folder, names->images) && has_file(folder, names->labels))
            return names;
    return NULL;
}

static bool is_npz(const char *name)
{
    return ends_with(name, ".npz");
}

/* One array of images without labels. */
static bool is_alone(const tn_location *where)
{
    return !where->is_folder && ends_with(where->path, ".npy");
}

static bool match(const tn_location *where)
{
    if (!where->is_folder)
        return is_npz(where->path) || is_alone(where);
    if (pair_in_folder(where->path, parts[0]) || pair_in_folder(where->path, parts[1]) ||
        pair_in_folder(where->path, whole))
        return true;
    /* several: which? */
    return tn_path_count_fitting(where->path, is_npz, 2, NULL, 0) == 1;
}

/* Opens the array `name` of the place `path`: a member of the .npz, or a .npy of the folder. */
static tn_status open_array(tn_dataset *dataset, const char *path, bool packed, const char *name,
                            tn_source *source, tn_numpy_array *array, bool *found, tn_error *error)
{
    char file[64];
    tn_numpy_place place;
    const char *at = path;
    *found = true;
    if (!packed) {
        snprintf(file, sizeof file, "%s.npy", name);
        at = tn_path_join(&dataset->arena, path, file);
        if (!at)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    }
    tn_status status = tn_source_open(at, source, error);
    if (status == TN_OK && packed)
        status = tn_npz_find(source, name, &place, found, error);
    if (status == TN_OK && *found)
        status = tn_numpy_open(source, packed ? &place : NULL, array, error);
    if (status != TN_OK || !*found)
        tn_source_close(source);
    return status;
}

/* Which pair of names is there, for the part or for the whole. */
static tn_status choose_pair(tn_dataset *dataset, const tn_location *where, const char *path,
                             bool packed, const pair_names **pair, tn_error *error)
{
    tn_split other = where->split == TN_SPLIT_TRAIN ? TN_SPLIT_VAL : TN_SPLIT_TRAIN;
    const pair_names *choices[3] = {parts[where->split], whole, parts[other]};
    const tn_split splits[3] = {where->split, TN_SPLIT_NONE, other};
    for (int i = 0; i < (where->split_asked ? 1 : 3); i++) {
        dataset->part = splits[i];
        if (!packed) {
            *pair = pair_in_folder(path, choices[i]);
            if (*pair)
                return TN_OK;
            continue;
        }
        for (const pair_names *names = choices[i]; names->images; names++) {
            tn_source source;
            tn_numpy_array array;
            bool found;
            tn_status status =
                open_array(dataset, path, true, names->images, &source, &array, &found, error);
            if (status != TN_OK)
                return status;
            if (found) {
                tn_source_close(&source);
                *pair = names;
                return TN_OK;
            }
        }
    }
    return tn_fail(error, TN_ERROR_DATA,
                   "%s has no arrays of a name that is known for the %s: x_train and y_train, "
                   "x_test and y_test, images and labels",
                   tn_quote(path), tn_split_phrase(where->split));
}

static bool is_channels(size_t n)
{
    return n == 1 || n == 3;
}

/* What the images look like. Floats without labels are a network's inputs: [n, c, h, w]. */
static tn_status set_shape(tn_dataset *dataset, const char *name, bool alone, tn_error *error)
{
    array_images *images = dataset->store;
    const tn_numpy_array *a = &images->array;
    bool is_float = tn_dtype_is_float(a->dtype), prepared = alone && is_float;
    const size_t *d = a->dims;
    if ((a->dtype != TN_UINT8 && !is_float) || a->rank < (prepared ? 4 : 3) || a->rank > 4)
        return tn_fail(error, TN_ERROR_DATA, "%s: %s is %s of rank %d; %s",
                       tn_quote(images->source.path), tn_quote(name), tn_dtype_name(a->dtype),
                       a->rank,
                       prepared ? "floats without labels are a network's inputs [n, c, h, w]"
                                : "images are bytes or floats [n, h, w], [n, h, w, c] or "
                                  "[n, c, h, w]");
    images->planar = prepared || (a->rank == 4 && is_channels(d[1]) && !is_channels(d[3]));
    size_t height = images->planar ? d[2] : d[1], width = images->planar ? d[3] : d[2];
    size_t channels = a->rank == 3 ? 1 : images->planar ? d[1] : d[3];
    if (!is_channels(channels) && !(is_float && channels > 0 && channels <= 1024))
        return tn_fail(error, TN_ERROR_DATA, "%s: %s has images of %zu channels; 1 or 3 are read",
                       tn_quote(images->source.path), tn_quote(name), channels);
    dataset->count = d[0];
    dataset->shape = (tn_sample_shape){(int)width, (int)height, (int)channels, is_float, prepared};
    return tn_image_check_size(width, height, error);
}

static tn_status read_labels(tn_dataset *dataset, const tn_source *source,
                             const tn_numpy_array *array, tn_error *error)
{
    unsigned char *elements = NULL;
    int64_t *wide = NULL;
    bool column = array->rank == 2 && array->dims[1] == 1;
    if (!tn_dtype_is_integer(array->dtype) || (array->rank != 1 && !column) ||
        array->dims[0] != dataset->count)
        return tn_fail(error, TN_ERROR_DATA,
                       "%s: labels are %s of rank %d with %zu rows; %zu integers are expected",
                       tn_quote(source->path), tn_dtype_name(array->dtype), array->rank,
                       array->rank > 0 ? array->dims[0] : 0, dataset->count);
    tn_status status = tn_numpy_load(source, array, &elements, error);
    if (status != TN_OK)
        return status;
    wide = tn_alloc_array(dataset->count + 1, sizeof *wide);
    dataset->labels = tn_arena_array(&dataset->arena, dataset->count + 1, sizeof *dataset->labels);
    if (!wide || !dataset->labels) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu labels", dataset->count);
        goto done;
    }
    tn_tensor view = {array->dtype, 1, {(int64_t)dataset->count}, elements, array->elements, false};
    status = tn_tensor_read_int64(&view, 0, (int64_t)dataset->count, wide, error);
    for (size_t i = 0; status == TN_OK && i < dataset->count; i++) {
        if (wide[i] < 0 || wide[i] >= 1000000) {
            status = tn_fail(error, TN_ERROR_DATA, "%s: label %lld of image %zu is out of range",
                             tn_quote(source->path), (long long)wide[i], i);
            break;
        }
        dataset->labels[i] = (int32_t)wide[i];
        if (wide[i] >= dataset->classes)
            dataset->classes = (int)wide[i] + 1;
    }
done:
    tn_free(elements);
    tn_free(wide);
    return status;
}

static tn_status open_labels(tn_dataset *dataset, const char *path, bool packed, const char *name,
                             tn_error *error)
{
    tn_source source;
    tn_numpy_array array;
    bool found;
    tn_status status = open_array(dataset, path, packed, name, &source, &array, &found, error);
    if (status != TN_OK)
        return status;
    if (!found)
        return tn_fail(error, TN_ERROR_DATA, "%s has no array %s with the labels", tn_quote(path),
                       tn_quote(name));
    status = read_labels(dataset, &source, &array, error);
    tn_source_close(&source);
    return status;
}

static tn_status open_alone(tn_dataset *dataset, const tn_location *where, tn_error *error)
{
    array_images *images = dataset->store;
    if (!where->allow_unlabelled || where->split_asked)
        return tn_fail(error, TN_ERROR_DATA,
                       where->split_asked
                           ? "%s is one array, which has no parts: leave out :train or :val"
                           : "%s is an array of images without labels: put images.npy and "
                             "labels.npy into one folder, or both into one .npz",
                       tn_quote(where->path));
    tn_status status = tn_source_open(where->path, &images->source, error);
    if (status == TN_OK)
        status = tn_numpy_open(&images->source, NULL, &images->array, error);
    if (status == TN_OK)
        status = set_shape(dataset, "the array", true, error);
    if (status != TN_OK)
        return status;
    tn_dataset_hash_add(dataset, images->array.dims, sizeof images->array.dims);
    snprintf(dataset->description, sizeof dataset->description,
             "NumPy array of %s, unlabelled: %zu of %dx%dx%d",
             dataset->shape.prepared ? "network inputs" : "images", dataset->count,
             dataset->shape.width, dataset->shape.height, dataset->shape.channels);
    return TN_OK;
}

static tn_status open_pair(tn_dataset *dataset, const tn_location *where, tn_error *error)
{
    const pair_names *pair = NULL;
    const char *path = where->path;
    bool packed = !where->is_folder, found = false;
    array_images *images = dataset->store;
    if (where->is_folder && !pair_in_folder(path, parts[0]) && !pair_in_folder(path, parts[1]) &&
        !pair_in_folder(path, whole)) {
        packed = true;
        char name[256] = "";
        tn_path_count_fitting(path, is_npz, 1, name, sizeof name);
        path = tn_path_join(&dataset->arena, path, name);
        if (!path)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    }
    tn_status status = choose_pair(dataset, where, path, packed, &pair, error);
    if (status == TN_OK)
        status = open_array(dataset, path, packed, pair->images, &images->source, &images->array,
                            &found, error);
    if (status == TN_OK)
        status = set_shape(dataset, pair->images, false, error);
    if (status == TN_OK)
        status = open_labels(dataset, path, packed, pair->labels, error);
    if (status == TN_OK && images->array.place.deflated)
        status = tn_numpy_load(&images->source, &images->array, &images->elements, error);
    if (status != TN_OK)
        return status;
    images->name = pair->images;
    tn_dataset_hash_add(dataset, images->array.dims, sizeof images->array.dims);
    snprintf(dataset->description, sizeof dataset->description,
             "NumPy arrays %s and %s, %s: %zu images of %dx%dx%d%s, %d classes", pair->images,
             pair->labels, tn_split_phrase(dataset->part), dataset->count, dataset->shape.width,
             dataset->shape.height, dataset->shape.channels,
             dataset->shape.is_float ? " floats" : "", dataset->classes);
    return TN_OK;
}

static tn_status open_arrays(tn_dataset *dataset, const tn_location *where, tn_error *error)
{
    array_images *images = tn_arena_alloc(&dataset->arena, sizeof *images);
    if (!images)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    images->source.descriptor = -1;
    dataset->store = images;
    return is_alone(where) ? open_alone(dataset, where, error) : open_pair(dataset, where, error);
}

/* [c, h, w] to [h, w, c] of elements of `size` bytes. */
static void interleave(unsigned char *dst, const unsigned char *src, size_t pixels, size_t channels,
                       size_t size)
{
    for (size_t c = 0; c < channels; c++)
        for (size_t i = 0; i < pixels; i++)
            memcpy(dst + (i * channels + c) * size, src + (c * pixels + i) * size, size);
}

static tn_status read_array(const tn_dataset *dataset, size_t index, tn_image *image,
                            tn_error *error)
{
    const array_images *images = dataset->store;
    const tn_sample_shape *s = &dataset->shape;
    const tn_numpy_array *a = &images->array;
    size_t pixels = (size_t)s->width * (size_t)s->height, channels = (size_t)s->channels;
    size_t count = pixels * channels, bytes = 0;
    if (!tn_dtype_bytes(a->dtype, count, &bytes))
        return tn_fail(error, TN_ERROR_DATA, "sample %zu is too large", index);
    unsigned char *raw = tn_alloc_array(2, bytes);
    if (!raw)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a sample of %zu bytes", bytes);
    tn_status status = TN_OK;
    if (images->elements)
        memcpy(raw, images->elements + index * bytes, bytes);
    else
        status = tn_source_read(&images->source, a->place.offset + a->header + index * bytes, raw,
                                bytes, error);
    const unsigned char *from = raw;
    if (status == TN_OK && images->planar && channels > 1) {
        interleave(raw + bytes, raw, pixels, channels, bytes / count);
        from = raw + bytes;
    }
    if (status == TN_OK)
        status = s->is_float
                     ? tn_image_reserve_values(image, s->width, s->height, s->channels, error)
                     : tn_image_reserve(image, s->width, s->height, s->channels, error);
    if (status == TN_OK && s->is_float) {
        tn_tensor view = {a->dtype, 1, {(int64_t)count}, (void *)(uintptr_t)from, bytes, false};
        status = tn_tensor_read_float(&view, 0, (int64_t)count, image->values, error);
    } else if (status == TN_OK) {
        memcpy(image->pixels, from, bytes);
    }
    tn_free(raw);
    return status;
}

static void sample_name(const tn_dataset *dataset, size_t index, char *name, size_t size)
{
    const array_images *images = dataset->store;
    snprintf(name, size, "%s[%zu]", images->name ? images->name : "inputs", index);
}

static void close_pair(tn_dataset *dataset)
{
    array_images *images = dataset->store;
    if (!images)
        return;
    tn_source_close(&images->source);
    tn_free(images->elements);
}

const tn_reader tn_reader_numpy = {
    .id = "numpy",
    .summary =
        "NumPy arrays: x_train, y_train, x_test, y_test (or images, labels) in .npz or .npy; "
        "one .npy of floats alone: inputs of the network as they are",
    .match = match,
    .open = open_arrays,
    .read = read_array,
    .name = sample_name,
    .close = close_pair,
};
