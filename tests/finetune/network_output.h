/* What a network makes of some images, for tests that compare two networks. */
#ifndef TERNION_TESTS_FINETUNE_NETWORK_OUTPUT_H
#define TERNION_TESTS_FINETUNE_NETWORK_OUTPUT_H

#include "onnx_io/model.h"

/* The first output for images [count, C, H, W], in fp32 on the CPU (bf16's own rounding is larger
 * than what tests look for). A network that does not run fails the test. */
void network_output(const tn_model *model, const float *images, int64_t count, float *output);

/* max |got - wanted| / max |wanted|, which must be a positive number. */
double output_distance(const float *got, const float *wanted, int count);

#endif
