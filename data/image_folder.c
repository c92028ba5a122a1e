/* Folders of pictures, one folder a class (class = sorted names), perhaps below train/ and
 * val/ (valid/, validation/, test/). Pictures may lie deeper inside a class. */
#include "data/label_list.h"
#include "data/picture_files.h"

#include <stdio.h>
#include <string.h>

static const char *const train_names[] = {"train", "training", NULL};
static const char *const val_names[] = {"val", "valid", "validation", "test", NULL};

static bool match(const tn_location *where)
{
    return where->is_folder;
}

/* The names of the folders in `folder`. */
static tn_status list_classes(tn_dataset *dataset, const char *folder, tn_listing *classes,
                              size_t *pictures, tn_error *error)
{
    tn_status status = tn_listing_read(&dataset->arena, folder, classes, error);
    if (status != TN_OK)
        return status;
    *pictures = 0;
    for (size_t i = 0; i < classes->count; i++)
        *pictures += tn_path_is_image(classes->names[i]);
    tn_listing_keep_folders(classes);
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
    for (size_t i = 0; status == TN_OK && i < listing.count; i++) {
        dataset->unread += tn_path_is_unread_image(listing.names[i]);
        if (tn_path_is_image(listing.names[i]))
            status = tn_picture_files_add(dataset, listing.names[i], TN_NO_LABEL, error);
    }
    snprintf(dataset->description, sizeof dataset->description,
             "flat folder without labels: %zu images", dataset->count);
    return status;
}

/* Which part of `where` is read, and the folder whose subfolders name the classes. */
static tn_status choose_root(tn_dataset *dataset, const tn_location *where, const char **root,
                             const char **names_root, tn_error *error)
{
    const char *train = tn_path_first_folder(where->path, train_names);
    const char *val = tn_path_first_folder(where->path, val_names);
    const char *part = where->split == TN_SPLIT_TRAIN ? train : val;
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
    dataset->part = part == train ? TN_SPLIT_TRAIN : TN_SPLIT_VAL;
    *root = tn_path_join(&dataset->arena, where->path, part);
    *names_root =
        part == train || !train ? *root : tn_path_join(&dataset->arena, where->path, train);
    if (!*root || !*names_root)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    return TN_OK;
}

static tn_status walk_classes(tn_dataset *dataset, const tn_listing *here,
                              const tn_listing *classes, const char *root, tn_error *error)
{
    for (size_t i = 0; i < here->count; i++) {
        int32_t label = tn_listing_find(classes, here->names[i]);
        if (label < 0)
            return tn_fail(error, TN_ERROR_DATA,
                           "%s holds a class %s that the training part does not have: the class "
                           "numbers would not fit together",
                           tn_quote(root), tn_quote(here->names[i]));
        size_t before = dataset->count;
        tn_status status = tn_picture_files_walk(dataset, here->names[i], label, error);
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
    const char *root = NULL, *names_root = NULL;
    tn_listing here, classes;
    size_t pictures, others;
    tn_status status = choose_root(dataset, where, &root, &names_root, error);
    if (status != TN_OK)
        return status;
    status = tn_picture_files_begin(dataset, root, error);
    if (status != TN_OK)
        return status;
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
    tn_picture_files_finish(dataset, (int)classes.count, classes.names);
    const bool parted = dataset->part != TN_SPLIT_NONE;
    snprintf(dataset->description, sizeof dataset->description,
             "image folders%s%s: %zu images, %d classes", parted ? ", " : "",
             parted ? tn_split_phrase(dataset->part) : "", dataset->count, dataset->classes);
    return TN_OK;
}

const tn_reader tn_reader_image_folder = {
    .id = "image-folder",
    .summary = "one folder of JPEG or PNG pictures per class, perhaps below train/ and val/",
    .match = match,
    .open = open_folder,
    .read = tn_picture_files_read,
    .name = tn_picture_files_name,
    .close = tn_picture_files_close,
};
