/* Files: read-only maps and atomic writes. A written file appears whole or not at all. */
#ifndef TERNION_CORE_FILE_H
#define TERNION_CORE_FILE_H

#include "core/status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tn_file_map {
    const unsigned char *data; /* NULL when the file is empty */
    size_t size;
    uint64_t device, inode; /* identity, to refuse writing over an input */
} tn_file_map;

/* Maps a regular file; IO when it cannot be opened or is no regular file. */
tn_status tn_file_map_open(const char *path, tn_file_map *map, tn_error *error) TN_MUST_CHECK;
/* The same for a descriptor that is open already (not closed here); `name` is for messages. */
tn_status tn_file_map_descriptor(int descriptor, const char *name, tn_file_map *map,
                                 tn_error *error) TN_MUST_CHECK;
void tn_file_map_close(tn_file_map *map);
/* Gives the resident pages back; what is read again comes from the page cache or the disk. */
void tn_file_map_forget(const tn_file_map *map);

/* An output file under construction: an unnamed (O_TMPFILE) or O_EXCL temporary in the folder of
 * `path`. Nothing is visible at `path` before tn_file_writer_commit, which checks every write,
 * fsyncs, renames and fsyncs the folder. SIGKILL leaves nothing behind; only between the last two
 * system calls of a replacing commit, and on file systems without O_TMPFILE, it may leave a
 * ".NAME.(16 hex digits).tmp". */
typedef struct tn_file_writer tn_file_writer;

/* replace = false: an existing `path` is an error (USAGE) and stays untouched. */
tn_status tn_file_writer_open(const char *path, bool replace, tn_file_writer **writer,
                              tn_error *error) TN_MUST_CHECK;
/* Buffered; large blocks go straight to write(2). Failures are remembered until commit too. */
tn_status tn_file_writer_write(tn_file_writer *writer, const void *data, size_t bytes,
                               tn_error *error) TN_MUST_CHECK;
uint64_t tn_file_writer_position(const tn_file_writer *writer);
/* All that can fail for want of space: flush and fsync. Commit does it when it was not called. */
tn_status tn_file_writer_finish(tn_file_writer *writer, tn_error *error) TN_MUST_CHECK;
/* Takes the writer, whatever the result. */
tn_status tn_file_writer_commit(tn_file_writer *writer, tn_error *error) TN_MUST_CHECK;
/* Takes the writer and leaves nothing behind. NULL is fine. */
void tn_file_writer_discard(tn_file_writer *writer);

/* Whole small file into memory (freed by tn_free), at most `limit` bytes (LIMIT otherwise); the
 * text is followed by a NUL that is not counted. */
tn_status tn_file_read(const char *path, size_t limit, unsigned char **data, size_t *size,
                       tn_error *error) TN_MUST_CHECK;

/* True when both paths name the same existing file (device and inode). */
bool tn_file_is_same(const char *a, const char *b);

#endif
