#include "data/picture_files.h"

#include <stdio.h>
#include <string.h>

enum { MAX_DEPTH = 8 };

tn_status tn_picture_files_begin(tn_dataset *dataset, const char *root, tn_error *error)
{
    tn_picture_files *files = tn_arena_alloc(&dataset->arena, sizeof *files);
    if (!files)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    files->root = root;
    dataset->store = files;
    dataset->shape.channels = 3;
    return TN_OK;
}

tn_status tn_picture_files_add(tn_dataset *dataset, const char *path, int32_t label,
                               tn_error *error)
{
    tn_picture_files *files = dataset->store;
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
    tn_dataset_hash_add(dataset, path, strlen(path) + 1);
    files->paths[dataset->count] = path;
    files->labels[dataset->count++] = label;
    return TN_OK;
}

static tn_status walk(tn_dataset *dataset, const char *relative, int32_t label, int depth,
                      tn_error *error)
{
    tn_picture_files *files = dataset->store;
    tn_arena *arena = &dataset->arena;
    const char *folder = tn_path_join(arena, files->root, relative);
    tn_listing listing = {0};
    if (!folder)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for file names");
    if (depth > MAX_DEPTH)
        return tn_fail(error, TN_ERROR_DATA, "%s lies more than %d folders deep: a loop of links?",
                       tn_quote(folder), MAX_DEPTH);
    tn_status status = tn_listing_read(arena, folder, &listing, error);
    for (size_t i = 0; status == TN_OK && i < listing.count; i++) {
        bool image = tn_path_is_image(listing.names[i]);
        if (!image && !listing.is_folder[i]) {
            dataset->unread += tn_path_is_unread_image(listing.names[i]);
            continue;
        }
        const char *path = tn_path_join(arena, relative, listing.names[i]);
        if (!path)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for file names");
        status = image ? tn_picture_files_add(dataset, path, label, error)
                       : walk(dataset, path, label, depth + 1, error);
    }
    return status;
}

tn_status tn_picture_files_walk(tn_dataset *dataset, const char *relative, int32_t label,
                                tn_error *error)
{
    return walk(dataset, relative, label, 1, error);
}

void tn_picture_files_finish(tn_dataset *dataset, int classes, const char **class_names)
{
    const tn_picture_files *files = dataset->store;
    dataset->labels = files->labels;
    dataset->classes = classes;
    dataset->class_names = class_names;
}

tn_status tn_picture_files_read(const tn_dataset *dataset, size_t index, tn_image *image,
                                tn_error *error)
{
    const tn_picture_files *files = dataset->store;
    const char *name = files->paths[index];
    char path[4096];
    int n = name[0] == '/' ? snprintf(path, sizeof path, "%s", name)
                           : snprintf(path, sizeof path, "%s/%s", files->root, name);
    if (n < 0 || (size_t)n >= sizeof path)
        return tn_fail(error, TN_ERROR_DATA, "the path of %s is too long", tn_quote(name));
    return tn_image_read_file(path, name, image, error);
}

void tn_picture_files_name(const tn_dataset *dataset, size_t index, char *name, size_t size)
{
    const tn_picture_files *files = dataset->store;
    snprintf(name, size, "%s", files->paths[index]);
}

void tn_picture_files_close(tn_dataset *dataset)
{
    tn_picture_files *files = dataset->store;
    if (!files)
        return;
    tn_free(files->paths);
    tn_free(files->labels);
}
