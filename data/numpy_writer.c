#include "data/numpy_array.h"

#include "core/file.h"

#include <stdio.h>
#include <string.h>

/* Magic, version 1.0, length and text, padded so that the elements begin at a multiple of 64. */
enum { FIXED = 10, ALIGNMENT = 64, HEADER = 8 * ALIGNMENT };

tn_status tn_numpy_write(const char *path, bool replace, const float *values, int rank,
                         const size_t *dims, tn_error *error)
{
    char head[HEADER] = "\x93NUMPY\x01", shape[HEADER - 2 * ALIGNMENT] = "";
    size_t count = 1, at = 0;
    for (int i = 0; i < rank; i++) {
        at += (size_t)snprintf(shape + at, sizeof shape - at, "%zu, ", dims[i]);
        count *= dims[i];
    }
    int text = snprintf(head + FIXED, sizeof head - FIXED,
                        "{'descr': '<f4', 'fortran_order': False, 'shape': (%s), }", shape);
    size_t used = FIXED + (size_t)text + 1, whole = (used + ALIGNMENT - 1) / ALIGNMENT * ALIGNMENT;
    memset(head + FIXED + text, ' ', whole - FIXED - (size_t)text);
    head[whole - 1] = '\n';
    head[8] = (char)((whole - FIXED) & 255);
    head[9] = (char)((whole - FIXED) >> 8);
    tn_file_writer *writer = NULL;
    tn_status status = tn_file_writer_open(path, replace, &writer, error);
    if (status == TN_OK)
        status = tn_file_writer_write(writer, head, whole, error);
    if (status == TN_OK)
        status = tn_file_writer_write(writer, values, count * sizeof *values, error);
    if (status == TN_OK)
        return tn_file_writer_commit(writer, error);
    tn_file_writer_discard(writer);
    return status;
}
