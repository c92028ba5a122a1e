/* Fine-tuning that goes on from a packed model: its codes and scales, its width, and float weights
 * for its latents. */
#ifndef TERNION_API_PACKED_START_H
#define TERNION_API_PACKED_START_H

#include "converter/convert.h"
#include "converter/unpack.h"

typedef struct tn_packed_start {
    tn_graph *graph; /* of the model */
    tn_unpacked unpacked;
    tn_conversion codes; /* borrows from both; item NULL: the model has no record */
    char bits[8];
    char granularity[40];
} tn_packed_start;

/* Reads the model's record. A model without one is none; that is no error. */
tn_status tn_packed_start_read(const tn_model *model, const tn_reporter *reporter,
                               tn_packed_start *start, tn_error *error) TN_MUST_CHECK;
void tn_packed_start_done(tn_packed_start *start);

/* Scheme, width and granularity of the record where the policy names none. USAGE where the layers'
 * differ. */
tn_status tn_packed_start_policy(tn_packed_start *start, tn_policy *policy,
                                 tn_error *error) TN_MUST_CHECK;

/* Whether training by this policy can begin at the record's codes: every layer it quantizes has
 * codes of its shape, range and granularity. */
tn_status tn_packed_start_fits(const tn_packed_start *start, const tn_policy *policy, bool *fits,
                               tn_error *error) TN_MUST_CHECK;

#endif
