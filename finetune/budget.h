/* Bits per layer under a budget of bytes or of accuracy.
 *
 * At every width each layer is fitted once, as if it alone were quantized (fits that make good what
 * layers before them got wrong would not go together). Then layers of different widths are put
 * together, and what counts is measured on them together: KL(float || quantized) on images held out
 * from calibration. All layers start at the widest uniform width that fits; the promotion that
 * gains most KL per byte is made, gains measured anew as they come to the top (lazily: a gain that
 * still leads after measuring is taken), until the budget is spent or the accuracy reached. The
 * choice is calibrated for good and compared with the widest uniform width that fits; the better is
 * the result. */
#ifndef TERNION_FINETUNE_BUDGET_H
#define TERNION_FINETUNE_BUDGET_H

#include "finetune/calibrate.h"

enum { TN_BUDGET_WIDTHS = 5 }; /* 1.58, 2, 3, 4, 8 bits */
extern const char *const tn_budget_bits[TN_BUDGET_WIDTHS];

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

/* One layer's row of the sensitivity table: KL with this layer alone at a width, all others at the
 * lowest, and bytes of its codes and scales. */
typedef struct tn_budget_row {
    char name[96]; /* of the weight */
    double kl[TN_BUDGET_WIDTHS];
    uint64_t bytes[TN_BUDGET_WIDTHS];
    int chosen; /* index into tn_budget_bits */
} tn_budget_row;

typedef struct tn_budget {
    tn_budget_row *row;
    size_t count;
    double kl_uniform[TN_BUDGET_WIDTHS]; /* of whole networks at one width, held out */
    double kl;                           /* of the choice */
    double disagreement;                 /* of the choice: top-1 differs from float, held out */
    uint64_t bytes;                      /* of the choice, by `size` */
    int measurements;                    /* forward passes over the held-out images */
} tn_budget;

/* Chooses widths and calibrates with them. USAGE when neither budget is given, when the lowest
 * width already exceeds target_size (the message says by how much), or when no width keeps
 * target_drop; the accuracy budget counts top-1 disagreements on held-out images, which bound the
 * loss of accuracy from above. Ended by tn_budget_done and tn_calibration_done (untouched with
 * sensitivity_only). */
tn_status tn_budget_choose(const tn_model *model, const tn_dataset *dataset,
                           const tn_budget_options *options, tn_budget *budget,
                           tn_calibration *calibration, tn_error *error) TN_MUST_CHECK;
void tn_budget_done(tn_budget *budget);

#endif
