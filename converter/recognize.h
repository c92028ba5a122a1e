/* Finds the codes and scales of a weight that lies on few levels without saying so. */
#ifndef TERNION_CONVERTER_RECOGNIZE_H
#define TERNION_CONVERTER_RECOGNIZE_H

#include "converter/layers.h"

/* Reads the layer's values (folded when computed). When every one is exactly a level of a ternary
 * weight (one or two scales, per tensor or channel) or of uniform codes of up to 8 bits per
 * channel, *found and the weight, whose values are bitwise those; scheme is twn, ttq or fixed. */
tn_status tn_recognize(const tn_layer *layer, tn_qweight *weight, bool *found,
                       tn_error *error) TN_MUST_CHECK;

#endif
