/* Quantized activations on their way from a request to a file. */
#ifndef TERNION_API_ACTIVATION_RANGES_H
#define TERNION_API_ACTIVATION_RANGES_H

#include "finetune/activations.h"

/* bits, input_bits: 0, none. range: a method's name, NULL: mse. */
tn_status tn_activation_ranges_options(int bits, int input_bits, const char *range,
                                       tn_activation_options *options,
                                       tn_error *error) TN_MUST_CHECK;

/* Ranges in the network as training starts: with the weights of `start`, or (NULL) with rounded
 * ones. */
tn_status tn_activation_ranges_measure(const tn_model *model, const tn_conversion *start,
                                       const tn_policy *policy, const tn_dataset *dataset,
                                       const tn_activation_options *options, tn_activations *ranges,
                                       tn_error *error) TN_MUST_CHECK;

#endif
