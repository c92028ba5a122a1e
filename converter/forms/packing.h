/* Codes as they lie in initializers: two's complement, little end first, without row padding
 * (facts of ONNX's sub-byte types, and the same order for the byte tables of `lut`). */
#ifndef TERNION_CONVERTER_FORMS_PACKING_H
#define TERNION_CONVERTER_FORMS_PACKING_H

#include "converter/form.h"

/* Bits [shift, shift + width) of each of `count` codes, packed at `width` (1, 2, 4, 8 or 16) bits
 * into ceil(count * width / 8) bytes; spare bits are zero. */
void tn_codes_pack(const int16_t *codes, int64_t count, int shift, int width, unsigned char *bytes);

/* The inverse. The highest bits of the codes come first (top) and set them, sign-extended; lower
 * ones are ORed in. */
void tn_codes_unpack(const unsigned char *bytes, int64_t count, int shift, int width, bool top,
                     int16_t *codes);

/* Weights that share a scale within a row: the group, never longer than the row. */
int64_t tn_stored_group(const tn_qweight *weight);

/* The order in which a form stores a weight's codes: that of the written layout, or with groups
 * rows padded with code 0 to whole groups ([rows, groups_per_row, tn_stored_group]). */
int64_t tn_stored_count(const tn_qweight *weight, bool padded);

/* Stored codes of `site`'s weight: the weight's own array where the orders agree, else a copy in
 * *owned (tn_free it). NULL when out of memory. */
const int16_t *tn_stored_codes(const tn_form_site *site, bool padded, int16_t **owned);

/* Where codes are read to in stored order: the weight's own array where the orders agree, else a
 * new one, also in *owned: pass it to tn_stored_to_rows and tn_free it. NULL when out of memory. */
int16_t *tn_stored_target(const tn_qweight *weight, bool padded, int16_t **owned);

/* Rows from stored codes; `stored` may be changed. weight's dims and axis are as written. */
void tn_stored_to_rows(const int16_t *stored, bool padded, tn_qweight *weight);

#endif
