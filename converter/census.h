/* What a network holds, counted: parameters, values of a weight. */
#ifndef TERNION_CONVERTER_CENSUS_H
#define TERNION_CONVERTER_CENSUS_H

#include "onnx_io/graph.h"

/* Elements of the constant float inputs (rank 1 and more) of nodes that are not folded, each value
 * once; without the running statistics of BatchNormalization. Packed weights count unpacked. */
tn_status tn_census_parameters(const tn_graph *graph, int64_t *parameters,
                               tn_error *error) TN_MUST_CHECK;

enum { TN_CENSUS_DISTINCT_MAX = 65536 };

typedef struct tn_census {
    int64_t distinct; /* different values (-0 is 0), counted up to TN_CENSUS_DISTINCT_MAX */
    double zeros;     /* fraction that is 0 */
} tn_census;

tn_status tn_census_take(const tn_tensor *tensor, tn_census *census, tn_error *error) TN_MUST_CHECK;

#endif
