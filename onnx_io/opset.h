/* Raising the opset of a model: operators whose form changed on the way are rewritten. */
#ifndef TERNION_ONNX_IO_OPSET_H
#define TERNION_ONNX_IO_OPSET_H

#include "onnx_io/model.h"

enum { TN_OPSET_NEWEST = 25 };

/* Makes the model's default-domain opset at least `target` (7 to 25), converting every operator of
 * the graph and its subgraphs whose form or meaning changed between the two, so that the outputs
 * stay what they were; the IR version becomes at least 4. Does nothing when the model is there
 * already. MODEL, naming all nodes (as far as the message holds them) that cannot be converted,
 * with the model untouched; USAGE for a target out of range. */
tn_status tn_opset_raise(tn_model *model, int64_t target, tn_error *error) TN_MUST_CHECK;

#endif
