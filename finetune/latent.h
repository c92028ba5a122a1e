/* Latent weights: the fp32 tensors behind quantized weights. The optimizer alone changes them;
 * before every forward pass the plan's parameter is set to their quantized values, and after the
 * backward pass the gradient of those values is brought back to latents and scales by the scheme's
 * straight-through estimator. */
#ifndef TERNION_FINETUNE_LATENT_H
#define TERNION_FINETUNE_LATENT_H

#include "converter/convert.h"
#include "network/params.h"

typedef struct tn_latent {
    const tn_layer *layer; /* borrowed */
    size_t param;          /* position in the store */
    tn_scheme scheme;
    tn_qweight weight;        /* shape, and what tn_latents_export fills */
    tn_quantizer_state state; /* scale and scale_neg are trained, zero and threshold follow */
    float *w, *dw;            /* [rows, cols] latent and gradient */
    float *dscale, *dscale_neg;
    float *values;         /* [rows, cols] scratch: quantized values, or their gradient */
    int16_t *codes;        /* [rows, cols] of the last quantization */
    int16_t *codes_before; /* of the last tn_latent_flips */
    bool trains_scale;     /* the scheme's scales are parameters of their own */
} tn_latent;

typedef struct tn_latents {
    tn_latent *item;
    size_t count;
} tn_latents;

/* Latents of all quantized layers, at the float weights, with states fitted to them. The layers'
 * parameters in the store stop being plain ones (their gradients stay wanted). Borrows layers. */
tn_status tn_latents_create(const tn_layers *layers, const tn_params *params, tn_latents *latents,
                            tn_error *error) TN_MUST_CHECK;
void tn_latents_done(tn_latents *latents);

/* Starts a latent at another layer's weights, of the same shape, and fits its scales to them. */
tn_status tn_latent_set(tn_latent *latent, const tn_layer *from, tn_error *error) TN_MUST_CHECK;

/* Starts a latent from a finished quantized weight (calibration, a packed model): takes its scales
 * and moves each float weight just so far that it quantizes to the given code, or, where scales or
 * thresholds follow from the latents (twn, ttq, affine, dorefa), to the code's value. Codes that
 * such a scheme cannot have (a sparsity other than asked for, an affine range that is not used
 * whole) it changes at the first step. Layers of another shape or granularity are a USAGE error. */
tn_status tn_latent_start(tn_latent *latent, const tn_qweight *from, tn_error *error) TN_MUST_CHECK;

/* Quantizes every latent and sets the store's parameters to the values. `refresh`: what follows
 * from the latents (TWN's threshold and scale) is computed anew. */
tn_status tn_latents_apply(tn_latents *latents, tn_params *params, bool refresh,
                           tn_error *error) TN_MUST_CHECK;

/* From the store's weight gradients to dw, dscale, dscale_neg. */
tn_status tn_latents_backward(tn_latents *latents, const tn_params *params,
                              tn_error *error) TN_MUST_CHECK;

/* Keeps states legal after an update. */
void tn_latents_constrain(tn_latents *latents);

/* Codes of one latent that changed since the last call, and values that are zero. */
void tn_latent_flips(tn_latent *latent, int64_t *flips, int64_t *zeros);

/* Codes and scales of every latent into its `weight`. */
void tn_latents_export(tn_latents *latents);

#endif
