/* Quantized activations of a file: the record's object
 *   "activations": {"range": "mse", "values": {"name": bits, ..}}
 * and the nodes it speaks of: [Clip ->] QuantizeLinear -> DequantizeLinear behind the value. */
#ifndef TERNION_CONVERTER_ACTIVATION_RECORD_H
#define TERNION_CONVERTER_ACTIVATION_RECORD_H

#include "converter/record.h"

/* Bits of the quantization that `value` comes out of: QuantizeLinear, perhaps behind a Clip to
 * fewer codes, and DequantizeLinear with the same scale and zero point. 0: none. */
int tn_activation_bits(const tn_value *value);

/* Whether the node `user` of a layer computes on quantized activations, where runtimes make an
 * integer operator of it: they come out of DequantizeLinear, perhaps moved since, and are more than
 * the network's quantized input alone, whose products stay floating-point. */
bool tn_activation_is_integer(const tn_node *user);

/* True when the object says that more than a network's input is quantized. */
bool tn_activation_record_inner(const char *json, const tn_graph *graph);

/* Every value of the record is read through such nodes, of its bits: DIFFERS naming the first that
 * is not. *values: how many. */
tn_status tn_activation_record_verify(const tn_record *record, const tn_graph *graph,
                                      size_t *values, tn_error *error) TN_MUST_CHECK;

#endif
