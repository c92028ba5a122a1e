#include "converter/convert.h"

#include "converter/sums.h"
#include "core/memory.h"
#include "core/threads.h"

#include <float.h>
#include <math.h>
#include <omp.h>
#include <string.h>

enum { BLOCK = 1 << 14 }; /* weights a thread takes at a time, in whole rows */

/* What is summed over blocks in order, and what has no order. */
typedef struct block_sums {
    double energy, error;
    int64_t zeros, dead, nonfinite; /* nonfinite: 1 + index of the first, 0: none */
    float scale_min, scale_max;
} block_sums;

static void sums_start(block_sums *sums)
{
    *sums = (block_sums){.scale_min = FLT_MAX};
}

static void sums_add(block_sums *total, const block_sums *part)
{
    total->energy += part->energy;
    total->error += part->error;
    total->zeros += part->zeros;
    total->dead += part->dead;
    if (total->nonfinite == 0)
        total->nonfinite = part->nonfinite;
    total->scale_min = part->scale_min < total->scale_min ? part->scale_min : total->scale_min;
    total->scale_max = part->scale_max > total->scale_max ? part->scale_max : total->scale_max;
}

static void note_scale(block_sums *sums, float scale)
{
    sums->scale_min = scale < sums->scale_min ? scale : sums->scale_min;
    sums->scale_max = scale > sums->scale_max ? scale : sums->scale_max;
}

/* One row of a weight; first_scale is the index of its first scale. */
static void sums_add_row(block_sums *sums, const tn_qweight *weight, int64_t first_scale,
                         const tn_errors *errors)
{
    sums->energy += errors->energy;
    sums->error += errors->error;
    sums->zeros += errors->zeros;
    if (errors->zeros == weight->cols) {
        sums->dead += errors->energy > 0;
        return;
    }
    for (int64_t g = 0; weight->scale != NULL && g < weight->groups_per_row; g++) {
        note_scale(sums, weight->scale[first_scale + g]);
        if (weight->scale_neg != NULL)
            note_scale(sums, weight->scale_neg[first_scale + g]);
    }
}

static void conclude(const block_sums *sums, double count, tn_weight_figures *figures)
{
    double relmse = sums->energy > 0 ? sums->error / sums->energy : 0;
    bool any = sums->scale_max > 0;
    *figures = (tn_weight_figures){.relmse = relmse,
                                   .sqnr_db = relmse > 0 ? -10 * log10(relmse) : (double)INFINITY,
                                   .zeros = (double)sums->zeros / count,
                                   .scale_min = any ? sums->scale_min : 0.0f,
                                   .scale_max = sums->scale_max,
                                   .dead_channels = sums->dead};
}

/* A row's values pass through a small buffer, so that nothing is allocated. */
static void measure_codes_row(const tn_qweight *weight, int64_t row, const float *w,
                              block_sums *sums)
{
    enum { BUFFER = 2048 };
    float values[BUFFER];
    tn_errors errors = {0};
    int64_t run = weight->granularity == TN_PER_GROUP ? weight->group : weight->cols;
    for (int64_t first = 0; first < weight->cols;) {
        int64_t next = (first / run + 1) * run, end = next < weight->cols ? next : weight->cols;
        end = end - first < BUFFER ? end : first + BUFFER;
        tn_qweight piece = tn_qweight_row_range(weight, row, 1);
        int64_t scale = weight->granularity == TN_PER_GROUP ? first / run : 0;
        piece.granularity = TN_PER_TENSOR;
        piece.codes += first;
        piece.cols = end - first;
        piece.scale += scale;
        piece.scale_neg += piece.scale_neg != NULL ? scale : 0;
        piece.zero += piece.zero != NULL ? scale : 0;
        tn_qweight_dequantize(&piece, values);
        tn_sum_errors(w + first, values, piece.cols, &errors);
        first = end;
    }
    sums_add_row(sums, weight, tn_qweight_scale_index(weight, row, 0), &errors);
}

void tn_weight_measure(const tn_qweight *weight, const float *w, tn_weight_figures *figures)
{
    enum { BATCH = 128 };
    block_sums total, part[BATCH];
    sums_start(&total);
    for (int64_t base = 0; base < weight->rows; base += BATCH) {
        int64_t rows = weight->rows - base < BATCH ? weight->rows - base : BATCH;
#pragma omp parallel for schedule(static) if (rows * weight->cols > BLOCK)
        for (int64_t r = 0; r < rows; r++) {
            sums_start(&part[r]);
            measure_codes_row(weight, base + r, w + (base + r) * weight->cols, &part[r]);
        }
        for (int64_t r = 0; r < rows; r++)
            sums_add(&total, &part[r]);
    }
    conclude(&total, (double)weight->rows * (double)weight->cols, figures);
}

/* Of a plain scheme: it has no codes. */
static void measure_values(const tn_qweight *shape, const float *values, const float *w,
                           tn_weight_figures *figures)
{
    block_sums total;
    sums_start(&total);
    for (int64_t r = 0; r < shape->rows; r++) {
        tn_errors errors = {0};
        tn_sum_errors(w + r * shape->cols, values + r * shape->cols, shape->cols, &errors);
        sums_add_row(&total, shape, 0, &errors);
    }
    conclude(&total, (double)shape->rows * (double)shape->cols, figures);
}

tn_status tn_converted_values(const tn_layer *layer, const tn_qweight *weight, float *values,
                              tn_error *error)
{
    const tn_quantizer_state none = {0};
    if (weight->codes) {
        tn_qweight_dequantize(weight, values);
        return TN_OK;
    }
    tn_status status = tn_layer_rows(layer, values, error);
    if (status == TN_OK)
        layer->scheme.quantizer->quantize(&layer->scheme, weight, values, &none, NULL, values);
    return status;
}

tn_status tn_converted_measure(tn_converted *converted, const tn_layer *original, tn_error *error)
{
    const tn_qweight *weight = &converted->weight;
    const bool plain = weight->codes == NULL;
    const size_t count = (size_t)(weight->rows * weight->cols);
    float *w = tn_alloc_array(count, (plain ? 2 : 1) * sizeof *w);
    if (w == NULL)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a layer's figures");
    tn_status status = tn_layer_rows(original, w, error);
    if (status == TN_OK && plain)
        status = tn_converted_values(converted->layer, weight, w + count, error);
    if (status == TN_OK && plain)
        measure_values(weight, w + count, w, &converted->figures);
    else if (status == TN_OK)
        tn_weight_measure(weight, w, &converted->figures);
    tn_free(w);
    return status;
}

/* One layer on its way. */
typedef struct work {
    const tn_layer *layer;
    tn_qweight weight;
    int64_t block_rows, blocks;
    block_sums *sums;  /* per block */
    float *buffer;     /* per thread: rows, values, thresholds */
    size_t per_thread; /* floats */
} work;

static tn_status fail_nonfinite(const tn_layer *layer, int64_t element, tn_error *error)
{
    const char *label = tn_node_label(layer->node);
    tn_status status =
        tn_fail(error, TN_ERROR_MODEL,
                "weight %s of node %s holds NaN or infinity (output channel %lld, "
                "element %lld): it cannot be quantized; leave it out with "
                "--nodes-to-exclude",
                tn_quote(layer->weight->name), tn_quote(label), (long long)(element / layer->cols),
                (long long)(element % layer->cols));
    tn_error_note_node(error, label);
    return status;
}

/* Reads, fits, codes and measures one block of rows in a thread's buffer. */
static void convert_block(work *job, int64_t block, float *buffer)
{
    const tn_scheme *scheme = &job->layer->scheme;
    const tn_quantizer *quantizer = scheme->quantizer;
    int64_t first = block * job->block_rows, left = job->weight.rows - first;
    int64_t count = left < job->block_rows ? left : job->block_rows, cols = job->weight.cols;
    float *rows = buffer, *values = rows + job->block_rows * cols;
    float *threshold = values + job->block_rows * cols;
    block_sums *sums = &job->sums[block];
    sums_start(sums);
    if (tn_layer_read_rows(job->layer, first, count, rows, NULL) != TN_OK)
        return; /* checked before: the type is a float type and the rows lie inside */
    sums->nonfinite = tn_find_nonfinite(rows, count * cols);
    if (sums->nonfinite != 0) {
        sums->nonfinite += first * cols;
        return;
    }
    tn_qweight part = tn_qweight_row_range(&job->weight, first, count);
    tn_quantizer_state state = {.scale = part.scale,
                                .scale_neg = part.scale_neg,
                                .zero = part.zero,
                                .threshold = threshold};
    quantizer->fit(scheme, &part, rows, NULL, &state);
    quantizer->quantize(scheme, &part, rows, &state, part.codes, values);
    for (int64_t r = 0; r < count; r++) {
        tn_errors errors = {0};
        tn_sum_errors(rows + r * cols, values + r * cols, cols, &errors);
        sums_add_row(sums, &part, r * part.groups_per_row, &errors);
    }
}

static tn_status convert_blocks(work *job, tn_weight_figures *figures, tn_error *error)
{
    const tn_qweight *weight = &job->weight;
    tn_status status = TN_OK;
    block_sums total;
    sums_start(&total);
    job->block_rows = weight->cols < BLOCK ? BLOCK / weight->cols : 1;
    if (job->block_rows > weight->rows)
        job->block_rows = weight->rows;
    job->blocks = (weight->rows - 1) / job->block_rows + 1;
    job->per_thread =
        (size_t)job->block_rows * (2 * (size_t)weight->cols + (size_t)weight->groups_per_row);
    job->per_thread = (job->per_thread + 15) / 16 * 16;
    int threads = tn_threads_get();
    threads = job->blocks < threads ? (int)job->blocks : threads;
    job->sums = tn_alloc_array((size_t)job->blocks, sizeof *job->sums);
    job->buffer = tn_alloc_array((size_t)threads * job->per_thread, sizeof *job->buffer);
    if (job->sums == NULL || job->buffer == NULL) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the rows of a layer");
        goto end;
    }
#pragma omp parallel for schedule(dynamic) num_threads(threads) if (threads > 1)
    for (int64_t block = 0; block < job->blocks; block++)
        convert_block(job, block, job->buffer + (size_t)omp_get_thread_num() * job->per_thread);
    for (int64_t block = 0; block < job->blocks; block++)
        sums_add(&total, &job->sums[block]);
    if (total.nonfinite != 0)
        status = fail_nonfinite(job->layer, total.nonfinite - 1, error);
    else
        conclude(&total, (double)weight->rows * (double)weight->cols, figures);
end:
    tn_free(job->sums);
    tn_free(job->buffer);
    return status;
}

/* One scale for all: needs the whole layer at once. */
static tn_status convert_whole(work *job, tn_weight_figures *figures, tn_error *error)
{
    const tn_scheme *scheme = &job->layer->scheme;
    tn_qweight *weight = &job->weight;
    int64_t n = weight->rows * weight->cols;
    float threshold = 0;
    float *rows = tn_alloc_array((size_t)n, sizeof *rows);
    if (rows == NULL)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the %lld weights of a layer",
                       (long long)n);
    tn_status status = tn_layer_rows(job->layer, rows, error);
    int64_t nonfinite = status == TN_OK ? tn_find_nonfinite(rows, n) : 0;
    if (nonfinite != 0)
        status = fail_nonfinite(job->layer, nonfinite - 1, error);
    if (status == TN_OK) {
        tn_quantizer_state state = {.scale = weight->scale,
                                    .scale_neg = weight->scale_neg,
                                    .zero = weight->zero,
                                    .threshold = &threshold};
        scheme->quantizer->fit(scheme, weight, rows, NULL, &state);
        scheme->quantizer->quantize(scheme, weight, rows, &state, weight->codes, NULL);
        tn_weight_measure(weight, rows, figures);
    }
    tn_free(rows);
    return status;
}

tn_status tn_layer_weight_init(const tn_layer *layer, tn_qweight *weight, tn_error *error)
{
    const tn_tensor *tensor = layer->weight->constant;
    const tn_quantizer *quantizer = layer->scheme.quantizer;
    tn_qweight made = {.rank = tensor->rank, .axis = layer->axis};
    memcpy(made.dims, tensor->dims, sizeof made.dims);
    tn_scheme_apply(&layer->scheme, &made);
    if (quantizer->plain) { /* no codes: only the shape */
        made.granularity = TN_PER_CHANNEL;
        made.rows = layer->rows;
        made.cols = layer->cols;
        made.groups_per_row = 1;
        made.n_scales = made.rows;
        *weight = made;
        return TN_OK;
    }
    tn_status status = tn_qweight_init(&made, quantizer->two_scales, quantizer->has_zero, error);
    if (status == TN_OK)
        *weight = made;
    return status;
}

tn_status tn_convert_layer(const tn_layer *layer, tn_converted *converted, tn_error *error)
{
    work job = {.layer = layer};
    tn_weight_figures figures;
    tn_status status = tn_layer_weight_init(layer, &job.weight, error);
    if (status != TN_OK)
        return status;
    bool whole = job.weight.granularity == TN_PER_TENSOR;
    status = whole ? convert_whole(&job, &figures, error) : convert_blocks(&job, &figures, error);
    if (status != TN_OK) {
        tn_qweight_done(&job.weight);
        return status;
    }
    *converted = (tn_converted){layer, job.weight, figures};
    return TN_OK;
}

static void warn(const tn_converted *converted, const tn_reporter *reporter)
{
    const tn_weight_figures *figures = &converted->figures;
    const char *label = tn_quote(tn_node_label(converted->layer->node));
    if (figures->relmse > 0.35)
        tn_log(
            reporter, TN_LOG_WARNING,
            "%s: the quantized weights are far from the float ones (relative squared error %.2f)",
            label, figures->relmse);
    if (figures->dead_channels > 0)
        tn_log(reporter, TN_LOG_WARNING, "%s: %lld of %lld output channels became all zero", label,
               (long long)figures->dead_channels, (long long)converted->weight.rows);
    if (figures->zeros > 0.95)
        tn_log(reporter, TN_LOG_WARNING, "%s: %.1f %% of the weights became 0", label,
               100 * figures->zeros);
}

tn_status tn_convert(const tn_layers *layers, const tn_reporter *reporter,
                     tn_conversion *conversion, tn_error *error)
{
    tn_conversion made = {0};
    tn_status status = TN_OK;
    uint64_t total = 0;
    for (size_t i = 0; i < layers->count; i++)
        total += layers->layer[i].quantized;
    made.item = tn_alloc_zero((size_t)total, sizeof *made.item);
    if (made.item == NULL)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the converted layers");
    for (size_t i = 0; status == TN_OK && i < layers->count; i++) {
        if (!layers->layer[i].quantized)
            continue;
        if (tn_cancelled(reporter)) {
            status = tn_fail(error, TN_ERROR_CANCELLED, "cancelled while quantizing");
            break;
        }
        status = tn_convert_layer(&layers->layer[i], &made.item[made.count], error);
        if (status != TN_OK)
            break;
        warn(&made.item[made.count++], reporter);
        tn_progress(reporter, "quantizing", made.count, total);
    }
    if (status != TN_OK)
        tn_conversion_done(&made);
    else
        *conversion = made;
    return status;
}

void tn_conversion_done(tn_conversion *conversion)
{
    for (size_t i = 0; i < conversion->count; i++)
        tn_qweight_done(&conversion->item[i].weight);
    tn_free(conversion->item);
    *conversion = (tn_conversion){0};
}
