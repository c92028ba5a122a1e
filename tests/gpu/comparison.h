/* What programs share that compare the CUDA device with the CPU's: seeded numbers, distances, the
 * two devices. */
#ifndef TERNION_TESTS_GPU_COMPARISON_H
#define TERNION_TESTS_GPU_COMPARISON_H

#include "gpu/cuda_device.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static uint64_t comparison_state;

/* By argument `at`, else `usual`: a draw with an activation at ReLU's corner says nothing, so the
 * usual ones are known to have none. */
static inline void comparison_seed(int argc, char **argv, int at, uint64_t usual)
{
    comparison_state = argc > at ? strtoull(argv[at], NULL, 10) : usual;
    printf("seed %llu\n", (unsigned long long)comparison_state);
}

/* In [-1, 1). */
static inline float comparison_uniform(void)
{
    comparison_state = comparison_state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(comparison_state >> 32) / 2147483648.0f;
}

/* |a - b| over |a|, normwise. */
static inline double comparison_distance(const float *a, const float *b, size_t count)
{
    double difference = 0.0, norm = 0.0;
    for (size_t i = 0; i < count; i++) {
        double d = (double)a[i] - (double)b[i];
        difference += d * d;
        norm += (double)a[i] * (double)a[i];
    }
    return sqrt(difference / norm);
}

/* What a line of results says. */
static inline const char *comparison_verdict(tn_status status, const tn_error *error, bool ok)
{
    return status != TN_OK ? error->message : ok ? "ok" : "DIFFERS";
}

/* 0, or what the program must exit with: 77 without a GPU. */
static inline int comparison_open(tn_device **cpu, tn_device **cuda)
{
    tn_error error = {0};
    if (tn_device_create_cuda(0, cuda, &error) != TN_OK) {
        printf("skipped: %s\n", error.message);
        return 77;
    }
    return tn_device_create_cpu(cpu, &error) == TN_OK ? 0 : 1;
}

#endif
