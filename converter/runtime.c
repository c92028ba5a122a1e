#include "converter/runtime.h"

#include <string.h>

/* Measured with each version's CPU provider: the highest opset and IR that load, and the narrowest
 * integers before DequantizeLinear and before Cast. */
static const tn_runtime runtimes[] = {
    {"ort-1.10", "1.10", 15, 8, 8, 8},    {"ort-1.11", "1.11", 15, 8, 8, 8},
    {"ort-1.12", "1.12", 17, 8, 8, 8},    {"ort-1.13", "1.13", 17, 8, 8, 8},
    {"ort-1.14", "1.14", 18, 8, 8, 8},    {"ort-1.15", "1.15", 19, 8, 8, 8},
    {"ort-1.16", "1.16", 19, 9, 8, 8},    {"ort-1.17", "1.17", 20, 9, 8, 8},
    {"ort-1.18", "1.18", 21, 10, 8, 8},   {"ort-1.19", "1.19", 21, 10, 8, 8},
    {"ort-1.20", "1.20.1", 21, 10, 4, 8}, {"ort-1.21", "1.21", 22, 10, 4, 8},
    {"ort-1.22", "1.22", 22, 10, 4, 8},   {"ort-1.23", "1.23.2", 23, 11, 4, 4},
    {"ort-1.24", "1.24.3", 25, 13, 2, 2}, {"ort-1.25", "1.25", 26, 13, 2, 2},
    {"ort-1.26", "1.26", 26, 13, 2, 2},   {"ort-1.27", "1.27", 26, 13, 2, 2},
    {"ort-1.28", "1.28", 26, 13, 2, 2},   {"ort-1.29", "1.29", 26, 13, 2, 2},
    {"ort-1.30", "1.30", 26, 13, 2, 2},   {"ort-1.31", "1.31", 26, 13, 2, 2},
};

enum { COUNT = sizeof runtimes / sizeof *runtimes };

const tn_runtime *tn_runtime_at(size_t i)
{
    return i < COUNT ? &runtimes[i] : NULL;
}

const tn_runtime *tn_runtime_find(const char *id)
{
    for (size_t i = 0; i < COUNT; i++) {
        size_t length = strlen(runtimes[i].id);
        if (strncmp(id, runtimes[i].id, length) == 0 && (id[length] == '\0' || id[length] == '.'))
            return &runtimes[i];
    }
    return NULL;
}

const tn_runtime *tn_runtime_oldest(const tn_runtime_need *need)
{
    for (size_t i = 0; i < COUNT; i++) {
        const tn_runtime *runtime = &runtimes[i];
        if (need->opset <= runtime->opset && need->ir <= runtime->ir &&
            need->linear_bits >= runtime->linear_bits && need->cast_bits >= runtime->cast_bits)
            return runtime;
    }
    return NULL;
}
