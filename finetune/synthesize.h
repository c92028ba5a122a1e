/* Images from nothing: pixels optimized until the activations they cause have the statistics that
 * the network's BatchNorms remember from training (ZeroQ: Cai et al. 2020; with class targets as in
 * DeepInversion: Yin et al. 2020). They feed the same calibration as real images. */
#ifndef TERNION_FINETUNE_SYNTHESIZE_H
#define TERNION_FINETUNE_SYNTHESIZE_H

#include "core/reporter.h"
#include "network/device.h"
#include "onnx_io/model.h"

/* Zero-initialized means the defaults in brackets. */
typedef struct tn_synthesize_options {
    size_t samples;      /* [256] */
    size_t batch;        /* [64] optimized together: their common statistics are matched */
    int steps;           /* [200] of Adam */
    double rate;         /* [0.1] in units of normalized pixels, falling to 0 */
    double class_weight; /* [0.01] of the cross-entropy with random classes; < 0: 0 */
    uint64_t seed;
    const char *output; /* name of the network's output; NULL: the first */
    tn_device *device;  /* borrowed; NULL: a CPU device of its own. Statistics are the host's */
    const tn_reporter *reporter;
} tn_synthesize_options;

typedef struct tn_synthesis {
    float *images; /* [samples, channels, height, width], as the network's input expects them */
    size_t samples;
    int64_t channels, height, width;
    double first_loss, last_loss; /* mean over batches of the statistics' part */
    double seconds;
} tn_synthesis;

/* MODEL when the network has no BatchNorm (folded: there are no statistics to match), its input
 * size is not fixed, or it cannot be trained. The same bits for every number of threads. */
tn_status tn_synthesize(const tn_model *model, const tn_synthesize_options *options,
                        tn_synthesis *synthesis, tn_error *error) TN_MUST_CHECK;
void tn_synthesis_done(tn_synthesis *synthesis);

#endif
