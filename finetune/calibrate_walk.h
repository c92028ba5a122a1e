/* Two networks side by side over the same images: the float one, and the one that is being
 * quantized. They go from one layer that is fitted (or BatchNorm that is corrected) to the next, a
 * chunk of images at a time; between the two what is still needed waits in a store. Memory is
 * bounded by the chunk, by the store's limit and by one layer's sums. */
#ifndef TERNION_FINETUNE_CALIBRATE_WALK_H
#define TERNION_FINETUNE_CALIBRATE_WALK_H

#include "finetune/activation_store.h"
#include "finetune/calibrate.h"
#include "network/plan.h"

typedef struct tn_walk {
    const tn_calibrate_options *options; /* resolved */
    const tn_graph *graph;               /* batch = one chunk */
    const tn_layers *layers;             /* of that graph */
    tn_device *device;
    tn_plan *float_plan, *plan;
    tn_params *float_params, *params;
    int64_t images, chunk_images;
    int64_t fitted;              /* the first of them, used to fit */
    tn_calibrate_bn bn;          /* not AUTO */
    tn_qweight *weight;          /* [layers->count]: codes NULL for layers that are kept */
    tn_calibrated_layer *report; /* [layers->count] */
    const tn_node **bn_of_layer; /* [layers->count]: the BN that took up its corrections; NULL */
    size_t steps;
    size_t *layer_of_step;   /* [steps]: the layer a step is the first user of; SIZE_MAX */
    bool *touched_step;      /* [steps]: gives another output in the quantized network */
    bool *touched;           /* [buffers]: differs between the two networks */
    tn_plan_buffer *scratch; /* [buffers] */
    bool *here, *fresh;  /* [networks, buffers] of the chunk under way: in the plan's arrays; made
                            since it was loaded */
    bool *marked;        /* [buffers], all false */
    const float *values; /* all images */
    tn_activation_store *store;
    size_t float_at, at;    /* the next step of each network */
    float *logits[2];       /* [images, classes]: float, quantized */
    float *rounded;         /* [images, classes]: of plainly rounded weights */
    float *logits_of_chunk; /* [chunk_images, classes] */
    int64_t classes;
    uint64_t spilled; /* bytes that went to the store's file, in all runs */
} tn_walk;

/* Images a chunk is made of: fixed by their size, whatever memory there is. */
int64_t tn_walk_chunk(int64_t images, int64_t floats_per_image);

/* Plans for the graph's batch on the device; borrows everything. images: how many there will be. */
tn_status tn_walk_create(const tn_graph *graph, const tn_layers *layers, tn_device *device,
                         const tn_calibrate_options *options, int64_t images, tn_walk *walk,
                         tn_error *error) TN_MUST_CHECK;
void tn_walk_done(tn_walk *walk);

/* Calibrates on the first `fitted` images: starts from the float parameters and plainly rounded
 * weights. values: all images. */
tn_status tn_walk_run(tn_walk *walk, const float *values, int64_t fitted, tn_calibrate_bn bn,
                      tn_error *error) TN_MUST_CHECK;

/* The network with plainly rounded weights alone, for comparison with the float network of a later
 * run: tn_walk_rounded_kl. */
tn_status tn_walk_round(tn_walk *walk, const float *values, tn_error *error) TN_MUST_CHECK;
double tn_walk_rounded_kl(const tn_walk *walk);

/* KL(softmax float || softmax quantized) and share of equal top-1 of images [first, last), after a
 * run. */
void tn_walk_compare(const tn_walk *walk, int64_t first, int64_t last, double *kl,
                     double *agreement);

#endif
