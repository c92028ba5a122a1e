/* The list of forms. */
#ifndef TERNION_CONVERTER_FORMS_FORMS_H
#define TERNION_CONVERTER_FORMS_FORMS_H

#include "converter/form.h"

extern const tn_form tn_form_lut, tn_form_int2, tn_form_qdq, tn_form_planes, tn_form_int8_lut,
    tn_form_qonnx, tn_form_float;

#endif
