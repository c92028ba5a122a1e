#include "network/cpu/cpu_bf16.h"

#include "network/cpu/cpu.h"

TN_HOT static void round_all(const float *restrict src, uint16_t *restrict dst, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        dst[i] = tn_bf16_round(src[i]);
}

TN_HOT static void widen(const uint16_t *restrict src, float *restrict dst, int64_t count)
{
    for (int64_t i = 0; i < count; i++)
        dst[i] = tn_bfloat16_to_float(src[i]);
}

void tn_cpu_round_piece(const float *src, uint16_t *dst, int64_t count)
{
    round_all(src, dst, count);
}

void tn_cpu_widen_piece(const uint16_t *src, float *dst, int64_t count)
{
    widen(src, dst, count);
}

void tn_cpu_round(const float *src, uint16_t *dst, int64_t count)
{
#pragma omp parallel for schedule(static) if (count > TN_CPU_GRAIN)
    for (int64_t at = 0; at < count; at += TN_CPU_GRAIN)
        round_all(src + at, dst + at, tn_cpu_piece(count, at));
}

TN_INLINE void add(void *restrict dst, const void *restrict src, int64_t count, bool bf16)
{
    for (int64_t i = 0; i < count; i++)
        tn_save(dst, i, tn_load(dst, i, bf16) + tn_load(src, i, bf16), bf16);
}

TN_HOT static void add_all(void *restrict dst, const void *restrict src, int64_t count, bool bf16)
{
    if (bf16)
        add(dst, src, count, true);
    else
        add(dst, src, count, false);
}

void tn_cpu_add_piece(void *dst, const void *src, int64_t count, bool bf16)
{
    add_all(dst, src, count, bf16);
}

void tn_cpu_add(void *dst, const void *src, int64_t count, bool bf16)
{
#pragma omp parallel for schedule(static) if (count > TN_CPU_GRAIN)
    for (int64_t at = 0; at < count; at += TN_CPU_GRAIN)
        add_all(tn_place(dst, at, bf16), tn_place(src, at, bf16), tn_cpu_piece(count, at), bf16);
}
