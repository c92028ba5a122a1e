/* Fits one layer's codes and scales to what the float network gives where the quantized network
 * stands. */
#ifndef TERNION_FINETUNE_CALIBRATE_LAYER_H
#define TERNION_FINETUNE_CALIBRATE_LAYER_H

#include "finetune/calibrate.h"
#include "finetune/gram.h"

/* A layer at work, some images at a time: arrays over positions (patches.data, output, other_f,
 * other_q) are [rows, channels], channels last, in the device's memory, and hold the images of the
 * chunk that was loaded last. */
typedef struct tn_layer_view {
    tn_patches patches;             /* of the quantized network; batch: as loaded */
    int64_t channels;               /* outputs */
    const float *w;                 /* float weights [channels, cols] */
    const float *output;            /* of the float network */
    const float *other_f, *other_q; /* second operand of the residual sum behind, in both; NULL */
    const double *gain, *offset;    /* [channels] of the BN (or bias) between output and that sum;
                                       without either 1 and 0 */
    bool relu;                      /* a ReLU follows */
    bool centered;                  /* a constant per channel is free */
    bool no_slope;                  /* nothing takes up a factor per channel */
    const float *bias;              /* part of output, when not centered; NULL */
} tn_layer_view;

/* Where the chunks come from. load puts chunk `chunk` into the view's arrays; *images (of at most
 * chunk_images) are to be fitted. Chunks come in order, all of them, once per pass. */
typedef struct tn_layer_source {
    int64_t chunks, chunk_images, images; /* images: to be fitted, in all chunks */
    int64_t batch_per_image;              /* of patches.batch: 1, or rows of a linear layer */
    tn_status (*load)(void *context, int pass, int64_t chunk, int64_t *images, tn_error *error);
    void *context;
    tn_device *device; /* whose memory the arrays are in; NULL: the host's */
} tn_layer_source;

typedef struct tn_layer_fit_options {
    tn_calibrate_method method;
    double damping;
    int sweeps, relu_passes;
    int64_t positions; /* at least so many, or 160 per weight of a row; fewer where there are */
    bool no_residual;
} tn_layer_fit_options;

/* Of the fitted weight, per channel. */
typedef struct tn_layer_fit {
    double *slope; /* best factor on its output */
    double *shift; /* what is to be added to slope x output */
    double error;  /* squared error left after both, relative to the target's variance */
} tn_layer_fit;

/* Changes `weight`, which starts as rounded, and fills fit's arrays [channels]. */
tn_status tn_layer_fit_run(const tn_layer_view *view, const tn_layer_source *source,
                           const tn_layer_fit_options *options, tn_qweight *weight,
                           tn_layer_fit *fit, tn_error *error) TN_MUST_CHECK;

#endif
