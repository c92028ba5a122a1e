/* Layers with so many inputs that their Gram matrix would not fit (VGG's and AlexNet's first fully
 * connected layers, 25,088 and 9,216; 3x3 convolutions of 1,024 channels, 9,216): coordinate
 * descent by blocks of columns.
 *
 * With V the present weights (float ones until their block has had its turn) and R = Y - X V' the
 * error that is left of the float network's output, a block k is fitted to T = R + X_k V_k': its
 * own Gram matrix, and the error that all other blocks make. R then holds what the block could not
 * make good, for the blocks after it. A second round starts from codes everywhere and the scales'
 * best common factor. */
#ifndef TERNION_FINETUNE_CALIBRATE_WIDE_H
#define TERNION_FINETUNE_CALIBRATE_WIDE_H

#include "finetune/calibrate_layer.h"

/* Layers with more inputs than this are wide. */
enum { TN_WIDE_COLS = 8192, TN_WIDE_BLOCK = 512 };

/* Whether blocks can do it: the layer has one group and groups of weights do not cross blocks. */
bool tn_wide_fits(const tn_patches *patches, const tn_qweight *weight);

/* As tn_layer_fit_run (coordinate descent alone, without relaxation and residual); sees at most
 * 256 MB of positions. The same bits for every number of threads. */
tn_status tn_wide_fit_run(const tn_layer_view *view, const tn_layer_source *source,
                          const tn_layer_fit_options *options, tn_qweight *weight,
                          tn_layer_fit *fit, tn_error *error) TN_MUST_CHECK;

#endif
