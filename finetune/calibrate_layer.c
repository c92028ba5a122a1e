#include "finetune/calibrate_layer.h"

#include "core/memory.h"
#include "core/threads.h"
#include "finetune/adaround.h"
#include "finetune/descent.h"
#include "finetune/gptq.h"
#include "finetune/gram_product.h"

#include <dnnl.h>
#include <math.h>
#include <omp.h>
#include <string.h>

/* Positions used per weight of a row: more cost time and change little. */
enum { POSITIONS_PER_COL = 40, TOGETHER = TN_PRODUCT_ROWS };

/* Everything one fit works with. */
typedef struct fit_state {
    const tn_layer_view *view;
    const tn_layer_source *source;
    const tn_layer_fit_options *options;
    tn_qweight *weight;
    int pass; /* over the chunks */
    tn_gram gram;
    double *damping;      /* [groups] */
    float *correction;    /* [channels] */
    float *rows;          /* [channels, cols] values in weight order */
    float *tile_rows;     /* the same in tile order */
    double *products;     /* [channels, cols] */
    double *left, *all;   /* [channels] */
    tn_gram_terms *terms; /* [threads] */
    int64_t limit;
} fit_state;

static tn_status solve(fit_state *state, tn_error *error)
{
    switch (state->options->method) {
    case TN_CALIBRATE_ROUND:
        return TN_OK;
    case TN_CALIBRATE_GPTQ:
        return tn_gptq(&state->gram, state->view->w, NULL, state->weight, error);
    case TN_CALIBRATE_ADAROUND:
        return tn_adaround(&state->gram, state->view->w, NULL, state->weight, error);
    case TN_CALIBRATE_AUTO:
    case TN_CALIBRATE_CD:
        break;
    }
    /* starting from GPTQ's codes lowers this objective further and generalizes no better */
    tn_descent_options descent = {.sweeps = state->options->sweeps};
    return tn_descent(&state->gram, &descent, state->weight, NULL, error);
}

/* G v of some rows of one group. */
static void multiply_rows(const tn_gram *gram, int64_t first, int count, const float *values,
                          tn_gram_terms *terms, double *products)
{
    int64_t cols = gram->cols, group = first / (gram->rows / gram->groups);
    const double *inner = gram->inner + group * cols * cols;
    double *product[TN_PRODUCT_ROWS];
    memset(products, 0, (size_t)(count * cols) * sizeof *products);
    for (int r = 0; r < count; r++)
        product[r] = products + r * cols;
    for (int64_t i0 = 0; i0 < cols; i0 += TN_PRODUCT_BLOCK) {
        int64_t n = cols - i0 < TN_PRODUCT_BLOCK ? cols - i0 : TN_PRODUCT_BLOCK;
        tn_gram_terms_clear(terms);
        for (int r = 0; r < count; r++)
            for (int64_t i = 0; i < n; i++) {
                double v = (double)values[(first + r) * cols + i0 + i];
                if (v != 0)
                    tn_gram_terms_push(terms, r, i, v);
            }
        tn_gram_terms_add(terms, inner + i0 * cols, cols, 0, cols, count, product);
    }
}

/* slope and shift of one channel from the sums, the damping taken out again; what is left of the
 * target's variance, and that variance. Inputs that hardly vary tell no slope and explain nothing.
 */
static void measure_row(const fit_state *state, int64_t o, const double *product, tn_layer_fit *fit,
                        double *left, double *all)
{
    const tn_gram *gram = &state->gram;
    int64_t cols = gram->cols, group = o / (gram->rows / gram->groups);
    const float *v = state->rows + o * cols, *w = state->view->w + o * cols;
    double l = state->damping[group], vb = 0, vgv = 0, mean = 0;
    for (int64_t i = 0; i < cols; i++) {
        double vi = (double)v[i];
        vb += vi * (gram->cross[o * cols + i] - l * (double)w[i]);
        mean += vi * gram->sum_x[group * cols + i] / gram->count;
        vgv += vi * (product[i] - l * vi);
    }
    bool flat = gram->flat[group];
    double slope = vgv > 0 ? vb / vgv : 1;
    slope = slope > 0.1 && slope < 10 && !state->view->no_slope && !flat ? slope : 1;
    double wanted = gram->sum_y[o] / gram->count, variance = gram->sum_yy[o];
    fit->slope[o] = slope;
    fit->shift[o] = state->view->centered ? wanted - slope * mean : 0;
    if (state->view->centered)
        variance -= gram->sum_y[o] * wanted;
    if (flat && variance <= 1e-6 * gram->sum_yy[o])
        variance = 0; /* no more than the inputs' */
    *left = flat ? variance : variance - 2 * slope * vb + slope * slope * vgv;
    *all = variance;
}

static void measure(fit_state *state, tn_layer_fit *fit)
{
    const tn_gram *gram = &state->gram;
    int64_t outputs = gram->rows / gram->groups, each = (outputs + TOGETHER - 1) / TOGETHER;
    double left = 0, all = 0;
    tn_qweight_dequantize(state->weight, state->rows);
#pragma omp parallel for schedule(dynamic)
    for (int64_t b = 0; b < gram->groups * each; b++) {
        int64_t at = b % each * TOGETHER, first = b / each * outputs + at;
        int64_t count = outputs - at < TOGETHER ? outputs - at : TOGETHER;
        double *products = state->products + first * gram->cols;
        multiply_rows(gram, first, (int)count, state->rows, state->terms + omp_get_thread_num(),
                      products);
        for (int64_t r = 0; r < count; r++)
            measure_row(state, first + r, products + r * gram->cols, fit, &state->left[first + r],
                        &state->all[first + r]);
    }
    for (int64_t o = 0; o < gram->rows; o++) {
        left += state->left[o];
        all += state->all[o];
    }
    fit->error = all > 0 ? left / all : 0;
}

/* One pass over all chunks. */
static tn_status add_chunks(fit_state *state, bool cross_only, const tn_gram_target *target,
                            tn_error *error)
{
    const tn_layer_source *source = state->source;
    tn_patches patches = state->view->patches;
    tn_gram_pass *sums = NULL;
    patches.batch = source->batch_per_image;
    int64_t rows = tn_patches_rows(&patches); /* of an image */
    tn_status status =
        tn_gram_pass_create(source->device, &patches, rows * source->images, state->limit,
                            cross_only, target, &state->gram, &sums, error);
    for (int64_t c = 0; status == TN_OK && c < source->chunks; c++) {
        int64_t images = 0;
        status = source->load(source->context, state->pass, c, &images, error);
        patches.batch = source->batch_per_image * images;
        if (status == TN_OK && images > 0)
            status = tn_gram_pass_add(sums, &patches, rows * c * source->chunk_images, error);
    }
    if (status == TN_OK)
        status = tn_gram_pass_finish(sums, error);
    tn_gram_pass_destroy(sums);
    state->pass++;
    return status;
}

/* The sums of cross once more, with the target relaxed around the present weight. */
static tn_status relax_cross(fit_state *state, tn_layer_fit *fit, const tn_gram_target *plain,
                             tn_error *error)
{
    tn_gram *gram = &state->gram;
    int64_t cols = gram->cols;
    measure(state, fit);
    for (int64_t o = 0; o < gram->rows; o++)
        for (int64_t j = 0; j < cols; j++)
            state->tile_rows[o * cols + j] =
                state->rows[o * cols + tn_patches_weight_col(&state->view->patches, j)];
    tn_gram_target relaxed = *plain;
    relaxed.values = state->tile_rows;
    relaxed.slope = fit->slope;
    relaxed.shift = fit->shift;
    memset(gram->cross, 0, (size_t)(gram->rows * cols) * sizeof *gram->cross);
    memset(gram->sum_y, 0, (size_t)gram->rows * sizeof *gram->sum_y);
    memset(gram->sum_yy, 0, (size_t)gram->rows * sizeof *gram->sum_yy);
    tn_status status = add_chunks(state, true, &relaxed, error);
    if (status != TN_OK)
        return status;
    if (state->view->centered)
        tn_gram_center_cross(gram);
    tn_gram_damp_cross(gram, state->view->w, gram->cols, state->damping);
    return TN_OK;
}

static void find_correction(fit_state *state)
{
    double most = 0;
    for (int64_t o = 0; o < state->view->channels; o++)
        most = fmax(most, fabs(state->view->gain[o]));
    for (int64_t o = 0; o < state->view->channels; o++) {
        double gain = state->view->gain[o];
        state->correction[o] = (float)(fabs(gain) > 1e-2 * most ? 1 / gain : 0);
    }
}

static tn_status fit_passes(fit_state *state, tn_layer_fit *fit, tn_error *error)
{
    const tn_layer_view *view = state->view;
    const bool residual = view->other_f && !state->options->no_residual;
    const tn_gram_target target = {.channels = view->channels,
                                   .output = view->output,
                                   .other_f = view->other_f,
                                   .other_q = view->other_q,
                                   .bias = view->bias,
                                   .correction = residual ? state->correction : NULL,
                                   .gain = view->gain,
                                   .offset = view->offset};
    tn_status status = add_chunks(state, false, &target, error);
    if (status != TN_OK)
        return status;
    if (view->centered) {
        tn_gram_center_inner(&state->gram);
        tn_gram_center_cross(&state->gram);
    }
    tn_gram_damp_inner(&state->gram, state->options->damping, state->damping);
    tn_gram_damp_cross(&state->gram, view->w, state->gram.cols, state->damping);
    status = solve(state, error);
    int passes = view->relu ? state->options->relu_passes : 0;
    for (int pass = 0; status == TN_OK && pass < passes; pass++) {
        status = relax_cross(state, fit, &target, error);
        if (status == TN_OK)
            status = solve(state, error);
    }
    if (status == TN_OK)
        measure(state, fit);
    return status;
}

tn_status tn_layer_fit_run(const tn_layer_view *view, const tn_layer_source *source,
                           const tn_layer_fit_options *options, tn_qweight *weight,
                           tn_layer_fit *fit, tn_error *error)
{
    int64_t cols = tn_patches_cols(&view->patches);
    size_t weights = (size_t)(view->channels * cols);
    fit_state state = {.view = view, .source = source, .options = options, .weight = weight};
    int64_t enough = POSITIONS_PER_COL * cols;
    state.limit = enough > options->positions ? enough : options->positions;
    state.damping = tn_alloc_zero((size_t)view->patches.group, sizeof *state.damping);
    state.correction = tn_alloc_zero((size_t)view->channels, sizeof *state.correction);
    state.rows = tn_alloc_array(weights, sizeof *state.rows);
    state.tile_rows = tn_alloc_array(weights, sizeof *state.tile_rows);
    state.products = tn_alloc_array(weights, sizeof *state.products);
    state.terms = tn_alloc_array((size_t)tn_threads_get(), sizeof *state.terms);
    state.left = tn_alloc_array((size_t)view->channels, 2 * sizeof *state.left);
    state.all = state.left ? state.left + view->channels : NULL;
    tn_status status = tn_gram_init(&state.gram, view->channels, cols, view->patches.group, error);
    if (status == TN_OK && (!state.damping || !state.correction || !state.rows ||
                            !state.tile_rows || !state.products || !state.terms || !state.left))
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu weights", weights);
    if (status == TN_OK) {
        find_correction(&state);
        status = fit_passes(&state, fit, error);
    }
    tn_gram_done(&state.gram);
    tn_free(state.damping);
    tn_free(state.correction);
    tn_free(state.rows);
    tn_free(state.tile_rows);
    tn_free(state.products);
    tn_free(state.terms);
    tn_free(state.left);
    return status;
}
