/* What one reader provides, and what readers share. Internal to data/. */
#ifndef TERNION_DATA_READER_H
#define TERNION_DATA_READER_H

#include "core/memory.h"
#include "data/dataset.h"
#include "data/source.h"

/* What was asked for. */
typedef struct tn_location {
    const char *path; /* without suffix */
    bool is_folder;
    tn_split split;
    bool split_asked; /* by suffix: a missing part is an error */
    bool allow_unlabelled;
} tn_location;

struct tn_reader {
    const char *id, *summary;
    /* Cheap look at names and first bytes. */
    bool (*match)(const tn_location *where);
    /* Fills the data set: count, classes, class_names, labels, shape, description, hash, store, and
     * the part where there are parts. */
    tn_status (*open)(tn_dataset *dataset, const tn_location *where, tn_error *error);
    tn_status (*read)(const tn_dataset *dataset, size_t index, tn_image *image, tn_error *error);
    void (*name)(const tn_dataset *dataset, size_t index, char *name, size_t size);
    void (*close)(tn_dataset *dataset); /* what lies outside the arena; may be NULL */
};

struct tn_dataset {
    const tn_reader *reader;
    tn_split part; /* what was opened */
    size_t count;
    int classes;
    const char **class_names; /* NULL: the numbers are the names */
    int32_t *labels;          /* NULL: unlabelled */
    tn_sample_shape shape;
    char description[256];
    size_t unread; /* pictures left out for their format */
    uint64_t hash;
    void *store; /* the reader's own */
    tn_arena arena;
};

extern const tn_reader tn_reader_cifar_binary;
extern const tn_reader tn_reader_tiny_imagenet;
extern const tn_reader tn_reader_imagenet_list;
extern const tn_reader tn_reader_csv;
extern const tn_reader tn_reader_idx;
extern const tn_reader tn_reader_webdataset;
extern const tn_reader tn_reader_numpy;
extern const tn_reader tn_reader_cifar_python;
extern const tn_reader tn_reader_image_folder;

/* "training part", "validation part", "one part" */
const char *tn_split_phrase(tn_split split);

/* Mixes `bytes` into the fingerprint. */
void tn_dataset_hash_add(tn_dataset *dataset, const void *bytes, size_t size);

/* dir/name in memory of the arena; NULL when out of memory. */
char *tn_path_join(tn_arena *arena, const char *folder, const char *name);

bool tn_path_is_folder(const char *path);
bool tn_path_is_file(const char *path);
/* The first of the NULL-ended `names` that exists in `folder` as a folder (or file); NULL if none.
 */
const char *tn_path_first_folder(const char *folder, const char *const *names);
const char *tn_path_first_file(const char *folder, const char *const *names);

/* How many entries of the folder (hidden ones left out; counting stops at `most`) have names that
 * fit; the last of them in `name` of `size` bytes (may be NULL). Needs no memory: for matching. */
size_t tn_path_count_fitting(const char *folder, bool (*fits)(const char *name), size_t most,
                             char *name, size_t size);

/* True for names that end in .jpg .jpeg .png, in either case. */
bool tn_path_is_image(const char *name);

/* True for names of pictures in formats that are not read: .bmp, .webp and so on. */
bool tn_path_is_unread_image(const char *name);

/* The entries of a folder, sorted by bytes; hidden ones left out. */
typedef struct tn_listing {
    const char **names; /* arena */
    bool *is_folder;
    size_t count;
} tn_listing;
tn_status tn_listing_read(tn_arena *arena, const char *folder, tn_listing *listing,
                          tn_error *error) TN_MUST_CHECK;
/* Leaves the folders: what else lies beside class folders is no class. */
void tn_listing_keep_folders(tn_listing *listing);

/* Reads a picture file and decodes it; DATA errors name `name`. */
tn_status tn_image_read_file(const char *path, const char *name, tn_image *image,
                             tn_error *error) TN_MUST_CHECK;

/* Three planes of side x side bytes (red, green, blue) at an offset; side <= 32. */
tn_status tn_image_read_planes(const tn_source *source, uint64_t offset, int side, tn_image *image,
                               tn_error *error) TN_MUST_CHECK;

#endif
