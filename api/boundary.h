/* What the api/ files share: allocating results, option structs of the library
 * below. */
#ifndef TERNION_API_BOUNDARY_H
#define TERNION_API_BOUNDARY_H

#include "api/ternion.h"
#include "onnx_io/model.h"

/* A zeroed result whose strings and arrays live in the arena behind it. NULL when out of memory. */
void *tn_result_create(size_t bytes);
tn_arena *tn_result_arena(void *result);
void tn_result_free(void *result); /* NULL is fine */

tn_read_options tn_boundary_read(const tn_input_options *in, const tn_reporter *reporter);
tn_status tn_boundary_write(const tn_output_options *out, tn_write_options *options,
                            tn_error *error) TN_MUST_CHECK;

#endif
