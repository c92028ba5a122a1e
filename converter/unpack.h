/* Reads the quantized weights of a model: from its record, bit for bit, or where there is none from
 * the values themselves. */
#ifndef TERNION_CONVERTER_UNPACK_H
#define TERNION_CONVERTER_UNPACK_H

#include "converter/pack.h"

typedef struct tn_unpacked {
    tn_pack_item *item; /* ready for tn_pack; in the graph's arena */
    size_t count;
    bool from_record, rest_float16; /* the record says that what is not quantized was rounded */
    char *preprocess, *recipe, *activations; /* JSON objects of the record, or NULL */
} tn_unpacked;

/* The quantized layers of `graph`. A record that does not hold (parses, names, sizes, hash) is
 * ignored with a warning through `reporter` (may be NULL). Then, and where there is no record,
 * weights that lie on few levels are recognized from their folded values: ternary with one or two
 * scales per tensor or channel, and uniform levels of up to 8 bits per channel. None: count is 0.
 */
tn_status tn_unpack(tn_graph *graph, const tn_reporter *reporter, tn_unpacked *unpacked,
                    tn_error *error) TN_MUST_CHECK;
void tn_unpacked_done(tn_unpacked *unpacked);

#endif
