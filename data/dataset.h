/* Labelled images behind one interface, whatever their layout on disk. A data set is found by
 * looking at its path; the finding can be said aloud (tn_dataset_description). */
#ifndef TERNION_DATA_DATASET_H
#define TERNION_DATA_DATASET_H

#include "data/image.h"

#include <stdbool.h>

typedef struct tn_dataset tn_dataset;
typedef struct tn_reader tn_reader; /* one layout: data/reader.h */

typedef enum tn_split {
    TN_SPLIT_TRAIN,
    TN_SPLIT_VAL,
    TN_SPLIT_NONE /* said of a set without parts; never asked for */
} tn_split;

enum { TN_NO_LABEL = -1 }; /* label of a sample of an unlabelled set */

typedef struct tn_dataset_options {
    bool allow_unlabelled; /* calibration: a flat folder of images will do */
} tn_dataset_options;

/* How much of DATA is its path: all but a ":train" or ":val" behind it, unless something of that
 * whole name exists. *split (NULL is fine) becomes what was asked for, if anything was. */
size_t tn_dataset_path_length(const char *spec, tn_split *split);

/* Opens DATA: a folder or file, perhaps followed by ":train" or ":val"; `split` is what is meant
 * without a suffix. A set with one part only is taken whole, unless the suffix asks for what is not
 * there. options may be NULL. DATA when nothing is recognized (the message says what was found) or
 * the set is broken, IO when it cannot be read. */
tn_status tn_dataset_open(const char *spec, tn_split split, const tn_dataset_options *options,
                          tn_dataset **dataset, tn_error *error) TN_MUST_CHECK;
void tn_dataset_close(tn_dataset *dataset); /* NULL is fine */

size_t tn_dataset_count(const tn_dataset *dataset);
int tn_dataset_classes(const tn_dataset *dataset); /* 0 when unlabelled */
const char *tn_dataset_class_name(const tn_dataset *dataset, int label);
int32_t tn_dataset_label(const tn_dataset *dataset, size_t index); /* or TN_NO_LABEL */
/* "CIFAR-10 binary, validation part: 1017 images of 32x32, 10 classes" */
const char *tn_dataset_description(const tn_dataset *dataset);
const char *tn_dataset_reader_id(const tn_dataset *dataset);
/* How many pictures were left out for their format (.bmp, .webp and so on). */
size_t tn_dataset_unread(const tn_dataset *dataset);
/* Which part was opened, whatever was meant. */
tn_split tn_dataset_part(const tn_dataset *dataset);
/* Where each sample comes from, for messages: "test_batch.bin#17", "n01443537/images/x.JPEG". */
void tn_dataset_sample_name(const tn_dataset *dataset, size_t index, char *name, size_t size);

/* The common shape of all samples; width 0 where it varies. channels is 1, 3 or an array's. */
typedef struct tn_sample_shape {
    int width, height, channels;
    bool is_float; /* samples have values, not pixels */
    bool prepared; /* and these are what the network reads: no preprocessing applies */
} tn_sample_shape;
tn_sample_shape tn_dataset_shape(const tn_dataset *dataset);

/* Fingerprint (xxh3) of layout, names, sizes, labels and, for binary layouts, contents. */
uint64_t tn_dataset_hash(const tn_dataset *dataset);

/* Decodes sample `index` into `image` (reuses its memory). May be called from many threads at once.
 * DATA when the sample is corrupt, naming it. */
tn_status tn_dataset_read(const tn_dataset *dataset, size_t index, tn_image *image,
                          tn_error *error) TN_MUST_CHECK;

/* `n` different samples drawn by the seed's permutation, in order of drawing; n <= count. */
tn_status tn_dataset_draw(const tn_dataset *dataset, uint64_t seed, size_t n, uint32_t *indices,
                          tn_error *error) TN_MUST_CHECK;

/* All layouts that can be read, for the catalog. */
size_t tn_reader_count(void);
const char *tn_reader_id(size_t which);
const char *tn_reader_summary(size_t which);

#endif
