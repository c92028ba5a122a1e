/* Biases in few bits (--bias-bits): those of quantized layers, affine min-max, one scale and zero
 * point each. A bias is packed like a weight: a layer of its own whose weight is the bias. */
#ifndef TERNION_CONVERTER_BIASES_H
#define TERNION_CONVERTER_BIASES_H

#include "converter/convert.h"

/* The constant biases that only users of these layers read: input 2 of a convolution or Gemm, the
 * other input of an Add behind a MatMul. Memory is the graph's arena. */
tn_status tn_biases_find(tn_graph *graph, const tn_layers *layers, tn_layers *biases,
                         tn_error *error) TN_MUST_CHECK;

/* Quantizes the biases of the layers of `conversion`, which are this graph's, to 2 to 8 or 16 bits
 * (USAGE for others). The caller ends `biases` with tn_conversion_done. */
tn_status tn_biases_convert(tn_graph *graph, const tn_conversion *conversion, int bits,
                            tn_conversion *biases, tn_error *error) TN_MUST_CHECK;

#endif
