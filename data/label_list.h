/* Text files that say which class a picture has: "path label" or "path,label" lines. */
#ifndef TERNION_DATA_LABEL_LIST_H
#define TERNION_DATA_LABEL_LIST_H

#include "data/reader.h"

typedef struct tn_label_row {
    const char *path, *label;
    size_t line; /* of the file, from 1 */
} tn_label_row;

typedef struct tn_label_list {
    const char *file;
    tn_label_row *rows; /* arena */
    int32_t *labels;    /* arena; by tn_label_list_resolve */
    size_t count;
    int classes;
    const char **class_names; /* arena; NULL: labels are numbers */
} tn_label_list;

/* Reads the first two columns. Separator is ',' (quotes "..." allowed, a header line is skipped) or
 * ' ' (blanks and tabs). Boxes behind a class (LOC_val_solution.csv) are left out. DATA for lines
 * of fewer columns, naming them. */
tn_status tn_label_list_read(tn_dataset *dataset, const char *file, char separator,
                             tn_label_list *list, tn_error *error) TN_MUST_CHECK;

/* Labels to class numbers: whole numbers from 0 (7, or 7.0 as pandas writes them) are the classes
 * themselves; names are numbered in sorted order, or by their place in `known` (sorted; NULL:
 * none). DATA for labels out of range, numbers that begin at 1, numbers among names, names that are
 * not known. */
tn_status tn_label_list_resolve(tn_dataset *dataset, tn_label_list *list, const tn_listing *known,
                                tn_error *error) TN_MUST_CHECK;

/* The place of a name in a sorted listing, or -1. */
int32_t tn_listing_find(const tn_listing *listing, const char *name);

/* Adds all rows as picture files (tn_picture_files_begin comes before): root/folder/path, trying
 * ".JPEG" behind names without an ending. Also finishes the data set. */
tn_status tn_label_list_add_files(tn_dataset *dataset, const tn_label_list *list,
                                  const char *folder, tn_error *error) TN_MUST_CHECK;

#endif
