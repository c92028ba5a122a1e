/* The safetensors container: named tensors and a map of strings in one file that other tools open.
 * Layout: u64 little-endian header length, JSON header {name: {dtype, shape, data_offsets},
 * "__metadata__": {string: string}}, data. A checksum of header and data stands in the metadata
 * (key "xxh3_128"), so that a damaged file is told from a valid one. */
#ifndef TERNION_FINETUNE_SAFETENSORS_H
#define TERNION_FINETUNE_SAFETENSORS_H

#include "core/file.h"
#include "core/tensor.h"

#include <jansson.h>

typedef struct tn_named_tensor {
    const char *name;
    tn_tensor tensor; /* FLOAT, DOUBLE, FLOAT16, BFLOAT16, (U)INT8..64 or BOOL */
} tn_named_tensor;

/* Writes atomically, replacing `path`. `metadata` (borrowed, may be NULL) is an object of strings.
 * IO when a write, fsync or rename fails: an older file at `path` is intact then. */
tn_status tn_safetensors_write(const char *path, const tn_named_tensor *tensors, size_t count,
                               const json_t *metadata, tn_error *error) TN_MUST_CHECK;

typedef struct tn_safetensors {
    tn_file_map map;
    json_t *metadata;         /* object of strings */
    tn_named_tensor *tensors; /* borrow names from `header`, data from `map` (perhaps unaligned) */
    size_t count;
    json_t *header;
    bool verified; /* a checksum was there and is right; other tools write none */
} tn_safetensors;

/* Maps and checks a file: sizes, offsets, types and, where present, the checksum. IO when
 * unreadable, USAGE with the reason when it is not a whole and valid file. */
tn_status tn_safetensors_read(const char *path, tn_safetensors *file,
                              tn_error *error) TN_MUST_CHECK;
void tn_safetensors_close(tn_safetensors *file);

const tn_tensor *tn_safetensors_find(const tn_safetensors *file, const char *name); /* or NULL */
const char *tn_safetensors_metadata(const tn_safetensors *file, const char *key);   /* or NULL */

#endif
