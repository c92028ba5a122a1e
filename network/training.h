/* Tasks of the verbs that surround a network in training and are no part of its graph: its input
 * from pictures, the gradient's norm, the optimizer, and the quantizers of latent weights. The last
 * three work on a list of tensors in one go. All arrays are device memory unless said otherwise. */
#ifndef TERNION_NETWORK_TRAINING_H
#define TERNION_NETWORK_TRAINING_H

#include "converter/quantizer.h"
#include "core/portable.h"
#include "data/augment_pixel.h"

#include <math.h>
#include <stdbool.h>

/* Latent weights of one tensor, and what becomes of them (converter/quantizer.h). Forward: what
 * follows from the latents is refreshed, then values = quantize(w). Backward: dw, dscale,
 * dscale_neg from dvalues and what forward left in `values`. `pack` reads the schemes' threshold
 * values and rho_inv anew. */
typedef struct tn_quantizer_item {
    const tn_scheme *scheme;    /* host, borrowed */
    const tn_qweight *shape;    /* host, borrowed; its arrays are not read */
    const float *rho_inv;       /* host, borrowed */
    bool refresh;               /* else the state stays as it is */
    tn_quantizer_state state;   /* the four arrays; those the scheme has no use for may be NULL */
    const float *w;             /* [rows, cols] */
    float *values;              /* in the model's layout */
    const float *dvalues;       /* in the model's layout */
    float *dw;                  /* [rows, cols] */
    float *dscale, *dscale_neg; /* NULL: not wanted */
} tn_quantizer_item;

typedef struct tn_quantizer_task {
    const tn_quantizer_item *items; /* [n]; copied by prepare */
    int n;
} tn_quantizer_task;

typedef enum tn_optimizer_kind {
    TN_OPTIMIZER_SGD,  /* v = momentum v + g; w -= lr v (Nesterov: w -= lr (g + momentum v)) */
    TN_OPTIMIZER_ADAM, /* Kingma and Ba 2015; weight decay added to the gradient */
    TN_OPTIMIZER_ADAMW /* Loshchilov and Hutter 2019: decay apart from the gradient */
} tn_optimizer_kind;

typedef struct tn_optimizer_rule {
    tn_optimizer_kind kind;
    float momentum;     /* SGD */
    bool nesterov;      /* SGD */
    float beta1, beta2; /* Adam */
    float epsilon;      /* Adam */
} tn_optimizer_rule;

typedef struct tn_optimizer_item {
    float *value;
    const float *gradient;
    int64_t count;
    float rate;     /* factor on the learning rate */
    float decay;    /* weight decay */
    float floor;    /* values are kept at or above it; -infinity: anywhere */
    float *first;   /* momentum, or Adam's first moment */
    float *second;  /* Adam's second moment; NULL for SGD */
    float *average; /* NULL without */
} tn_optimizer_item;

/* Forward of OPTIMIZER: one update by args->update, which its `pack` reads, as *args->step decides.
 * Forward of NORM: the sum of squares of all gradients in double, into *(double *)args->dst: by
 * chunks of TN_NORM_CHUNK elements, each by lanes (element i is lane i % TN_NORM_LANES), lanes by
 * 16 in order, those in order; the chunks of all tensors in turn are added in the same way. */
typedef struct tn_optimizer_task {
    tn_optimizer_rule rule;
    const tn_optimizer_item *items; /* [n]; copied by prepare */
    int n;
} tn_optimizer_task;

enum { TN_NORM_CHUNK = 4096, TN_NORM_LANES = 256, TN_NORM_GROUP = 16 };

/* dst [rows, height, width, channels] from pictures of bytes: row i is picture args->places[i] of
 * args->pixels (TN_NO_PLACE: zeros), as args->augmentations[i] has it and mixed with row i ^ 1, bit
 * for bit as tn_pixel_mixed makes it on the host. With src[0] pictures are not augmented: src[0] is
 * the value of each byte, [channels, 256], channels as the network has them. */
typedef struct tn_augment_task {
    int64_t rows;
    int width, height, channels; /* channels: 1 or 3 */
    tn_normalization normalization;
} tn_augment_task;

#define TN_NO_PLACE UINT32_MAX

enum { TN_STEP_LOG = 16 }; /* steps a device makes before the host looks at them */

/* What became of a step. */
typedef struct tn_step_record {
    double loss, top1; /* sums over its samples */
    double norm;       /* of all gradients */
    double updated;    /* 1; 0: loss or norm is not finite, nothing was changed */
} tn_step_record;

/* Of steps on a device, in its memory, set to 0 when the host has looked. TALLY adds the sums
 * src[0] of a batch's loss (tn_loss_task) to the step, or begins a step with them unless
 * args->accumulate_params. JUDGE, at a step's end, finds the norm from the sum of squares
 * *(double *)src[0], decides whether and how OPTIMIZER updates, and notes the step. */
typedef struct tn_step_state {
    int32_t noted, dropped; /* steps since the host looked */
    int32_t updates;        /* whether OPTIMIZER's next forward does */
    float gradient_scale;   /* and its factor on gradients */
    double loss, top1;      /* of the step so far */
    tn_step_record log[TN_STEP_LOG];
} tn_step_state;

typedef struct tn_judge_task {
    double clip; /* gradients of a larger norm are brought to this; 0: none are */
} tn_judge_task;

/* The factor on gradients of that norm. */
TN_BODY double tn_clip_factor(double clip, double norm)
{
    return clip > 0.0 && norm > clip ? clip / norm : 1.0;
}

TN_BODY bool tn_step_is_good(double loss, double norm)
{
    return loss - loss == 0.0 && norm - norm == 0.0; /* finite */
}

/* What depends on how many updates there were. */
typedef struct tn_update_factors {
    float unbias1, unbias2; /* Adam: 1 / (1 - beta^t) */
    float keep;             /* of the averages */
} tn_update_factors;

/* What one update is made with: after[d] when d of the steps since the host looked were dropped. */
typedef struct tn_update {
    double lr;
    tn_update_factors after[TN_STEP_LOG];
} tn_update;

/* --- one element, the same on every device ---------------------------------------------------- */

TN_BODY void tn_sgd_element(const tn_optimizer_rule *rule, float rate, float decay, float scale,
                            float gradient, float *value, float *velocity)
{
    float ahead = rule->nesterov ? rule->momentum : 1.0f, direct = rule->nesterov ? 1.0f : 0.0f;
    float g = gradient * scale + decay * *value;
    *velocity = rule->momentum * *velocity + g;
    *value -= rate * (direct * g + ahead * *velocity);
}

TN_BODY void tn_adam_element(const tn_optimizer_rule *rule, float rate, float decay, float scale,
                             float unbias1, float unbias2, float gradient, float *value, float *m,
                             float *v)
{
    bool apart = rule->kind == TN_OPTIMIZER_ADAMW;
    float coupled = apart ? 0.0f : decay, shrink = apart ? 1.0f - rate * decay : 1.0f;
    float b1 = rule->beta1, b2 = rule->beta2, g = gradient * scale + coupled * *value;
    *m = b1 * *m + (1.0f - b1) * g;
    *v = b2 * *v + (1.0f - b2) * g * g;
    *value = *value * shrink - rate * (*m * unbias1) / (sqrtf(*v * unbias2) + rule->epsilon);
}

TN_BODY float tn_average_element(float average, float value, float keep)
{
    return keep * average + (1.0f - keep) * value;
}

#endif
