/* A regular file read at positions: by many threads at once, and without the SIGBUS that a mapped
 * file gives when somebody cuts it. */
#ifndef TERNION_DATA_SOURCE_H
#define TERNION_DATA_SOURCE_H

#include "core/memory.h"
#include "core/status.h"

#include <stdint.h>

typedef struct tn_source {
    int descriptor; /* -1: not open */
    uint64_t size;
    const char *path; /* borrowed, for messages */
} tn_source;

/* IO when it cannot be opened or is no regular file (FIFOs and devices do not block). */
tn_status tn_source_open(const char *path, tn_source *source, tn_error *error) TN_MUST_CHECK;
void tn_source_close(tn_source *source);

/* Exactly `bytes` from `offset`; DATA when the file ends before. */
tn_status tn_source_read(const tn_source *source, uint64_t offset, void *dst, size_t bytes,
                         tn_error *error) TN_MUST_CHECK;

/* The whole file, at most `limit` bytes (LIMIT otherwise), with a NUL after it; freed by tn_free.
 */
tn_status tn_source_read_all(const char *path, size_t limit, unsigned char **data, size_t *size,
                             tn_error *error) TN_MUST_CHECK;

#endif
