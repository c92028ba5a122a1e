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

/* What the target function reads. */
typedef struct target_context {
    const tn_layer_view *view;
    bool residual;
    const double *correction; /* [channels] 1 / gain, 0 where the BN all but closes the channel */
    /* relaxation: where the ReLU hides the target as well as what the layer gives now, the latter
     * is as good a target */
    const float *values;         /* [channels, cols] in tile order; NULL: no relaxation */
    const double *slope, *shift; /* [channels] */
} target_context;

static void plain_target(const target_context *context, int64_t channel, int64_t count,
                         const int64_t *rows, int64_t outputs, float *y, int64_t stride)
{
    const tn_layer_view *view = context->view;
    for (int64_t i = 0; i < count; i++) {
        int64_t at = rows[i] * view->channels + channel;
        for (int64_t o = 0; o < outputs; o++) {
            float value = view->output[at + o];
            if (view->bias)
                value -= view->bias[channel + o];
            if (context->residual)
                value += (view->other_f[at + o] - view->other_q[at + o]) *
                         (float)context->correction[channel + o];
            y[i * stride + o] = value;
        }
    }
}

static void relax(const target_context *context, int64_t channel, int64_t count,
                  const int64_t *rows, int64_t outputs, const float *present, float *y,
                  int64_t stride)
{
    const tn_layer_view *view = context->view;
    for (int64_t i = 0; i < count; i++) {
        const float *other =
            view->other_q ? view->other_q + rows[i] * view->channels + channel : NULL;
        for (int64_t o = 0; o < outputs; o++) {
            double gain = view->gain[channel + o], rest = view->offset[channel + o];
            if (other)
                rest += (double)other[o];
            double now = (double)present[i * outputs + o] * context->slope[channel + o] +
                         context->shift[channel + o];
            double wanted = (double)y[i * stride + o];
            if (gain * now + rest < 0 && gain * wanted + rest < 0)
                y[i * stride + o] = (float)now;
        }
    }
}

static void layer_target(const void *opaque, int64_t group, const int64_t *rows, int64_t count,
                         const float *x, float *y, int64_t stride)
{
    enum { SLICE = 16, MAX_OUTPUTS = 512 }; /* positions at a time: bounds the stack */
    const target_context *context = opaque;
    const tn_layer_view *view = context->view;
    int64_t cols = tn_patches_cols(&view->patches), outputs = view->channels / view->patches.group;
    int64_t channel = group * outputs;
    plain_target(context, channel, count, rows, outputs, y, stride);
    if (!context->values)
        return;
    float present[SLICE * MAX_OUTPUTS];
    for (int64_t o = 0; o < outputs; o += MAX_OUTPUTS) {
        int64_t n = outputs - o < MAX_OUTPUTS ? outputs - o : MAX_OUTPUTS;
        for (int64_t i = 0; i < count; i += SLICE) {
            int64_t m = count - i < SLICE ? count - i : SLICE;
            if (dnnl_sgemm('N', 'T', m, n, cols, 1.0f, x + i * stride, stride,
                           context->values + (channel + o) * cols, cols, 0.0f, present,
                           n) != dnnl_success)
                return; /* the plain target stays */
            relax(context, channel + o, m, rows + i, n, present, y + i * stride + o, stride);
        }
    }
}

/* Everything one fit works with. */
typedef struct fit_state {
    const tn_layer_view *view;
    const tn_layer_source *source;
    const tn_layer_fit_options *options;
    tn_qweight *weight;
    int pass; /* over the chunks */
    tn_gram gram;
    double *damping;      /* [groups] */
    double *correction;   /* [channels] */
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
 * target's variance, and that variance. */
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
    double slope = vgv > 0 ? vb / vgv : 1;
    slope = slope > 0.1 && slope < 10 ? slope : 1;
    double wanted = gram->sum_y[o] / gram->count, variance = gram->sum_yy[o];
    fit->slope[o] = slope;
    fit->shift[o] = state->view->centered ? wanted - slope * mean : 0;
    if (state->view->centered)
        variance -= gram->sum_y[o] * wanted;
    *left = variance - 2 * slope * vb + slope * slope * vgv;
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
static tn_status add_chunks(fit_state *state, bool cross_only, const target_context *context,
                            tn_error *error)
{
    const tn_layer_source *source = state->source;
    tn_patches patches = state->view->patches;
    tn_gram_pass *sums = NULL;
    patches.batch = source->batch_per_image;
    int64_t rows = tn_patches_rows(&patches); /* of an image */
    tn_status status = tn_gram_pass_create(&patches, rows * source->images, state->limit,
                                           cross_only, &state->gram, &sums, error);
    for (int64_t c = 0; status == TN_OK && c < source->chunks; c++) {
        int64_t images = 0;
        status = source->load(source->context, state->pass, c, &images, error);
        patches.batch = source->batch_per_image * images;
        if (status == TN_OK && images > 0)
            status = tn_gram_pass_add(sums, &patches, rows * c * source->chunk_images, layer_target,
                                      context, error);
    }
    if (status == TN_OK)
        tn_gram_pass_finish(sums);
    tn_gram_pass_destroy(sums);
    state->pass++;
    return status;
}

/* The sums of cross once more, with the target relaxed around the present weight. */
static tn_status relax_cross(fit_state *state, tn_layer_fit *fit, const target_context *plain,
                             tn_error *error)
{
    tn_gram *gram = &state->gram;
    int64_t cols = gram->cols;
    measure(state, fit);
    for (int64_t o = 0; o < gram->rows; o++)
        for (int64_t j = 0; j < cols; j++)
            state->tile_rows[o * cols + j] =
                state->rows[o * cols + tn_patches_weight_col(&state->view->patches, j)];
    target_context relaxed = *plain;
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
    tn_gram_damp_cross(gram, state->view->w, state->damping);
    return TN_OK;
}

static void find_correction(fit_state *state)
{
    double most = 0;
    for (int64_t o = 0; o < state->view->channels; o++)
        most = fmax(most, fabs(state->view->gain[o]));
    for (int64_t o = 0; o < state->view->channels; o++) {
        double gain = state->view->gain[o];
        state->correction[o] = fabs(gain) > 1e-2 * most ? 1 / gain : 0;
    }
}

static tn_status fit_passes(fit_state *state, tn_layer_fit *fit, tn_error *error)
{
    const tn_layer_view *view = state->view;
    target_context context = {.view = view,
                              .residual = view->other_f && !state->options->no_residual,
                              .correction = state->correction};
    tn_status status = add_chunks(state, false, &context, error);
    if (status != TN_OK)
        return status;
    if (view->centered) {
        tn_gram_center_inner(&state->gram);
        tn_gram_center_cross(&state->gram);
    }
    tn_gram_damp_inner(&state->gram, state->options->damping, state->damping);
    tn_gram_damp_cross(&state->gram, view->w, state->damping);
    status = solve(state, error);
    int passes = view->relu ? state->options->relu_passes : 0;
    for (int pass = 0; status == TN_OK && pass < passes; pass++) {
        status = relax_cross(state, fit, &context, error);
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
