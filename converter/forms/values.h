/* Dequantized values as initializers, and codes back from them. */
#ifndef TERNION_CONVERTER_FORMS_VALUES_H
#define TERNION_CONVERTER_FORMS_VALUES_H

#include "converter/form.h"

/* Writes all values in stored order (packing.h) as `dtype`, rounded half to even. */
tn_status tn_values_store(const tn_form_site *site, bool padded, tn_dtype dtype, void *data,
                          tn_error *error);

/* The codes whose values, rounded to the tensor's type, are exactly those of `values`, which is in
 * stored order. MODEL when one is on no level. */
tn_status tn_values_read(const tn_tensor *values, bool padded, tn_qweight *weight, tn_error *error);

#endif
