/* The interface of a packed encoding of quantized weights. One form is one file in forms/, listed
 * once in forms.c. */
#ifndef TERNION_CONVERTER_FORM_H
#define TERNION_CONVERTER_FORM_H

#include "converter/layers.h"
#include "converter/weight.h"
#include "onnx_io/edit.h"

typedef struct tn_form_names { /* initializers that hold the record's numbers; NULL: none does */
    const char *codes, *scale, *scale_neg, *zero;
} tn_form_names;

typedef struct tn_form {
    const char *id, *summary;
    const char *needs; /* "any ONNX Runtime from 1.10" */
    /* NULL when the form can hold this weight at this layer, else why not (static string). */
    const char *(*refuses)(const tn_qweight *weight, const tn_layer *layer);
    /* Opset and IR this weight needs in this form. */
    void (*versions)(const tn_qweight *weight, int64_t *opset, int64_t *ir);
    /* Adds initializers and nodes that compute the dequantized weight, of dtype `dtype` in the
     * model's layout (or transposed when layer->transpose), as value `output`. Bit-exact:
     * the runtime's fp32 result equals tn_qweight_value. */
    tn_status (*write)(tn_model *model, const tn_qweight *weight, const tn_layer *layer,
                       tn_dtype dtype, const char *output, tn_form_names *names, tn_error *error);
} tn_form;

const tn_form *tn_form_find(const char *id);
const tn_form *tn_form_at(size_t i);

#endif
