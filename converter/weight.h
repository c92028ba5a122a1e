/* A quantized weight, first class: integer codes and the numbers that give them their values. Every
 * form (forms/) is a view of it.
 *
 * Codes are kept as rows: row o holds output channel o's weights in row-major [I/g, kh, kw] order,
 * whatever axis the channel has in the model (SPEC: channel axis). */
#ifndef TERNION_CONVERTER_WEIGHT_H
#define TERNION_CONVERTER_WEIGHT_H

#include "core/tensor.h"

typedef enum tn_granularity {
    TN_PER_TENSOR,
    TN_PER_CHANNEL, /* one scale a row */
    TN_PER_GROUP    /* one scale per `group` consecutive weights of a row; the last may be short */
} tn_granularity;

typedef struct tn_qweight {
    int rank;                  /* of the model's weight */
    int64_t dims[TN_MAX_RANK]; /* its shape in the model */
    int axis;                  /* its channel axis */
    int64_t rows, cols;        /* rows = dims[axis], cols = the rest */
    tn_granularity granularity;
    int64_t group;          /* TN_PER_GROUP only */
    int64_t groups_per_row; /* 1 unless TN_PER_GROUP: ceil(cols / group) */
    int64_t n_scales;       /* 1, rows, or rows * groups_per_row */
    int low, high;          /* legal codes, inclusive; ternary -1, 1 */
    bool ternary;           /* bits 1.58: codes -1, 0, 1, stored in 2 bits */
    int bits;               /* storage bits of the codes: 2 for ternary, else 2..8, 16 */
    int16_t *codes;         /* [rows, cols] */
    float *scale;           /* [n_scales], > 0; two-scale schemes: the positive side's */
    float *scale_neg;       /* [n_scales], > 0; NULL unless two-scale */
    float *zero;            /* [n_scales], may be x.5; NULL: all 0 */
    const char *scheme;     /* quantizer id (static string) */
} tn_qweight;

/* value = (code - zero) * scale, or for two-scale: code > 0 ? scale : code < 0 ? -scale_neg : 0, in
 * fp32 with one rounding per operation, in exactly this order. */
float tn_qweight_value(const tn_qweight *weight, int64_t row, int64_t col);

/* Index of the scale of (row, col). */
int64_t tn_qweight_scale_index(const tn_qweight *weight, int64_t row, int64_t col);

/* All values into `rows_out` [rows, cols]. */
void tn_qweight_dequantize(const tn_qweight *weight, float *rows_out);

/* The rows [first, first + count) of `weight` as a weight of their own: borrows its arrays. Of a
 * TN_PER_TENSOR weight only the arrays of codes move. */
tn_qweight tn_qweight_row_range(const tn_qweight *weight, int64_t first, int64_t count);

/* Allocates codes and scales (scale_neg, zero when asked) for shape and granularity already set in
 * `weight` (rank, dims, axis, granularity, group): fills the derived members. */
tn_status tn_qweight_init(tn_qweight *weight, bool two_scales, bool with_zero,
                          tn_error *error) TN_MUST_CHECK;
void tn_qweight_done(tn_qweight *weight);

/* Between a tensor in the model's layout and rows; both directions are exact. */
void tn_rows_from_layout(const float *layout, int rank, const int64_t *dims, int axis, float *rows);
void tn_rows_to_layout(const float *rows, int rank, const int64_t *dims, int axis, float *layout);
void tn_codes_to_layout(const int16_t *rows, int rank, const int64_t *dims, int axis,
                        int16_t *layout);
void tn_codes_from_layout(const int16_t *layout, int rank, const int64_t *dims, int axis,
                          int16_t *rows);

#endif
