/* Learned rounding of a block's weights (after BRECQ: Li et al. 2021), from the codes that another
 * method found.
 *
 * What is minimized is the squared error of the block's output, sums and ReLUs included. Around the
 * present weights it is, for one row of one layer,
 *   E(v + d) = E(v) + g'd + h d'Gd,
 * g its exact gradient (the network's own backward), G = sum x x' over the layer's inputs and h how
 * strongly the row's output moves the block's: the Gauss-Newton curvature in Kronecker form, with
 * one number per row, estimated by the gradients of random signs at the block's output. That is
 * the form coordinate descent works on (descent.h), so codes and scales go to a minimum of it;
 * with a step that is shortened until the true error falls; and again from there. Where a
 * BatchNorm or a bias follows, it takes up the change of the row's mean.
 * Deviations from BRECQ: codes stay codes all the way, no soft choices that have to be hardened;
 * whole passes over the images, no minibatches; no Fisher weights. */
#ifndef TERNION_FINETUNE_BLOCK_LEARNING_H
#define TERNION_FINETUNE_BLOCK_LEARNING_H

#include "finetune/block_network.h"

typedef struct tn_block_learning_options {
    int steps;         /* at most so many that lower the error; 0: 6 */
    double damping;    /* [0.01] of G's diagonal */
    int64_t positions; /* of each layer's inputs that make up G; 0: all */
    bool corrections;  /* means of BatchNorms and biases may change */
} tn_block_learning_options;

typedef struct tn_block_learned {
    double fitted_before, fitted; /* squared error of the block's output, relative to the float
                                     block's variance, on the images that were fitted to */
    double held_before, held;     /* and on those held out */
    int64_t flips;                /* codes that changed */
    int steps;                    /* that lowered the error */
    bool kept;                    /* else weights and parameters are what they were */
} tn_block_learned;

/* Changes the weights of the block's layers (`weight` is beside layers) and, in params, its other
 * parameters; leaves both as they are unless the error falls on the held-out images too. The
 * network's own parameters are no result. */
tn_status tn_block_learn(tn_block_network *network, const tn_block_data *data,
                         const tn_layers *layers, const tn_block_learning_options *options,
                         tn_qweight *weight, tn_params *params, tn_block_learned *learned,
                         tn_error *error) TN_MUST_CHECK;

#endif
