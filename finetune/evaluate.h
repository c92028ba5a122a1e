/* Accuracy of a network on a data set, and how far two networks agree. */
#ifndef TERNION_FINETUNE_EVALUATE_H
#define TERNION_FINETUNE_EVALUATE_H

#include "data/loader.h"
#include "network/plan.h"

typedef struct tn_evaluate_options {
    const tn_preprocess
        *preprocess; /* NULL: the model's record, else the preset guessed from data */
    size_t batch;    /* 0: 64 */
    size_t limit;    /* at most so many images, drawn by `seed`; 0: all */
    uint64_t seed;
    int top_k;                     /* what correct_topk counts; 0: 5 */
    tn_precision precision;        /* of the plan */
    const char *output;            /* name of the output, NULL: the first */
    int input_width, input_height; /* another resolution than the model's; 0: its own */
    size_t max_bad;                /* corrupt images allowed */
    bool keep_predictions, keep_logits;
    int threads;     /* of the loader; 0: by itself */
    int rank, ranks; /* ranks > 1: this rank's part of the images only */
    const tn_reporter *reporter;
} tn_evaluate_options;

typedef struct tn_prediction {
    uint32_t index;      /* in the data set */
    int32_t label, top1; /* top1 -1: the outputs are not finite */
    float logit;         /* of top1 */
} tn_prediction;

typedef struct tn_evaluation {
    size_t images; /* good ones */
    size_t bad;    /* left out as corrupt */
    size_t correct_top1, correct_topk;
    size_t not_finite; /* images whose outputs name no class (tn_first_maximum): wrong */
    int top_k;
    double top1, topk;          /* 0 .. 1 */
    double top1_low, top1_high; /* Wilson's 95 % interval */
    double loss;                /* mean cross-entropy of the logits, natural logarithm */
    double seconds, images_per_s;
    int classes;                /* of the network */
    size_t *class_images;       /* [classes] */
    size_t *class_correct;      /* [classes] */
    tn_prediction *predictions; /* [images], in the data set's order; NULL unless kept */
    float *logits;              /* [images][classes]; NULL unless kept */
    tn_preprocess preprocess;   /* what was used */
    char preprocess_source[96]; /* "the model's record", "guessed from ...", "asked for" */
    tn_precision precision;     /* what was used */
    char bad_message[512];      /* the first corrupt image, or "" */
} tn_evaluation;

void tn_evaluation_done(tn_evaluation *evaluation);

/* Preprocessing for a model on a data set: asked ? asked : its record, else the guess; fitted to
 * the model's input. `source` (may be NULL) says which, 96 bytes. */
tn_status tn_evaluate_preprocess(const tn_model *model, const tn_dataset *dataset,
                                 const tn_preprocess *asked, tn_preprocess *preprocess,
                                 char *source, tn_error *error) TN_MUST_CHECK;

/* A model made ready to run on a data set's images: for several evaluations of one network. */
typedef struct tn_evaluate_network {
    tn_graph *graph;
    tn_plan *plan;
    tn_preprocess preprocess; /* fitted */
    char preprocess_source[96];
} tn_evaluate_network;

tn_status tn_evaluate_open(const tn_model *model, const tn_dataset *dataset, tn_device *device,
                           const tn_evaluate_options *options, tn_evaluate_network *network,
                           tn_error *error) TN_MUST_CHECK;
void tn_evaluate_close(tn_evaluate_network *network); /* may be called again */

/* Builds graph and plan for the model on the device and runs the data set through it. DATA when the
 * labels do not fit the network's outputs, or over max_bad; MODEL when the network cannot run, or
 * no image gets finite outputs.
 * options may be NULL. The result is freed by tn_evaluation_done. */
tn_status tn_evaluate_model(const tn_model *model, const tn_dataset *dataset, tn_device *device,
                            const tn_evaluate_options *options, tn_evaluation *evaluation,
                            tn_error *error) TN_MUST_CHECK;

/* The same with a plan that exists (its batch counts; options->preprocess must be given and
 * fitted): for validation between epochs. */
tn_status tn_evaluate_plan(tn_plan *plan, const tn_dataset *dataset,
                           const tn_evaluate_options *options, tn_evaluation *evaluation,
                           tn_error *error) TN_MUST_CHECK;

typedef struct tn_comparison {
    tn_evaluation a, b;
    size_t images, agreed; /* same top-1 class */
    double agreement;      /* 0 .. 1 */
    double kl;             /* mean KL(softmax a || softmax b), natural logarithm */
} tn_comparison;

void tn_comparison_done(tn_comparison *comparison);

/* Both models on the same images; unlabelled sets are fine (accuracies are 0 then). Each uses its
 * own recorded preprocessing unless one is asked for; `options_b` NULL means options_a. */
tn_status tn_evaluate_pair(const tn_model *a, const tn_model *b, const tn_dataset *dataset,
                           tn_device *device, const tn_evaluate_options *options_a,
                           const tn_evaluate_options *options_b, tn_comparison *comparison,
                           tn_error *error) TN_MUST_CHECK;

/* Wilson's score interval for `correct` of n at 95 %. */
void tn_wilson_interval(size_t correct, size_t n, double *low, double *high);

#endif
