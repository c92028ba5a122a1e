/* A flat folder of validation pictures with a list beside (or above) it: lines "FILE CLASS", or
 * Kaggle's LOC_val_solution.csv. Classes are numbers from 0, or names numbered in sorted order (by
 * the folders of train/ where it is there). */
#include "data/label_list.h"
#include "data/picture_files.h"

#include <stdio.h>
#include <string.h>

static const char *const lists[] = {"val.txt",
                                    "val_list.txt",
                                    "ILSVRC2012_val.txt",
                                    "ILSVRC2012_validation_ground_truth.txt",
                                    "labels.txt",
                                    "LOC_val_solution.csv",
                                    NULL};
static const char *const folders[] = {"val", "valid", "validation", "test", NULL};
static const char *const train_folder[] = {"train", NULL};

typedef struct list_place {
    bool nested;      /* pictures lie in a subfolder of the path */
    const char *part; /* that subfolder, or "" */
    const char *list; /* name of the list */
    bool list_inside; /* in the subfolder, not in the path itself */
} list_place;

static bool find_place(const char *path, list_place *place)
{
    char inner[4096];
    const char *part = tn_path_first_folder(path, folders);
    *place = (list_place){.nested = part != NULL, .part = part ? part : ""};
    int n = snprintf(inner, sizeof inner, "%s/%s", path, place->part);
    if (n < 0 || (size_t)n >= sizeof inner)
        return false;
    place->list = tn_path_first_file(inner, lists);
    place->list_inside = place->list != NULL;
    if (!place->list)
        place->list = tn_path_first_file(path, lists);
    /* no folder of class folders: pictures directly inside */
    return place->list && tn_path_count_fitting(inner, tn_path_is_image, 1, NULL, 0) > 0;
}

static bool match(const tn_location *where)
{
    list_place place;
    if (!where->is_folder || !find_place(where->path, &place))
        return false;
    /* the training part, if it is wanted and there, is a folder of class folders */
    return where->split == TN_SPLIT_VAL || !tn_path_first_folder(where->path, train_folder);
}

static tn_status open_list(tn_dataset *dataset, const tn_location *where, tn_error *error)
{
    list_place place;
    tn_label_list list;
    tn_listing known = {0};
    tn_arena *arena = &dataset->arena;
    if (!find_place(where->path, &place))
        return tn_fail(error, TN_ERROR_IO, "%s changed while it was read", tn_quote(where->path));
    const char *root = place.nested ? tn_path_join(arena, where->path, place.part) : where->path;
    const char *file =
        root ? tn_path_join(arena, place.list_inside ? root : where->path, place.list) : NULL;
    const char *train = tn_path_join(arena, where->path, "train");
    if (!file || !train)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    if (where->split == TN_SPLIT_TRAIN && where->split_asked)
        return tn_fail(error, TN_ERROR_DATA, "%s has no training part (a folder train)",
                       tn_quote(where->path));
    dataset->part = TN_SPLIT_VAL;
    bool csv = strstr(place.list, ".csv") != NULL;
    tn_status status = tn_label_list_read(dataset, file, csv ? ',' : ' ', &list, error);
    if (status == TN_OK && tn_path_is_folder(train))
        status = tn_listing_read(arena, train, &known, error);
    tn_listing_keep_folders(&known);
    if (status == TN_OK)
        status = tn_label_list_resolve(dataset, &list, known.count ? &known : NULL, error);
    if (status == TN_OK)
        status = tn_picture_files_begin(dataset, root, error);
    if (status == TN_OK)
        status = tn_label_list_add_files(dataset, &list, "", error);
    if (status == TN_OK)
        snprintf(dataset->description, sizeof dataset->description,
                 "flat validation folder with the list %.60s: %zu images, %d classes", place.list,
                 dataset->count, dataset->classes);
    return status;
}

const tn_reader tn_reader_imagenet_list = {
    .id = "imagenet-list",
    .summary = "flat folder of pictures with val.txt (lines FILE CLASS) or LOC_val_solution.csv",
    .match = match,
    .open = open_list,
    .read = tn_picture_files_read,
    .name = tn_picture_files_name,
    .close = tn_picture_files_close,
};
