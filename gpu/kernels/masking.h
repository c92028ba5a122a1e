/* Dropout: the mask is drawn anew in both directions, from the streams of core/random.h. */
#ifndef TERNION_GPU_KERNELS_MASKING_H
#define TERNION_GPU_KERNELS_MASKING_H

#include "core/random.h"
#include "gpu/body.h"

typedef struct tn_dropout_args { /* dst (+)= src * mask; one thread per row and four elements */
    const float *src;
    float *dst;
    int64_t inner;
    const tn_draw *draw; /* read only to drop */
    uint64_t layer;
    uint32_t threshold;
    float scale;
    bool drop, accumulate;
} tn_dropout_args;

/* Philox4x32-10 (Salmon et al. 2011) on counter c. */
TN_BODY void tn_philox(uint64_t key, uint32_t c[4])
{
    uint32_t k0 = (uint32_t)key, k1 = (uint32_t)(key >> 32);
    for (int round = 0; round < 10; round++) {
        uint64_t a = (uint64_t)0xD2511F53u * c[0], b = (uint64_t)0xCD9E8D57u * c[2];
        c[0] = (uint32_t)(b >> 32) ^ c[1] ^ k0;
        c[2] = (uint32_t)(a >> 32) ^ c[3] ^ k1;
        c[1] = (uint32_t)b;
        c[3] = (uint32_t)a;
        k0 += 0x9E3779B9u;
        k1 += 0xBB67AE85u;
    }
}

TN_BODY void tn_dropout_body(const tn_dropout_args *k, int64_t i)
{
    int64_t blocks = (k->inner + 3) / 4, row = i / blocks, block = i % blocks;
    uint32_t word[4] = {0, 0, 0, 0};
    if (k->drop) {
        uint64_t sample = k->draw->sample + (uint64_t)row;
        word[0] = (uint32_t)block;
        word[1] = k->draw->epoch ^ ((uint32_t)TN_PURPOSE_DROPOUT << 24);
        word[2] = (uint32_t)sample;
        word[3] = (uint32_t)(sample >> 32);
        tn_philox(k->draw->seed + k->layer, word);
    }
#ifdef __CUDACC__
#pragma unroll
#endif
    for (int j = 0; j < 4; j++) {
        int64_t at = row * k->inner + 4 * block + j;
        if (4 * block + j >= k->inner)
            break;
        float factor = !k->drop ? 1.0f : word[j] >= k->threshold ? k->scale : 0.0f;
        k->dst[at] = k->src[at] * factor + (k->accumulate ? k->dst[at] : 0.0f);
    }
}

#endif
