/* Where a file's bytes are. */
#ifndef TERNION_CONVERTER_BYTE_CENSUS_H
#define TERNION_CONVERTER_BYTE_CENSUS_H

#include "onnx_io/model.h"

/* Payloads, without names and headers; what is left of the file is its graph. */
typedef struct tn_byte_census {
    uint64_t codes;   /* packed, of the layers of the record */
    uint64_t scales;  /* and zeros, and the tables that codes are looked up in */
    uint64_t tensors; /* all other initializers */
    uint64_t record;
} tn_byte_census;

/* A model without a record, or with a broken one, has no codes. */
tn_status tn_byte_census_take(const tn_model *model, tn_byte_census *census,
                              tn_error *error) TN_MUST_CHECK;

#endif
