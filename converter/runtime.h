/* What ONNX Runtime versions load: --target-runtime. */
#ifndef TERNION_CONVERTER_RUNTIME_H
#define TERNION_CONVERTER_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

typedef struct tn_runtime {
    const char *id;    /* "ort-1.24" */
    const char *first; /* the first release that does what the row says */
    int64_t opset, ir; /* the highest it loads */
    int linear_bits;   /* narrowest integer DequantizeLinear takes */
    int cast_bits;     /* narrowest integer Cast takes */
} tn_runtime;

/* By id, also with a patch level behind it ("ort-1.24.3"); NULL when unknown. */
const tn_runtime *tn_runtime_find(const char *id);
const tn_runtime *tn_runtime_at(size_t i); /* oldest first; NULL at the end */

/* What a file asks of its runtime; widths are 8 where it holds none below. */
typedef struct tn_runtime_need {
    int64_t opset, ir;
    int linear_bits, cast_bits;
} tn_runtime_need;

/* The oldest runtime of the table that runs such a file; NULL when none does. */
const tn_runtime *tn_runtime_oldest(const tn_runtime_need *need);

#endif
