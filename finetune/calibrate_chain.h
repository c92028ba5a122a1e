/* What stands behind a layer in the graph: the BatchNorm, residual sum and ReLU that decide which
 * of its output's errors matter, and what can take up a constant per channel. */
#ifndef TERNION_FINETUNE_CALIBRATE_CHAIN_H
#define TERNION_FINETUNE_CALIBRATE_CHAIN_H

#include "converter/layers.h"

typedef struct tn_chain {
    const tn_value *output; /* of the layer, behind its bias */
    const tn_value *bias;   /* constant added to it, [channels] or one number; NULL */
    bool bias_is_own;       /* [channels], and nothing else reads it: it can take up a constant */
    const tn_node *bn;      /* BatchNormalization, with parameters of its own, that alone reads it;
                               NULL */
    const tn_value *other;  /* second operand of the Add behind; NULL */
    bool relu;              /* Relu or Clip from 0 behind all that, alone */
    bool bn_later;          /* all ways from the output lead to a BN through operators that keep
                               channels and means (Concat, average pooling) */
} tn_chain;

/* Of a Conv, Gemm or MatMul node with `channels` outputs. */
void tn_chain_find(const tn_node *node, int64_t channels, tn_chain *chain);

/* Whether a BatchNormalization shares none of its parameters: exporters merge equal ones. */
bool tn_bn_is_own(const tn_node *bn);

#endif
