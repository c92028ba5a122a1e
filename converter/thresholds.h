/* Thresholds of ternary quantization, found exactly and without scratch memory.
 *
 * One scale: keep the k largest |w|; the squared error is |w|^2 - J with J = S_k^2 / k, S_k the sum
 * of the k largest, at the scale S_k / k. Two scales: J = S+^2/k+ + S-^2/k- over one threshold.
 * With weights h of the squared error: sums of h|w| and of h. J has several maxima, so all cuts are
 * compared: by a histogram with an upper bound of J inside each bin; only bins whose bound reaches
 * the best cut are looked into. Equal magnitudes stay together: J is convex in the number of
 * them that are kept, so the best cut never parts them. */
#ifndef TERNION_CONVERTER_THRESHOLDS_H
#define TERNION_CONVERTER_THRESHOLDS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct tn_cut {
    float threshold; /* |w| > threshold is kept */
    /* of the kept: sums of h and h|w|; two scales: w > 0 at [0], w < 0 at [1]; one: all at [0] */
    double mass[2], moment[2];
} tn_cut;

/* h may be NULL: all 1. All-zero w gives threshold 0 and nothing kept. w must be finite. */
void tn_threshold_optimal(const float *w, const float *h, int64_t n, bool two_scales, tn_cut *cut);

/* The n-bit step s of least squared error for codes clamp(round(w / s), low, high), low <= 0 <=
 * high; 0 when all w are 0. |code| reaches j where |w| / (j - 1/2) passes s, which adds h|w| to A =
 * sum h q w and h (2 j - 1) to B = sum h q^2; the error is sum h w^2 - A^2 / B at s = A / B: the
 * search for a threshold over the elements |w| / (2 j - 1) of weight h (2 j - 1). Work grows with
 * the codes. */
double tn_threshold_step(const float *w, const float *h, int64_t n, int low, int high);

/* The magnitude that has `rank` (0 to n - 1) smaller-or-equal ones before it in ascending order. */
float tn_threshold_rank(const float *w, int64_t n, int64_t rank);

#endif
