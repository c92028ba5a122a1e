#include "converter/forms/forms.h"

#include <string.h>

static const tn_form *const forms[] = {
    &tn_form_lut,      &tn_form_int2,  &tn_form_qdq,   &tn_form_planes,
    &tn_form_int8_lut, &tn_form_qonnx, &tn_form_float,
};

enum { COUNT = sizeof forms / sizeof *forms };

const tn_form *tn_form_at(size_t i)
{
    return i < COUNT ? forms[i] : NULL;
}

const tn_form *tn_form_find(const char *id)
{
    for (size_t i = 0; i < COUNT; i++) {
        if (strcmp(forms[i]->id, id) == 0)
            return forms[i];
    }
    return NULL;
}

const tn_form *tn_form_fallback(const tn_form *wanted, const tn_qweight *weight,
                                const tn_layer *layer)
{
    const tn_form *const order[] = {wanted, &tn_form_lut, &tn_form_planes};
    for (size_t i = 0; i < sizeof order / sizeof *order; i++) {
        if (!tn_form_refusal(order[i], weight, layer, NULL))
            return order[i];
    }
    return &tn_form_int2; /* 16 bits: INT16 -> Cast -> Mul, which needs no new opset */
}
