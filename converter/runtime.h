/* What ONNX Runtime versions load: --target-runtime. */
#ifndef TERNION_CONVERTER_RUNTIME_H
#define TERNION_CONVERTER_RUNTIME_H

#include <stddef.h>
#include <stdint.h>

typedef struct tn_runtime {
    const char *id;         /* "ort-1.24" */
    const char *first;      /* the first release that does what the row says */
    int64_t opset, ir;      /* the highest it loads */
    int lowest_linear_bits; /* narrowest integer DequantizeLinear and Cast take */
} tn_runtime;

/* By id, also with a patch level behind it ("ort-1.24.3"); NULL when unknown. */
const tn_runtime *tn_runtime_find(const char *id);
const tn_runtime *tn_runtime_at(size_t i); /* oldest first; NULL at the end */

/* The oldest runtime of the table that loads a file of this opset, IR and integer width (8 when it
 * holds none below); NULL when none does. */
const tn_runtime *tn_runtime_oldest(int64_t opset, int64_t ir, int lowest_bits);

#endif
