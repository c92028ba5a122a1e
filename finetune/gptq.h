/* Rounding with error feedback (GPTQ: Frantar et al. 2022), as Babai's nearest plane: with
 * G = M'DM, M unit triangular in the order of processing, each weight is rounded after adding what
 * the errors made so far can still be made good by it. */
#ifndef TERNION_FINETUNE_GPTQ_H
#define TERNION_FINETUNE_GPTQ_H

#include "converter/weight.h"
#include "finetune/gram.h"

typedef struct tn_gptq_options {
    bool natural_order; /* else the inputs with the largest G_ii come first */
    bool own_target;    /* round towards the float weights; else towards G^-1 b, the best real
                           weights for the quantized network's inputs (the cross term) */
} tn_gptq_options;

/* Changes weight's codes; its scales and zeros stay. w [rows, cols] are the float weights. inner
 * must be damped. options may be NULL. MODEL when G is not positive definite, LIMIT when out of
 * memory. The same bits for every number of threads. */
tn_status tn_gptq(const tn_gram *gram, const float *w, const tn_gptq_options *options,
                  tn_qweight *weight, tn_error *error) TN_MUST_CHECK;

/* In place: the lower triangle of the symmetric a [n, n] becomes its Cholesky factor. false when a
 * is not positive definite. */
bool tn_cholesky(double *a, int64_t n);

#endif
