/* The task of the verb that calibration asks of a device with memory of its own: sums over what a
 * layer sees. */
#ifndef TERNION_NETWORK_CALIBRATION_H
#define TERNION_NETWORK_CALIBRATION_H

#include "core/portable.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* What a layer should give at an output position. Arrays over positions are [rows, channels];
 * vectors [channels]. NULL where there is nothing of the kind. */
typedef struct tn_gram_target {
    int64_t channels;               /* outputs of all groups */
    const float *output;            /* of the float network; NULL: nothing is wanted, 0 */
    const float *other_f, *other_q; /* second operand of the residual sum behind, in both networks;
                                       other_q alone where it is not corrected */
    const float *bias;              /* part of output that is not to be given */
    const float *correction;        /* 1 / gain, 0 where the BN all but closes the channel */
    /* relaxation: where the ReLU hides the target as well as what the layer gives now, the latter
     * is as good a target */
    const float *values;         /* present weights, [channels, columns]; NULL: no relaxation */
    const double *gain, *offset; /* of the BN (or bias) between output and sum */
    const double *slope, *shift; /* of the present weights' output */
} tn_gram_target;

TN_BODY float tn_gram_wanted(const tn_gram_target *t, int64_t row, int64_t channel)
{
    if (!t->output)
        return 0.0f;
    int64_t at = row * t->channels + channel;
    float value = t->output[at];
    if (t->bias)
        value -= t->bias[channel];
    if (t->correction)
        value += (t->other_f[at] - t->other_q[at]) * t->correction[channel];
    return value;
}

/* wanted, or what the present weights give. present: their output. */
TN_BODY float tn_gram_relaxed(const tn_gram_target *t, int64_t row, int64_t channel, float present,
                              float wanted)
{
    double gain = t->gain[channel], rest = t->offset[channel];
    if (t->other_q)
        rest += (double)t->other_q[row * t->channels + channel];
    double now = (double)present * t->slope[channel] + t->shift[channel];
    return gain * now + rest < 0.0 && gain * (double)wanted + rest < 0.0 ? (float)now : wanted;
}

enum { TN_GRAM_TILE = 256, TN_GRAM_PAD = 64 };

/* GRAM: src x [positions in..., channels], output, other_f, other_q (NULL entries as in the
 * target); params bias, correction, values [channels, y_at of the layout]; params 3 .. 6 gain,
 * offset, slope, shift, which are double. args->places [count]: output positions to be summed. dst
 * (double): for each group [cols, sum_width], to which the products of x with x | y | 1 are added
 * (in fp32 over TN_GRAM_TILE positions, in double over all); then [channels of y, 2], to which y
 * and its square are. Columns of x are [kernel..., channel]. */
typedef struct tn_gram_task {
    int64_t channels, group;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3]; /* leading axes of size 1 */
    int64_t outputs;                                                  /* of a group */
    bool cross_only; /* products with y | 1 alone */
    bool relaxed;    /* the target has values */
} tn_gram_task;

/* A tile's row is x, zeros up to y_at, y, 1 (at one_at), zeros up to width; sums hold its columns
 * from first on. */
typedef struct tn_gram_layout {
    int64_t cols, y_at, one_at, width, first, sum_width;
} tn_gram_layout;

TN_BODY int64_t tn_gram_padded(int64_t n)
{
    return (n + TN_GRAM_PAD - 1) / TN_GRAM_PAD * TN_GRAM_PAD;
}

TN_BODY tn_gram_layout tn_gram_layout_of(const tn_gram_task *task)
{
    tn_gram_layout l;
    l.cols = task->channels / task->group * task->kernel[0] * task->kernel[1] * task->kernel[2];
    l.y_at = tn_gram_padded(l.cols);
    l.one_at = l.y_at + task->outputs;
    l.width = tn_gram_padded(l.one_at + 1);
    l.first = task->cross_only ? l.y_at : 0;
    l.sum_width = l.width - l.first;
    return l;
}

#endif
