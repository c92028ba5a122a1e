/* Coordinate descent on codes and scales of a quantized layer.
 *
 * Per output channel it minimizes E(v) = v'Gv - 2 v'b over v_i = (code_i - zero) * scale, with
 * G = sum x x' over the inputs of the already quantized network and b = sum y x of the float
 * network's outputs y: up to a constant the squared error of the layer's output. Cyclic sweeps set
 * each code to its best value with all others fixed (O(cols) per change, G v is kept); before every
 * sweep the scales take their least-squares values. Each step lowers E or leaves it. */
#ifndef TERNION_FINETUNE_DESCENT_H
#define TERNION_FINETUNE_DESCENT_H

#include "converter/weight.h"
#include "finetune/gram.h"

typedef struct tn_descent_options {
    int sweeps;       /* at most so many; 0: 30 */
    bool keep_scales; /* codes alone move */
} tn_descent_options;

/* Starts from weight's codes and scales and changes them in place (every granularity, one or two
 * scales, zeros fixed). objective (may be NULL): E of each row [rows]. options may be NULL. The
 * result does not depend on the number of threads. LIMIT when out of memory. */
tn_status tn_descent(const tn_gram *gram, const tn_descent_options *options, tn_qweight *weight,
                     double *objective, tn_error *error) TN_MUST_CHECK;

/* E of each row for the weight as it is. */
tn_status tn_descent_objective(const tn_gram *gram, const tn_qweight *weight, double *objective,
                               tn_error *error) TN_MUST_CHECK;

#endif
