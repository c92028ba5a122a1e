/* Counter-based random numbers (Philox4x32-10, Salmon et al. 2011): a number depends on
 * (seed, purpose, epoch, sample) and its position alone, never on threads, ranks or what was drawn
 * before, so that a resumed run draws what the stopped one would have drawn. */
#ifndef TERNION_CORE_RANDOM_H
#define TERNION_CORE_RANDOM_H

#include <stddef.h>
#include <stdint.h>

/* What the numbers are for. Values enter the stream: never renumber. */
typedef enum tn_purpose {
    TN_PURPOSE_INIT = 1,    /* weight initialization; sample = tensor number */
    TN_PURPOSE_SHUFFLE = 2, /* order of an epoch; sample = 0 */
    TN_PURPOSE_AUGMENT = 3, /* augmentation of one sample */
    TN_PURPOSE_MIX = 4,     /* mixup */
    TN_PURPOSE_DROPOUT = 5,
    TN_PURPOSE_CALIBRATE = 6, /* choice of calibration images */
    TN_PURPOSE_SYNTHESIZE = 7,
    TN_PURPOSE_GLYPHS = 8,
    TN_PURPOSE_TEST = 9
} tn_purpose;

typedef struct tn_random {
    uint32_t key[2], counter[4];
    uint32_t word[4];
    unsigned left; /* words of `word` not yet used */
} tn_random;

tn_random tn_random_make(uint64_t seed, tn_purpose purpose, uint32_t epoch, uint64_t sample);
uint32_t tn_random_u32(tn_random *random);
uint32_t tn_random_below(tn_random *random, uint32_t n); /* unbiased in [0, n), n > 0 */
float tn_random_uniform(tn_random *random);              /* [0, 1), multiples of 2^-24 */
float tn_random_normal(tn_random *random);               /* Box-Muller, two words each */

/* A permutation of 0..n-1 (Fisher-Yates). */
void tn_random_permutation(uint64_t seed, tn_purpose purpose, uint32_t epoch, size_t n,
                           uint32_t *order);

#endif
