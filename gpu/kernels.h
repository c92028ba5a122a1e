/* Every kernel of the CUDA device: X(name, arguments). Its body is tn_<name>_body(const
 * tn_<arguments>_args *, int64_t thread); its id TN_GPU_<name>. Those whose threads share memory
 * (tiles.h): X(name, arguments, phases) with tn_<name>_phase(const tn_<arguments>_args *,
 * tn_tile_shared *, int64_t block, int thread, int phase). The launchers, the register budget and
 * the tests walk these lists. */
#ifndef TERNION_GPU_KERNELS_H
#define TERNION_GPU_KERNELS_H

#include "gpu/kernels/augmentation.h"
#include "gpu/kernels/calibrating.h"
#include "gpu/kernels/convolution.h"
#include "gpu/kernels/criterion.h"
#include "gpu/kernels/cutting.h"
#include "gpu/kernels/elementwise.h"
#include "gpu/kernels/masking.h"
#include "gpu/kernels/movement.h"
#include "gpu/kernels/normalization.h"
#include "gpu/kernels/pooling.h"
#include "gpu/kernels/quantizing.h"
#include "gpu/kernels/reduction.h"
#include "gpu/kernels/tiles.h"
#include "gpu/kernels/updating.h"

/* clang-format off */
#define TN_GPU_KERNELS(X) \
    X(add, add) \
    X(scale, scale) \
    X(fill, fill) \
    X(augment, augment) \
    X(unary, unary) \
    X(unary_backward, unary_backward) \
    X(epilogue, epilogue) \
    X(binary, binary) \
    X(binary_backward, binary) \
    X(binary_sum, binary_sum) \
    X(affine, affine) \
    X(convert, convert) \
    X(fake_quantize, fake_quantize) \
    X(fake_quantize_backward, fake_quantize) \
    X(dropout, dropout) \
    X(move, move) \
    X(pad, pad) \
    X(operand, operand) \
    X(pooling, pooling) \
    X(pooling_backward, pooling) \
    X(columns, columns) \
    X(columns_back, columns) \
    X(weights, weights) \
    X(fold_bias, weights) \
    X(unpack, unpack) \
    X(depthwise, depthwise) \
    X(depthwise_data, depthwise) \
    X(depthwise_weights, depthwise) \
    X(reduce, reduce) \
    X(reduce_backward, reduce) \
    X(broadcast, broadcast) \
    X(broadcast_sum, broadcast_sum) \
    X(softmax, softmax) \
    X(softmax_backward, softmax) \
    X(lrn, lrn) \
    X(lrn_backward, lrn) \
    X(loss_most, criterion) \
    X(loss_exponents, criterion) \
    X(loss_gradient, criterion) \
    X(loss_row, criterion) \
    X(loss_sums, criterion) \
    X(latent_sums, quantizing) \
    X(latent_refresh, quantizing) \
    X(latent_kept, quantizing) \
    X(latent_scale, quantizing) \
    X(latent_values, quantizing) \
    X(latent_gradient, quantizing) \
    X(latent_slope, quantizing) \
    X(update, update) \
    X(tally, step) \
    X(judge, step) \
    X(gram_tile, gram) \
    X(gram_relax, gram) \
    X(gram_moments, gram) \
    X(gram_add, gram) \
    X(gram_add_moments, gram)

#define TN_GPU_BLOCK_KERNELS(X) \
    X(chunks, chunks, 3) \
    X(column_sums, column_sums, 3) \
    X(norm_statistics, norm, 3) \
    X(norm_finish, norm, 3) \
    X(norm_apply, norm, 1) \
    X(norm_sums, norm, 3) \
    X(norm_gradients, norm, 3) \
    X(norm_spread, norm, 1) \
    X(norm_parts_statistics, norm, 3) \
    X(norm_parts_apply, norm, 1) \
    X(norm_parts_sums, norm, 3) \
    X(norm_parts_spread, norm, 1) \
    X(norm_codes_apply, norm, 1) \
    X(norm_codes_sums, norm, 3) \
    X(norm_codes_spread, norm, 3) \
    X(fake_quantize_sums, fake_quantize, 3) \
    X(latent_cut, quantizing, TN_CUT_PHASES) \
    X(latent_slopes, quantizing, 3) \
    X(squares, update, 3) \
    X(squares_total, update, 3)
/* clang-format on */

#define TN_GPU_ID(name, arguments) TN_GPU_##name,
#define TN_GPU_BLOCK_ID(name, arguments, phases) TN_GPU_##name,
typedef enum tn_gpu_kernel {
    TN_GPU_KERNELS(TN_GPU_ID) TN_GPU_BLOCK_KERNELS(TN_GPU_BLOCK_ID) TN_N_GPU_KERNELS
} tn_gpu_kernel;
#undef TN_GPU_ID
#undef TN_GPU_BLOCK_ID

#endif
