#include "converter/census.h"

#include "core/memory.h"

#include <string.h>

enum { CHUNK = 4096, SLOTS = 4 * TN_CENSUS_DISTINCT_MAX };

static bool is_parameter(const tn_node *node, size_t i)
{
    const tn_value *value = node->inputs[i];
    if (!value || !value->constant || !tn_dtype_is_float(value->constant->dtype) ||
        value->constant->rank < 1)
        return false;
    return !(strcmp(node->type, "BatchNormalization") == 0 && i >= 3);
}

tn_status tn_census_parameters(const tn_graph *graph, int64_t *parameters, tn_error *error)
{
    int64_t total = 0;
    bool *counted = tn_alloc_zero(graph->n_values ? graph->n_values : 1, sizeof *counted);
    if (!counted)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    for (size_t n = 0; n < graph->n_nodes; n++) {
        const tn_node *node = graph->nodes[n];
        for (size_t i = 0; !node->folded && i < node->n_inputs; i++) {
            if (!is_parameter(node, i) || counted[node->inputs[i]->index])
                continue;
            counted[node->inputs[i]->index] = true;
            total += tn_tensor_count(node->inputs[i]->constant);
        }
    }
    tn_free(counted);
    *parameters = total;
    return TN_OK;
}

/* A set of the bit patterns of doubles, by open addressing. */
typedef struct pattern_set {
    uint64_t *slots; /* SLOTS, 0: empty */
    int64_t count;
    bool has_zero;
} pattern_set;

static void pattern_add(pattern_set *set, double value)
{
    uint64_t bits;
    if (value == 0.0) {
        set->count += !set->has_zero;
        set->has_zero = true;
        return;
    }
    memcpy(&bits, &value, sizeof bits);
    uint64_t at = (bits * 0x9e3779b97f4a7c15u) >> 46; /* 18 bits: SLOTS */
    for (; set->slots[at]; at = (at + 1) % SLOTS)
        if (set->slots[at] == bits)
            return;
    set->slots[at] = bits;
    set->count++;
}

tn_status tn_census_take(const tn_tensor *tensor, tn_census *census, tn_error *error)
{
    const int64_t count = tn_tensor_count(tensor);
    double values[CHUNK];
    int64_t zeros = 0;
    tn_status status = TN_OK;
    pattern_set set = {.slots = tn_alloc_zero(SLOTS, sizeof(uint64_t))};
    if (!set.slots)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    for (int64_t first = 0; first < count && status == TN_OK; first += CHUNK) {
        int64_t n = count - first < CHUNK ? count - first : CHUNK;
        status = tn_tensor_read_double(tensor, first, n, values, error);
        for (int64_t i = 0; i < n && status == TN_OK; i++) {
            zeros += values[i] == 0.0;
            if (set.count < TN_CENSUS_DISTINCT_MAX)
                pattern_add(&set, values[i]);
        }
    }
    if (status == TN_OK)
        *census =
            (tn_census){.distinct = set.count, .zeros = count ? (double)zeros / (double)count : 0};
    tn_free(set.slots);
    return status;
}
