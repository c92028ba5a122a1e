/* What a layer sees, as the few sums its least-squares problem needs:
 *   inner = sum x x',  cross = sum y x',  and the sums of x, y, y^2
 * over positions, x being the input patch of an output position and y what the layer should give
 * there (tn_gram_target). One pass over the activations in tiles of 256 positions: products in fp32
 * (oneDNN, or the device's verb GRAM), added up in double, in an order fixed by the shapes alone
 * (the same bits for every number of threads). */
#ifndef TERNION_FINETUNE_GRAM_H
#define TERNION_FINETUNE_GRAM_H

#include "network/device.h"

/* The input patches of a convolution; of a linear layer with spatial = 0 (volume 1). */
typedef struct tn_patches {
    int spatial; /* 0 to 3 */
    int64_t batch, channels, group;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad[3];
    const float *data; /* [batch, in..., channels], borrowed */
} tn_patches;

int64_t tn_patches_rows(const tn_patches *patches);   /* positions: batch x out... */
int64_t tn_patches_volume(const tn_patches *patches); /* product of the kernel */
int64_t tn_patches_cols(const tn_patches *patches);   /* channels / group x volume */

/* Columns of a patch are [kernel..., channel] in a tile and [channel, kernel...] in weights: the
 * weight's column of tile column j. */
int64_t tn_patches_weight_col(const tn_patches *patches, int64_t j);

/* The patch at position `row` for one group: [kernel..., channels / group], zeros outside. */
void tn_patches_fill(const tn_patches *patches, int64_t group, int64_t row, float *dst);

/* Row j of about every step-th: one of each `step` rows, at a place that depends on j alone, so
 * that no pattern of the positions is met again and again. */
int64_t tn_gram_chosen_row(int64_t j, int64_t step);

typedef struct tn_gram {
    int64_t rows, cols, groups; /* output channels, weights of one, groups of the convolution */
    double count;               /* positions summed */
    double *inner;              /* [groups, cols, cols] */
    double *cross;              /* [rows, cols] */
    double *sum_x;              /* [groups, cols] */
    double *sum_y, *sum_yy;     /* [rows] */
    bool *flat;                 /* [groups] whose inputs hardly vary; set by tn_gram_damp_inner */
} tn_gram;

/* Allocates zeroed sums. LIMIT when too large. */
tn_status tn_gram_init(tn_gram *gram, int64_t rows, int64_t cols, int64_t groups,
                       tn_error *error) TN_MUST_CHECK;
void tn_gram_done(tn_gram *gram);

/* One pass over the positions in chunks: the positions of chunk after chunk, in order, make up
 * `total` rows. With a limit (> 0) about so many of them are used, spread evenly with a jitter.
 * With cross_only, inner and sum_x stay as they are. `patches` tells the shape; gram's must fit.
 * Arrays over positions (patches.data, the target's) are in the device's memory, the rest is the
 * host's; device NULL: the host. Borrows device, target and gram. */
typedef struct tn_gram_pass tn_gram_pass;
tn_status tn_gram_pass_create(tn_device *device, const tn_patches *patches, int64_t total,
                              int64_t limit, bool cross_only, const tn_gram_target *target,
                              tn_gram *gram, tn_gram_pass **pass, tn_error *error) TN_MUST_CHECK;
void tn_gram_pass_destroy(tn_gram_pass *pass); /* NULL is fine */
/* The positions of a chunk, which the target's arrays over positions hold now; first_row is its
 * first among all. */
tn_status tn_gram_pass_add(tn_gram_pass *pass, const tn_patches *chunk, int64_t first_row,
                           tn_error *error) TN_MUST_CHECK;
/* After the last chunk: adds the sums to the gram. */
tn_status tn_gram_pass_finish(tn_gram_pass *pass, tn_error *error) TN_MUST_CHECK;

/* All in one chunk, on the host. */
tn_status tn_gram_accumulate(const tn_patches *patches, int64_t limit, bool cross_only,
                             const tn_gram_target *target, tn_gram *gram,
                             tn_error *error) TN_MUST_CHECK;

/* From sums about zero to sums about the means: what is left when a constant per output channel is
 * free (a bias or a BatchNorm behind the layer takes it). Once per accumulation. */
void tn_gram_center_inner(tn_gram *gram);
void tn_gram_center_cross(tn_gram *gram);

/* Pulls towards the latent weights w [rows, cols]: with l = fraction x mean diagonal of each group,
 * inner += l I and cross += l w. inner and cross are done separately, inner first: the second call
 * is given the l that the first one returned in `damping` [groups].
 * Where fewer than two positions a column were summed (linear layers: one an image), inner is far
 * from what more would give: the fraction is then at least what oracle approximating shrinkage
 * (Chen et al. 2010, eq. 23) gives, up to 0.25; more than that helps many bits and harms few.
 * A group whose inputs are all zero, or when centered the same everywhere, has nothing in inner but
 * rounding noise: inner becomes I and cross w, so that the weights themselves are met. `stride`:
 * from row to row of w. */
void tn_gram_damp_inner(tn_gram *gram, double fraction, double *damping);
void tn_gram_damp_cross(tn_gram *gram, const float *w, int64_t stride, const double *damping);

#endif
