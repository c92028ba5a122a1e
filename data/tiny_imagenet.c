/* Tiny ImageNet in its own layout: pictures in train/WNID/images, and in val/images with
 * val/val_annotations.txt; wnids.txt. Class numbers follow the sorted wnids. */
#include "data/label_list.h"
#include "data/picture_files.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const annotations[] = {"val/val_annotations.txt", NULL};
static const char *const bare_annotations[] = {"val_annotations.txt", NULL};
static const char *const train_folder[] = {"train", NULL};

static bool match(const tn_location *where)
{
    return where->is_folder && (tn_path_first_file(where->path, annotations) ||
                                tn_path_first_file(where->path, bare_annotations));
}

static int compare_names(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* The class folders: from wnids.txt, or where that is missing from train/. */
static tn_status read_classes(tn_dataset *dataset, const char *root, tn_listing *classes,
                              tn_error *error)
{
    tn_arena *arena = &dataset->arena;
    const char *file = tn_path_join(arena, root, "wnids.txt");
    const char *train = tn_path_join(arena, root, "train");
    unsigned char *text = NULL;
    size_t size, n = 0;
    if (!file || !train)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    classes->count = 0;
    tn_status status = TN_OK;
    if (!tn_path_is_file(file)) {
        if (tn_path_is_folder(train))
            status = tn_listing_read(arena, train, classes, error);
        tn_listing_keep_folders(classes);
        return status;
    }
    status = tn_source_read_all(file, 1 << 20, &text, &size, error);
    if (status != TN_OK)
        return status;
    const char **names = tn_arena_array(arena, size / 2 + 1, sizeof *names);
    char *rest = (char *)text;
    for (char *line; names && (line = strsep(&rest, "\n"));) {
        line[strcspn(line, "\r \t")] = 0;
        if (*line && !(names[n++] = tn_arena_strdup(arena, line)))
            names = NULL;
    }
    tn_free(text);
    if (!names)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the classes");
    qsort(names, n, sizeof *names, compare_names);
    *classes = (tn_listing){names, NULL, n};
    return TN_OK;
}

static tn_status open_train(tn_dataset *dataset, const char *root, const tn_listing *classes,
                            tn_error *error)
{
    const char *train = tn_path_join(&dataset->arena, root, "train");
    if (!train)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    tn_status status = tn_picture_files_begin(dataset, train, error);
    for (size_t i = 0; status == TN_OK && i < classes->count; i++)
        status = tn_picture_files_walk(dataset, classes->names[i], (int32_t)i, error);
    if (status == TN_OK)
        tn_picture_files_finish(dataset, (int)classes->count, classes->names);
    return status;
}

static tn_status open_val(tn_dataset *dataset, const char *folder, const tn_listing *classes,
                          tn_error *error)
{
    tn_label_list list;
    const char *file = tn_path_join(&dataset->arena, folder, "val_annotations.txt");
    if (!file)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    tn_status status = tn_label_list_read(dataset, file, ' ', &list, error);
    if (status == TN_OK)
        status = tn_label_list_resolve(dataset, &list, classes->count ? classes : NULL, error);
    if (status == TN_OK)
        status = tn_picture_files_begin(dataset, folder, error);
    if (status == TN_OK)
        status = tn_label_list_add_files(dataset, &list, "images", error);
    return status;
}

static tn_status open_tiny(tn_dataset *dataset, const tn_location *where, tn_error *error)
{
    tn_listing classes = {0};
    tn_arena *arena = &dataset->arena;
    bool bare = tn_path_first_file(where->path, bare_annotations) != NULL;
    bool has_train = !bare && tn_path_first_folder(where->path, train_folder);
    const char *root = bare ? tn_path_join(arena, where->path, "..") : where->path;
    const char *val = bare ? where->path : tn_path_join(arena, where->path, "val");
    if (!root || !val)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    bool train = where->split == TN_SPLIT_TRAIN && has_train;
    if (where->split == TN_SPLIT_TRAIN && where->split_asked && !has_train)
        return tn_fail(error, TN_ERROR_DATA, "%s has no training part (a folder train)",
                       tn_quote(where->path));
    dataset->part = train ? TN_SPLIT_TRAIN : TN_SPLIT_VAL;
    tn_status status = read_classes(dataset, root, &classes, error);
    if (status == TN_OK)
        status = train ? open_train(dataset, root, &classes, error)
                       : open_val(dataset, val, &classes, error);
    if (status == TN_OK)
        snprintf(dataset->description, sizeof dataset->description,
                 "Tiny ImageNet, %s: %zu images, %d classes", tn_split_phrase(dataset->part),
                 dataset->count, dataset->classes);
    return status;
}

const tn_reader tn_reader_tiny_imagenet = {
    .id = "tiny-imagenet",
    .summary = "Tiny ImageNet: train/WNID/images, val/images with val_annotations.txt",
    .match = match,
    .open = open_tiny,
    .read = tn_picture_files_read,
    .name = tn_picture_files_name,
    .close = tn_picture_files_close,
};
