#include "finetune/descent.h"

#include "core/memory.h"
#include "core/threads.h"
#include "finetune/gram_product.h"
#include "finetune/grid.h"

#include <math.h>
#include <omp.h>
#include <string.h>

enum { SWEEPS = 30 };

/* Rows that share a Gram matrix are swept together, a block of columns at a time: a row of G is
 * then read once for all of them. The result does not depend on how many. */
enum { MIN_BUNDLE = 8, MAX_BUNDLE = TN_PRODUCT_ROWS, BUNDLES = 16, BLOCK = TN_PRODUCT_BLOCK };

/* What all threads share. */
typedef struct descent_run {
    const tn_gram *gram;
    tn_qweight *weight;
    int sweeps;
    bool keep_scales;
    double *memory;       /* [rows, 3, cols] */
    double *slopes;       /* [rows, 2] */
    tn_gram_terms *terms; /* [threads] */
} descent_run;

/* One row under way. A class is the set of weights that share one scale: (group, sign). */
typedef struct row_state {
    int64_t cols, row;
    const double *gram, *linear;
    double *v;       /* [cols] values */
    double *p;       /* [cols] G v */
    double *scratch; /* [cols] */
} row_state;

static double dot(int64_t n, const double *x, const double *y)
{
    double sum = 0;
    for (int64_t i = 0; i < n; i++)
        sum += x[i] * y[i];
    return sum;
}

/* Up to MAX_BUNDLE rows with one Gram matrix. */
typedef struct bundle {
    row_state row[MAX_BUNDLE];
    bool active[MAX_BUNDLE];
    int64_t changes[MAX_BUNDLE];                 /* of the last sweep */
    double *p[MAX_BUNDLE], *scratch[MAX_BUNDLE]; /* the rows' */
    int count;
    int64_t cols;
    const double *gram;
    tn_gram_terms *terms; /* of the thread */
} bundle;

static void bundle_start(bundle *rows, const tn_qweight *weight)
{
    int64_t n = rows->cols;
    for (int r = 0; r < rows->count; r++) {
        row_state *state = &rows->row[r];
        memset(state->p, 0, (size_t)n * sizeof *state->p);
        for (int64_t i = 0; i < n; i++)
            state->v[i] = tn_grid_value(weight, tn_qweight_scale_index(weight, state->row, i),
                                        weight->codes[state->row * n + i]);
    }
    for (int64_t first = 0; first < n; first += BLOCK) {
        int64_t last = first + BLOCK < n ? first + BLOCK : n;
        tn_gram_terms_clear(rows->terms);
        for (int r = 0; r < rows->count; r++)
            for (int64_t i = first; i < last; i++)
                if (rows->row[r].v[i] != 0)
                    tn_gram_terms_push(rows->terms, r, i - first, rows->row[r].v[i]);
        tn_gram_terms_add(rows->terms, rows->gram + first * n, n, 0, n, rows->count, rows->p);
    }
}

/* One pass over row r's codes of columns [first, last), whose part of p is kept up; the changes
 * become terms. */
static void block_sweep(bundle *rows, int r, tn_qweight *weight, int64_t first, int64_t last)
{
    row_state *state = &rows->row[r];
    int64_t n = state->cols;
    int16_t *codes = weight->codes + state->row * n;
    for (int64_t i = first; i < last; i++) {
        double diagonal = state->gram[i * (n + 1)];
        if (!(diagonal > 0))
            continue; /* an input that is always 0 says nothing */
        int64_t scale = tn_qweight_scale_index(weight, state->row, i);
        double best = state->v[i] + (state->linear[i] - state->p[i]) / diagonal;
        int code = tn_grid_nearest(weight, scale, best);
        if (code == codes[i])
            continue;
        double value = tn_grid_value(weight, scale, code), delta = value - state->v[i];
        if (fabs(value - best) >= fabs(state->v[i] - best))
            continue; /* a tie: stay */
        tn_grid_add_scaled(last - first, delta, state->gram + i * n + first, state->p + first);
        if (delta != 0)
            tn_gram_terms_push(rows->terms, r, i - first, delta);
        state->v[i] = value;
        codes[i] = (int16_t)code;
        rows->changes[r]++;
    }
}

/* One cyclic pass over the codes of all active rows. */
static void bundle_sweep(bundle *rows, tn_qweight *weight)
{
    int64_t n = rows->cols;
    memset(rows->changes, 0, sizeof rows->changes);
    for (int64_t first = 0; first < n; first += BLOCK) {
        int64_t last = first + BLOCK < n ? first + BLOCK : n;
        const double *gram = rows->gram + first * n;
        tn_gram_terms_clear(rows->terms);
        for (int r = 0; r < rows->count; r++)
            if (rows->active[r])
                block_sweep(rows, r, weight, first, last);
        tn_gram_terms_add(rows->terms, gram, n, 0, first, rows->count, rows->p);
        tn_gram_terms_add(rows->terms, gram, n, last, n, rows->count, rows->p);
    }
}

/* A class: columns [first, last) whose code has the sign (0: any). */
typedef struct scale_class {
    int64_t first, last;
    int sign;
} scale_class;

static bool in_class(const row_state *state, const scale_class *class, int64_t i)
{
    return class->sign == 0 || (class->sign > 0 ? state->v[i] > 0 : state->v[i] < 0);
}

/* scratch = G v_c of the active rows, v_c being the class's present values. */
static void class_products(bundle *rows, const scale_class *class)
{
    int64_t n = rows->cols;
    bool whole = class->sign == 0 && class->first == 0 && class->last == n;
    for (int r = 0; r < rows->count; r++)
        if (rows->active[r] && whole)
            memcpy(rows->scratch[r], rows->p[r], (size_t)n * sizeof(double));
        else if (rows->active[r])
            memset(rows->scratch[r], 0, (size_t)n * sizeof(double));
    for (int64_t first = class->first; !whole && first < class->last; first += BLOCK) {
        int64_t last = first + BLOCK < class->last ? first + BLOCK : class->last;
        tn_gram_terms_clear(rows->terms);
        for (int r = 0; r < rows->count; r++)
            for (int64_t i = first; rows->active[r] && i < last; i++)
                if (rows->row[r].v[i] != 0 && in_class(&rows->row[r], class, i))
                    tn_gram_terms_push(rows->terms, r, i - first, rows->row[r].v[i]);
        tn_gram_terms_add(rows->terms, rows->gram + first * n, n, 0, n, rows->count, rows->scratch);
    }
}

/* Derivative terms of E along the class's values: with v_c -> (1 + f) v_c, E changes by
 * f^2 curvature - 2 f slope. scratch is G v_c. */
static void class_terms(const row_state *state, const scale_class *class, double *slope,
                        double *curvature)
{
    *slope = *curvature = 0;
    for (int64_t i = class->first; i < class->last; i++)
        if (in_class(state, class, i)) {
            *slope += state->v[i] * (state->linear[i] - state->p[i]);
            *curvature += state->v[i] * state->scratch[i];
        }
}

/* Best factor on a scale now at `scale`, or 1 when it would not stay a positive number. */
static double best_factor(float scale, double slope, double curvature)
{
    double factor = curvature > 0 ? 1 + slope / curvature : 1;
    float after = (float)((double)scale * factor);
    return isfinite(after) && after > 0 && factor > 0 ? (double)after / (double)scale : 1;
}

static void class_apply(row_state *state, const scale_class *class, double factor)
{
    tn_grid_add_scaled(state->cols, factor - 1, state->scratch, state->p);
    for (int64_t i = class->first; i < class->last; i++)
        if (in_class(state, class, i))
            state->v[i] *= factor;
}

static scale_class class_of(const tn_qweight *weight, int64_t group, int sign)
{
    if (weight->granularity != TN_PER_GROUP)
        return (scale_class){0, weight->cols, sign};
    int64_t first = group * weight->group, last = first + weight->group;
    return (scale_class){first, last < weight->cols ? last : weight->cols, sign};
}

/* Scales of the active rows, one class after the other. */
static void bundle_scales(bundle *rows, tn_qweight *weight)
{
    for (int64_t g = 0; g < weight->groups_per_row; g++)
        for (int side = 0; side < (weight->scale_neg ? 2 : 1); side++) {
            scale_class class = class_of(weight, g, weight->scale_neg ? 1 - 2 * side : 0);
            class_products(rows, &class);
            for (int r = 0; r < rows->count; r++) {
                row_state *state = &rows->row[r];
                float *scale = (side ? weight->scale_neg : weight->scale) +
                               state->row * weight->groups_per_row + g;
                double slope, curvature;
                if (!rows->active[r])
                    continue;
                class_terms(state, &class, &slope, &curvature);
                double factor = best_factor(*scale, slope, curvature);
                if (factor == 1)
                    continue;
                class_apply(state, &class, factor);
                *scale = (float)((double)*scale * factor);
            }
        }
}

static double row_objective(const row_state *state)
{
    return dot(state->cols, state->v, state->p) - 2 * dot(state->cols, state->v, state->linear);
}

static row_state row_state_of(const tn_gram *gram, int64_t row, double *memory)
{
    int64_t group = row / (gram->rows / gram->groups);
    return (row_state){.cols = gram->cols,
                       .row = row,
                       .gram = gram->inner + group * gram->cols * gram->cols,
                       .linear = gram->cross + row * gram->cols,
                       .v = memory,
                       .p = memory + gram->cols,
                       .scratch = memory + 2 * gram->cols};
}

static int64_t bundle_size(const tn_gram *gram)
{
    int64_t size = gram->rows / gram->groups / BUNDLES;
    return size < MIN_BUNDLE ? MIN_BUNDLE : size > MAX_BUNDLE ? MAX_BUNDLE : size;
}

/* Bundles do not cross groups of a convolution. */
static int64_t bundles_of(const tn_gram *gram)
{
    int64_t outputs = gram->rows / gram->groups, size = bundle_size(gram);
    return gram->groups * ((outputs + size - 1) / size);
}

static void bundle_make(const descent_run *run, int64_t which, bundle *rows)
{
    const tn_gram *gram = run->gram;
    int64_t outputs = gram->rows / gram->groups, size = bundle_size(gram);
    int64_t each = (outputs + size - 1) / size, first = which % each * size;
    rows->count = (int)(outputs - first < size ? outputs - first : size);
    rows->cols = gram->cols;
    rows->gram = gram->inner + which / each * gram->cols * gram->cols;
    rows->terms = run->terms + omp_get_thread_num();
    for (int r = 0; r < rows->count; r++) {
        int64_t row = which / each * outputs + first + r;
        rows->row[r] = row_state_of(gram, row, run->memory + row * 3 * gram->cols);
        rows->p[r] = rows->row[r].p;
        rows->scratch[r] = rows->row[r].scratch;
        rows->active[r] = true;
    }
}

/* A row is done when its codes have settled; of a long one, all but a few: the last of them go on
 * moving where there are more weights than positions. */
static bool settled(int64_t changes, int64_t cols)
{
    return changes <= (cols < 1024 ? 0 : cols / 256);
}

static void descend_bundle(const descent_run *run, bundle *rows)
{
    bool any = true, scales = !run->keep_scales;
    bundle_start(rows, run->weight);
    for (int sweep = 0; any && sweep < run->sweeps; sweep++) {
        if (scales)
            bundle_scales(rows, run->weight);
        bundle_sweep(rows, run->weight);
        any = false;
        for (int r = 0; r < rows->count; r++) {
            rows->active[r] = rows->active[r] && !settled(rows->changes[r], rows->cols);
            any = any || rows->active[r];
        }
    }
    for (int r = 0; r < rows->count; r++)
        rows->active[r] = true;
    if (run->sweeps > 0 && scales)
        bundle_scales(rows, run->weight);
}

static void descend_rows(const descent_run *run, double *objective)
{
#pragma omp parallel for schedule(dynamic)
    for (int64_t b = 0; b < bundles_of(run->gram); b++) {
        bundle rows;
        bundle_make(run, b, &rows);
        descend_bundle(run, &rows);
        for (int r = 0; objective && r < rows.count; r++)
            objective[rows.row[r].row] = row_objective(&rows.row[r]);
    }
}

/* One scale for all rows: sums over rows in row order. */
static void tensor_scales(const descent_run *run)
{
    const tn_gram *gram = run->gram;
    tn_qweight *weight = run->weight;
    for (int side = 0; side < (weight->scale_neg ? 2 : 1); side++) {
        scale_class class = class_of(weight, 0, weight->scale_neg ? 1 - 2 * side : 0);
        float *scale = side ? weight->scale_neg : weight->scale;
#pragma omp parallel for schedule(dynamic)
        for (int64_t b = 0; b < bundles_of(gram); b++) {
            bundle rows;
            bundle_make(run, b, &rows);
            class_products(&rows, &class);
            for (int r = 0; r < rows.count; r++)
                class_terms(&rows.row[r], &class, run->slopes + 2 * rows.row[r].row,
                            run->slopes + 2 * rows.row[r].row + 1);
        }
        double slope = 0, curvature = 0;
        for (int64_t row = 0; row < gram->rows; row++) {
            slope += run->slopes[2 * row];
            curvature += run->slopes[2 * row + 1];
        }
        double factor = best_factor(*scale, slope, curvature);
        if (factor == 1)
            continue;
#pragma omp parallel for schedule(static)
        for (int64_t row = 0; row < gram->rows; row++) {
            row_state state = row_state_of(gram, row, run->memory + row * 3 * gram->cols);
            class_apply(&state, &class, factor);
        }
        *scale = (float)((double)*scale * factor);
    }
}

static void descend_tensor(const descent_run *run, double *objective)
{
    const tn_gram *gram = run->gram;
#pragma omp parallel for schedule(dynamic)
    for (int64_t b = 0; b < bundles_of(gram); b++) {
        bundle rows;
        bundle_make(run, b, &rows);
        bundle_start(&rows, run->weight);
    }
    for (int sweep = 0; sweep < run->sweeps; sweep++) {
        int64_t changes = 0;
        if (!run->keep_scales)
            tensor_scales(run);
#pragma omp parallel for schedule(dynamic) reduction(+ : changes)
        for (int64_t b = 0; b < bundles_of(gram); b++) {
            bundle rows;
            bundle_make(run, b, &rows);
            bundle_sweep(&rows, run->weight);
            for (int r = 0; r < rows.count; r++)
                changes += rows.changes[r];
        }
        if (changes == 0)
            break;
    }
    if (run->sweeps > 0 && !run->keep_scales)
        tensor_scales(run);
    for (int64_t row = 0; objective && row < gram->rows; row++) {
        row_state state = row_state_of(gram, row, run->memory + row * 3 * gram->cols);
        objective[row] = row_objective(&state);
    }
}

static tn_status descend(descent_run run, double *objective, tn_error *error)
{
    const tn_gram *gram = run.gram;
    run.memory = tn_alloc_array((size_t)(gram->rows * gram->cols), 3 * sizeof *run.memory);
    run.slopes = tn_alloc_array((size_t)gram->rows, 2 * sizeof *run.slopes);
    run.terms = tn_alloc_array((size_t)tn_threads_get(), sizeof *run.terms);
    tn_status status = TN_OK;
    if (!run.memory || !run.slopes || !run.terms)
        status = tn_fail(error, TN_ERROR_LIMIT, "no memory to calibrate %lld x %lld weights",
                         (long long)gram->rows, (long long)gram->cols);
    else if (run.weight->granularity == TN_PER_TENSOR)
        descend_tensor(&run, objective);
    else
        descend_rows(&run, objective);
    tn_free(run.memory);
    tn_free(run.slopes);
    tn_free(run.terms);
    return status;
}

tn_status tn_descent(const tn_gram *gram, const tn_descent_options *options, tn_qweight *weight,
                     double *objective, tn_error *error)
{
    descent_run run = {.gram = gram, .weight = weight, .sweeps = SWEEPS};
    if (options && options->sweeps > 0)
        run.sweeps = options->sweeps;
    run.keep_scales = options && options->keep_scales;
    return descend(run, objective, error);
}

tn_status tn_descent_objective(const tn_gram *gram, const tn_qweight *weight, double *objective,
                               tn_error *error)
{
    tn_qweight same = *weight; /* no sweep: nothing is written */
    descent_run run = {.gram = gram, .weight = &same, .keep_scales = true};
    return descend(run, objective, error);
}
