/* A block as a network of its own, that can be run and differentiated on the inputs and targets
 * that were kept for it. */
#ifndef TERNION_FINETUNE_BLOCK_NETWORK_H
#define TERNION_FINETUNE_BLOCK_NETWORK_H

#include "finetune/activation_store.h"
#include "finetune/block.h"
#include "network/plan.h"

/* What a block is fitted to: chunk by chunk, in the store under the keys chunk * (n_inputs + 1) +
 * k, its inputs in the quantized network (k < n_inputs) and its output in the float network, as in
 * the model (NCHW). */
typedef struct tn_block_data {
    tn_activation_store *store; /* borrowed */
    int64_t images, chunk_images;     /* in all, in one chunk (the graph's batch) */
    int64_t fitted; /* images [0, fitted) are fitted to, those up to `images` are held out */
    bool centered; /* a constant per channel of the output is free: errors are taken without mean */
} tn_block_data;

size_t tn_block_key(const tn_block *block, int64_t chunk, size_t which);

typedef struct tn_block_network {
    const tn_block *block; /* borrowed */
    tn_device *device;     /* borrowed */
    struct tn_model *model;
    tn_graph *graph;
    tn_params *params;              /* all frozen; names as in the whole network */
    tn_plan *plan;                  /* what its layers read can be read */
    int64_t batch, channels, space; /* output: [batch, channels, space] */
    float *input, *output, *target;
} tn_block_network;

/* Borrows graph (of the whole network) and device. MODEL when a node cannot be differentiated. */
tn_status tn_block_network_create(const tn_graph *graph, const tn_block *block, tn_device *device,
                                  tn_block_network *network, tn_error *error) TN_MUST_CHECK;
void tn_block_network_done(tn_block_network *network);

/* The parameters that both have, from the whole network's store or (`back`) to it. */
tn_status tn_block_network_exchange(tn_block_network *network, tn_params *whole, bool back,
                                    tn_error *error) TN_MUST_CHECK;

/* Squared errors and squares about the mean of the target, over a number of values. */
typedef struct tn_block_error {
    double fitted, fitted_all; /* images that are fitted to */
    double held, held_all;     /* held out */
} tn_block_error;

/* Forward of a chunk; what the block gives is then in network->output. */
tn_status tn_block_network_run(tn_block_network *network, const tn_block_data *data, int64_t chunk,
                               tn_error *error) TN_MUST_CHECK;

/* The same; network->output becomes the difference to the target, and the errors are
 * added to `sums`. */
tn_status tn_block_network_forward(tn_block_network *network, const tn_block_data *data,
                                   int64_t chunk, tn_block_error *sums,
                                   tn_error *error) TN_MUST_CHECK;

/* After tn_block_network_forward: the gradient of the squared error of the chunk's fitted images at
 * the parameters that are not frozen. */
tn_status tn_block_network_backward(tn_block_network *network, const tn_block_data *data,
                                    int64_t chunk, tn_error *error) TN_MUST_CHECK;

/* After tn_block_network_run: the gradient of s'y there, y being the block's output for the chunk's
 * fitted images and s random signs that depend on the chunk alone. */
tn_status tn_block_network_probe(tn_block_network *network, const tn_block_data *data,
                                 int64_t chunk, tn_error *error) TN_MUST_CHECK;

#endif
