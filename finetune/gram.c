#include "finetune/gram.h"

#include "core/checked.h"
#include "core/hot.h"
#include "core/memory.h"
#include "core/threads.h"
#include "finetune/gram_device.h"

#include <dnnl.h>
#include <omp.h>
#include <math.h>
#include <string.h>

enum { MAX_BLOCK = 192, MAX_CHUNKS = 4, SUPER_TILES = 16 };

int64_t tn_patches_rows(const tn_patches *patches)
{
    int64_t rows = patches->batch;
    for (int i = 0; i < patches->spatial; i++)
        rows *= patches->out[i];
    return rows;
}

int64_t tn_patches_volume(const tn_patches *patches)
{
    int64_t volume = 1;
    for (int i = 0; i < patches->spatial; i++)
        volume *= patches->kernel[i];
    return volume;
}

int64_t tn_patches_cols(const tn_patches *patches)
{
    return patches->channels / patches->group * tn_patches_volume(patches);
}

int64_t tn_patches_weight_col(const tn_patches *patches, int64_t j)
{
    int64_t channels = patches->channels / patches->group;
    return j % channels * tn_patches_volume(patches) + j / channels;
}

void tn_patches_fill(const tn_patches *patches, int64_t group, int64_t row, float *dst)
{
    int64_t channels = patches->channels / patches->group;
    int64_t at[3] = {0, 0, 0};
    for (int i = patches->spatial - 1; i >= 0; i--) {
        at[i] = row % patches->out[i];
        row /= patches->out[i];
    }
    int64_t volume = tn_patches_volume(patches);
    for (int64_t k = 0; k < volume; k++, dst += channels) {
        int64_t rest = k, offset = 0, size = 1;
        bool inside = true;
        for (int i = patches->spatial - 1; i >= 0; i--) {
            int64_t tap = rest % patches->kernel[i];
            rest /= patches->kernel[i];
            int64_t x = at[i] * patches->stride[i] - patches->pad[i] + tap * patches->dilation[i];
            inside = inside && x >= 0 && x < patches->in[i];
            offset += x * size;
            size *= patches->in[i];
        }
        if (inside)
            memcpy(dst,
                   patches->data + ((row * size + offset) * patches->channels) + group * channels,
                   (size_t)channels * sizeof *dst);
        else
            memset(dst, 0, (size_t)channels * sizeof *dst);
    }
}

tn_status tn_gram_init(tn_gram *gram, int64_t rows, int64_t cols, int64_t groups, tn_error *error)
{
    tn_gram made = {.rows = rows, .cols = cols, .groups = groups};
    int64_t inner, cross;
    if (!tn_checked_mul_i64(cols, cols, &inner) || !tn_checked_mul_i64(inner, groups, &inner) ||
        !tn_checked_mul_i64(rows, cols, &cross))
        return tn_fail(error, TN_ERROR_LIMIT, "a layer of %lld x %lld weights is too large",
                       (long long)rows, (long long)cols);
    made.inner = tn_alloc_zero((size_t)inner, sizeof *made.inner);
    made.cross = tn_alloc_zero((size_t)cross, sizeof *made.cross);
    made.sum_x = tn_alloc_zero((size_t)(groups * cols), sizeof *made.sum_x);
    made.sum_y = tn_alloc_zero((size_t)rows, sizeof *made.sum_y);
    made.sum_yy = tn_alloc_zero((size_t)rows, sizeof *made.sum_yy);
    made.flat = tn_alloc_zero((size_t)groups, sizeof *made.flat);
    if (!made.inner || !made.cross || !made.sum_x || !made.sum_y || !made.sum_yy || !made.flat) {
        tn_gram_done(&made);
        return tn_fail(error, TN_ERROR_LIMIT, "no memory for the Gram matrix of %lld inputs",
                       (long long)cols);
    }
    *gram = made;
    return TN_OK;
}

void tn_gram_done(tn_gram *gram)
{
    tn_free(gram->inner);
    tn_free(gram->cross);
    tn_free(gram->sum_x);
    tn_free(gram->sum_y);
    tn_free(gram->flat);
    tn_free(gram->sum_yy);
    *gram = (tn_gram){0};
}

/* A tile is [256, width] with columns x | y | 1; a device's has zeros between. */
struct tn_gram_pass {
    tn_patches patches; /* of the chunk that is being added */
    const tn_gram_target *target;
    tn_gram_device *on_device; /* NULL: on the host */
    tn_gram *gram;
    int64_t total, first_row; /* rows of all chunks; the chunk's first */
    int64_t group, cols, outputs, width, step;
    int64_t y_at, one_at;      /* columns where y and 1 are */
    int64_t first_col;         /* of the products wanted: 0, or y_at (cross only) */
    int64_t sum_width;         /* columns from there on */
    int64_t block, row_blocks; /* blocks of the product */
    int64_t col_blocks, chunks;
    float *tiles;  /* [SUPER_TILES][256][width] */
    int64_t *rows; /* [SUPER_TILES][256] */
    int64_t counts[SUPER_TILES];
    double *sums;   /* [groups][chunks][cols][sum_width] */
    float *scratch; /* [threads][block x block] */
    double *y_sums; /* [SUPER_TILES][2][outputs] */
    bool failed;
};

int64_t tn_gram_chosen_row(int64_t j, int64_t step)
{
    if (step == 1)
        return j;
    uint64_t hash = ((uint64_t)j + 1) * UINT64_C(0x9E3779B97F4A7C15);
    return j * step + (int64_t)((hash >> 33) % (uint64_t)step);
}

/* The first position of a thinned walk at or behind a row. */
static int64_t position_at(const tn_gram_pass *pass, int64_t row)
{
    int64_t j = row / pass->step, end = pass->total / pass->step;
    if (j >= end)
        return end;
    return tn_gram_chosen_row(j, pass->step) < row ? j + 1 : j;
}

/* y where the ReLU hides it. x, y: [count] rows of a tile. */
static void relax(tn_gram_pass *pass, const int64_t *rows, int64_t count, const float *x, float *y)
{
    enum { SLICE = 16, MAX_OUTPUTS = 512 }; /* positions at a time: bounds the stack */
    const int64_t channel = pass->group * pass->outputs, cols = pass->cols, width = pass->width;
    float present[SLICE * MAX_OUTPUTS];
    for (int64_t o = 0; o < pass->outputs; o += MAX_OUTPUTS) {
        int64_t n = pass->outputs - o < MAX_OUTPUTS ? pass->outputs - o : MAX_OUTPUTS;
        for (int64_t i = 0; i < count; i += SLICE) {
            int64_t m = count - i < SLICE ? count - i : SLICE;
            if (dnnl_sgemm('N', 'T', m, n, cols, 1.0f, x + i * width, width,
                           pass->target->values + (channel + o) * cols, cols, 0.0f, present,
                           n) != dnnl_success)
                return; /* the plain target stays */
            for (int64_t r = 0; r < m; r++)
                for (int64_t c = 0; c < n; c++) {
                    float *wanted = &y[(i + r) * width + o + c];
                    *wanted = tn_gram_relaxed(pass->target, rows[i + r], channel + o + c,
                                              present[r * n + c], *wanted);
                }
        }
    }
}

static void fill_tile(tn_gram_pass *pass, int64_t slot, int64_t first, int64_t count)
{
    float *tile = pass->tiles + slot * TN_GRAM_TILE * pass->width;
    int64_t *rows = pass->rows + slot * TN_GRAM_TILE;
    double *sum = pass->y_sums + slot * 2 * pass->outputs, *square = sum + pass->outputs;
    pass->counts[slot] = count;
    for (int64_t i = 0; i < count; i++) {
        rows[i] = tn_gram_chosen_row(first + i, pass->step) - pass->first_row;
        tn_patches_fill(&pass->patches, pass->group, rows[i], tile + i * pass->width);
        tile[(i + 1) * pass->width - 1] = 1.0f;
    }
    float *y = tile + pass->cols;
    for (int64_t i = 0; i < count; i++)
        for (int64_t o = 0; o < pass->outputs; o++)
            y[i * pass->width + o] =
                tn_gram_wanted(pass->target, rows[i], pass->group * pass->outputs + o);
    if (pass->target->values)
        relax(pass, rows, count, tile, y);
    memset(sum, 0, 2 * (size_t)pass->outputs * sizeof *sum);
    for (int64_t i = 0; i < count; i++, y += pass->width)
        for (int64_t o = 0; o < pass->outputs; o++) {
            sum[o] += (double)y[o];
            square[o] += (double)y[o] * (double)y[o];
        }
}

static double *group_sums(const tn_gram_pass *pass)
{
    return pass->sums + pass->group * pass->chunks * pass->cols * pass->sum_width;
}

TN_HOT static void add_in_double(int64_t n, const float *restrict x, double *restrict sums)
{
#pragma omp simd
    for (int64_t j = 0; j < n; j++)
        sums[j] += (double)x[j];
}

/* The product of one block over the tiles of one chunk, into that chunk's sums. */
static void add_block(tn_gram_pass *pass, int64_t chunk, int64_t bi, int64_t bj, int64_t tiles,
                      float *scratch)
{
    int64_t i0 = bi * pass->block, j0 = pass->first_col + bj * pass->block;
    int64_t m = pass->cols - i0 < pass->block ? pass->cols - i0 : pass->block;
    int64_t n = pass->width - j0 < pass->block ? pass->width - j0 : pass->block;
    double *sums = group_sums(pass) + chunk * pass->cols * pass->sum_width - pass->first_col;
    int64_t first = tiles * chunk / pass->chunks, last = tiles * (chunk + 1) / pass->chunks;
    for (int64_t t = first; t < last; t++) {
        const float *tile = pass->tiles + t * TN_GRAM_TILE * pass->width;
        if (dnnl_sgemm('T', 'N', m, n, pass->counts[t], 1.0f, tile + i0, pass->width, tile + j0,
                       pass->width, 0.0f, scratch, n) != dnnl_success)
            pass->failed = true;
        for (int64_t i = 0; i < m; i++)
            add_in_double(n, scratch + i * n, sums + (i0 + i) * pass->sum_width + j0);
    }
}

static bool block_wanted(const tn_gram_pass *pass, int64_t bi, int64_t bj)
{ /* below the diagonal of inner nothing is needed */
    int64_t j1 = pass->first_col + (bj + 1) * pass->block;
    return j1 > bi * pass->block;
}

/* `tiles` tiles from position `first` on, up to `last`. */
static void run_tiles(tn_gram_pass *pass, int64_t first, int64_t tiles, int64_t last)
{
#pragma omp parallel for schedule(dynamic)
    for (int64_t t = 0; t < tiles; t++) {
        int64_t at = first + t * TN_GRAM_TILE, rest = last - at;
        fill_tile(pass, t, at, rest < TN_GRAM_TILE ? rest : TN_GRAM_TILE);
    }
    int64_t blocks = pass->row_blocks * pass->col_blocks;
#pragma omp parallel for schedule(dynamic)
    for (int64_t task = 0; task < pass->chunks * blocks; task++) {
        int64_t bi = task % blocks / pass->col_blocks, bj = task % pass->col_blocks;
        if (block_wanted(pass, bi, bj))
            add_block(pass, task / blocks, bi, bj, tiles,
                      pass->scratch + omp_get_thread_num() * pass->block * pass->block);
    }
    double *sum = pass->gram->sum_y + pass->group * pass->outputs;
    double *square = pass->gram->sum_yy + pass->group * pass->outputs;
    for (int64_t t = 0; t < tiles; t++)
        for (int64_t o = 0; o < pass->outputs; o++) {
            sum[o] += pass->y_sums[2 * t * pass->outputs + o];
            square[o] += pass->y_sums[(2 * t + 1) * pass->outputs + o];
        }
}

/* Sum of the chunks at (i, j), in chunk order. */
static double total(const tn_gram_pass *pass, int64_t i, int64_t j)
{
    const double *sums = group_sums(pass);
    double sum = 0;
    for (int64_t c = 0; c < pass->chunks; c++)
        sum += sums[(c * pass->cols + i) * pass->sum_width + j - pass->first_col];
    return sum;
}

/* Adds the pass's sums to the gram, in the weights' column order. */
static void finish(const tn_gram_pass *pass)
{
    tn_gram *gram = pass->gram;
    int64_t cols = pass->cols;
    double *inner = gram->inner + pass->group * cols * cols;
    double *cross = gram->cross + pass->group * pass->outputs * cols;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < cols; i++) {
        int64_t wi = tn_patches_weight_col(&pass->patches, i);
        for (int64_t o = 0; o < pass->outputs; o++)
            cross[o * cols + wi] += total(pass, i, pass->y_at + o);
        if (pass->first_col > 0)
            continue;
        gram->sum_x[pass->group * cols + wi] += total(pass, i, pass->one_at);
        for (int64_t j = 0; j < cols; j++) {
            int64_t wj = tn_patches_weight_col(&pass->patches, j);
            inner[wi * cols + wj] += i <= j ? total(pass, i, j) : total(pass, j, i);
        }
    }
}

static void plan_blocks(tn_gram_pass *pass, bool cross_only)
{
    pass->y_at = pass->cols;
    pass->one_at = pass->cols + pass->outputs;
    pass->width = pass->one_at + 1;
    pass->first_col = cross_only ? pass->cols : 0;
    pass->sum_width = pass->width - pass->first_col;
    int64_t parts = (pass->cols + MAX_BLOCK - 1) / MAX_BLOCK;
    if (parts == 1 && pass->cols > 64)
        parts = 2;
    pass->block = ((pass->cols + parts - 1) / parts + 15) / 16 * 16;
    pass->row_blocks = (pass->cols + pass->block - 1) / pass->block;
    pass->col_blocks = (pass->width - pass->first_col + pass->block - 1) / pass->block;
    pass->chunks = pass->row_blocks > 6 ? 1 : MAX_CHUNKS;
}

static void take_layout(tn_gram_pass *pass)
{
    const tn_gram_layout l = tn_gram_device_layout(pass->on_device);
    pass->y_at = l.y_at;
    pass->one_at = l.one_at;
    pass->width = l.width;
    pass->first_col = l.first;
    pass->sum_width = l.sum_width;
    pass->chunks = 1;
}

static tn_status allocate(tn_gram_pass *pass, tn_error *error)
{
    int64_t threads = tn_threads_get(), sums;
    if (!tn_checked_mul_i64(pass->chunks * pass->cols, pass->sum_width, &sums) ||
        !tn_checked_mul_i64(sums, pass->gram->groups, &sums))
        return tn_fail(error, TN_ERROR_LIMIT, "a layer of %lld inputs is too large",
                       (long long)pass->cols);
    pass->sums = tn_alloc_zero((size_t)sums, sizeof(double));
    bool ok = pass->sums;
    if (!pass->on_device) {
        pass->tiles =
            tn_alloc_array((size_t)(SUPER_TILES * TN_GRAM_TILE * pass->width), sizeof(float));
        pass->rows = tn_alloc_array(SUPER_TILES * TN_GRAM_TILE, sizeof(int64_t));
        pass->scratch =
            tn_alloc_array((size_t)(threads * pass->block * pass->block), sizeof(float));
        pass->y_sums = tn_alloc_array((size_t)(SUPER_TILES * 2 * pass->outputs), sizeof(double));
        ok = ok && pass->tiles && pass->rows && pass->scratch && pass->y_sums;
    }
    return ok ? TN_OK
              : tn_fail(error, TN_ERROR_LIMIT, "no memory for the Gram matrix of %lld inputs",
                        (long long)pass->cols);
}

tn_status tn_gram_pass_create(tn_device *device, const tn_patches *patches, int64_t total,
                              int64_t limit, bool cross_only, const tn_gram_target *target,
                              tn_gram *gram, tn_gram_pass **out, tn_error *error)
{
    tn_gram_pass *pass = tn_alloc_zero(1, sizeof *pass);
    tn_status status = TN_OK;
    if (!pass)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    pass->patches = *patches;
    pass->target = target;
    pass->gram = gram;
    pass->total = total;
    pass->cols = tn_patches_cols(patches);
    pass->outputs = gram->rows / gram->groups;
    pass->step = limit > 0 && total > limit ? total / limit : 1;
    if (device && !device->host_memory)
        status =
            tn_gram_device_create(device, patches, cross_only, target, &pass->on_device, error);
    if (status == TN_OK && pass->on_device)
        take_layout(pass);
    else
        plan_blocks(pass, cross_only);
    if (status == TN_OK)
        status = allocate(pass, error);
    if (status == TN_OK)
        *out = pass;
    else
        tn_gram_pass_destroy(pass);
    return status;
}

void tn_gram_pass_destroy(tn_gram_pass *pass)
{
    if (!pass)
        return;
    tn_gram_device_destroy(pass->on_device);
    tn_free(pass->tiles);
    tn_free(pass->rows);
    tn_free(pass->sums);
    tn_free(pass->scratch);
    tn_free(pass->y_sums);
    tn_free(pass);
}

/* The chunk's positions [first, last) to the device. */
static tn_status add_on_device(tn_gram_pass *pass, int64_t first, int64_t last, tn_error *error)
{
    if (last <= first)
        return TN_OK;
    uint32_t *places = tn_alloc_array((size_t)(last - first), sizeof *places);
    if (!places)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %lld positions",
                       (long long)(last - first));
    for (int64_t j = first; j < last; j++)
        places[j - first] = (uint32_t)(tn_gram_chosen_row(j, pass->step) - pass->first_row);
    tn_status status =
        tn_gram_device_add(pass->on_device, pass->patches.data, places, last - first, error);
    tn_free(places);
    return status;
}

tn_status tn_gram_pass_add(tn_gram_pass *pass, const tn_patches *patches, int64_t first_row,
                           tn_error *error)
{
    pass->patches = *patches;
    pass->first_row = first_row;
    int64_t first = position_at(pass, first_row);
    int64_t last = position_at(pass, first_row + tn_patches_rows(patches));
    if (pass->on_device)
        return add_on_device(pass, first, last, error);
    int64_t tiles = (last - first + TN_GRAM_TILE - 1) / TN_GRAM_TILE;
    for (pass->group = 0; pass->group < pass->gram->groups; pass->group++)
        for (int64_t t = 0; t < tiles; t += SUPER_TILES)
            run_tiles(pass, first + t * TN_GRAM_TILE,
                      tiles - t < SUPER_TILES ? tiles - t : SUPER_TILES, last);
    return pass->failed ? tn_fail(error, TN_ERROR_DEVICE, "oneDNN's sgemm failed") : TN_OK;
}

static tn_status take_sums(tn_gram_pass *pass, tn_error *error)
{
    tn_gram *gram = pass->gram;
    double *moments = tn_alloc_array((size_t)gram->rows, 2 * sizeof *moments);
    tn_status status = moments
                           ? tn_gram_device_get(pass->on_device, pass->sums, moments, error)
                           : tn_fail(error, TN_ERROR_LIMIT, "out of memory for a layer's moments");
    for (int64_t o = 0; status == TN_OK && o < gram->rows; o++) {
        gram->sum_y[o] += moments[2 * o];
        gram->sum_yy[o] += moments[2 * o + 1];
    }
    tn_free(moments);
    return status;
}

tn_status tn_gram_pass_finish(tn_gram_pass *pass, tn_error *error)
{
    tn_status status = pass->on_device ? take_sums(pass, error) : TN_OK;
    for (pass->group = 0; status == TN_OK && pass->group < pass->gram->groups; pass->group++)
        finish(pass);
    if (pass->first_col == 0)
        pass->gram->count += (double)(pass->total / pass->step);
    return status;
}

tn_status tn_gram_accumulate(const tn_patches *patches, int64_t limit, bool cross_only,
                             const tn_gram_target *target, tn_gram *gram, tn_error *error)
{
    tn_gram_pass *pass = NULL;
    tn_status status = tn_gram_pass_create(NULL, patches, tn_patches_rows(patches), limit,
                                           cross_only, target, gram, &pass, error);
    if (status == TN_OK)
        status = tn_gram_pass_add(pass, patches, 0, error);
    if (status == TN_OK)
        status = tn_gram_pass_finish(pass, error);
    tn_gram_pass_destroy(pass);
    return status;
}

void tn_gram_center_inner(tn_gram *gram)
{
#pragma omp parallel for schedule(static)
    for (int64_t row = 0; row < gram->groups * gram->cols; row++) {
        const double *sum = gram->sum_x + row / gram->cols * gram->cols;
        double mean = sum[row % gram->cols] / gram->count;
        for (int64_t j = 0; j < gram->cols; j++)
            gram->inner[row * gram->cols + j] -= mean * sum[j];
    }
}

void tn_gram_center_cross(tn_gram *gram)
{
    int64_t outputs = gram->rows / gram->groups;
    for (int64_t o = 0; o < gram->rows; o++) {
        const double *sum = gram->sum_x + o / outputs * gram->cols;
        double mean = gram->sum_y[o] / gram->count;
        for (int64_t j = 0; j < gram->cols; j++)
            gram->cross[o * gram->cols + j] -= mean * sum[j];
    }
}

/* rho / (1 - rho) of the shrinkage (1 - rho) S + rho (mean diagonal) I, from the traces of S and
 * S^2; 0 where there are positions enough. */
static double shrinkage(const tn_gram *gram, const double *inner, double trace)
{
    const double n = gram->count, d = (double)gram->cols, most = 0.25;
    double squares = 0;
    if (!(n > 0) || n >= 2 * d || d < 2)
        return 0;
    for (int64_t i = 0; i < gram->cols * gram->cols; i++)
        squares += inner[i] * inner[i];
    double excess = squares - trace * trace / d;
    double rho =
        excess > 0 ? ((1 - 2 / d) * squares + trace * trace) / ((n + 1 - 2 / d) * excess) : 1;
    return rho < most / (1 + most) ? rho / (1 - rho) : most;
}

/* Whether the variances are no more than what fp32 sums over a tile lose of the means' squares;
 * trace: sum of the former. Without centering it holds both and is never less. */
static bool is_flat(const tn_gram *gram, int64_t group, double trace)
{
    double means = 0;
    for (int64_t i = 0; i < gram->cols; i++) {
        double sum = gram->sum_x[group * gram->cols + i];
        means += sum * sum / gram->count;
    }
    return trace <= 1e-5 * (trace + means);
}

void tn_gram_damp_inner(tn_gram *gram, double fraction, double *damping)
{
    for (int64_t g = 0; g < gram->groups; g++) {
        double *inner = gram->inner + g * gram->cols * gram->cols, sum = 0;
        for (int64_t i = 0; i < gram->cols; i++)
            sum += inner[i * (gram->cols + 1)];
        gram->flat[g] = is_flat(gram, g, sum);
        if (gram->flat[g]) {
            for (int64_t i = 0; i < gram->cols * gram->cols; i++)
                inner[i] = i % (gram->cols + 1) == 0;
            damping[g] = 0;
            continue;
        }
        damping[g] = fmax(fraction, shrinkage(gram, inner, sum)) * sum / (double)gram->cols;
        for (int64_t i = 0; i < gram->cols; i++)
            inner[i * (gram->cols + 1)] += damping[g];
    }
}

void tn_gram_damp_cross(tn_gram *gram, const float *w, int64_t stride, const double *damping)
{
    int64_t outputs = gram->rows / gram->groups;
    for (int64_t o = 0; o < gram->rows; o++) {
        bool flat = gram->flat[o / outputs];
        for (int64_t j = 0; j < gram->cols; j++) {
            double *sum = &gram->cross[o * gram->cols + j], wanted = (double)w[o * stride + j];
            *sum = flat ? wanted : *sum + damping[o / outputs] * wanted;
        }
    }
}
