/* Folders of pictures, one folder a class (class = sorted names), perhaps below train/ and
 * val/ (valid/, validation/, test/). Pictures may lie deeper inside a class. */
#include "data/reader.h"

#include <stdio.h>
#include <string.h>

enum { MAX_DEPTH = 8 };

typedef struct folder_files {
    const char *root;   /* of the part that is read */
    const char **paths; /* relative to root; heap */
    int32_t *labels;    /* heap until the walk is over */
    size_t room;
} folder_files;

static const char *const train_names[] = {"train", "training", NULL};
static const char *const val_names[] = {"val", "valid", "validation", "test", NULL};

static bool match(const tn_location *where)
{
    return where->is_folder;
}

static tn_status add_picture(tn_dataset *dataset, const char *relative, int32_t label,
                             tn_error *error)
{
    folder_files *files = dataset->store;
    if (dataset->count == files->room) {
        size_t room = files->room ? 2 * files->room : 1024;
        const char **paths = tn_realloc(files->paths, room * sizeof *paths);
        if (paths)
            files->paths = paths;
        int32_t *labels = paths ? tn_realloc(files->labels, room * sizeof *labels) : NULL;
        if (!labels)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu file names", room);
        files->labels = labels;
        files->room = room;
    }
    tn_dataset_hash_add(dataset, relative, strlen(relative) + 1);
    files->paths[dataset->count] = relative;
    files->labels[dataset->count++] = label;
    return TN_OK;
}

/* All pictures below root/relative, sorted, depth first. */
static tn_status walk(tn_dataset *dataset, const char *relative, int32_t label, int depth,
                      tn_error *error)
{
    folder_files *files = dataset->store;
    tn_arena *arena = &dataset->arena;
    const char *folder = tn_path_join(arena, files->root, relative);
    tn_listing listing;
    if (!folder)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for file names");
    if (depth > MAX_DEPTH)
        return tn_fail(error, TN_ERROR_DATA, "%s lies more than %d folders deep: a loop of links?",
                       tn_quote(folder), MAX_DEPTH);
    tn_status status = tn_listing_read(arena, folder, &listing, error);
    for (size_t i = 0; status == TN_OK && i < listing.count; i++) {
        bool image = tn_path_is_image(listing.names[i]);
        if (!image && !listing.is_folder[i])
            continue;
        const char *path = tn_path_join(arena, relative, listing.names[i]);
        if (!path)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for file names");
        status = image ? add_picture(dataset, path, label, error)
                       : walk(dataset, path, label, depth + 1, error);
    }
    return status;
}

/* The names of the folders in `folder`. */
static tn_status list_classes(tn_dataset *dataset, const char *folder, tn_listing *classes,
                              size_t *pictures, tn_error *error)
{
    tn_status status = tn_listing_read(&dataset->arena, folder, classes, error);
    if (status != TN_OK)
        return status;
    size_t kept = 0;
    *pictures = 0;
    for (size_t i = 0; i < classes->count; i++) {
        if (classes->is_folder[i])
            classes->names[kept++] = classes->names[i];
        else
            *pictures += tn_path_is_image(classes->names[i]);
    }
    classes->count = kept;
    return TN_OK;
}

/* A folder of pictures without class folders: labels are nowhere. */
static tn_status open_flat(tn_dataset *dataset, const tn_location *where, const char *root,
                           size_t pictures, tn_error *error)
{
    if (!where->allow_unlabelled)
        return tn_fail(error, TN_ERROR_DATA,
                       "%s is a flat folder of %zu pictures: nothing says their classes. Sort them "
                       "into one folder per class, or put a list beside them (val_annotations.txt, "
                       "val.txt or labels.csv with lines of file and class)",
                       tn_quote(root), pictures);
    tn_listing listing;
    tn_status status = tn_listing_read(&dataset->arena, root, &listing, error);
    for (size_t i = 0; status == TN_OK && i < listing.count; i++)
        if (tn_path_is_image(listing.names[i]))
            status = add_picture(dataset, listing.names[i], TN_NO_LABEL, error);
    snprintf(dataset->description, sizeof dataset->description,
             "flat folder without labels: %zu images", dataset->count);
    return status;
}

/* Which part of `where` is read, and the folder whose subfolders name the classes. */
static tn_status choose_root(tn_dataset *dataset, const tn_location *where, const char **root,
                             const char **names_root, const char **phrase, tn_error *error)
{
    const char *train = tn_path_first_folder(where->path, train_names);
    const char *val = tn_path_first_folder(where->path, val_names);
    const char *part = where->split == TN_SPLIT_TRAIN ? train : val;
    *phrase = "";
    if (!part && where->split_asked)
        return tn_fail(error, TN_ERROR_DATA, "%s has no %s (a folder %s)", tn_quote(where->path),
                       tn_split_phrase(where->split),
                       where->split == TN_SPLIT_TRAIN ? "train" : "val, valid, validation or test");
    if (!part) /* the other part, or the folder itself */
        part = train ? train : val;
    if (!part) {
        *root = *names_root = where->path;
        return TN_OK;
    }
    *phrase = tn_split_phrase(part == train ? TN_SPLIT_TRAIN : TN_SPLIT_VAL);
    *root = tn_path_join(&dataset->arena, where->path, part);
    *names_root = train ? tn_path_join(&dataset->arena, where->path, train) : *root;
    if (!*root || !*names_root)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    return TN_OK;
}

static int32_t class_of(const tn_listing *classes, const char *name)
{
    for (size_t lo = 0, hi = classes->count; lo < hi;) {
        size_t mid = (lo + hi) / 2;
        int order = strcmp(classes->names[mid], name);
        if (order == 0)
            return (int32_t)mid;
        if (order < 0)
            lo = mid + 1;
        else
            hi = mid;
    }
    return TN_NO_LABEL;
}

static tn_status walk_classes(tn_dataset *dataset, const tn_listing *here,
                              const tn_listing *classes, const char *root, tn_error *error)
{
    for (size_t i = 0; i < here->count; i++) {
        int32_t label = class_of(classes, here->names[i]);
        if (label < 0)
            return tn_fail(error, TN_ERROR_DATA,
                           "%s holds a class %s that the training part does not have: the class "
                           "numbers would not fit together",
                           tn_quote(root), tn_quote(here->names[i]));
        size_t before = dataset->count;
        tn_status status = walk(dataset, here->names[i], label, 1, error);
        if (status != TN_OK)
            return status;
        if (dataset->count == before && here->names == classes->names)
            return tn_fail(error, TN_ERROR_DATA,
                           "the class folder %s in %s holds no JPEG or PNG: take it out, for it "
                           "shifts the numbers of the classes behind it",
                           tn_quote(here->names[i]), tn_quote(root));
    }
    return TN_OK;
}

static tn_status open_folder(tn_dataset *dataset, const tn_location *where, tn_error *error)
{
    const char *root = NULL, *names_root = NULL, *phrase = "";
    tn_listing here, classes;
    size_t pictures, others;
    folder_files *files = tn_arena_alloc(&dataset->arena, sizeof *files);
    if (!files)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    dataset->store = files;
    dataset->shape.channels = 3;
    tn_status status = choose_root(dataset, where, &root, &names_root, &phrase, error);
    if (status != TN_OK)
        return status;
    files->root = root;
    status = list_classes(dataset, root, &here, &pictures, error);
    if (status != TN_OK)
        return status;
    if (here.count == 0 && pictures > 0)
        return open_flat(dataset, where, root, pictures, error);
    classes = here;
    if (names_root != root)
        status = list_classes(dataset, names_root, &classes, &others, error);
    if (status == TN_OK)
        status = walk_classes(dataset, &here, &classes, root, error);
    if (status != TN_OK)
        return status;
    dataset->labels = files->labels;
    dataset->classes = (int)classes.count;
    dataset->class_names = classes.names;
    snprintf(dataset->description, sizeof dataset->description,
             "image folders%s%s: %zu images, %d classes", *phrase ? ", " : "", phrase,
             dataset->count, dataset->classes);
    return TN_OK;
}

static tn_status read_picture(const tn_dataset *dataset, size_t index, tn_image *image,
                              tn_error *error)
{
    const folder_files *files = dataset->store;
    char path[4096];
    int n = snprintf(path, sizeof path, "%s/%s", files->root, files->paths[index]);
    if (n < 0 || (size_t)n >= sizeof path)
        return tn_fail(error, TN_ERROR_DATA, "the path of %s is too long",
                       tn_quote(files->paths[index]));
    return tn_image_read_file(path, files->paths[index], image, error);
}

static void sample_name(const tn_dataset *dataset, size_t index, char *name, size_t size)
{
    const folder_files *files = dataset->store;
    snprintf(name, size, "%s", files->paths[index]);
}

static void close_folder(tn_dataset *dataset)
{
    folder_files *files = dataset->store;
    if (!files)
        return;
    tn_free(files->paths);
    tn_free(files->labels);
}

const tn_reader tn_reader_image_folder = {
    .id = "image-folder",
    .summary = "one folder of JPEG or PNG pictures per class, perhaps below train/ and val/",
    .match = match,
    .open = open_folder,
    .read = read_picture,
    .name = sample_name,
    .close = close_folder,
};
