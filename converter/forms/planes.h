/* Codes as packed bytes decoded by table lookup: one plane for `lut`, up to three for `planes`. */
#ifndef TERNION_CONVERTER_FORMS_PLANES_H
#define TERNION_CONVERTER_FORMS_PLANES_H

#include "converter/forms/decoder.h"

/* Widths of the planes that hold codes of `bits` bits, highest first; 0 ends the list. NULL when
 * there are none (1, 9 to 16 bits). */
const int *tn_planes_widths(int bits);

/* The `write` and `read` of forms whose codes are such planes. */
tn_status tn_planes_write(const tn_form_site *site, tn_form_names *names, tn_error *error);
tn_status tn_planes_read(const tn_tensor *const *codes, const tn_tensor *values, tn_qweight *weight,
                         tn_error *error);

/* The lookup alone, of codes of up to 8 bits packed at 2, 4 or 8: the value becomes the codes as
 * INT8. */
void tn_planes_lookup_int8(tn_decoder *decoder, tn_form_names *names);

tn_status tn_planes_read_int8(const tn_tensor *const *codes, const tn_tensor *values,
                              tn_qweight *weight, tn_error *error);

/* Checks the initializer of one plane: type `dtype`, exactly `bytes` bytes. */
tn_status tn_planes_check(const tn_tensor *codes, tn_dtype dtype, size_t bytes, tn_error *error);

#endif
