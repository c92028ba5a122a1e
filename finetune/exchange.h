/* What each layer of a quantized network costs by itself: its weights alone in the float network,
 * whose other layers stay as they are. */
#ifndef TERNION_FINETUNE_EXCHANGE_H
#define TERNION_FINETUNE_EXCHANGE_H

#include "finetune/probe.h"

typedef struct tn_exchange {
    const tn_layer *in, *from; /* the float network's layer gets the values of `from` */
    double kl;                 /* result: KL(float || with this layer exchanged), mean of images */
} tn_exchange;

/* On up to `images` of the data set, drawn by options->seed. `model` is the float network, in whose
 * graph `in` need not be; weights are found by name. USAGE when the set has fewer than 2 images. */
tn_status tn_exchange_measure(const tn_model *model, const tn_dataset *dataset,
                              const tn_calibrate_options *options, int64_t images,
                              tn_device *device, tn_exchange *layers, size_t count,
                              tn_error *error) TN_MUST_CHECK;

#endif
