/* Networks of the zoo with ten classes for tests of calibration. */
#ifndef TERNION_TESTS_FINETUNE_SEEDED_NETWORK_H
#define TERNION_TESTS_FINETUNE_SEEDED_NETWORK_H

#include "onnx_io/model.h"

/* For pictures [3, size, size], with seed 5. One that cannot be made fails the test. */
tn_model *seeded_network(const char *id, int64_t size);

#endif
