/* Reductions over floats in double with a fixed order: eight lanes within a piece, pieces in order,
 * so that the result is the same on every processor and for every number of threads. */
#ifndef TERNION_CONVERTER_SUMS_H
#define TERNION_CONVERTER_SUMS_H

#include <stdbool.h>
#include <stdint.h>

/* Loops worth a version for AVX2 are compiled twice and chosen at load time; arithmetic is the same
 * (no contraction, no reassociation). Not by clang 14, whose resolvers of static functions clash.
 */
#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) &&                        \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#define TN_MULTIVERSION __attribute__((target_clones("default", "avx2")))
#else
#define TN_MULTIVERSION
#endif

enum { TN_PIECE = 1 << 16 }; /* elements that one thread takes at a time */

double tn_sum_abs(const float *w, int64_t n);
float tn_max_abs(const float *w, int64_t n);
/* Smallest and largest of w and 0. */
void tn_range_with_zero(const float *w, int64_t n, float *low, float *high);
/* Adds sum w^2, sum (w - v)^2 and the number of v that are 0. */
typedef struct tn_errors {
    double energy, error;
    int64_t zeros;
} tn_errors;
void tn_sum_errors(const float *w, const float *v, int64_t n, tn_errors *sums);
/* Over the elements with |w| > threshold: sums of h (mass) and of h|w| (moment), h NULL: 1. Of w >
 * 0 at [0] and w < 0 at [1] with two_sides; else only their sum over both entries counts. */
void tn_sum_above(const float *w, const float *h, int64_t n, bool two_sides, float threshold,
                  double mass[2], double moment[2]);
int64_t tn_count_above(const float *w, int64_t n, float threshold);
/* 0 when all are finite, else 1 + the index of the first that is not. */
int64_t tn_find_nonfinite(const float *w, int64_t n);

#endif
