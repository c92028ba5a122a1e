/* The network under training: plan, parameters, latent weights, optimizer, and a teacher when there
 * is one; and the step that moves it. What feeds it and what judges it are trainer.c's. */
#ifndef TERNION_FINETUNE_STUDENT_H
#define TERNION_FINETUNE_STUDENT_H

#include "finetune/activation_steps.h"
#include "finetune/image_feed.h"
#include "finetune/latent.h"
#include "finetune/optimizer.h"
#include "finetune/recorder.h"
#include "finetune/reduction.h"
#include "finetune/resident.h"
#include "finetune/running_statistics.h"
#include "finetune/train.h"
#include "network/plan.h"

typedef struct tn_student {
    const tn_train_options *options; /* resolved, borrowed */
    tn_graph *graph;                 /* batch = the rank's part of options->batch */
    tn_layers layers;
    tn_params *params;
    tn_plan *plan;  /* training */
    tn_plan *judge; /* inference with the same parameters, for validation */
    tn_latents latents;
    tn_activation_steps steps;
    tn_optimizer optimizer;
    tn_running_statistics running; /* before the step */
    tn_resident *resident;         /* NULL: the host's memory is the device's */
    tn_reduction *reduction;       /* NULL: one rank */
    tn_recorder recorder;
    tn_loss_options usual; /* the kind of batch that is recorded */
    tn_graph *teacher_graph;
    tn_params *teacher_params;
    tn_plan *teacher;    /* NULL without distillation */
    tn_image_feed *feed; /* owned; NULL: batches come as values */
    int64_t classes;
} tn_student;

/* options must be resolved (tn_train_resolve). teacher may be NULL. Models are borrowed. */
tn_status tn_student_create(const tn_model *model, const tn_model *teacher,
                            const tn_train_options *options, tn_student *student,
                            tn_error *error) TN_MUST_CHECK;
void tn_student_done(tn_student *student);

/* Starts quantized layers from finished weights (by weight name); layers without one start at the
 * float weights. */
tn_status tn_student_start(tn_student *student, const tn_conversion *start,
                           tn_error *error) TN_MUST_CHECK;

/* --- a step: student_step.c ------------------------------------------------------------------- */

/* Where the run stands, 0 (start) to 1, for what is annealed (parq, a growing sparsity). */
void tn_student_anneal(tn_student *student, double progress);

typedef struct tn_sample_batch {
    const float *nhwc;     /* [count, H, W, C] */
    const tn_batch *bytes; /* instead, for the student's feed */
    const int32_t *labels;
    const int32_t *partners; /* mixup's second labels; NULL: none */
    const float *mix;        /* with partners: their shares */
    int64_t count;
    uint64_t seed, first; /* what Dropout draws: those of samples first, first + 1, ... */
    uint32_t epoch;       /* of this epoch */
} tn_sample_batch;

/* Forward, loss and backward of one batch. accumulate adds to the gradients of the batch before;
 * share = 1 / number of batches of the step, of all ranks. */
tn_status tn_student_batch(tn_student *student, const tn_sample_batch *batch, bool accumulate,
                           double share, tn_loss_result *loss, tn_error *error) TN_MUST_CHECK;

/* On a device that holds the state, with one rank, whole steps run ahead of the host: forward,
 * loss, backward, and after a step's `last` batch its norm, clipping, and the update at rate lr,
 * unless loss or norm is not finite: all as one recording, and nothing is waited for. At most
 * TN_STEP_LOG steps; then what became of them must be looked at, as before tn_student_fetch. */
bool tn_student_runs_ahead(const tn_student *student);
tn_status tn_student_ahead(tn_student *student, const tn_sample_batch *batch, bool accumulate,
                           double share, bool last, double lr, tn_error *error) TN_MUST_CHECK;
int tn_student_pending(const tn_student *student); /* steps not looked at */
/* The *n records have room for TN_STEP_LOG. */
tn_status tn_student_look(tn_student *student, tn_step_record *records, int *n,
                          tn_error *error) TN_MUST_CHECK;

/* The same loss of the network as it is judged: inference with the parameters as they are. */
tn_status tn_student_judge(tn_student *student, const tn_sample_batch *batch, tn_loss_result *loss,
                           tn_error *error) TN_MUST_CHECK;

/* After a step's last batch, on all ranks: gradients become their sums over the ranks, running
 * statistics their means. */
tn_status tn_student_reduce(tn_student *student, tn_error *error) TN_MUST_CHECK;

/* Then: gradients of latents and scales from those of the weights. *norm is
 * the Euclidean norm of all gradients. */
tn_status tn_student_collect(tn_student *student, double *norm, tn_error *error) TN_MUST_CHECK;

/* The update from those gradients, clipped as the options say. */
tn_status tn_student_update(tn_student *student, double lr, double norm,
                            tn_error *error) TN_MUST_CHECK;

/* Instead of an update: running statistics are what they were before the step. (On devices with
 * memory of their own only those that became infinite or NaN are, which their kernels see to.) */
void tn_student_drop(tn_student *student);

/* Latents, scales and the optimizer's state as the host sees them, to be read or changed: before
 * checkpoints are saved or restored and averages exchanged. */
tn_status tn_student_fetch(tn_student *student, tn_error *error) TN_MUST_CHECK;

/* Fetches, and sets the parameters to the quantized values of the latents, for judging and export.
 */
tn_status tn_student_settle(tn_student *student, tn_error *error) TN_MUST_CHECK;

#endif
