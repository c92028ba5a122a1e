/* kernel_test [SEED [COUNT]]: the oracle against its own differences, then every kernel of the CPU
 * device (built again in tests/gpu: of the CUDA device, 77 without a GPU) against the oracle. */
#include "core/memory.h"
#include "kernel_check.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

int main(int argc, char **argv)
{
    tn_error error = {0};
    tn_device *cpu = NULL;
    const char *text = argc > 1 ? argv[1] : getenv("TERNION_SEED");
    uint64_t seed = text ? strtoull(text, NULL, 10) : (uint64_t)time(NULL);
    int count = argc > 2 ? atoi(argv[2]) : 40;
    printf("seed %llu\n", (unsigned long long)seed);
    if (tn_device_create_cpu(&cpu, &error) != TN_OK) {
        fprintf(stderr, "%s\n", error.message);
        return error.code == TN_ERROR_DEVICE ? 77 : 1;
    }
    int failures = oracle_check(seed, count);
    failures += kernel_check(cpu, TN_PRECISION_FP32, seed, count);
    failures += conv_check(cpu, TN_PRECISION_FP32);
    failures += loss_check(cpu, seed, count);
    if (cpu->bf16 || cpu->bf16_runs)
        failures +=
            kernel_check(cpu, TN_PRECISION_BF16, seed, count) + conv_check(cpu, TN_PRECISION_BF16);
    if (cpu->tf32_runs)
        failures += kernel_check(cpu, TN_PRECISION_TF32, seed, count);
    tn_device_destroy(cpu);
    printf("%d differ\n", failures);
    if (tn_memory_stats_get().live)
        printf("%llu bytes leaked\n", (unsigned long long)tn_memory_stats_get().live);
    return failures > 0 || tn_memory_stats_get().live > 0;
}
