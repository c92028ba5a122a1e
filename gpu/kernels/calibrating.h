/* Gram sums of calibration: tiles of positions and what becomes of their products. */
#ifndef TERNION_GPU_KERNELS_CALIBRATING_H
#define TERNION_GPU_KERNELS_CALIBRATING_H

#include "gpu/kernels/convolution.h"

typedef struct tn_gram_args {
    tn_conv_shape s;
    tn_gram_layout l;
    tn_gram_target target; /* values: not read */
    const float *x;
    const uint32_t *places; /* of the first tile */
    float *tiles;           /* [tiles, TN_GRAM_TILE, width] */
    const float *present;   /* [tiles, TN_GRAM_TILE, present_ld] */
    const float *products;  /* [tiles, cols, sum_width] */
    double *parts;          /* [tiles, outputs, 2] */
    double *sums;           /* of the group, [cols, sum_width] */
    double *y_sums;         /* of the group, [outputs, 2] */
    int64_t count;          /* positions; the last tile is filled up with zeros */
    int64_t tiles_count, group, outputs, present_ld;
} tn_gram_args;

TN_BODY float tn_gram_patch(const tn_gram_args *k, int64_t place, int64_t col)
{
    const tn_conv_shape *s = &k->s;
    int64_t from = tn_conv_source(s, place % s->out_pixels, col / s->per_group);
    if (from < 0)
        return 0.0f;
    return k->x[(place / s->out_pixels * s->in_pixels + from) * s->channels +
                k->group * s->per_group + col % s->per_group];
}

TN_BODY void tn_gram_tile_body(const tn_gram_args *k, int64_t i) /* one thread an element */
{
    const tn_gram_layout *l = &k->l;
    int64_t position = i / l->width, col = i % l->width;
    float v = 0.0f;
    if (position < k->count) {
        int64_t place = k->places[position];
        if (col < l->cols)
            v = tn_gram_patch(k, place, col);
        else if (col == l->one_at)
            v = 1.0f;
        else if (col >= l->y_at && col < l->one_at)
            v = tn_gram_wanted(&k->target, place, k->group * k->outputs + col - l->y_at);
    }
    k->tiles[i] = v;
}

TN_BODY void tn_gram_relax_body(const tn_gram_args *k, int64_t i) /* one thread a y */
{
    int64_t position = i / k->outputs, o = i % k->outputs;
    float *y = &k->tiles[position * k->l.width + k->l.y_at + o];
    *y = tn_gram_relaxed(&k->target, k->places[position], k->group * k->outputs + o,
                         k->present[position * k->present_ld + o], *y);
}

TN_BODY void tn_gram_moments_body(const tn_gram_args *k, int64_t i) /* an output of a tile */
{
    const float *y =
        k->tiles + i / k->outputs * TN_GRAM_TILE * k->l.width + k->l.y_at + i % k->outputs;
    double sum = 0.0, square = 0.0;
    for (int row = 0; row < TN_GRAM_TILE; row++, y += k->l.width) {
        sum += (double)*y;
        square += (double)*y * (double)*y;
    }
    k->parts[2 * i] = sum;
    k->parts[2 * i + 1] = square;
}

TN_BODY void tn_gram_add_body(const tn_gram_args *k, int64_t i) /* one thread a sum */
{
    int64_t size = k->l.cols * k->l.sum_width;
    double sum = k->sums[i];
    for (int64_t t = 0; t < k->tiles_count; t++)
        sum += (double)k->products[t * size + i];
    k->sums[i] = sum;
}

TN_BODY void tn_gram_add_moments_body(const tn_gram_args *k, int64_t i) /* one thread a sum */
{
    double sum = k->y_sums[i];
    for (int64_t t = 0; t < k->tiles_count; t++)
        sum += k->parts[t * 2 * k->outputs + i];
    k->y_sums[i] = sum;
}

#endif
