/* The papers' architectures as float networks with seeded weights: `ternion create`. One family is
 * one file here; each network is listed once in zoo.c. */
#ifndef TERNION_ONNX_IO_ZOO_ZOO_H
#define TERNION_ONNX_IO_ZOO_ZOO_H

#include "onnx_io/model.h"

struct tn_zoo_builder; /* onnx_io/zoo/builder.h */

typedef struct tn_architecture {
    const char *id, *summary; /* one line */
    int64_t classes;          /* defaults of tn_zoo_options */
    int64_t input[3];         /* C, H, W */
    const void *plan;         /* the family's description of this member */
    void (*build)(struct tn_zoo_builder *builder, const void *plan);
} tn_architecture;

typedef struct tn_zoo_options { /* zeros: the architecture's defaults */
    int64_t classes;
    int64_t input[3];
    uint64_t seed;
    const tn_reporter *reporter; /* asked whether to stop; may be NULL */
} tn_zoo_options;

const tn_architecture *tn_architecture_find(const char *id); /* NULL when unknown */
const tn_architecture *tn_architecture_at(size_t i);         /* walks the table; NULL at its end */

/* Builds a network in memory: input `input` [batch, C, H, W], output `logits` [batch, classes],
 * opset 13, IR 7, tensors named as torchvision names them. Convolutions and hidden linear layers
 * have He-normal weights (He et al. 2015, fan in), the last layer variance 1 / fan in; biases 0,
 * BatchNormalization the identity. USAGE for an unknown id, or an input the network cannot take.
 * The metadata key `ternion.create` says what was built and from which seed. */
tn_status tn_zoo_create(const char *id, const tn_zoo_options *options, tn_model **model,
                        tn_error *error) TN_MUST_CHECK;

#endif
