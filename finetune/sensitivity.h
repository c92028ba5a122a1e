/* How much each layer suffers from each width.
 *
 * At every width each layer is fitted once to the float network's own activations. Then one layer
 * at a time is put into the float network, and what counts is measured: KL(float || that network)
 * on images they were not fitted to (probe.h). Small errors of different layers nearly add up, so
 * these figures, unlike those of a network that is coarse everywhere else, can be added and
 * compared. */
#ifndef TERNION_FINETUNE_SENSITIVITY_H
#define TERNION_FINETUNE_SENSITIVITY_H

#include "finetune/calibrate.h"
#include "finetune/probe.h"

enum { TN_BUDGET_WIDTHS = 5 }; /* 1.58, 2, 3, 4, 8 bits */
extern const char *const tn_budget_bits[TN_BUDGET_WIDTHS];
const char *tn_budget_scheme(int width); /* twn for 1.58 bits, else fixed */

/* One layer's row of the table. */
typedef struct tn_budget_row {
    char name[96];                    /* of the weight */
    char label[96];                   /* of its node */
    double kl[TN_BUDGET_WIDTHS];      /* with this layer alone at a width, all others float */
    uint64_t bytes[TN_BUDGET_WIDTHS]; /* of its codes and scales */
    int chosen;                       /* index into tn_budget_bits */
} tn_budget_row;

typedef struct tn_sensitivity {
    tn_calibration width[TN_BUDGET_WIDTHS]; /* every layer fitted alone */
    tn_budget_row *row;
    size_t count;
} tn_sensitivity;

/* Measured on up to 256 of the probe's images. options as for tn_calibrate; the policy says which
 * layers. USAGE for a policy whose layers depend on the width. */
tn_status tn_sensitivity_measure(const tn_model *model, const tn_dataset *dataset,
                                 const tn_calibrate_options *options, const tn_probe *probe,
                                 tn_device *device, tn_sensitivity *sensitivity,
                                 tn_error *error) TN_MUST_CHECK;
void tn_sensitivity_done(tn_sensitivity *sensitivity);

#endif
