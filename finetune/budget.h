/* Bits per layer under a budget of bytes or of accuracy.
 *
 * The sensitivity table (sensitivity.h), scaled so that each width adds up to what the whole
 * network loses at that width, guesses which promotions gain most KL per byte. Guesses become
 * candidates; every uniform width is one too. What counts is measured on each of them calibrated as
 * the result will be: KL(float || quantized) on images they were not fitted to (probe.h), bytes of
 * the packed file. The lowest KL among the candidates that fit is taken, so the choice is never
 * worse than the best uniform width by that measure. For a bound on the loss of accuracy it is the
 * smallest candidate that keeps it. */
#ifndef TERNION_FINETUNE_BUDGET_H
#define TERNION_FINETUNE_BUDGET_H

#include "finetune/probe.h"
#include "finetune/sensitivity.h"

typedef struct tn_budget_options {
    tn_calibrate_options calibrate; /* its policy says which layers; widths are chosen here */
    uint64_t target_size;           /* bytes of the written file; 0: no limit */
    double target_drop;             /* points of top-1 that may be lost; <= 0: not asked for */
    bool sensitivity_only;          /* measure the table, choose nothing */
    /* Bytes of the file that a model with these weights makes (packs in memory). */
    tn_status (*size)(void *context, const tn_calibration *calibration, uint64_t *bytes,
                      tn_error *error);
    void *size_context;
} tn_budget_options;

typedef struct tn_budget {
    tn_budget_row *row;
    size_t count;
    double kl_uniform[TN_BUDGET_WIDTHS]; /* of whole networks at one width, held out */
    tn_probe_result result;              /* of the choice */
    int64_t images;                      /* it was measured on */
    bool held_out;                       /* some of them calibrated with once widths were chosen */
    uint64_t bytes;                      /* of the choice, by `size` */
    int uniform;                         /* the width of all layers; -1: they differ */
    int calibrations;                    /* of whole networks */
} tn_budget;

/* Whether target_size can be met at all, which needs no images: USAGE with the smallest size when
 * not. tn_budget_choose looks itself; this is for callers whose images are expensive. */
tn_status tn_budget_check(const tn_model *model, const tn_budget_options *options,
                          tn_error *error) TN_MUST_CHECK;

/* Chooses widths and calibrates with them. target_drop is kept when the expected loss plus one
 * standard error is within it. USAGE when neither budget is given, when the lowest width already
 * exceeds target_size (the message says by how much), or when no width keeps target_drop. Ended by
 * tn_budget_done and tn_calibration_done (untouched with sensitivity_only). */
tn_status tn_budget_choose(const tn_model *model, const tn_dataset *dataset,
                           const tn_budget_options *options, tn_budget *budget,
                           tn_calibration *calibration, tn_error *error) TN_MUST_CHECK;
void tn_budget_done(tn_budget *budget);

#endif
