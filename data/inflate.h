/* Deflate streams inside files, unpacked to a size that is known (and checked) beforehand. */
#ifndef TERNION_DATA_INFLATE_H
#define TERNION_DATA_INFLATE_H

#include "data/source.h"

typedef enum tn_deflate_kind { TN_DEFLATE_RAW, TN_DEFLATE_GZIP } tn_deflate_kind;

/* Deflate cannot shrink further than this: what claims more is a lie. */
enum { TN_DEFLATE_MAX_RATIO = 1032 };

/* The first `bytes` unpacked bytes of the stream in source[offset, offset + packed). With `whole`
 * the stream must end exactly there, checksum included. DATA when it does not. */
tn_status tn_inflate(const tn_source *source, uint64_t offset, uint64_t packed,
                     tn_deflate_kind kind, int whole, void *dst, size_t bytes,
                     tn_error *error) TN_MUST_CHECK;

#endif
