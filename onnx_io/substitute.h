/* New numbers for constants of a model: biases, BN parameters and unquantized weights that
 * calibration or training changed. */
#ifndef TERNION_ONNX_IO_SUBSTITUTE_H
#define TERNION_ONNX_IO_SUBSTITUTE_H

#include "onnx_io/model.h"

/* Gives the value `name` (an initializer, or what a Constant node or a chain of constants computes)
 * the numbers `values`, in the shape and type it had (`dtype`: rounded to it). An initializer is
 * replaced in place; anything else gets a new initializer that its users then read. USAGE when the
 * main graph has no such value. */
tn_status tn_substitute_values(tn_model *model, const char *name, tn_dtype dtype, int rank,
                               const int64_t *dims, const float *values,
                               tn_error *error) TN_MUST_CHECK;

#endif
