/* What must hold of every model before anything is built from it. */
#ifndef TERNION_ONNX_IO_CHECK_H
#define TERNION_ONNX_IO_CHECK_H

#include "onnx_io/model.h"

enum { TN_MIN_IR = 3, TN_MAX_IR = 13, TN_MIN_OPSET = 7, TN_MAX_OPSET = 25 };

/* IR 3 to 13, one import per domain, the default opset 7 to 25; sets the model's fields. */
tn_status tn_check_versions(tn_model *model, tn_error *error) TN_MUST_CHECK;

/* Tensors everywhere have the payload their type and shape need; in the main graph and every
 * subgraph each name has one producer and shadows none, everything used is given by something, and
 * no nodes form a cycle. External data has been resolved. */
tn_status tn_check_model(const tn_model *model, tn_error *error) TN_MUST_CHECK;

#endif
