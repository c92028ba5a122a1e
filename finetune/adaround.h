/* Learned rounding (AdaRound: Nagel et al. 2020): every weight may take the code below or above its
 * float value; which one is learned by gradient descent on a soft choice h(a) = clamp(1.2
 * sigmoid(a)
 * - 0.1, 0, 1) of the layer's squared output error, with a term (1 - |2h - 1|^beta) that drives h
 * to 0 or 1 as beta falls. Deviations from the paper: the error is the exact quadratic form of the
 * Gram sums, not minibatches, so a few hundred steps do; the target is the float network's output
 * at the quantized network's inputs. Residual branches and ReLU enter through the target
 * (calibrate_layer.h). */
#ifndef TERNION_FINETUNE_ADAROUND_H
#define TERNION_FINETUNE_ADAROUND_H

#include "converter/weight.h"
#include "finetune/gram.h"

typedef struct tn_adaround_options {
    int steps;   /* 0: 400 */
    double rate; /* of Adam; 0: 0.05 */
} tn_adaround_options;

/* Changes weight's codes; scales and zeros stay. w [rows, cols]. One scale per group of weights
 * only: USAGE with two. options may be NULL. The same bits for every number of threads. */
tn_status tn_adaround(const tn_gram *gram, const float *w, const tn_adaround_options *options,
                      tn_qweight *weight, tn_error *error) TN_MUST_CHECK;

#endif
