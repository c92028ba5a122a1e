#include "finetune/calibrate_wide.h"

#include "core/memory.h"
#include "finetune/descent.h"
#include "finetune/host_copy.h"

#include <dnnl.h>
#include <math.h>
#include <string.h>

enum { TILE = 64, ROUNDS = 2, MOST_BYTES = 256 * 1024 * 1024 };

typedef struct wide_fit {
    const tn_layer_view *view;
    const tn_layer_fit_options *options;
    tn_qweight *weight;
    int64_t rows, cols, positions;
    int64_t rows_per_image; /* positions there are of one */
    float *x, *y;   /* [positions, cols], [positions, rows], about their means when centered */
    float *left;    /* R [positions, rows] */
    float *values;  /* [rows, BLOCK] of the block, before and after */
    float *goal;    /* T [positions, rows] */
    float *scratch; /* [tiles, TILE x BLOCK] */
    double *mean_x, *mean_y; /* [cols], [rows] */
    tn_gram gram;            /* of one block */
    tn_qweight block;        /* the block's codes; scales are the weight's, or copies */
    bool failed;
} wide_fit;

bool tn_wide_fits(const tn_patches *patches, const tn_qweight *weight)
{
    return patches->group == 1 &&
           (weight->granularity != TN_PER_GROUP || TN_WIDE_BLOCK % weight->group == 0);
}

static void wide_done(wide_fit *wide)
{
    tn_gram_done(&wide->gram);
    tn_free(wide->x);
    tn_free(wide->y);
    tn_free(wide->left);
    tn_free(wide->values);
    tn_free(wide->goal);
    tn_free(wide->scratch);
    tn_free(wide->mean_x);
    tn_free(wide->mean_y);
    tn_free(wide->block.codes);
    if (wide->weight->granularity == TN_PER_GROUP) {
        tn_free(wide->block.scale);
        tn_free(wide->block.scale_neg);
        tn_free(wide->block.zero);
    }
}

static int64_t tiles_of(int64_t n)
{
    return (n + TILE - 1) / TILE;
}

static tn_status wide_alloc(wide_fit *wide, tn_error *error)
{
    size_t rows = (size_t)wide->rows, cols = (size_t)wide->cols, n = (size_t)wide->positions;
    int64_t tiles = tiles_of(wide->rows > TN_WIDE_BLOCK ? wide->rows : TN_WIDE_BLOCK);
    wide->x = tn_alloc_array(n, cols * sizeof *wide->x);
    wide->y = tn_alloc_array(n, rows * sizeof *wide->y);
    wide->left = tn_alloc_array(n, rows * sizeof *wide->left);
    wide->goal = tn_alloc_array(n, rows * sizeof *wide->goal);
    wide->values = tn_alloc_array(rows, 2 * TN_WIDE_BLOCK * sizeof *wide->values);
    wide->scratch = tn_alloc_array((size_t)tiles, TILE * TN_WIDE_BLOCK * sizeof *wide->scratch);
    wide->mean_x = tn_alloc_zero(cols, sizeof *wide->mean_x);
    wide->mean_y = tn_alloc_zero(rows, sizeof *wide->mean_y);
    wide->block.codes = tn_alloc_array(rows, TN_WIDE_BLOCK * sizeof *wide->block.codes);
    if (!wide->x || !wide->y || !wide->left || !wide->goal || !wide->values || !wide->scratch ||
        !wide->mean_x || !wide->mean_y || !wide->block.codes)
        return tn_fail(error, TN_ERROR_LIMIT, "no memory to calibrate %lld x %lld weights",
                       (long long)wide->rows, (long long)wide->cols);
    return tn_gram_init(&wide->gram, wide->rows, TN_WIDE_BLOCK, 1, error);
}

/* --- what the layer sees ------------------------------------------------------------------------
 */

static void center(float *x, int64_t n, int64_t width, double *mean)
{
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < width; j++)
            mean[j] += (double)x[i * width + j];
    for (int64_t j = 0; j < width; j++)
        mean[j] /= (double)n;
    for (int64_t i = 0; i < n; i++)
        for (int64_t j = 0; j < width; j++)
            x[i * width + j] = (float)((double)x[i * width + j] - mean[j]);
}

/* Position `at` from row `row` of the chunk: its input patches and what the float network gave. */
static void gather_row(wide_fit *wide, const tn_patches *patches, const float *output, int64_t row,
                       float *patch, int64_t at)
{
    const tn_layer_view *view = wide->view;
    float *x = wide->x + at * wide->cols, *y = wide->y + at * wide->rows;
    tn_patches_fill(patches, 0, row, patch);
    for (int64_t j = 0; j < wide->cols; j++)
        x[tn_patches_weight_col(patches, j)] = patch[j];
    for (int64_t o = 0; o < wide->rows; o++)
        y[o] = output[row * wide->rows + o] - (view->bias ? view->bias[o] : 0.0f);
}

static size_t input_count(const tn_patches *patches)
{
    int64_t count = patches->batch * patches->channels;
    for (int i = 0; i < patches->spatial; i++)
        count *= patches->in[i];
    return (size_t)count;
}

/* What the host reads of the chunk that is loaded. copies: of input and output. */
static tn_status look_at_chunk(const wide_fit *wide, tn_device *device, tn_host_copy *copies,
                               tn_patches *patches, const float **output, tn_error *error)
{
    const tn_layer_view *view = wide->view;
    *patches = view->patches;
    tn_status status = tn_host_copy_get(&copies[0], device, view->patches.data,
                                        input_count(patches), &patches->data, error);
    return status == TN_OK
               ? tn_host_copy_get(&copies[1], device, view->output,
                                  (size_t)(tn_patches_rows(patches) * wide->rows), output, error)
               : status;
}

/* One of `step` positions of all chunks, until there are `positions`. */
static tn_status gather(wide_fit *wide, const tn_layer_source *source, int64_t step,
                        tn_error *error)
{
    int64_t at = 0, per_chunk = wide->rows_per_image * source->chunk_images;
    tn_host_copy copies[2] = {{0}, {0}};
    tn_patches patches;
    const float *output = NULL;
    float *patch = tn_alloc_array((size_t)wide->cols, sizeof *patch);
    tn_status status = patch ? TN_OK : tn_fail(error, TN_ERROR_LIMIT, "no memory for a patch");
    for (int64_t c = 0; status == TN_OK && c < source->chunks; c++) {
        int64_t images = 0, first = c * per_chunk;
        status = source->load(source->context, 0, c, &images, error);
        int64_t end = first + images * wide->rows_per_image;
        if (status == TN_OK)
            status = look_at_chunk(wide, source->device, copies, &patches, &output, error);
        for (; status == TN_OK && at < wide->positions; at++) {
            int64_t row = tn_gram_chosen_row(at, step);
            if (row >= end)
                break;
            gather_row(wide, &patches, output, row - first, patch, at);
        }
    }
    tn_host_copy_done(&copies[0]);
    tn_host_copy_done(&copies[1]);
    tn_free(patch);
    if (status == TN_OK && wide->view->centered) {
        center(wide->x, wide->positions, wide->cols, wide->mean_x);
        center(wide->y, wide->positions, wide->rows, wide->mean_y);
    }
    return status;
}

/* dst[positions, rows] += factor X_k values' for the block's columns. */
static void add_product(wide_fit *wide, int64_t first, int64_t width, float factor,
                        const float *values, int64_t stride, float *dst)
{
    bool failed = false;
#pragma omp parallel for schedule(dynamic) reduction(|| : failed)
    for (int64_t t = 0; t < tiles_of(wide->rows); t++) {
        int64_t o = t * TILE, n = wide->rows - o < TILE ? wide->rows - o : TILE;
        failed =
            dnnl_sgemm('N', 'T', wide->positions, n, width, factor, wide->x + first, wide->cols,
                       values + o * stride, stride, 1.0f, dst + o, wide->rows) != dnnl_success ||
            failed;
    }
    wide->failed = wide->failed || failed;
}

/* --- one block ----------------------------------------------------------------------------------
 */

/* inner = X_k' X_k, cross = T' X_k, both damped towards the float weights. */
static void sum_block(wide_fit *wide, int64_t first, int64_t width)
{
    tn_gram *gram = &wide->gram;
    bool failed = false;
    gram->cols = width;
    gram->count = (double)wide->positions;
    for (int64_t j = 0; j < width; j++)
        gram->sum_x[j] = wide->mean_x[first + j] * gram->count;
#pragma omp parallel for schedule(dynamic) reduction(|| : failed)
    for (int64_t t = 0; t < tiles_of(width); t++) {
        int64_t i0 = t * TILE, m = width - i0 < TILE ? width - i0 : TILE;
        float *product = wide->scratch + t * TILE * TN_WIDE_BLOCK;
        failed =
            dnnl_sgemm('T', 'N', m, width, wide->positions, 1.0f, wide->x + first + i0, wide->cols,
                       wide->x + first, wide->cols, 0.0f, product, width) != dnnl_success ||
            failed;
        for (int64_t i = 0; i < m * width; i++)
            gram->inner[i0 * width + i] = (double)product[i];
    }
#pragma omp parallel for schedule(dynamic) reduction(|| : failed)
    for (int64_t t = 0; t < tiles_of(wide->rows); t++) {
        int64_t o = t * TILE, m = wide->rows - o < TILE ? wide->rows - o : TILE;
        float *product = wide->scratch + t * TILE * TN_WIDE_BLOCK;
        failed = dnnl_sgemm('T', 'N', m, width, wide->positions, 1.0f, wide->goal + o, wide->rows,
                            wide->x + first, wide->cols, 0.0f, product, width) != dnnl_success ||
                 failed;
        for (int64_t i = 0; i < m * width; i++)
            gram->cross[o * width + i] = (double)product[i];
    }
    wide->failed = wide->failed || failed;
    double damping = 0;
    tn_gram_damp_inner(gram, wide->options->damping, &damping);
    tn_gram_damp_cross(gram, wide->view->w + first, wide->cols, &damping);
}

/* The block's columns of the weight as one of its own, or back. */
static void move_block(wide_fit *wide, int64_t first, int64_t width, bool back)
{
    tn_qweight *weight = wide->weight, *block = &wide->block;
    for (int64_t o = 0; o < wide->rows; o++) {
        int16_t *mine = block->codes + o * width, *all = weight->codes + o * wide->cols + first;
        memcpy(back ? all : mine, back ? mine : all, (size_t)width * sizeof *mine);
    }
    if (back)
        return;
    block->cols = width;
    if (weight->granularity != TN_PER_GROUP)
        return; /* the scales are the weight's own */
    block->groups_per_row = (width + weight->group - 1) / weight->group;
    block->n_scales = wide->rows * block->groups_per_row;
    for (int64_t i = 0; i < block->n_scales; i++) {
        int64_t from = i / block->groups_per_row * weight->groups_per_row + first / weight->group +
                       i % block->groups_per_row;
        block->scale[i] = weight->scale[from];
        if (weight->scale_neg)
            block->scale_neg[i] = weight->scale_neg[from];
        if (weight->zero)
            block->zero[i] = weight->zero[from];
    }
}

static tn_status borrow_scales(wide_fit *wide, tn_error *error)
{
    const tn_qweight *weight = wide->weight;
    int16_t *codes = wide->block.codes;
    wide->block = *weight;
    wide->block.codes = codes;
    if (weight->granularity != TN_PER_GROUP)
        return TN_OK;
    size_t most = (size_t)(wide->rows * (TN_WIDE_BLOCK / weight->group + 1));
    wide->block.scale = tn_alloc_array(most, sizeof(float));
    wide->block.scale_neg = weight->scale_neg ? tn_alloc_array(most, sizeof(float)) : NULL;
    wide->block.zero = weight->zero ? tn_alloc_array(most, sizeof(float)) : NULL;
    if (!wide->block.scale || (weight->scale_neg && !wide->block.scale_neg) ||
        (weight->zero && !wide->block.zero))
        return tn_fail(error, TN_ERROR_LIMIT, "no memory for the scales of a block");
    return TN_OK;
}

static tn_status fit_block(wide_fit *wide, int round, int64_t first, int64_t width, tn_error *error)
{
    float *before = wide->values, *after = before + wide->rows * TN_WIDE_BLOCK;
    move_block(wide, first, width, false);
    if (round > 0)
        tn_qweight_dequantize(&wide->block, before);
    for (int64_t o = 0; round == 0 && o < wide->rows; o++)
        memcpy(before + o * width, wide->view->w + o * wide->cols + first,
               (size_t)width * sizeof *before);
    memcpy(wide->goal, wide->left, (size_t)(wide->positions * wide->rows) * sizeof *wide->goal);
    add_product(wide, first, width, 1.0f, before, width, wide->goal);
    sum_block(wide, first, width);
    tn_descent_options descent = {.sweeps = wide->options->sweeps, .keep_scales = true};
    tn_status status = tn_descent(&wide->gram, &descent, &wide->block, NULL, error);
    if (status != TN_OK)
        return status;
    tn_qweight_dequantize(&wide->block, after);
    memcpy(wide->left, wide->goal, (size_t)(wide->positions * wide->rows) * sizeof *wide->left);
    add_product(wide, first, width, -1.0f, after, width, wide->left);
    move_block(wide, first, width, true);
    return wide->failed ? tn_fail(error, TN_ERROR_DEVICE, "oneDNN's sgemm failed") : TN_OK;
}

/* --- the whole ----------------------------------------------------------------------------------
 */

/* slope and error of what is left, X V' being Y - R. */
static void measure(wide_fit *wide, tn_layer_fit *fit)
{
    double error = 0, all = 0;
    for (int64_t o = 0; o < wide->rows; o++) {
        double yv = 0, vv = 0, yy = 0;
        for (int64_t i = 0; i < wide->positions; i++) {
            double y = (double)wide->y[i * wide->rows + o];
            double v = y - (double)wide->left[i * wide->rows + o];
            yv += y * v;
            vv += v * v;
            yy += y * y;
        }
        double slope = vv > 0 ? yv / vv : 1;
        slope = slope > 0.1 && slope < 10 && !wide->view->no_slope ? slope : 1;
        fit->slope[o] = slope;
        error += yy - 2 * slope * yv + slope * slope * vv;
        all += yy;
    }
    fit->error = all > 0 ? error / all : 0;
}

static void measure_shift(wide_fit *wide, tn_layer_fit *fit)
{
    for (int64_t o = 0; o < wide->rows; o++) {
        double mean = 0;
        for (int64_t j = 0; wide->view->centered && j < wide->cols; j++)
            mean += (double)tn_qweight_value(wide->weight, o, j) * wide->mean_x[j];
        fit->shift[o] = wide->view->centered ? wide->mean_y[o] - fit->slope[o] * mean : 0;
    }
}

/* The slopes into the scales, as far as each row has its own; R follows. */
static void rescale(wide_fit *wide, tn_layer_fit *fit)
{
    tn_qweight *weight = wide->weight;
    if (weight->granularity == TN_PER_TENSOR)
        return;
    for (int64_t i = 0; i < weight->n_scales; i++) {
        double slope = fit->slope[i / weight->groups_per_row];
        weight->scale[i] = (float)((double)weight->scale[i] * slope);
        if (weight->scale_neg)
            weight->scale_neg[i] = (float)((double)weight->scale_neg[i] * slope);
    }
    for (int64_t i = 0; i < wide->positions; i++)
        for (int64_t o = 0; o < wide->rows; o++) {
            float *left = wide->left + i * wide->rows + o, y = wide->y[i * wide->rows + o];
            *left = (float)((double)y - fit->slope[o] * ((double)y - (double)*left));
        }
}

static tn_status run_rounds(wide_fit *wide, tn_layer_fit *fit, tn_error *error)
{
    tn_status status = borrow_scales(wide, error);
    memcpy(wide->left, wide->y, (size_t)(wide->positions * wide->rows) * sizeof *wide->left);
    add_product(wide, 0, wide->cols, -1.0f, wide->view->w, wide->cols, wide->left);
    for (int round = 0; status == TN_OK && round < ROUNDS; round++) {
        for (int64_t first = 0; status == TN_OK && first < wide->cols; first += TN_WIDE_BLOCK) {
            int64_t rest = wide->cols - first;
            status =
                fit_block(wide, round, first, rest < TN_WIDE_BLOCK ? rest : TN_WIDE_BLOCK, error);
        }
        if (status == TN_OK)
            measure(wide, fit);
        if (status == TN_OK && round + 1 < ROUNDS)
            rescale(wide, fit);
    }
    if (status == TN_OK)
        measure_shift(wide, fit);
    return status;
}

tn_status tn_wide_fit_run(const tn_layer_view *view, const tn_layer_source *source,
                          const tn_layer_fit_options *options, tn_qweight *weight,
                          tn_layer_fit *fit, tn_error *error)
{
    wide_fit wide = {.view = view,
                     .options = options,
                     .weight = weight,
                     .rows = view->channels,
                     .cols = tn_patches_cols(&view->patches)};
    tn_patches image = view->patches;
    image.batch = source->batch_per_image;
    wide.rows_per_image = tn_patches_rows(&image);
    int64_t all = source->images * wide.rows_per_image;
    int64_t room = MOST_BYTES / (int64_t)sizeof(float) / (wide.cols + wide.rows);
    int64_t step = (all + room - 1) / room;
    wide.positions = all / step;
    tn_status status = wide_alloc(&wide, error);
    if (status == TN_OK)
        status = gather(&wide, source, step, error);
    if (status == TN_OK)
        status = run_rounds(&wide, fit, error);
    wide_done(&wide);
    return status;
}
