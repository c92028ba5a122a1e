/* bf16 in the CPU's loops: elements of memory that is fp32 or bf16, told by a constant, so that a
 * body written once is compiled for both. */
#ifndef TERNION_NETWORK_CPU_CPU_BF16_H
#define TERNION_NETWORK_CPU_CPU_BF16_H

#include "core/bf16.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

#define TN_INLINE static inline __attribute__((always_inline))

/* One NaN, whatever its sign. */
TN_INLINE uint16_t tn_bf16_round(float x)
{
    return x != x ? (uint16_t)0x7fc0U : tn_float_to_bfloat16(x);
}

TN_INLINE float tn_load(const void *memory, int64_t i, bool bf16)
{
    return bf16 ? tn_bfloat16_to_float(((const uint16_t *)memory)[i]) : ((const float *)memory)[i];
}

TN_INLINE void tn_save(void *memory, int64_t i, float x, bool bf16)
{
    if (bf16)
        ((uint16_t *)memory)[i] = tn_bf16_round(x);
    else
        ((float *)memory)[i] = x;
}

/* x or 0, without a branch around what x is computed from: those do not vectorize. */
TN_INLINE float tn_keep(float x, bool condition)
{
    uint32_t bits;
    memcpy(&bits, &x, sizeof(bits));
    bits &= 0U - (uint32_t)condition;
    memcpy(&x, &bits, sizeof(x));
    return x;
}

TN_INLINE size_t tn_element(bool bf16)
{
    return bf16 ? sizeof(uint16_t) : sizeof(float);
}

/* Element i of memory in either type. */
TN_INLINE void *tn_place(const void *memory, int64_t i, bool bf16)
{
    return (char *)(uintptr_t)memory + (size_t)i * tn_element(bf16);
}

/* Whole arrays, on all threads; dst += src, both of one type. */
void tn_cpu_round(const float *src, uint16_t *dst, int64_t count);
void tn_cpu_add(void *dst, const void *src, int64_t count, bool bf16);

/* Pieces, on the calling thread. */
void tn_cpu_add_piece(void *dst, const void *src, int64_t count, bool bf16);
void tn_cpu_widen_piece(const uint16_t *src, float *dst, int64_t count);
void tn_cpu_round_piece(const float *src, uint16_t *dst, int64_t count);

#endif
