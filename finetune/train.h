/* Fine-tuning: quantization-aware training of a network on a data set. */
#ifndef TERNION_FINETUNE_TRAIN_H
#define TERNION_FINETUNE_TRAIN_H

#include "converter/layers.h"
#include "core/reporter.h"
#include "converter/convert.h"
#include "data/loader.h"
#include "finetune/activations.h"
#include "network/collective.h"
#include "network/device.h"
#include "onnx_io/model.h"

typedef enum tn_batch_norm_mode {
    TN_BATCH_NORM_TRAIN,  /* batch statistics, running ones follow */
    TN_BATCH_NORM_FREEZE, /* running statistics, gamma and beta fixed */
} tn_batch_norm_mode;

/* Zero-initialized members mean the defaults in brackets. */
typedef struct tn_train_options {
    tn_policy policy;      /* scheme NULL: [lsq at 1.58 bits]; "float" and "half" train plainly */
    int epochs;            /* [20] */
    int batch;             /* [128] samples a step, of all ranks together */
    int accumulate;        /* [1] batches a step: gradients are averaged over all of them */
    const char *optimizer; /* "sgd" ["sgd"], "adam", "adamw" */
    double lr;             /* [0.02 sgd, 0.1 for schemes float and half, 0.001 adam] */
    double momentum;       /* [0.9]; < 0: none */
    bool no_nesterov;
    double weight_decay;    /* [1e-4] of latents and weights; < 0: none */
    const char *schedule;   /* [cosine]; schedule.h */
    double final_lr;        /* [0] last rate as a fraction of lr */
    double warmup_epochs;   /* [0] */
    double scale_lr;        /* [1] factor on the rate of quantizer scales */
    double clip_norm;       /* [0: none] on the gradient's Euclidean norm */
    double label_smoothing; /* [0] */
    double ema;             /* [0: none] */
    const char *distill;    /* NULL: none; "self": the input model; else a model file */
    double temperature;     /* [4] */
    double distill_weight;  /* [0.5] */
    tn_batch_norm_mode batch_norm;
    bool keep_batch_norm;      /* do not try re-estimated statistics at the end */
    const char *const *frozen; /* regular expressions on weight or node names */
    size_t n_frozen;
    int early_stop;       /* [0: never] epochs without a better validation loss */
    double parq_fraction; /* [0.75] of the run over which parq anneals */
    bool sparsity_ramp;   /* threshold sparsity:F grows from 0 over the first half */
    /* What is quantized besides weights, in ranges measured before (NULL: nothing), and how its
     * steps are trained: "lsq" ["lsq"], "pact", "fixed" (activation_steps.h). */
    const tn_activations *activations;
    const char *activation_scheme;
    /* Float weights that latents start at, by the layer's weight or node name (borrowed; NULL: the
     * model's own). `start` then moves them to its codes. */
    const tn_model *latents;
    const char *output; /* which of several outputs the logits are; NULL: the first */
    uint64_t seed;
    int threads_loader; /* [1] */
    tn_device *device;  /* borrowed */
    tn_precision precision;
    bool eager;         /* steps are not recorded on the device; the results are the same */
    const char *folder; /* run folder; NULL: no checkpoints, no journal */
    bool resume;
    int save_every;    /* [600] seconds between checkpoints inside an epoch */
    int64_t max_steps; /* [0: no limit]; the run ends early as if cancelled. For tests */
    const tn_reporter *reporter;
    tn_collective *collective; /* borrowed; the ranks that train together; NULL: [one process] */
} tn_train_options;

/* Whether a scheme's weights are trained as they are: float, and half, which rounds in the file. */
bool tn_train_is_plain(const char *scheme);

/* Fills in the defaults and checks ranges. USAGE naming the option. */
tn_status tn_train_resolve(const tn_train_options *options, tn_train_options *resolved,
                           tn_error *error) TN_MUST_CHECK;

/* Samples of a step on one rank, of resolved options. */
static inline int tn_train_rank_batch(const tn_train_options *options)
{
    return options->batch / options->collective->size;
}

/* Resolved options by their names on the command line, for the journal. */
struct json_t *tn_train_options_to_json(const tn_train_options *options);

typedef struct tn_train_data {
    const tn_model *origin;  /* what the user gave, before calibration; NULL: the model trained */
    const tn_dataset *train; /* labelled, or unlabelled with a teacher */
    const tn_dataset *val;   /* NULL: no validation */
    const tn_preprocess *preprocess;   /* fitted to the network */
    const tn_augment_options *augment; /* NULL: none */
    size_t max_bad;                    /* corrupt images allowed */
} tn_train_data;

typedef struct tn_epoch_figures {
    int epoch; /* from 1 */
    uint64_t step;
    double lr, train_loss, train_top1;   /* 0..1; of the augmented images as they were trained on */
    double val_loss, val_top1, val_top5; /* < 0: no validation */
    double images_per_s, sparsity, flips;
    char state_hash[33];
} tn_epoch_figures;

/* A trained network: a copy of the model with its new float parameters, a graph of it, and the
 * codes and scales of its quantized layers, ready for tn_pack. */
typedef struct tn_trained {
    tn_model *model; /* owned; shares payloads with the input model, which must outlive it */
    tn_graph *graph;
    tn_layers layers;
    tn_conversion conversion;   /* weights of the quantized layers, in graph order */
    tn_activations activations; /* their ranges, to be written into the packed model */
    tn_epoch_figures last;
    int epochs_run;
    bool stopped; /* cancelled: a checkpoint was saved, the figures are those so far */
    uint32_t dropped_steps, rollbacks;
    bool reestimated; /* BN statistics re-estimated at the end were better and are in the model */
    float *proof_logits; /* logits of the first proof_count validation (else training) images, */
    int64_t proof_count, classes; /* for tn_trained_prove */
} tn_trained;

/* Trains. `start` (may be NULL) are finished weights to start from, such as calibration's;
 * `teacher` the distillation teacher's model (NULL: none). Errors: USAGE for options, DATA for the
 * data set, MODEL when the network cannot be trained (naming all operators), DIVERGED after the
 * last rollback, IO when a checkpoint cannot be written (the last one stays valid). With
 * options->folder, what was done so far is in there whatever happens.
 *
 * With several ranks (options->collective) each computes its part of every batch, gradients are
 * added before the update, and all hold the same weights; rank 0 alone writes, and gets the trained
 * network: on the others `trained` has figures and nothing else. A rank whose call fails must call
 * tn_collective_fail, or the others wait for it. */
tn_status tn_train(const tn_model *model, const tn_train_data *data, const tn_model *teacher,
                   const tn_conversion *start, const tn_train_options *options, tn_trained *trained,
                   tn_error *error) TN_MUST_CHECK;
void tn_trained_done(tn_trained *trained);

/* Runs the written model on the same images and demands bitwise the trained network's logits
 * (same device, same precision). DIFFERS otherwise. */
tn_status tn_trained_prove(const tn_trained *trained, const tn_model *written,
                           const tn_train_data *data, const tn_train_options *options,
                           tn_error *error) TN_MUST_CHECK;

#endif
