#include "converter/comparison.h"

#include "core/memory.h"

#include <math.h>
#include <string.h>

static bool same_shape(const tn_layer *a, const tn_layer *b)
{
    return a->rows == b->rows && a->cols == b->cols;
}

static bool same_name(const tn_layer *a, const tn_layer *b)
{
    return strcmp(tn_node_label(a->node), tn_node_label(b->node)) == 0;
}

/* The n-th layer of a shape in b belongs to the n-th of that shape in a. */
static const tn_layer *by_place(const tn_layers *a, const tn_layers *b, size_t i)
{
    size_t nth = 0;
    for (size_t j = 0; j < i; j++)
        nth += same_shape(&b->layer[j], &b->layer[i]);
    for (size_t j = 0; j < a->count; j++)
        if (same_shape(&a->layer[j], &b->layer[i]) && nth-- == 0)
            return &a->layer[j];
    return NULL;
}

static const tn_layer *counterpart(const tn_layers *a, const tn_layers *b, size_t i)
{
    for (size_t j = 0; j < a->count; j++)
        if (same_name(&a->layer[j], &b->layer[i]) && same_shape(&a->layer[j], &b->layer[i]))
            return &a->layer[j];
    return by_place(a, b, i);
}

typedef struct sums {
    double difference, signal;
    int64_t zeros;
} sums;

static void add_rows(const float *a, const float *b, int64_t count, sums *s)
{
    for (int64_t i = 0; i < count; i++) {
        double d = (double)a[i] - (double)b[i];
        s->difference += d * d;
        s->signal += (double)a[i] * (double)a[i];
        s->zeros += b[i] == 0.0f;
    }
}

static double ratio(const sums *s)
{
    return s->difference == 0 ? 0 : s->signal == 0 ? (double)INFINITY : s->difference / s->signal;
}

static tn_status compare_layer(tn_layer_difference *difference, sums *total, tn_error *error)
{
    const tn_layer *a = difference->a, *b = difference->b;
    sums s = {0, 0, 0};
    tn_status status = TN_OK;
    float *rows = tn_alloc_array(2 * (size_t)a->cols, sizeof *rows);
    if (!rows)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a layer");
    for (int64_t r = 0; r < a->rows && status == TN_OK; r++) {
        status = tn_layer_read_rows(a, r, 1, rows, error);
        if (status == TN_OK)
            status = tn_layer_read_rows(b, r, 1, rows + a->cols, error);
        if (status == TN_OK)
            add_rows(rows, rows + a->cols, a->cols, &s);
    }
    tn_free(rows);
    if (status != TN_OK)
        return status;
    difference->relmse = ratio(&s);
    difference->sqnr_db = -10 * log10(difference->relmse);
    difference->zeros = (double)s.zeros / (double)(a->rows * a->cols);
    total->difference += s.difference;
    total->signal += s.signal;
    return TN_OK;
}

tn_status tn_layers_compare(const tn_layers *a, const tn_layers *b, const tn_reporter *reporter,
                            tn_layer_comparison *comparison, tn_error *error)
{
    tn_layer_comparison made = {.layer = tn_alloc_zero(b->count + 1, sizeof *made.layer)};
    sums total = {0, 0, 0};
    tn_status status = TN_OK;
    if (!made.layer)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a comparison");
    for (size_t i = 0; i < b->count && status == TN_OK; i++) {
        tn_layer_difference *difference = &made.layer[made.count];
        tn_progress(reporter, "comparing", i, b->count);
        if (tn_cancelled(reporter))
            status = tn_fail(error, TN_ERROR_CANCELLED, "stopped");
        *difference = (tn_layer_difference){.a = counterpart(a, b, i), .b = &b->layer[i]};
        if (status != TN_OK || !difference->a)
            continue;
        status = compare_layer(difference, &total, error);
        made.count++;
    }
    if (status == TN_OK && made.count == 0)
        status = tn_fail(error, TN_ERROR_MODEL,
                         "the models have no layer in common: neither a name nor a shape");
    made.relmse = ratio(&total);
    if (status == TN_OK)
        *comparison = made;
    else
        tn_free(made.layer);
    return status;
}
