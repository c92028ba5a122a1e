#include "finetune/gptq.h"

#include "core/memory.h"
#include "finetune/grid.h"

#include <math.h>
#include <stdlib.h>

enum { PANEL = 48 };

/* Columns [first, last) of rows >= first, from what the columns before left. */
static bool factor_panel(double *a, int64_t n, int64_t first, int64_t last)
{
    for (int64_t j = first; j < last; j++) {
        double pivot = a[j * n + j];
        for (int64_t k = first; k < j; k++)
            pivot -= a[j * n + k] * a[j * n + k];
        if (!(pivot > 0) || !isfinite(pivot))
            return false;
        double root = sqrt(pivot);
        a[j * n + j] = root;
#pragma omp parallel for schedule(static) if (n - j > 256)
        for (int64_t i = j + 1; i < n; i++) {
            double sum = a[i * n + j];
            for (int64_t k = first; k < j; k++)
                sum -= a[i * n + k] * a[j * n + k];
            a[i * n + j] = sum / root;
        }
    }
    return true;
}

bool tn_cholesky(double *a, int64_t n)
{
    double *columns = tn_alloc_array((size_t)n, PANEL * sizeof *columns);
    if (!columns)
        return false;
    bool fine = true;
    for (int64_t first = 0; fine && first < n; first += PANEL) {
        int64_t last = first + PANEL < n ? first + PANEL : n;
        fine = factor_panel(a, n, first, last);
        for (int64_t k = first; fine && k < last; k++) /* the panel transposed: unit stride below */
            for (int64_t i = last; i < n; i++)
                columns[(k - first) * n + i] = a[i * n + k];
#pragma omp parallel for schedule(dynamic, 16) if (fine && n - last > 64)
        for (int64_t i = last; i < n; i++)
            for (int64_t k = first; fine && k < last; k++)
                tn_grid_add_scaled(i - last + 1, -a[i * n + k], columns + (k - first) * n + last,
                                   a + i * n + last);
    }
    tn_free(columns);
    return fine;
}

typedef struct input_size {
    double size;
    int64_t index;
} input_size;

static int larger_first(const void *a, const void *b)
{
    const input_size *x = a, *y = b;
    if (x->size != y->size)
        return x->size > y->size ? -1 : 1;
    return x->index < y->index ? -1 : 1;
}

/* Last to be processed comes first: position s of the factor is column order[s]. */
static tn_status choose_order(const double *inner, int64_t n, bool natural, int64_t *order,
                              tn_error *error)
{
    input_size *sizes = tn_alloc_array((size_t)n, sizeof *sizes);
    if (!sizes)
        return tn_fail(error, TN_ERROR_LIMIT, "no memory to order %lld inputs", (long long)n);
    for (int64_t i = 0; i < n; i++)
        sizes[i] = (input_size){natural ? 0 : inner[i * (n + 1)], i};
    qsort(sizes, (size_t)n, sizeof *sizes, larger_first);
    for (int64_t i = 0; i < n; i++)
        order[n - 1 - i] = sizes[i].index;
    tn_free(sizes);
    return TN_OK;
}

/* goal = G^-1 b by the two triangular systems of L L' (in factor order). */
static void solve(const double *l, int64_t n, const int64_t *order, const double *cross,
                  double *goal)
{
    for (int64_t s = 0; s < n; s++) {
        double sum = cross[order[s]];
        for (int64_t t = 0; t < s; t++)
            sum -= l[s * n + t] * goal[t];
        goal[s] = sum / l[s * n + s];
    }
    for (int64_t s = n - 1; s >= 0; s--) {
        goal[s] /= l[s * n + s];
        tn_grid_add_scaled(s, -goal[s], l + s * n, goal);
    }
}

/* One row: memory is [2, cols], wished values and accumulated feedback in factor order. */
static void round_row(const double *l, int64_t n, const int64_t *order, int64_t row, double *memory,
                      tn_qweight *weight)
{
    double *goal = memory, *feedback = memory + n;
    for (int64_t s = n - 1; s >= 0; s--) {
        int64_t col = order[s];
        int64_t scale = tn_qweight_scale_index(weight, row, col);
        double wished = goal[s] + feedback[s] / l[s * n + s];
        int code = tn_grid_nearest(weight, scale, wished);
        weight->codes[row * n + col] = (int16_t)code;
        double error = goal[s] - tn_grid_value(weight, scale, code);
        tn_grid_add_scaled(s, error, l + s * n, feedback);
    }
}

static tn_status round_group(const tn_gram *gram, int64_t group, const float *w,
                             const tn_gptq_options *options, int64_t *order, double *l,
                             double *memory, tn_qweight *weight, tn_error *error)
{
    int64_t n = gram->cols, outputs = gram->rows / gram->groups;
    const double *inner = gram->inner + group * n * n;
    tn_status status = choose_order(inner, n, options->natural_order, order, error);
    if (status != TN_OK)
        return status;
    for (int64_t s = 0; s < n; s++)
        for (int64_t t = 0; t < n; t++)
            l[s * n + t] = inner[order[s] * n + order[t]];
    if (!tn_cholesky(l, n))
        return tn_fail(error, TN_ERROR_MODEL,
                       "the inputs' Gram matrix is not positive definite: use more images, more "
                       "damping, or method cd");
#pragma omp parallel for schedule(dynamic)
    for (int64_t o = 0; o < outputs; o++) {
        int64_t row = group * outputs + o;
        double *goal = memory + o * 2 * n;
        if (options->own_target)
            for (int64_t s = 0; s < n; s++)
                goal[s] = (double)w[row * n + order[s]];
        else
            solve(l, n, order, gram->cross + row * n, goal);
        for (int64_t s = 0; s < n; s++)
            goal[n + s] = 0;
        round_row(l, n, order, row, goal, weight);
    }
    return TN_OK;
}

tn_status tn_gptq(const tn_gram *gram, const float *w, const tn_gptq_options *options,
                  tn_qweight *weight, tn_error *error)
{
    tn_gptq_options defaults = {0};
    size_t n = (size_t)gram->cols, outputs = (size_t)(gram->rows / gram->groups);
    int64_t *order = tn_alloc_array(n, sizeof *order);
    double *l = tn_alloc_array(n * n, sizeof *l);
    double *memory = tn_alloc_array(outputs * n, 2 * sizeof *memory);
    tn_status status = TN_OK;
    if (!order || !l || !memory)
        status = tn_fail(error, TN_ERROR_LIMIT, "no memory to factor %zu inputs", n);
    for (int64_t g = 0; status == TN_OK && g < gram->groups; g++)
        status =
            round_group(gram, g, w, options ? options : &defaults, order, l, memory, weight, error);
    tn_free(order);
    tn_free(l);
    tn_free(memory);
    return status;
}
