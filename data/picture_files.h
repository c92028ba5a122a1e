/* Picture files with labels: what image folders, lists and CSV files have in common. */
#ifndef TERNION_DATA_PICTURE_FILES_H
#define TERNION_DATA_PICTURE_FILES_H

#include "data/reader.h"

typedef struct tn_picture_files {
    const char *root;   /* relative paths start here */
    const char **paths; /* heap */
    int32_t *labels;    /* heap */
    size_t room;
} tn_picture_files;

/* Makes the data set's store; `root` must live as long as the data set. */
tn_status tn_picture_files_begin(tn_dataset *dataset, const char *root,
                                 tn_error *error) TN_MUST_CHECK;

/* Adds one; `path` (relative to root, or absolute) must live as long as the data set. */
tn_status tn_picture_files_add(tn_dataset *dataset, const char *path, int32_t label,
                               tn_error *error) TN_MUST_CHECK;

/* Adds all pictures below root/relative, sorted, depth first. */
tn_status tn_picture_files_walk(tn_dataset *dataset, const char *relative, int32_t label,
                                tn_error *error) TN_MUST_CHECK;

/* Hands the labels to the data set: the last call of open. */
void tn_picture_files_finish(tn_dataset *dataset, int classes, const char **class_names);

/* A reader's hooks. */
tn_status tn_picture_files_read(const tn_dataset *dataset, size_t index, tn_image *image,
                                tn_error *error) TN_MUST_CHECK;
void tn_picture_files_name(const tn_dataset *dataset, size_t index, char *name, size_t size);
void tn_picture_files_close(tn_dataset *dataset);

#endif
