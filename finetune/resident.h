/* Latents, scales and the optimizer's state in a device's memory, where its memory is not the
 * host's: a training step then moves neither weights nor gradients. The state is in one place at a
 * time: on the device while steps run, on the host from tn_resident_leave on, where checkpoints,
 * averages, validation and export work. */
#ifndef TERNION_FINETUNE_RESIDENT_H
#define TERNION_FINETUNE_RESIDENT_H

#include "finetune/latent.h"
#include "finetune/optimizer.h"

typedef struct tn_resident tn_resident;

/* *resident becomes NULL where the host works on the state itself: on devices with the host's
 * memory, and on those without the verbs. Borrows all; after tn_params_mirror. LIMIT when the
 * device has no memory for it. */
tn_status tn_resident_create(tn_device *device, tn_params *params, tn_latents *latents,
                             tn_optimizer *optimizer, tn_resident **resident,
                             tn_error *error) TN_MUST_CHECK;
void tn_resident_destroy(
    tn_resident *resident); /* NULL is fine; the host's copy is left as it is */

/* What precedes a forward pass: the state is on the device and what is annealed up to date there.
 */
tn_status tn_resident_enter(tn_resident *resident, tn_error *error) TN_MUST_CHECK;
/* Quantizes: parameters from latents. */
tn_status tn_resident_quantize(tn_resident *resident, tn_error *error) TN_MUST_CHECK;
/* Gradients of latents and scales from those of the parameters, and the sum of squares of all. */
tn_status tn_resident_collect(tn_resident *resident, tn_error *error) TN_MUST_CHECK;
/* The norm that collect left. */
tn_status tn_resident_norm(tn_resident *resident, double *norm, tn_error *error) TN_MUST_CHECK;
/* tn_optimizer_step and tn_latents_constrain in two parts: what the step is made with, the step. */
tn_status tn_resident_prepare(tn_resident *resident, double lr, double gradient_scale,
                              tn_error *error) TN_MUST_CHECK;
tn_status tn_resident_update(tn_resident *resident, tn_error *error) TN_MUST_CHECK;
/* After an update: the parameters changed, a step was made. */
void tn_resident_updated(tn_resident *resident);

/* Brings the state to the host, which may change it. Nothing to do where it is there. */
tn_status tn_resident_leave(tn_resident *resident, tn_error *error) TN_MUST_CHECK;
#endif
