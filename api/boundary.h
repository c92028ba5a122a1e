/* What the api/ files share: allocating results, checking outputs, option structs of the library
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

/* Fails early where writing would fail late: the output exists and may not be replaced, is the
 * input, or its folder is missing. `input` may be NULL. */
tn_status tn_boundary_check_output(const char *input, const char *output,
                                   const tn_output_options *out, tn_error *error) TN_MUST_CHECK;

#endif
