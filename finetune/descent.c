#include "finetune/descent.h"

#include "core/memory.h"
#include "finetune/grid.h"

#include <math.h>
#include <string.h>

enum { SWEEPS = 30 };

/* Rows that share a Gram matrix are swept together, a block of columns at a time: a row of G is
 * then read once for all of them. Each sum gets its terms in the same order as one row after the
 * other would give it. */
enum { BUNDLE = 8, BLOCK = 256 };

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

/* Up to BUNDLE rows with one Gram matrix. */
typedef struct bundle {
    row_state row[BUNDLE];
    bool active[BUNDLE];
    int64_t changes[BUNDLE]; /* of the last sweep */
    int count;
    double delta[BUNDLE][BLOCK]; /* changes of values in the block under way */
} bundle;

static void bundle_start(bundle *rows, const tn_qweight *weight)
{
    int64_t n = rows->row[0].cols;
    for (int r = 0; r < rows->count; r++) {
        row_state *state = &rows->row[r];
        memset(state->p, 0, (size_t)n * sizeof *state->p);
        for (int64_t i = 0; i < n; i++)
            state->v[i] = tn_grid_value(weight, tn_qweight_scale_index(weight, state->row, i),
                                        weight->codes[state->row * n + i]);
    }
    for (int64_t i = 0; i < n; i++)
        for (int r = 0; r < rows->count; r++)
            if (rows->row[r].v[i] != 0)
                tn_grid_add_scaled(n, rows->row[r].v[i], rows->row[r].gram + i * n, rows->row[r].p);
}

/* One pass over the codes of columns [first, last), whose part of p is kept up; how many changed.
 */
static int64_t block_sweep(row_state *state, tn_qweight *weight, int64_t first, int64_t last,
                           double *delta)
{
    int64_t changes = 0, n = state->cols;
    int16_t *codes = weight->codes + state->row * n;
    for (int64_t i = first; i < last; i++) {
        double diagonal = state->gram[i * (n + 1)];
        delta[i - first] = 0;
        if (!(diagonal > 0))
            continue; /* an input that is always 0 says nothing */
        int64_t scale = tn_qweight_scale_index(weight, state->row, i);
        double best = state->v[i] + (state->linear[i] - state->p[i]) / diagonal;
        int code = tn_grid_nearest(weight, scale, best);
        if (code == codes[i])
            continue;
        double value = tn_grid_value(weight, scale, code);
        if (fabs(value - best) >= fabs(state->v[i] - best))
            continue; /* a tie: stay */
        delta[i - first] = value - state->v[i];
        tn_grid_add_scaled(last - first, delta[i - first], state->gram + i * n + first,
                           state->p + first);
        state->v[i] = value;
        codes[i] = (int16_t)code;
        changes++;
    }
    return changes;
}

/* One cyclic pass over the codes of all active rows. */
static void bundle_sweep(bundle *rows, tn_qweight *weight)
{
    int64_t n = rows->row[0].cols;
    memset(rows->changes, 0, sizeof rows->changes);
    for (int64_t first = 0; first < n; first += BLOCK) {
        int64_t last = first + BLOCK < n ? first + BLOCK : n;
        for (int r = 0; r < rows->count; r++)
            if (rows->active[r])
                rows->changes[r] += block_sweep(&rows->row[r], weight, first, last, rows->delta[r]);
        for (int64_t i = first; i < last; i++)
            for (int r = 0; r < rows->count; r++) {
                const row_state *state = &rows->row[r];
                double delta = rows->active[r] ? rows->delta[r][i - first] : 0;
                if (delta == 0)
                    continue;
                tn_grid_add_scaled(first, delta, state->gram + i * n, state->p);
                tn_grid_add_scaled(n - last, delta, state->gram + i * n + last, state->p + last);
            }
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

/* Derivative terms of E along the class's present values: with v_c -> (1 + f) v_c,
 * E changes by f^2 curvature - 2 f slope. scratch becomes G v_c. */
static void class_terms(row_state *state, const scale_class *class, double *slope,
                        double *curvature)
{
    int64_t n = state->cols;
    bool whole = class->sign == 0 && class->first == 0 && class->last == n;
    if (whole) {
        memcpy(state->scratch, state->p, (size_t)n * sizeof *state->p);
    } else {
        memset(state->scratch, 0, (size_t)n * sizeof *state->scratch);
        for (int64_t i = class->first; i < class->last; i++)
            if (state->v[i] != 0 && in_class(state, class, i))
                tn_grid_add_scaled(n, state->v[i], state->gram + i * n, state->scratch);
    }
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

/* Scales of one row, one class after the other. */
static void row_scales(row_state *state, tn_qweight *weight)
{
    for (int64_t g = 0; g < weight->groups_per_row; g++)
        for (int side = 0; side < (weight->scale_neg ? 2 : 1); side++) {
            scale_class class = class_of(weight, g, weight->scale_neg ? 1 - 2 * side : 0);
            float *scale = (side ? weight->scale_neg : weight->scale) +
                           state->row * weight->groups_per_row + g;
            double slope, curvature;
            class_terms(state, &class, &slope, &curvature);
            double factor = best_factor(*scale, slope, curvature);
            if (factor == 1)
                continue;
            class_apply(state, &class, factor);
            *scale = (float)((double)*scale * factor);
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

/* Bundles do not cross groups of a convolution. */
static int64_t bundles_of(const tn_gram *gram)
{
    int64_t outputs = gram->rows / gram->groups;
    return gram->groups * ((outputs + BUNDLE - 1) / BUNDLE);
}

static void bundle_make(const tn_gram *gram, int64_t which, double *memory, bundle *rows)
{
    int64_t outputs = gram->rows / gram->groups, each = (outputs + BUNDLE - 1) / BUNDLE;
    int64_t first = which % each * BUNDLE, rest = outputs - first;
    rows->count = (int)(rest < BUNDLE ? rest : BUNDLE);
    for (int r = 0; r < rows->count; r++) {
        int64_t row = which / each * outputs + first + r;
        rows->row[r] = row_state_of(gram, row, memory + row * 3 * gram->cols);
        rows->active[r] = true;
    }
}

/* A row is done when its codes have settled; of a long one, all but a few: the last of them go on
 * moving where there are more weights than positions. */
static bool settled(int64_t changes, int64_t cols)
{
    return changes <= (cols < 1024 ? 0 : cols / 256);
}

static void descend_bundle(bundle *rows, const tn_descent_options *options, int sweeps,
                           tn_qweight *weight)
{
    bool any = true;
    bundle_start(rows, weight);
    for (int sweep = 0; any && sweep < sweeps; sweep++) {
        for (int r = 0; !options->keep_scales && r < rows->count; r++)
            if (rows->active[r])
                row_scales(&rows->row[r], weight);
        bundle_sweep(rows, weight);
        any = false;
        for (int r = 0; r < rows->count; r++) {
            rows->active[r] = rows->active[r] && !settled(rows->changes[r], rows->row[r].cols);
            any = any || rows->active[r];
        }
    }
    for (int r = 0; sweeps > 0 && !options->keep_scales && r < rows->count; r++)
        row_scales(&rows->row[r], weight);
}

static void descend_rows(const tn_gram *gram, const tn_descent_options *options, int sweeps,
                         tn_qweight *weight, double *memory, double *objective)
{
#pragma omp parallel for schedule(dynamic)
    for (int64_t b = 0; b < bundles_of(gram); b++) {
        bundle rows;
        bundle_make(gram, b, memory, &rows);
        descend_bundle(&rows, options, sweeps, weight);
        for (int r = 0; objective && r < rows.count; r++)
            objective[rows.row[r].row] = row_objective(&rows.row[r]);
    }
}

/* One scale for all rows: sums over rows in row order. */
static void tensor_scales(const tn_gram *gram, tn_qweight *weight, double *memory, double *terms)
{
    for (int side = 0; side < (weight->scale_neg ? 2 : 1); side++) {
        scale_class class = class_of(weight, 0, weight->scale_neg ? 1 - 2 * side : 0);
        float *scale = side ? weight->scale_neg : weight->scale;
#pragma omp parallel for schedule(dynamic)
        for (int64_t row = 0; row < gram->rows; row++) {
            row_state state = row_state_of(gram, row, memory + row * 3 * gram->cols);
            class_terms(&state, &class, terms + 2 * row, terms + 2 * row + 1);
        }
        double slope = 0, curvature = 0;
        for (int64_t row = 0; row < gram->rows; row++) {
            slope += terms[2 * row];
            curvature += terms[2 * row + 1];
        }
        double factor = best_factor(*scale, slope, curvature);
        if (factor == 1)
            continue;
#pragma omp parallel for schedule(static)
        for (int64_t row = 0; row < gram->rows; row++) {
            row_state state = row_state_of(gram, row, memory + row * 3 * gram->cols);
            class_apply(&state, &class, factor);
        }
        *scale = (float)((double)*scale * factor);
    }
}

static void descend_tensor(const tn_gram *gram, const tn_descent_options *options, int sweeps,
                           tn_qweight *weight, double *memory, double *terms, double *objective)
{
#pragma omp parallel for schedule(dynamic)
    for (int64_t b = 0; b < bundles_of(gram); b++) {
        bundle rows;
        bundle_make(gram, b, memory, &rows);
        bundle_start(&rows, weight);
    }
    for (int sweep = 0; sweep < sweeps; sweep++) {
        int64_t changes = 0;
        if (!options->keep_scales)
            tensor_scales(gram, weight, memory, terms);
#pragma omp parallel for schedule(dynamic) reduction(+ : changes)
        for (int64_t b = 0; b < bundles_of(gram); b++) {
            bundle rows;
            bundle_make(gram, b, memory, &rows);
            bundle_sweep(&rows, weight);
            for (int r = 0; r < rows.count; r++)
                changes += rows.changes[r];
        }
        if (changes == 0)
            break;
    }
    if (sweeps > 0 && !options->keep_scales)
        tensor_scales(gram, weight, memory, terms);
    for (int64_t row = 0; objective && row < gram->rows; row++) {
        row_state state = row_state_of(gram, row, memory + row * 3 * gram->cols);
        objective[row] = row_objective(&state);
    }
}

static tn_status run(const tn_gram *gram, const tn_descent_options *options, int sweeps,
                     tn_qweight *weight, double *objective, tn_error *error)
{
    double *memory = tn_alloc_array((size_t)(gram->rows * gram->cols), 3 * sizeof *memory);
    double *terms = tn_alloc_array((size_t)gram->rows, 2 * sizeof *terms);
    tn_status status = TN_OK;
    if (!memory || !terms)
        status = tn_fail(error, TN_ERROR_LIMIT, "no memory to calibrate %lld x %lld weights",
                         (long long)gram->rows, (long long)gram->cols);
    else if (weight->granularity == TN_PER_TENSOR)
        descend_tensor(gram, options, sweeps, weight, memory, terms, objective);
    else
        descend_rows(gram, options, sweeps, weight, memory, objective);
    tn_free(memory);
    tn_free(terms);
    return status;
}

tn_status tn_descent(const tn_gram *gram, const tn_descent_options *options, tn_qweight *weight,
                     double *objective, tn_error *error)
{
    tn_descent_options defaults = {0};
    const tn_descent_options *used = options ? options : &defaults;
    return run(gram, used, used->sweeps > 0 ? used->sweeps : SWEEPS, weight, objective, error);
}

tn_status tn_descent_objective(const tn_gram *gram, const tn_qweight *weight, double *objective,
                               tn_error *error)
{
    tn_descent_options options = {.keep_scales = true};
    tn_qweight same = *weight; /* no sweep: nothing is written */
    return run(gram, &options, 0, &same, objective, error);
}
