/* The command `verify`: does a converted file hold what it says? */
#ifndef TERNION_CONVERTER_VERIFY_H
#define TERNION_CONVERTER_VERIFY_H

#include "onnx_io/model.h"

typedef struct tn_verification {
    size_t layers;   /* quantized ones whose codes are legal and whose decoded weight is exact */
    int64_t weights; /* in them */
    size_t halves;   /* layers of FLOAT16 whose stored weights match their hash, if it is there */
    size_t activations; /* values that are read quantized, as the record says */
    size_t untouched;   /* tensors equal to those of `against` */
} tn_verification;

/* The record parses, codes are legal and match their hash, as FLOAT16 weights do, and folding the
 * file's nodes gives exactly code x scale. With `against` (may be NULL), FLOAT16 weights are its
 * weights rounded, and initializers of the same name are equal bit
 * for bit (float16 where the record says the rest was stored so). DIFFERS naming the first layer or
 * tensor where something does not hold. */
tn_status tn_verify(const tn_model *model, const tn_model *against, tn_verification *verification,
                    tn_error *error) TN_MUST_CHECK;

#endif
