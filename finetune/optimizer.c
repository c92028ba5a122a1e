#include "finetune/optimizer.h"

#include "core/hot.h"
#include "core/memory.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>
#include <xxhash.h>

static tn_status grow(tn_optimizer *optimizer, tn_error *error)
{
    if (optimizer->n_slots < optimizer->capacity)
        return TN_OK;
    size_t capacity = optimizer->capacity ? 2 * optimizer->capacity : 64;
    tn_slot *slots = tn_realloc(optimizer->slots, capacity * sizeof *slots);
    if (!slots)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the optimizer");
    optimizer->slots = slots;
    optimizer->capacity = capacity;
    return TN_OK;
}

void tn_slot_name(const char *prefix, const char *name, char *text, size_t size)
{
    const int length =
        snprintf(text, size, "%s%s%s", prefix ? prefix : "", prefix ? "." : "", name);
    enum { MARK = 18 }; /* "~", 16 digits and the end */
    if (length < (int)size)
        return;
    size_t cut = size - MARK;
    while (cut > 0 && ((unsigned char)text[cut] & 0xc0) == 0x80) /* not within a character */
        cut--;
    snprintf(text + cut, MARK, "~%016" PRIx64, (uint64_t)XXH3_64bits(name, strlen(name)));
}

tn_status tn_optimizer_add(tn_optimizer *optimizer, const char *name, float *value,
                           const float *gradient, int64_t count, float rate, float decay,
                           tn_error *error)
{
    tn_status status = grow(optimizer, error);
    if (status != TN_OK)
        return status;
    tn_slot slot = {.value = value,
                    .gradient = gradient,
                    .count = count,
                    .rate = rate,
                    .decay = decay,
                    .floor = -INFINITY,
                    .first = tn_alloc_zero((size_t)count, sizeof(float))};
    tn_slot_name(NULL, name, slot.name, sizeof slot.name);
    bool adam = optimizer->rule.kind != TN_OPTIMIZER_SGD;
    slot.second = adam ? tn_alloc_zero((size_t)count, sizeof(float)) : NULL;
    slot.average = optimizer->ema > 0 ? tn_alloc_array((size_t)count, sizeof(float)) : NULL;
    if (!slot.first || (adam && !slot.second) || (optimizer->ema > 0 && !slot.average)) {
        tn_free(slot.first);
        tn_free(slot.second);
        tn_free(slot.average);
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the optimizer's state of %s",
                       tn_quote(name));
    }
    if (slot.average)
        memcpy(slot.average, value, (size_t)count * sizeof(float));
    optimizer->slots[optimizer->n_slots++] = slot;
    return TN_OK;
}

void tn_optimizer_done(tn_optimizer *optimizer)
{
    for (size_t i = 0; i < optimizer->n_slots; i++) {
        tn_free(optimizer->slots[i].first);
        tn_free(optimizer->slots[i].second);
        tn_free(optimizer->slots[i].average);
    }
    tn_free(optimizer->slots);
    *optimizer = (tn_optimizer){0};
}

/* Lanes in the order of training.h. */
static double lanes_total(const double *lane)
{
    double total = 0;
    for (int i = 0; i < TN_NORM_LANES; i += TN_NORM_GROUP) {
        double sum = 0;
        for (int j = 0; j < TN_NORM_GROUP; j++)
            sum += lane[i + j];
        total += sum;
    }
    return total;
}

TN_HOT static double chunk_square(const float *gradient, int64_t count)
{
    double lane[TN_NORM_LANES] = {0};
    for (int64_t i = 0; i < count; i += TN_NORM_LANES) {
        int n = count - i < TN_NORM_LANES ? (int)(count - i) : TN_NORM_LANES;
        for (int j = 0; j < n; j++)
            lane[j] += (double)gradient[i + j] * (double)gradient[i + j];
    }
    return lanes_total(lane);
}

double tn_optimizer_gradient_norm(const tn_optimizer *optimizer)
{
    enum { BATCH = 64 };
    double lane[TN_NORM_LANES] = {0}, part[BATCH];
    int64_t at = 0; /* chunks so far */
    for (size_t s = 0; s < optimizer->n_slots; s++) {
        const tn_slot *slot = &optimizer->slots[s];
        if (slot->frozen)
            continue;
        for (int64_t start = 0; start < slot->count; start += (int64_t)BATCH * TN_NORM_CHUNK) {
            int64_t left = slot->count - start;
            int chunks = (int)(left >= (int64_t)BATCH * TN_NORM_CHUNK
                                   ? BATCH
                                   : (left + TN_NORM_CHUNK - 1) / TN_NORM_CHUNK);
#pragma omp parallel for schedule(static) if (chunks > 4)
            for (int c = 0; c < chunks; c++) {
                int64_t first = start + (int64_t)c * TN_NORM_CHUNK, rest = slot->count - first;
                part[c] = chunk_square(slot->gradient + first,
                                       rest < TN_NORM_CHUNK ? rest : TN_NORM_CHUNK);
            }
            for (int c = 0; c < chunks; c++, at++)
                lane[at % TN_NORM_LANES] += part[c];
        }
    }
    return sqrt(lanes_total(lane));
}

static void step_sgd(const tn_optimizer_rule *rule, const tn_slot *slot, float rate, float scale)
{
    float *restrict value = slot->value, *restrict velocity = slot->first;
    const float *restrict gradient = slot->gradient;
#pragma omp parallel for simd schedule(static) if (slot->count > 16384)
    for (int64_t i = 0; i < slot->count; i++)
        tn_sgd_element(rule, rate, slot->decay, scale, gradient[i], &value[i], &velocity[i]);
}

static void step_adam(const tn_optimizer_rule *rule, const tn_slot *slot, float rate, float scale,
                      const tn_update_factors *factors)
{
    float *restrict value = slot->value, *restrict m = slot->first, *restrict v = slot->second;
    const float *restrict gradient = slot->gradient;
    const tn_update_factors f = *factors;
#pragma omp parallel for simd schedule(static) if (slot->count > 16384)
    for (int64_t i = 0; i < slot->count; i++)
        tn_adam_element(rule, rate, slot->decay, scale, f.unbias1, f.unbias2, gradient[i],
                        &value[i], &m[i], &v[i]);
}

static void update_average(const tn_slot *slot, float keep)
{
#pragma omp parallel for simd schedule(static) if (slot->count > 16384)
    for (int64_t i = 0; i < slot->count; i++)
        slot->average[i] = tn_average_element(slot->average[i], slot->value[i], keep);
}

tn_update_factors tn_optimizer_factors(const tn_optimizer *optimizer, uint64_t updates)
{
    const double t = (double)updates + 1;
    /* the average forgets faster at first, so that a short run is not held at its start */
    double warm = (1.0 + (double)updates) / (10.0 + (double)updates);
    return (tn_update_factors){
        .unbias1 = (float)(1 / (1 - pow((double)optimizer->rule.beta1, t))),
        .unbias2 = (float)(1 / (1 - pow((double)optimizer->rule.beta2, t))),
        .keep = (float)((double)optimizer->ema < warm ? (double)optimizer->ema : warm)};
}

void tn_optimizer_step(tn_optimizer *optimizer, double lr, double gradient_scale)
{
    const tn_update_factors factors = tn_optimizer_factors(optimizer, optimizer->steps);
    const float scale = (float)gradient_scale;
    for (size_t s = 0; s < optimizer->n_slots; s++) {
        const tn_slot *slot = &optimizer->slots[s];
        if (slot->frozen)
            continue;
        float rate = (float)(lr * (double)slot->rate);
        if (optimizer->rule.kind == TN_OPTIMIZER_SGD)
            step_sgd(&optimizer->rule, slot, rate, scale);
        else
            step_adam(&optimizer->rule, slot, rate, scale, &factors);
        if (slot->average)
            update_average(slot, factors.keep);
    }
    optimizer->steps++;
}

void tn_optimizer_start_averages(tn_optimizer *optimizer)
{
    for (size_t s = 0; s < optimizer->n_slots; s++) {
        const tn_slot *slot = &optimizer->slots[s];
        if (slot->average)
            memcpy(slot->average, slot->value, (size_t)slot->count * sizeof *slot->value);
    }
}

void tn_optimizer_swap_averages(tn_optimizer *optimizer)
{
    for (size_t s = 0; s < optimizer->n_slots; s++) {
        const tn_slot *slot = &optimizer->slots[s];
        if (slot->frozen) /* its average never followed it */
            continue;
        for (int64_t i = 0; slot->average && i < slot->count; i++) {
            float value = slot->value[i];
            slot->value[i] = slot->average[i];
            slot->average[i] = value;
        }
    }
}
