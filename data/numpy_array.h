/* One array of a .npy file, or of a member of an .npz (zip), its header checked against the bytes
 * that are there before anything is allocated. */
#ifndef TERNION_DATA_NUMPY_ARRAY_H
#define TERNION_DATA_NUMPY_ARRAY_H

#include "core/tensor.h"
#include "data/source.h"

typedef struct tn_numpy_place { /* where the bytes of a .npy lie */
    uint64_t offset, packed, bytes;
    int deflated;
} tn_numpy_place;

typedef struct tn_numpy_array {
    tn_dtype dtype; /* of numeric types, little-endian */
    int rank;
    size_t dims[TN_MAX_RANK];
    size_t header;   /* bytes before the elements */
    size_t elements; /* bytes of them */
    tn_numpy_place place;
} tn_numpy_array;

/* The place of member `name`.npy in an open .npz; *found is false when there is none. DATA for a
 * broken or encrypted archive. */
tn_status tn_npz_find(const tn_source *source, const char *name, tn_numpy_place *place, bool *found,
                      tn_error *error) TN_MUST_CHECK;

/* Reads the header of a whole .npy file (place NULL) or of a member. DATA for object, structured,
 * big-endian and Fortran-ordered arrays, headers over 10,000 bytes, and sizes that do not fit. */
tn_status tn_numpy_open(const tn_source *source, const tn_numpy_place *place, tn_numpy_array *array,
                        tn_error *error) TN_MUST_CHECK;

/* All elements into memory (tn_free). */
tn_status tn_numpy_load(const tn_source *source, const tn_numpy_array *array,
                        unsigned char **elements, tn_error *error) TN_MUST_CHECK;

/* Writes a whole .npy file (format 1.0, little-endian float32, C order), atomically. values:
 * the product of dims[rank], rank 1 to TN_MAX_RANK. */
tn_status tn_numpy_write(const char *path, bool replace, const float *values, int rank,
                         const size_t *dims, tn_error *error) TN_MUST_CHECK;

#endif
