/* The walk over a model file's wire format that comes before any unpacking: it bounds what
 * protobuf-c does not (depth, number of messages, repeated singular fields), checks strings, and
 * finds the large payloads that stay in the mapped file. */
#ifndef TERNION_ONNX_IO_SCAN_H
#define TERNION_ONNX_IO_SCAN_H

#include "core/status.h"

#include <stddef.h>
#include <stdint.h>

enum {
    TN_SCAN_DEPTH = 100,        /* messages within messages */
    TN_SCAN_SUBGRAPHS = 32,     /* graphs within the main graph */
    TN_SCAN_MESSAGES = 1000000, /* of each kind */
    TN_SCAN_LIFTED = 4096       /* payloads of this many bytes and more are lifted */
};

/* A payload of a TensorProto that the skeleton leaves out. */
typedef struct tn_span {
    uint32_t field;       /* TensorProto field: raw_data, float_data or double_data */
    size_t begin, end;    /* of the whole field, tag included */
    size_t offset, bytes; /* of the payload */
} tn_span;

/* The length prefix of a message that holds spans: `width` bytes at `at` are to say `length`. */
typedef struct tn_length_patch {
    size_t at;
    uint32_t width, length;
} tn_length_patch;

typedef struct tn_scan {
    tn_span *spans; /* in file order */
    size_t n_spans;
    tn_length_patch *patches; /* in file order */
    size_t n_patches;
} tn_scan;

/* MODEL errors name the message, the field and the byte. The result is released by tn_scan_done,
 * also after a failure. */
tn_status tn_scan_model(const unsigned char *bytes, size_t size, tn_scan *scan,
                        tn_error *error) TN_MUST_CHECK;
void tn_scan_done(tn_scan *scan);

/* Bytes of the field that stands for span `index` in the skeleton: an unknown varint field of the
 * TensorProto whose value is the index. */
enum { TN_MARKER_FIELD = 536870911, TN_MARKER_BYTES = 10 };

#endif
