/* How far the weights of two networks are apart, layer by layer. */
#ifndef TERNION_CONVERTER_COMPARISON_H
#define TERNION_CONVERTER_COMPARISON_H

#include "converter/convert.h"

typedef struct tn_layer_difference {
    const tn_layer *a, *b;
    double relmse; /* sum (a - b)^2 / sum a^2; 0 when both sums are 0 */
    double sqnr_db;
    double zeros; /* of b */
} tn_layer_difference;

typedef struct tn_layer_comparison {
    tn_layer_difference *layer; /* in b's order; free with tn_free */
    size_t count;
    double relmse; /* over all */
} tn_layer_comparison;

/* Layers are matched by name, and where names differ by their place among layers of equal rows and
 * columns. MODEL when no layer of b has a counterpart in a. */
tn_status tn_layers_compare(const tn_layers *a, const tn_layers *b, const tn_reporter *reporter,
                            tn_layer_comparison *comparison, tn_error *error) TN_MUST_CHECK;

#endif
