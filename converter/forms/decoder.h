/* The chain of nodes that turns codes into a weight: what all forms build with. A decoder appends
 * one node after the other; its first failure sticks and tn_decoder_finish reports it. */
#ifndef TERNION_CONVERTER_FORMS_DECODER_H
#define TERNION_CONVERTER_FORMS_DECODER_H

#include "converter/form.h"

typedef struct tn_decoder {
    const tn_form_site *site;
    bool grouped;          /* codes are stored as padded groups */
    const char *value;     /* the newest node's output */
    Onnx__NodeProto *last; /* the newest node */
    int steps;             /* nodes so far: they number the values between */
    tn_status status;
    tn_error *error;
} tn_decoder;

tn_decoder tn_decoder_start(const tn_form_site *site, tn_error *error);

/* Adds an initializer of this weight, named base + suffix; data is copied. NULL after a failure. */
const char *tn_decoder_initializer(tn_decoder *decoder, const char *suffix, tn_dtype dtype,
                                   int rank, const int64_t *dims, const void *data, size_t bytes);

/* The same, but takes the data of `bytes` bytes through a pointer into the model's arena, which the
 * caller fills before anything else: no second copy of large payloads. */
const char *tn_decoder_payload(tn_decoder *decoder, const char *suffix, tn_dtype dtype, int rank,
                               const int64_t *dims, size_t bytes, void **data);

/* An initializer that layers share: found by name and content, else added. */
const char *tn_decoder_shared(tn_decoder *decoder, const char *name, tn_dtype dtype, int rank,
                              const int64_t *dims, const void *data, size_t bytes);
const char *tn_decoder_ints(tn_decoder *decoder, int count, const int64_t *values);
const char *tn_decoder_zero(tn_decoder *decoder); /* FLOAT scalar 0 */

/* The FLOAT cast of a shared initializer, itself shared. */
const char *tn_decoder_shared_float(tn_decoder *decoder, const char *name);

/* Adds a node with inputs a, b, c (NULL: none) and makes its output the value. */
const char *tn_decoder_step(tn_decoder *decoder, const char *type, const char *a, const char *b,
                            const char *c);
void tn_decoder_int(tn_decoder *decoder, const char *attribute, int64_t value); /* of last */
void tn_decoder_cast(tn_decoder *decoder, const char *from, tn_dtype to);
void tn_decoder_reshape(tn_decoder *decoder, int rank, const int64_t *dims);
/* Elements [0, end) along `axis`, in the form the opset has. */
void tn_decoder_slice(tn_decoder *decoder, int64_t axis, int64_t end);

/* An initializer of per-scale numbers shaped to broadcast over the weight: scalar, [O, 1, ...] or
 * with groups [O, groups, 1]. */
const char *tn_decoder_scales(tn_decoder *decoder, const char *suffix, const float *numbers);

/* value = codes as FLOAT in stored order and shape -> Sub zero, Mul scale (or both scales): exactly
 * the arithmetic of tn_qweight_value. */
void tn_decoder_dequantize(tn_decoder *decoder, tn_form_names *names);

/* Two scales: Max(value, 0) * positive + Min(value, 0) * negative; one product is always 0. */
void tn_decoder_two_scales(tn_decoder *decoder, const char *positive, const char *negative);

/* Shape of stored codes: as written, or [rows, groups, group] with groups. Returns the rank. */
int tn_decoder_stored_dims(const tn_decoder *decoder, int64_t *dims);

/* From the stored shape to the written one (groups: cut the padding), the cast to the weight's
 * type, and the name of the output. */
tn_status tn_decoder_finish(tn_decoder *decoder);

#endif
