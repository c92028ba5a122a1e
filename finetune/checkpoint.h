/* Checkpoints of a training run: everything the next step depends on, in one safetensors file that
 * is written atomically. A folder keeps the last two (step-*.safetensors) and best.safetensors. */
#ifndef TERNION_FINETUNE_CHECKPOINT_H
#define TERNION_FINETUNE_CHECKPOINT_H

#include "core/reporter.h"
#include "finetune/guard.h"
#include "finetune/optimizer.h"
#include "network/collective.h"
#include "network/params.h"

/* Where a run stands. Plain values: the run is a function of them, the slots and the statistics. */
typedef struct tn_progress_state {
    uint64_t step;    /* updates made */
    uint32_t epoch;   /* epochs completed */
    uint32_t batch;   /* batches of the current epoch that are done */
    double lr_factor; /* 1, halved by every rollback */
    double best_loss; /* lowest validation loss so far; infinity before the first */
    uint32_t best_epoch;
    double epoch_loss; /* sums over the current epoch, for its line in the journal */
    int64_t epoch_top1, epoch_seen;
    tn_guard guard;
} tn_progress_state;

/* What must be equal for a resume to continue the same run. */
typedef struct tn_run_identity {
    char recipe[33];   /* hash of every option that changes results */
    char model[33];    /* hash of the input file */
    char data[17];     /* fingerprint of the training set */
    char machine[192]; /* processor or GPU, libraries, build: a difference is a warning */
    int processes;     /* that trained together: a difference is a warning */
} tn_run_identity;

/* What a checkpoint holds, borrowed. */
typedef struct tn_checkpoint {
    tn_optimizer *optimizer;
    tn_params *params; /* the running statistics of BN are saved from and restored to it */
    tn_progress_state *state;
    const tn_run_identity *identity;
} tn_checkpoint;

/* Writes FOLDER/step-NNNNNNNNNN.safetensors, or FOLDER/best.safetensors, and removes all but the
 * last two of the former. IO: what was there before is intact. */
tn_status tn_checkpoint_save(const char *folder, bool best, const tn_checkpoint *checkpoint,
                             tn_error *error) TN_MUST_CHECK;

/* Whether a folder holds checkpoints. */
bool tn_checkpoint_exists(const char *folder);

/* Restores the newest file that is whole and belongs to this run; damaged ones are passed over with
 * a warning. *found says whether there was one; without any, nothing changes. USAGE when the newest
 * whole one belongs to another run (naming what differs). Nothing is changed on failure. */
tn_status tn_checkpoint_restore(const char *folder, const tn_reporter *reporter,
                                const tn_checkpoint *checkpoint, bool *found,
                                tn_error *error) TN_MUST_CHECK;

/* Restores FOLDER/best.safetensors. */
tn_status tn_checkpoint_restore_best(const char *folder, const tn_checkpoint *checkpoint,
                                     tn_error *error) TN_MUST_CHECK;

/* What rank 0 has (a restored checkpoint, or where a run starts) to all ranks; all call it. */
tn_status tn_checkpoint_share(const tn_checkpoint *checkpoint, tn_collective *collective,
                              tn_error *error) TN_MUST_CHECK;

/* DIFFERS on a rank whose hash is not that of rank 0; all call it. */
tn_status tn_checkpoint_compare(const tn_checkpoint *checkpoint, const char *hash,
                                tn_collective *collective, tn_error *error) TN_MUST_CHECK;

/* xxh3 of all slots and statistics: equal states have equal hashes. text: 33 bytes. */
void tn_checkpoint_hash(const tn_checkpoint *checkpoint, char *text);

#endif
