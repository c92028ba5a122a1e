/* Ranges of a network's activations for training tests. */
#ifndef TERNION_TESTS_MEASURED_RANGES_H
#define TERNION_TESTS_MEASURED_RANGES_H

#include "finetune/activations.h"

/* Of what ternary layers of the model read, in `bits`, over images [samples, C, H, W]. Ends the
 * process on failure. */
void measure_ranges(const tn_model *model, int bits, const float *images, size_t samples,
                    tn_activations *ranges);

#endif
