/* The interface of a packed encoding of quantized weights. One form is one file in forms/, listed
 * once in forms/forms.c. */
#ifndef TERNION_CONVERTER_FORM_H
#define TERNION_CONVERTER_FORM_H

#include "converter/layers.h"
#include "converter/weight.h"
#include "onnx_io/edit.h"

enum { TN_FORM_MAX_PLANES = 3 };

/* Initializers that hold the record's numbers; NULL where none does. */
typedef struct tn_form_names {
    const char *codes[TN_FORM_MAX_PLANES]; /* highest bits first; all but `planes` have one */
    const char *scale, *scale_neg, *zero;
    uint64_t half_hash; /* tn_record_bytes_hash of what a half layer stores */
} tn_form_names;

/* Where a form writes: one weight of one model. */
typedef struct tn_form_site {
    tn_model *model;
    const tn_qweight *weight;
    tn_dtype dtype;            /* of the replaced weight: the result is cast to it */
    int rank;                  /* shape and channel axis as written: the weight's own, or */
    int64_t dims[TN_MAX_RANK]; /* [rows, cols] and 0 where the layer is transposed */
    int axis;
    const char *base;   /* stem of added names: from the weight's, or short where compact */
    const char *output; /* name of the decoded weight; no value has it yet */
    bool compact;       /* fewer bytes rather than fewer nodes */
    size_t *position;   /* where in graph->node the next node goes; advances */
} tn_form_site;

typedef struct tn_form {
    const char *id, *summary;
    const char *needs;   /* "any ONNX Runtime from 1.10" */
    bool self_contained; /* false: other tools' operators (qonnx), runtimes cannot load it */
    /* NULL when the form can hold this weight at this layer, else why not (static string).
     * *by_bits (may be NULL) tells that only the number of bits is in the way. NULL where a form
     * holds all; call tn_form_refusal. */
    const char *(*refuses)(const tn_qweight *weight, const tn_layer *layer, bool *by_bits);
    /* Opset and IR this weight needs in this form. */
    void (*versions)(const tn_qweight *weight, int64_t *opset, int64_t *ir);
    /* Adds initializers and nodes that compute the dequantized weight as value `output`. Bit-exact:
     * the runtime's fp32 result equals tn_qweight_value. */
    tn_status (*write)(const tn_form_site *site, tn_form_names *names, tn_error *error);
    /* Codes back from the initializers `codes` (NULL entries beyond the form's number of planes),
     * or from `values`, the decoded weight, where the form keeps none. Everything else in `weight`
     * is set; its dims and axis are as written. Checks sizes and types: MODEL when they are not
     * what write leaves. */
    tn_status (*read)(const tn_tensor *const *codes, const tn_tensor *values, tn_qweight *weight,
                      tn_error *error);
} tn_form;

static inline const char *tn_form_refusal(const tn_form *form, const tn_qweight *weight,
                                          const tn_layer *layer, bool *by_bits)
{
    return form->refuses ? form->refuses(weight, layer, by_bits) : NULL;
}

const tn_form *tn_form_find(const char *id); /* NULL when unknown */
const tn_form *tn_form_at(size_t i);         /* walks the table; NULL at its end */

/* The form a weight takes when `wanted` is asked for: `wanted`, or the next of lut, planes, INT16
 * can hold it. */
const tn_form *tn_form_fallback(const tn_form *wanted, const tn_qweight *weight,
                                const tn_layer *layer);

#endif
