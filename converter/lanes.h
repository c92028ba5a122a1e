/* Lanes of floats and the doubles they are summed in: GCC vector types, which every target lowers
 * to what it has. Sums keep eight lanes in two halves of four (one AVX2 register each) and add them
 * up in one fixed order. Macros, so that AVX2 clones of a function get AVX2 code. */
#ifndef TERNION_CONVERTER_LANES_H
#define TERNION_CONVERTER_LANES_H

#include <stdint.h>
#include <string.h>

enum { TN_HALF = 4, TN_LANES = 2 * TN_HALF };

typedef float tn_lanes __attribute__((vector_size(16), aligned(4), may_alias));
typedef int32_t tn_lane_mask __attribute__((vector_size(16)));
typedef double tn_lane_sums __attribute__((vector_size(32)));

/* w[0..3] */
#define TN_LANES_LOAD(w) (*(const tn_lanes *)(const void *)(w))
/* a where the comparison holds, else 0 */
#define TN_LANES_WHERE(mask, a) ((tn_lanes)((mask) & (tn_lane_mask)(a)))
#define TN_LANES_CHOOSE(mask, a, b)                                                                \
    ((tn_lanes)(((mask) & (tn_lane_mask)(a)) | (~(mask) & (tn_lane_mask)(b))))
#define TN_LANES_ABS(a) ((tn_lanes)((tn_lane_mask)(a)&0x7fffffff))
#define TN_LANES_WIDEN(a) __builtin_convertvector(a, tn_lane_sums)

/* Of two halves. */
#define TN_LANES_TOTAL(s)                                                                          \
    ((((s)[0][0] + (s)[0][1]) + ((s)[0][2] + (s)[0][3])) +                                         \
     (((s)[1][0] + (s)[1][1]) + ((s)[1][2] + (s)[1][3])))

#endif
