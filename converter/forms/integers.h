/* Codes as an initializer of the smallest of INT2, INT4, INT8, INT16 that holds them. */
#ifndef TERNION_CONVERTER_FORMS_INTEGERS_H
#define TERNION_CONVERTER_FORMS_INTEGERS_H

#include "converter/forms/decoder.h"

tn_dtype tn_integers_type(const tn_qweight *weight);

/* Adds the codes in the decoder's stored shape as `dtype`, an integer type of the width of
 * tn_integers_type. Its name, or NULL after a failure. */
const char *tn_integers_add(tn_decoder *decoder, tn_dtype dtype);

/* Rows from an initializer that tn_integers_add wrote. */
tn_status tn_integers_read(const tn_tensor *codes, tn_dtype dtype, bool padded, tn_qweight *weight,
                           tn_error *error);

/* For forms made of DequantizeLinear: NULL when zeros are integers and the layer keeps its weight
 * away from MatMul, else why not. */
const char *tn_integers_refuse_linear(const tn_qweight *weight, const tn_layer *layer);

/* Adds zero (zeros when the weight has none) in shape [dims] as `dtype`, for DequantizeLinear. */
const char *tn_integers_add_zero(tn_decoder *decoder, tn_dtype dtype, int rank,
                                 const int64_t *dims);

#endif
