/* Convolution bodies: columns for the matrix product and back, weights between the model's layout
 * [O, I/g, cells] and the product's [O, cells, I/g], and depthwise convolution done directly. */
#ifndef TERNION_GPU_KERNELS_CONVOLUTION_H
#define TERNION_GPU_KERNELS_CONVOLUTION_H

#include "gpu/body.h"

/* Always three spatial axes, leading ones of size 1. A column is [group][ld]: cells x per_group
 * values, zeros up to ld. */
typedef struct tn_conv_shape {
    int64_t channels, out_channels, group, per_group; /* per_group: input channels of a group */
    int64_t cells, k, ld;                             /* k = cells * per_group */
    int64_t in_pixels, out_pixels;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3];
} tn_conv_shape;

/* The input pixel that a kernel cell reads for an output pixel; -1: padding. */
TN_BODY int64_t tn_conv_source(const tn_conv_shape *s, int64_t pixel, int64_t cell)
{
    int64_t x = pixel % s->out[2] * s->stride[2] - s->pad[2] + cell % s->kernel[2] * s->dilation[2];
    pixel /= s->out[2];
    cell /= s->kernel[2];
    int64_t y = pixel % s->out[1] * s->stride[1] - s->pad[1] + cell % s->kernel[1] * s->dilation[1];
    pixel /= s->out[1];
    cell /= s->kernel[1];
    int64_t z = pixel * s->stride[0] - s->pad[0] + cell * s->dilation[0];
    if (x < 0 || y < 0 || z < 0 || x >= s->in[2] || y >= s->in[1] || z >= s->in[0])
        return -1;
    return (z * s->in[1] + y) * s->in[2] + x;
}

/* The output coordinate whose cell reads an input coordinate; -1: none. */
TN_BODY int64_t tn_conv_target_axis(const tn_conv_shape *s, int axis, int64_t at, int64_t cell)
{
    int64_t o = at + s->pad[axis] - cell * s->dilation[axis];
    if (o < 0 || o % s->stride[axis] != 0)
        return -1;
    o /= s->stride[axis];
    return o < s->out[axis] ? o : -1;
}

TN_BODY int64_t tn_conv_target(const tn_conv_shape *s, int64_t pixel, int64_t cell)
{
    int64_t x = tn_conv_target_axis(s, 2, pixel % s->in[2], cell % s->kernel[2]);
    pixel /= s->in[2];
    cell /= s->kernel[2];
    int64_t y = tn_conv_target_axis(s, 1, pixel % s->in[1], cell % s->kernel[1]);
    int64_t z = tn_conv_target_axis(s, 0, pixel / s->in[1], cell / s->kernel[1]);
    return x < 0 || y < 0 || z < 0 ? -1 : (z * s->out[1] + y) * s->out[2] + x;
}

typedef struct tn_columns_args {
    tn_conv_shape s;
    const void *src;                 /* of the first image */
    void *columns;                   /* [images, out_pixels, group, ld] */
    void *dst;                       /* backward: dx, from columns in fp32 */
    bool bf16, accumulate, src_bf16; /* bf16: columns; src_bf16: src and dst */
} tn_columns_args;

TN_BODY void tn_columns_body(const tn_columns_args *k, int64_t i) /* one thread a column value */
{
    const tn_conv_shape *s = &k->s;
    int64_t col = i % s->ld, rest = i / s->ld, g = rest % s->group;
    rest /= s->group;
    int64_t n = rest / s->out_pixels;
    float v = 0.0f;
    if (col < s->k) {
        int64_t from = tn_conv_source(s, rest % s->out_pixels, col / s->per_group);
        if (from >= 0)
            v = tn_load(k->src,
                        (n * s->in_pixels + from) * s->channels + g * s->per_group +
                            col % s->per_group,
                        k->src_bf16);
    }
    tn_store_operand(k->columns, i, k->bf16, v);
}

/* One thread per input element gathers what the columns hold for it. */
TN_BODY void tn_columns_back_body(const tn_columns_args *k, int64_t i)
{
    const tn_conv_shape *s = &k->s;
    const float *columns = (const float *)k->columns;
    int64_t c = i % s->channels, pixel = i / s->channels % s->in_pixels;
    int64_t n = i / s->channels / s->in_pixels, g = c / s->per_group;
    float sum = k->accumulate ? tn_load(k->dst, i, k->src_bf16) : 0.0f;
    for (int64_t cell = 0; cell < s->cells; cell++) {
        int64_t to = tn_conv_target(s, pixel, cell);
        if (to >= 0)
            sum += columns[((n * s->out_pixels + to) * s->group + g) * s->ld + cell * s->per_group +
                           c % s->per_group];
    }
    tn_store_operand(k->dst, i, k->src_bf16, sum);
}

/* Weights into [O, ld], times gamma / sqrt(var + epsilon) when BN is folded in. */
typedef struct tn_weights_args {
    const float *weight, *bias; /* bias: of the convolution, may be NULL */
    const float *gamma, *beta, *mean, *var;
    void *packed;
    float *folded_bias;
    int64_t cells, per_group, k, ld;
    float epsilon;
    bool bf16;
} tn_weights_args;

TN_BODY void tn_weights_body(const tn_weights_args *k, int64_t i)
{
    int64_t o = i / k->ld, col = i % k->ld;
    float v = 0.0f;
    if (col < k->k) {
        v = k->weight[o * k->k + col % k->per_group * k->cells + col / k->per_group];
        if (k->gamma)
            v = (float)((double)v *
                        ((double)k->gamma[o] / sqrt((double)k->var[o] + (double)k->epsilon)));
    }
    tn_store_operand(k->packed, i, k->bf16, v);
}

TN_BODY void tn_fold_bias_body(const tn_weights_args *k, int64_t o)
{
    double scale = (double)k->gamma[o] / sqrt((double)k->var[o] + (double)k->epsilon);
    double old = k->bias ? (double)k->bias[o] : 0.0;
    k->folded_bias[o] = (float)((old - (double)k->mean[o]) * scale + (double)k->beta[o]);
}

/* Weight gradients from [O, ld] back to the model's layout. */
typedef struct tn_unpack_args {
    const void *packed;
    float *dst;
    int64_t cells, per_group, k, ld;
    bool accumulate, bf16;
} tn_unpack_args;

TN_BODY void tn_unpack_body(const tn_unpack_args *k, int64_t i)
{
    int64_t o, at, c, cell;
    tn_divide(i, k->k, &o, &at);
    tn_divide(at, k->cells, &c, &cell);
    float v = tn_load(k->packed, o * k->ld + cell * k->per_group + c, k->bf16);
    k->dst[i] = k->accumulate ? k->dst[i] + v : v;
}

/* Depthwise: per_group is 1; out_channels / channels filters read each channel. Packed weights
 * [O, ld] in fp32. */
typedef struct tn_depthwise_args {
    tn_conv_shape s;
    const void *src, *dy;
    const float *weight;
    void *dst;
    double *partial; /* [chunks, O, cells] */
    int64_t images;
    int chunks;
    bool accumulate, src_bf16, dst_bf16; /* src, dx; y, dy */
} tn_depthwise_args;

TN_BODY void tn_depthwise_body(const tn_depthwise_args *k, int64_t i)
{
    const tn_conv_shape *s = &k->s;
    int64_t o = i % s->out_channels, pixel = i / s->out_channels % s->out_pixels;
    int64_t n = i / s->out_channels / s->out_pixels;
    int64_t c = o / (s->out_channels / s->channels);
    float sum = 0.0f;
    for (int64_t cell = 0; cell < s->cells; cell++) {
        int64_t from = tn_conv_source(s, pixel, cell);
        if (from >= 0)
            sum += tn_load(k->src, (n * s->in_pixels + from) * s->channels + c, k->src_bf16) *
                   k->weight[o * s->ld + cell];
    }
    tn_store_operand(k->dst, i, k->dst_bf16, sum);
}

TN_BODY void tn_depthwise_data_body(const tn_depthwise_args *k, int64_t i)
{
    const tn_conv_shape *s = &k->s;
    int64_t c = i % s->channels, pixel = i / s->channels % s->in_pixels;
    int64_t n = i / s->channels / s->in_pixels, filters = s->out_channels / s->channels;
    float sum = 0.0f;
    for (int64_t cell = 0; cell < s->cells; cell++) {
        int64_t to = tn_conv_target(s, pixel, cell);
        for (int64_t o = c * filters; to >= 0 && o < (c + 1) * filters; o++)
            sum += tn_load(k->dy, (n * s->out_pixels + to) * s->out_channels + o, k->dst_bf16) *
                   k->weight[o * s->ld + cell];
    }
    sum += k->accumulate ? tn_load(k->dst, i, k->src_bf16) : 0.0f;
    tn_store_operand(k->dst, i, k->src_bf16, sum);
}

/* Thread (chunk of output pixels, cell, filter): neighbours read neighbouring channels. */
TN_BODY void tn_depthwise_weights_body(const tn_depthwise_args *k, int64_t i)
{
    const tn_conv_shape *s = &k->s;
    int64_t o = i % s->out_channels, cell = i / s->out_channels % s->cells;
    int64_t chunk = i / s->out_channels / s->cells, rows = k->images * s->out_pixels;
    int64_t c = o / (s->out_channels / s->channels);
    double sum = 0.0;
    for (int64_t r = rows * chunk / k->chunks; r < rows * (chunk + 1) / k->chunks; r++) {
        int64_t from = tn_conv_source(s, r % s->out_pixels, cell);
        if (from >= 0)
            sum +=
                (double)tn_load(k->src, (r / s->out_pixels * s->in_pixels + from) * s->channels + c,
                                k->src_bf16) *
                (double)tn_load(k->dy, r * s->out_channels + o, k->dst_bf16);
    }
    k->partial[(chunk * s->out_channels + o) * s->cells + cell] = sum;
}

#endif
