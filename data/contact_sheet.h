/* A picture of pictures: what a data set looks like, for people. */
#ifndef TERNION_DATA_CONTACT_SHEET_H
#define TERNION_DATA_CONTACT_SHEET_H

#include "data/dataset.h"

/* Writes `n` samples (drawn by the seed; all when there are fewer) as a PNG of square tiles, sorted
 * by class. Corrupt ones show as a red cross. Arrays of floats are scaled to their own range. */
tn_status tn_contact_sheet_write(const tn_dataset *dataset, size_t n, uint64_t seed,
                                 const char *path, int replace, tn_error *error) TN_MUST_CHECK;

#endif
