/* Latents, scales and the optimizer's state in a device's memory, where its memory is not the
 * host's: a training step then moves neither weights nor gradients. The state is in one place at a
 * time: on the device while steps run, on the host from tn_resident_leave on, where checkpoints,
 * averages, validation and export work. */
#ifndef TERNION_FINETUNE_RESIDENT_H
#define TERNION_FINETUNE_RESIDENT_H

#include "finetune/latent.h"
#include "finetune/optimizer.h"

typedef struct tn_resident tn_resident;

/* *resident becomes NULL on devices with the host's memory: the host works on the state itself.
 * Borrows all; after tn_params_mirror. `clip`: the largest norm of the gradients, 0: any. DEVICE on
 * devices without the verbs, LIMIT when the device has no memory for it. */
tn_status tn_resident_create(tn_device *device, tn_params *params, tn_latents *latents,
                             tn_optimizer *optimizer, double clip, tn_resident **resident,
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

/* The same without the host, which looks at up to TN_STEP_LOG steps at once: tally after each batch
 * (`adds`: not a step's first) with the loss's sums in device memory, then collect, then conclude,
 * which judges the step and updates. announce sends what the next conclude needs; USAGE when the
 * log is full. */
tn_status tn_resident_announce(tn_resident *resident, double lr, tn_error *error) TN_MUST_CHECK;
tn_status tn_resident_tally(tn_resident *resident, const float *sums, bool adds,
                            tn_error *error) TN_MUST_CHECK;
tn_status tn_resident_conclude(tn_resident *resident, tn_error *error) TN_MUST_CHECK;
void tn_resident_concluded(tn_resident *resident);
/* What became of the *n <= TN_STEP_LOG steps concluded since the last look; waits for them. */
tn_status tn_resident_look(tn_resident *resident, tn_step_record *records, int *n,
                           tn_error *error) TN_MUST_CHECK;
int tn_resident_pending(const tn_resident *resident); /* steps nobody has looked at */

/* Brings the state to the host, which may change it. Nothing to do where it is there. USAGE
 * while steps are pending. */
tn_status tn_resident_leave(tn_resident *resident, tn_error *error) TN_MUST_CHECK;
#endif
