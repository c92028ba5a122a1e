/* Private to onnx_io: what a model keeps beside its ModelProto. */
#ifndef TERNION_ONNX_IO_MODEL_STORE_H
#define TERNION_ONNX_IO_MODEL_STORE_H

#include "onnx_io/model.h"
#include "onnx_io/names.h"

enum { TN_GROWN_LISTS = 4 };

struct tn_model_store {
    struct tn_model_map *maps; /* the file itself and external data files, newest first */
    uint64_t quota, used;      /* unpacking budget in bytes */
    bool over_quota, out_of_memory;
    tn_names taken; /* names edits must not reuse; built by the first tn_edit_unique_name */
    struct {
        void *list; /* repeated fields that edits grew, and the room they have */
        size_t capacity;
    } grown[TN_GROWN_LISTS];
    size_t next_grown;
};

struct tn_model_map {
    struct tn_model_map *next;
    tn_file_map map;
    bool borrowed; /* another model closes it */
};

/* An empty model with its store; proto is NULL. NULL when out of memory. */
tn_model *tn_model_new(const char *path);

/* Hands a map over to the model, which closes it unless it is borrowed. False (and the map stays
 * the caller's) when out of memory. */
bool tn_model_keep_map(tn_model *model, const tn_file_map *map, bool borrowed);

#endif
