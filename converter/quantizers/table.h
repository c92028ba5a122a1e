/* All schemes; each is one file of this folder. */
#ifndef TERNION_CONVERTER_QUANTIZERS_TABLE_H
#define TERNION_CONVERTER_QUANTIZERS_TABLE_H

#include "converter/quantizer.h"

extern const tn_quantizer tn_quantizer_twn, tn_quantizer_ttq, tn_quantizer_fixed,
    tn_quantizer_affine, tn_quantizer_dorefa, tn_quantizer_lsq, tn_quantizer_parq,
    tn_quantizer_half, tn_quantizer_float;

#endif
