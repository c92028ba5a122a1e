/* A CSV file of path,label rows: DATA is the file, or a folder with labels.csv (or train.csv and
 * val.csv). Paths are relative to the file's folder. */
#include "data/label_list.h"
#include "data/picture_files.h"

#include <stdio.h>
#include <string.h>

static const char *const train_files[] = {"train.csv", NULL};
static const char *const val_files[] = {"val.csv", "valid.csv", "test.csv", NULL};
static const char *const whole_files[] = {"labels.csv", NULL};

static bool is_csv(const char *path)
{
    size_t n = strlen(path);
    return n > 4 && strcmp(path + n - 4, ".csv") == 0;
}

static bool match(const tn_location *where)
{
    if (!where->is_folder)
        return is_csv(where->path);
    return tn_path_first_file(where->path, train_files) ||
           tn_path_first_file(where->path, val_files) ||
           tn_path_first_file(where->path, whole_files);
}

/* The list of the part, else labels.csv, else the other part's. labels.csv beside a list of the
 * validation part is for training. *training becomes the list of the training part where another
 * one is chosen, or NULL. */
static tn_status choose_list(tn_dataset *dataset, const tn_location *where, const char **name,
                             const char **training, tn_error *error)
{
    const char *val = tn_path_first_file(where->path, val_files);
    const char *whole = tn_path_first_file(where->path, whole_files);
    const char *train = tn_path_first_file(where->path, train_files);
    if (!train && val) {
        train = whole;
        whole = NULL;
    }
    const char *lists[] = {train, val, whole};
    const tn_split other = where->split == TN_SPLIT_TRAIN ? TN_SPLIT_VAL : TN_SPLIT_TRAIN;
    dataset->part = lists[where->split] ? where->split : whole ? TN_SPLIT_NONE : other;
    *name = lists[dataset->part];
    *training = dataset->part == TN_SPLIT_VAL ? train : NULL;
    if (where->split_asked && dataset->part == other)
        return tn_fail(error, TN_ERROR_DATA, "%s has no %s (a file %s)", tn_quote(where->path),
                       tn_split_phrase(where->split),
                       where->split == TN_SPLIT_TRAIN ? train_files[0] : val_files[0]);
    return TN_OK;
}

/* Class numbers as the training part has them: a part may lack some of its classes. */
static tn_status resolve_beside(tn_dataset *dataset, const char *training, tn_label_list *list,
                                tn_error *error)
{
    tn_label_list train;
    tn_status status = tn_label_list_read(dataset, training, ',', &train, error);
    if (status == TN_OK)
        status = tn_label_list_resolve(dataset, &train, NULL, error);
    if (status != TN_OK)
        return status;
    const tn_listing known = {train.class_names, NULL, (size_t)train.classes};
    status = tn_label_list_resolve(dataset, list, train.class_names ? &known : NULL, error);
    if (status == TN_OK && !list->class_names != !train.class_names)
        return tn_fail(error, TN_ERROR_DATA,
                       "the classes of %s are %s, those of %s are %s: write both alike",
                       tn_quote(list->file), list->class_names ? "names" : "numbers",
                       tn_quote(training), train.class_names ? "names" : "numbers");
    if (status == TN_OK && list->classes < train.classes)
        list->classes = train.classes;
    return status;
}

static tn_status open_csv(tn_dataset *dataset, const tn_location *where, tn_error *error)
{
    tn_label_list list;
    tn_arena *arena = &dataset->arena;
    const char *root = where->path, *file = where->path, *training = NULL;
    tn_status status = TN_OK;
    if (where->is_folder) {
        const char *name = NULL;
        status = choose_list(dataset, where, &name, &training, error);
        if (status != TN_OK)
            return status;
        file = tn_path_join(arena, where->path, name ? name : "");
        if (training && !(training = tn_path_join(arena, where->path, training)))
            file = NULL;
    } else {
        const char *slash = strrchr(where->path, '/');
        root =
            slash ? tn_arena_strndup(arena, where->path, (size_t)(slash - where->path) + 1) : ".";
    }
    if (!file || !root)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a data set");
    status = tn_label_list_read(dataset, file, ',', &list, error);
    if (status == TN_OK)
        status = training ? resolve_beside(dataset, training, &list, error)
                          : tn_label_list_resolve(dataset, &list, NULL, error);
    if (status == TN_OK)
        status = tn_picture_files_begin(dataset, root, error);
    if (status == TN_OK)
        status = tn_label_list_add_files(dataset, &list, "", error);
    if (status == TN_OK)
        snprintf(dataset->description, sizeof dataset->description,
                 "CSV of paths and labels: %zu images, %d classes", dataset->count,
                 dataset->classes);
    return status;
}

const tn_reader tn_reader_csv = {
    .id = "csv",
    .summary = "CSV file of path,label rows (or a folder with labels.csv, train.csv, val.csv)",
    .match = match,
    .open = open_csv,
    .read = tn_picture_files_read,
    .name = tn_picture_files_name,
    .close = tn_picture_files_close,
};
