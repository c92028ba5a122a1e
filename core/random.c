#include "core/random.h"

#include <Random123/philox.h>

#include <math.h>

tn_random tn_random_make(uint64_t seed, tn_purpose purpose, uint32_t epoch, uint64_t sample)
{
    /* counter: block number, epoch with the purpose on top, sample */
    return (tn_random){.key = {(uint32_t)seed, (uint32_t)(seed >> 32)},
                       .counter = {0, epoch ^ ((uint32_t)purpose << 24), (uint32_t)sample,
                                   (uint32_t)(sample >> 32)}};
}

uint32_t tn_random_u32(tn_random *random)
{
    if (random->left == 0) {
        philox4x32_ctr_t counter = {
            {random->counter[0], random->counter[1], random->counter[2], random->counter[3]}};
        philox4x32_key_t key = {{random->key[0], random->key[1]}};
        philox4x32_ctr_t block = philox4x32(counter, key);
        for (int i = 0; i < 4; i++)
            random->word[i] = block.v[i];
        random->counter[0]++;
        random->left = 4;
    }
    return random->word[4 - random->left--];
}

uint32_t tn_random_below(tn_random *random, uint32_t n)
{
    uint32_t threshold = (0u - n) % n;
    for (;;) { /* Lemire 2019: reject the short remainder */
        uint64_t product = (uint64_t)tn_random_u32(random) * n;
        if ((uint32_t)product >= threshold)
            return (uint32_t)(product >> 32);
    }
}

float tn_random_uniform(tn_random *random)
{
    return (float)(tn_random_u32(random) >> 8) * 0x1p-24f;
}

float tn_random_normal(tn_random *random)
{
    double radius = ((double)tn_random_u32(random) + 1.0) * 0x1p-32;
    double angle = (double)tn_random_u32(random) * 0x1p-32 * 6.283185307179586;
    return (float)(sqrt(-2.0 * log(radius)) * cos(angle));
}

void tn_random_permutation(uint64_t seed, tn_purpose purpose, uint32_t epoch, size_t n,
                           uint32_t *order)
{
    tn_random random = tn_random_make(seed, purpose, epoch, 0);
    for (size_t i = 0; i < n; i++)
        order[i] = (uint32_t)i;
    for (size_t i = n; i > 1; i--) {
        size_t j = tn_random_below(&random, (uint32_t)i);
        uint32_t swapped = order[i - 1];
        order[i - 1] = order[j];
        order[j] = swapped;
    }
}
