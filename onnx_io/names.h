/* A hash table from names to pointers. Keys are borrowed and must outlive the table. */
#ifndef TERNION_ONNX_IO_NAMES_H
#define TERNION_ONNX_IO_NAMES_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct tn_names {
    struct tn_name_entry *entries;
    size_t capacity, count;
    uint64_t seed; /* random: a hostile file cannot aim at one bucket */
} tn_names;

void tn_names_init(tn_names *names);
void tn_names_done(tn_names *names);

/* NULL when absent. */
void *tn_names_get(const tn_names *names, const char *name);

/* Adds or replaces; `value` must not be NULL. False when out of memory. */
bool tn_names_set(tn_names *names, const char *name, void *value);

#endif
