/* What stands behind a layer in the graph: the BatchNorm, residual sum and ReLU that decide which
 * of its output's errors matter, and what can take up a constant per channel. */
#ifndef TERNION_FINETUNE_CALIBRATE_CHAIN_H
#define TERNION_FINETUNE_CALIBRATE_CHAIN_H

#include "converter/layers.h"

typedef struct tn_chain {
    const tn_value *output; /* of the layer, behind its bias */
    const tn_value *bias;   /* constant [channels] added to it; NULL */
    const tn_node *bn;      /* BatchNormalization that alone reads it; NULL */
    const tn_value *other;  /* second operand of the Add behind; NULL */
    bool relu;              /* Relu or Clip from 0 behind all that, alone */
    bool bn_later;          /* all ways from the output lead to a BN through operators that keep
                               channels and means (Concat, average pooling) */
} tn_chain;

/* Of a Conv, Gemm or MatMul node with `channels` outputs. */
void tn_chain_find(const tn_node *node, int64_t channels, tn_chain *chain);

#endif
