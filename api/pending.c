/* Stands in until the operator table is there. */
#include "onnx_io/ops/op.h"

__attribute__((weak)) const tn_op *tn_op_at(size_t i)
{
    (void)i;
    return NULL;
}
