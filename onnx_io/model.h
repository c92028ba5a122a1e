/* A model as it was read: the unpacked ModelProto, kept whole so that what is not converted is
 * written back untouched, with payloads of 4 KiB and more left in the mapped file. */
#ifndef TERNION_ONNX_IO_MODEL_H
#define TERNION_ONNX_IO_MODEL_H

#include "core/file.h"
#include "core/memory.h"
#include "core/reporter.h"
#include "core/tensor.h"
#include "proto/onnx.pb-c.h"

typedef struct tn_model {
    Onnx__ModelProto *proto; /* every edit below it allocates from `arena` (see edit.h) */
    char *path;              /* "" for a model built in memory */
    int64_t ir_version;
    int64_t opset; /* of the default domain "" / "ai.onnx" */
    tn_arena arena;
    struct tn_model_store *store; /* reader's: maps, spans, unpacked skeleton */
} tn_model;

typedef struct tn_read_options {
    uint64_t max_memory; /* unpacking quota in bytes; 0: 64 MiB + 4 x file */
    bool allow_symlinks; /* external data behind symbolic links */
    const tn_reporter *reporter;
} tn_read_options;

/* Reads, pre-scans, unpacks and checks a file (structure, names, payload sizes, opsets 7 to 25, IR
 * 3 to 13). MODEL when broken or unsupported, IO when unreadable, LIMIT over the quota. The caller
 * destroys it with tn_model_destroy. options may be NULL. */
tn_status tn_model_read(const char *path, const tn_read_options *options, tn_model **model,
                        tn_error *error) TN_MUST_CHECK;

/* The same for bytes in memory (borrowed until tn_model_destroy); external data is refused. */
tn_status tn_model_read_bytes(const unsigned char *bytes, size_t size,
                              const tn_read_options *options, tn_model **model,
                              tn_error *error) TN_MUST_CHECK;

/* An empty model: one graph `name`, the given IR and opset. For zoo/ and tests. */
tn_status tn_model_create(const char *graph_name, int64_t ir_version, int64_t opset,
                          tn_model **model, tn_error *error) TN_MUST_CHECK;

void tn_model_destroy(tn_model *model); /* NULL is fine */

/* An independent copy that can be edited while the original stays as it was. Payloads are shared:
 * the original must outlive the copy. */
tn_status tn_model_copy(const tn_model *model, tn_model **copy, tn_error *error) TN_MUST_CHECK;

/* A view of a TensorProto's elements: borrows from the map where it can (raw_data, external data;
 * perhaps unaligned), owns where it must convert (typed fields). Release with tn_tensor_done. */
tn_status tn_model_tensor(const tn_model *model, const Onnx__TensorProto *proto, tn_tensor *tensor,
                          tn_error *error) TN_MUST_CHECK;

/* Optional strings of protobuf-c are NULL when absent: this gives "" then. */
const char *tn_text(const char *optional);

/* Once the weights are copied: the pages of the model's files leave the process's memory. */
void tn_model_forget_pages(const tn_model *model);

const char *tn_model_metadata(const tn_model *model, const char *key); /* NULL when absent */

typedef enum tn_external { TN_EXTERNAL_AUTO, TN_EXTERNAL_NEVER, TN_EXTERNAL_ALWAYS } tn_external;

typedef struct tn_write_options {
    bool replace;         /* overwrite an existing output (never the input) */
    tn_external external; /* AUTO: one file OUT.data beside OUT above 1.8 GB */
} tn_write_options;

/* Writes atomically (temp, fsync, rename). *bytes (may be NULL) is what was written in all files.
 */
tn_status tn_model_write(const tn_model *model, const char *path, const tn_write_options *options,
                         uint64_t *bytes, tn_error *error) TN_MUST_CHECK;

#endif
