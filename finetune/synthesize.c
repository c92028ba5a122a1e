#include "finetune/synthesize.h"

#include "core/checked.h"
#include "core/hot.h"
#include "core/memory.h"
#include "core/random.h"
#include "finetune/host_copy.h"
#include "network/plan.h"

#include <math.h>
#include <string.h>
#include <time.h>

enum { SAMPLES = 256, BATCH = 64, STEPS = 200, CHUNKS = 16, ROWS = 64 };
static const double RATE = 0.1, CLASS_WEIGHT = 0.01;

/* One BatchNorm whose statistics are matched. */
typedef struct matched_bn {
    const char *input;
    int64_t channels, space, count; /* count = batch x channels x space */
    float *mean, *variance;         /* [channels] remembered */
} matched_bn;

typedef struct synthesis_run {
    tn_synthesize_options options; /* resolved */
    tn_device *device, *own_device;
    tn_graph *graph;
    tn_params *params;
    tn_plan *plan;
    matched_bn *bn;
    const char **names;
    size_t n_bn;
    int64_t classes, pixels; /* of a batch */
    float *values, *turned;  /* the largest BN input, as rows of channels and as the model has it */
    float *block;            /* [CHUNKS][2][channels] */
    double *sums;            /* the same */
    float *x, *gradient, *moment, *square;
    int32_t *labels;
    tn_host_copy copy; /* of a BN's input */
    tn_arena arena;
} synthesis_run;

static void run_done(synthesis_run *run)
{
    tn_plan_destroy(run->plan);
    tn_params_destroy(run->params);
    tn_graph_destroy(run->graph);
    tn_device_destroy(run->own_device);
    tn_free(run->values);
    tn_free(run->turned);
    tn_free(run->block);
    tn_free(run->sums);
    tn_free(run->gradient);
    tn_free(run->moment);
    tn_free(run->square);
    tn_free(run->labels);
    tn_host_copy_done(&run->copy);
    tn_arena_done(&run->arena);
}

static tn_synthesize_options resolve(const tn_synthesize_options *options)
{
    tn_synthesize_options resolved = *options;
    if (resolved.samples == 0)
        resolved.samples = SAMPLES;
    if (resolved.batch == 0)
        resolved.batch = BATCH;
    if (resolved.batch > resolved.samples)
        resolved.batch = resolved.samples;
    if (resolved.steps <= 0)
        resolved.steps = STEPS;
    if (!(resolved.rate > 0))
        resolved.rate = RATE;
    if (resolved.class_weight == 0)
        resolved.class_weight = CLASS_WEIGHT;
    return resolved;
}

/* --- preparation --------------------------------------------------------------------------------
 */

static tn_status remember(synthesis_run *run, const tn_node *node, matched_bn *bn, tn_error *error)
{
    const tn_value *x = node->inputs[0];
    bn->input = x->name;
    bn->channels = x->dims[1];
    bn->space = 1;
    for (int i = 2; i < x->rank; i++)
        bn->space *= x->dims[i];
    bn->count = x->dims[0] * bn->channels * bn->space;
    bn->mean = tn_arena_array(&run->arena, (size_t)bn->channels, sizeof(float));
    bn->variance = tn_arena_array(&run->arena, (size_t)bn->channels, sizeof(float));
    if (!bn->mean || !bn->variance)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for BatchNorm statistics");
    if (!node->inputs[3]->constant || !node->inputs[4]->constant)
        return tn_fail(error, TN_ERROR_MODEL, "the statistics of %s are no constants",
                       tn_quote(tn_node_label(node)));
    tn_status status =
        tn_tensor_read_float(node->inputs[3]->constant, 0, bn->channels, bn->mean, error);
    if (status == TN_OK)
        status =
            tn_tensor_read_float(node->inputs[4]->constant, 0, bn->channels, bn->variance, error);
    return status;
}

/* All BatchNorms of the graph that see a batch of activations. */
static tn_status find_bns(synthesis_run *run, tn_error *error)
{
    const tn_graph *graph = run->graph;
    run->bn = tn_arena_array(&run->arena, graph->n_nodes + 1, sizeof *run->bn);
    run->names = tn_arena_array(&run->arena, graph->n_nodes + 1, sizeof *run->names);
    if (!run->bn || !run->names)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu nodes", graph->n_nodes);
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < graph->n_nodes; i++) {
        const tn_node *node = graph->nodes[i];
        if (strcmp(node->type, "BatchNormalization") || node->folded || node->inputs[0]->rank < 2)
            continue;
        bool seen = false;
        for (size_t k = 0; k < run->n_bn; k++)
            seen = seen || !strcmp(run->bn[k].input, node->inputs[0]->name);
        if (seen)
            continue; /* two BNs over one value remember the same */
        status = remember(run, node, &run->bn[run->n_bn], error);
        run->names[run->n_bn] = node->inputs[0]->name;
        run->n_bn++;
    }
    if (status == TN_OK && run->n_bn == 0)
        status = tn_fail(error, TN_ERROR_MODEL,
                         "images can only be synthesized for a network that still has its "
                         "BatchNorms (this one has none; perhaps they were folded on export): "
                         "give real images with --calibration-data DIR");
    return status;
}

static tn_status make_plan(synthesis_run *run, const tn_model *model, tn_error *error)
{
    tn_graph_options graph = {.batch = (int64_t)run->options.batch, .output = run->options.output};
    tn_status status = tn_graph_create(model, &graph, &run->graph, error);
    if (status != TN_OK)
        return status;
    const tn_value *input = run->graph->n_inputs > 0 ? run->graph->inputs[0] : NULL;
    bool sized = input && input->rank == 4;
    run->pixels = 1;
    for (int i = 0; sized && i < 4; i++) {
        sized = input->dims[i] > 0;
        sized = sized && tn_checked_mul_i64(run->pixels, input->dims[i], &run->pixels);
    }
    if (!sized)
        return tn_fail(error, TN_ERROR_MODEL,
                       "images can only be synthesized for one input [N, C, H, W] of known size");
    status = find_bns(run, error);
    if (status == TN_OK)
        status = tn_params_create(run->graph, run->device, &run->params, error);
    for (size_t i = 0; status == TN_OK && i < tn_params_count(run->params); i++)
        tn_params_at(run->params, i)->frozen = true;
    tn_plan_options plan = {.training = true,
                            .separate_bn = true,
                            .input_gradient = true,
                            .loss = run->options.class_weight > 0,
                            .precision = TN_PRECISION_FP32,
                            .taps = run->names,
                            .n_taps = run->n_bn,
                            .injections = run->names,
                            .n_injections = run->n_bn,
                            .params = run->params};
    if (status == TN_OK)
        status = tn_plan_create(run->graph, run->device, &plan, &run->plan, error);
    tn_extent extent;
    if (status == TN_OK && run->options.class_weight > 0) {
        status = tn_plan_shape(run->plan, tn_plan_logits(run->plan), &extent, error);
        if (status == TN_OK)
            run->classes = extent.dims[extent.rank - 1];
    }
    return status;
}

static tn_status make_buffers(synthesis_run *run, tn_error *error)
{
    int64_t most = 1, channels = 1;
    for (size_t i = 0; i < run->n_bn; i++) {
        most = run->bn[i].count > most ? run->bn[i].count : most;
        channels = run->bn[i].channels > channels ? run->bn[i].channels : channels;
    }
    size_t pixels = (size_t)run->pixels;
    run->values = tn_alloc_array((size_t)most, sizeof *run->values);
    run->turned = tn_alloc_array((size_t)most, sizeof *run->turned);
    run->block = tn_alloc_array((size_t)(2 * CHUNKS * channels), sizeof *run->block);
    run->sums = tn_alloc_array((size_t)(2 * CHUNKS * channels), sizeof *run->sums);
    run->gradient = tn_alloc_array(pixels, sizeof *run->gradient);
    run->moment = tn_alloc_array(pixels, sizeof *run->moment);
    run->square = tn_alloc_array(pixels, sizeof *run->square);
    run->labels = tn_alloc_array(run->options.batch, sizeof *run->labels);
    if (!run->values || !run->turned || !run->block || !run->sums || !run->gradient ||
        !run->moment || !run->square || !run->labels)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory to synthesize images");
    return TN_OK;
}

/* --- one step -----------------------------------------------------------------------------------
 */

/* Sums over rows of x - center and of its square: [channels] each. Blocks in float, their sums in
 * double. */
TN_HOT static void sum_rows(const float *restrict x, const float *restrict center, int64_t rows,
                            int64_t channels, float *restrict block, double *restrict sums)
{
    memset(sums, 0, (size_t)(2 * channels) * sizeof *sums);
    for (int64_t first = 0; first < rows; first += ROWS) {
        const int64_t last = first + ROWS < rows ? first + ROWS : rows;
        memset(block, 0, (size_t)(2 * channels) * sizeof *block);
        for (int64_t r = first; r < last; r++)
            for (int64_t c = 0; c < channels; c++) {
                const float d = x[r * channels + c] - center[c];
                block[c] += d;
                block[channels + c] += d * d;
            }
        for (int64_t c = 0; c < 2 * channels; c++)
            sums[c] += (double)block[c];
    }
}

/* g = offset + slope (x - center) */
TN_HOT static void spread(const float *restrict x, const float *restrict center,
                          const float *restrict offset, const float *restrict slope, int64_t rows,
                          int64_t channels, float *restrict g)
{
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels; c++)
            g[r * channels + c] = offset[c] + slope[c] * (x[r * channels + c] - center[c]);
}

/* Loss of the channels, each relative to its variance: (m - mean)^2 / v + (s - deviation)^2 / v,
 * and its gradient at x as offset + slope (x - mean). sums: of x - mean and its square over n. */
static double match_channels(const matched_bn *bn, const double *sums, double n, double weight,
                             float *offset, float *slope)
{
    double loss = 0;
    for (int64_t c = 0; c < bn->channels; c++) {
        double shift = sums[c] / n, variance = sums[bn->channels + c] / n - shift * shift;
        double deviation = sqrt(variance > 0 ? variance : 0) + 1e-8;
        double wanted = sqrt((double)bn->variance[c]), unit = (double)bn->variance[c] + 1e-5;
        double d_deviation = deviation - wanted;
        double first = 2 * weight * shift / (unit * n);
        double second = 2 * weight * d_deviation / (unit * n * deviation);
        offset[c] = (float)(first - second * shift);
        slope[c] = (float)second;
        loss += weight * (shift * shift + d_deviation * d_deviation) / unit;
    }
    return loss;
}

/* [batch, channels, space] to rows of channels, or back. */
static void turn(const float *src, int64_t batch, int64_t channels, int64_t space, float *dst)
{
    for (int64_t b = 0; b < batch; b++)
        for (int64_t c = 0; c < channels; c++)
            for (int64_t i = 0; i < space; i++)
                dst[(b * space + i) * channels + c] = src[(b * channels + c) * space + i];
}

static void gradient_of(synthesis_run *run, const matched_bn *bn, const float *x, double *loss)
{
    const int64_t channels = bn->channels, rows = bn->count / channels;
    double *sums = run->sums;
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < CHUNKS; i++) {
        const int64_t first = rows * i / CHUNKS, last = rows * (i + 1) / CHUNKS;
        sum_rows(x + first * channels, bn->mean, last - first, channels,
                 run->block + 2 * channels * i, sums + 2 * channels * i);
    }
    for (int64_t i = 1; i < CHUNKS; i++)
        for (int64_t c = 0; c < 2 * channels; c++)
            sums[c] += sums[2 * channels * i + c];
    float *offset = run->block, *slope = offset + channels;
    const double weight = 1 / (double)(channels * (int64_t)run->n_bn);
    *loss += match_channels(bn, sums, (double)rows, weight, offset, slope);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < CHUNKS; i++) {
        const int64_t first = rows * i / CHUNKS, last = rows * (i + 1) / CHUNKS;
        spread(x + first * channels, bn->mean, offset, slope, last - first, channels,
               run->values + first * channels);
    }
}

static tn_status match_bn(synthesis_run *run, const matched_bn *bn, double *loss, tn_error *error)
{
    const int64_t batch = (int64_t)run->options.batch;
    const float *x;
    bool rows;
    tn_status status = tn_plan_raw(run->plan, bn->input, &x, &rows, error);
    if (status == TN_OK)
        status = tn_host_copy_get(&run->copy, run->device, x, (size_t)bn->count, &x, error);
    if (status != TN_OK)
        return status;
    if (!rows && bn->space > 1) {
        turn(x, batch, bn->channels, bn->space, run->turned);
        gradient_of(run, bn, run->turned, loss);
        turn(run->values, batch, bn->space, bn->channels, run->turned);
        return tn_plan_inject_raw(run->plan, bn->input, run->turned, error);
    }
    gradient_of(run, bn, x, loss);
    return tn_plan_inject_raw(run->plan, bn->input, run->values, error);
}

static void adam(synthesis_run *run, int step, double rate)
{
    double correction1 = 1 - pow(0.9, step + 1), correction2 = 1 - pow(0.999, step + 1);
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < run->pixels; i++) {
        double g = (double)run->gradient[i];
        double m = 0.9 * (double)run->moment[i] + 0.1 * g;
        double s = 0.999 * (double)run->square[i] + 0.001 * g * g;
        run->moment[i] = (float)m;
        run->square[i] = (float)s;
        run->x[i] -= (float)(rate * (m / correction1) / (sqrt(s / correction2) + 1e-12));
    }
}

static tn_status optimize_step(synthesis_run *run, int step, double *loss, tn_error *error)
{
    int64_t batch = (int64_t)run->options.batch;
    *loss = 0;
    tn_status status = tn_plan_write_input(run->plan, 0, run->x, batch, error);
    if (status == TN_OK)
        status = tn_plan_forward(run->plan, TN_RUN_INFERENCE, 0, SIZE_MAX, error);
    if (status == TN_OK && run->classes > 0) {
        tn_loss_result result;
        tn_loss_options target = {.labels = run->labels,
                                  .count = batch,
                                  .scale = (float)(run->options.class_weight / (double)batch)};
        status = tn_plan_loss(run->plan, &target, &result, error);
    }
    for (size_t i = 0; status == TN_OK && i < run->n_bn; i++)
        status = match_bn(run, &run->bn[i], loss, error);
    if (status == TN_OK)
        status = tn_plan_backward(run->plan, 0, SIZE_MAX, false, error);
    if (status == TN_OK)
        status =
            tn_plan_read_gradient(run->plan, tn_plan_input(run->plan, 0), run->gradient, error);
    if (status == TN_OK) {
        double rest = 0.5 * (1 + cos(3.141592653589793 * step / run->options.steps));
        adam(run, step, run->options.rate * rest);
    }
    return status;
}

static tn_status optimize_batch(synthesis_run *run, size_t number, size_t batches,
                                tn_synthesis *synthesis, tn_error *error)
{
    tn_random random = tn_random_make(run->options.seed, TN_PURPOSE_SYNTHESIZE, 0, number);
    for (int64_t i = 0; i < run->pixels; i++) {
        run->x[i] = tn_random_normal(&random);
        run->moment[i] = run->square[i] = 0;
    }
    for (size_t i = 0; i < run->options.batch; i++)
        run->labels[i] =
            run->classes > 0 ? (int32_t)tn_random_below(&random, (uint32_t)run->classes) : 0;
    tn_status status = TN_OK;
    for (int step = 0; status == TN_OK && step < run->options.steps; step++) {
        double loss = 0;
        if (tn_cancelled(run->options.reporter))
            return tn_fail(error, TN_ERROR_CANCELLED, "synthesizing images was stopped");
        status = optimize_step(run, step, &loss, error);
        if (status == TN_OK && !isfinite(loss))
            status =
                tn_fail(error, TN_ERROR_DIVERGED, "synthesizing images diverged at step %d", step);
        if (step == 0)
            synthesis->first_loss += loss / (double)batches;
        if (step == run->options.steps - 1)
            synthesis->last_loss += loss / (double)batches;
        tn_progress(run->options.reporter, "synthesizing images",
                    number * (size_t)run->options.steps + (size_t)step + 1,
                    batches * (size_t)run->options.steps);
    }
    return status;
}

/* --- the whole ----------------------------------------------------------------------------------
 */

static tn_status synthesize_all(synthesis_run *run, tn_synthesis *synthesis, tn_error *error)
{
    size_t batch = run->options.batch, batches = (run->options.samples + batch - 1) / batch;
    const tn_value *input = run->graph->inputs[0];
    synthesis->samples = run->options.samples;
    synthesis->channels = input->dims[1];
    synthesis->height = input->dims[2];
    synthesis->width = input->dims[3];
    synthesis->images = tn_alloc_array(batches * (size_t)run->pixels, sizeof *synthesis->images);
    if (!synthesis->images)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu images", run->options.samples);
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < batches; i++) {
        run->x = synthesis->images + i * (size_t)run->pixels;
        status = optimize_batch(run, i, batches, synthesis, error);
    }
    return status;
}

tn_status tn_synthesize(const tn_model *model, const tn_synthesize_options *options,
                        tn_synthesis *out, tn_error *error)
{
    struct timespec before, after;
    clock_gettime(CLOCK_MONOTONIC, &before);
    synthesis_run run = {.options = resolve(options), .device = options->device};
    tn_synthesis synthesis = {0};
    tn_arena_init(&run.arena);
    tn_status status = TN_OK;
    if (!run.device) {
        status = tn_device_create_cpu(&run.own_device, error);
        run.device = run.own_device;
    }
    if (status == TN_OK)
        status = make_plan(&run, model, error);
    if (status == TN_OK)
        status = make_buffers(&run, error);
    if (status == TN_OK)
        status = synthesize_all(&run, &synthesis, error);
    run_done(&run);
    clock_gettime(CLOCK_MONOTONIC, &after);
    synthesis.seconds =
        (double)(after.tv_sec - before.tv_sec) + 1e-9 * (double)(after.tv_nsec - before.tv_nsec);
    if (status == TN_OK)
        *out = synthesis;
    else
        tn_synthesis_done(&synthesis);
    return status;
}

void tn_synthesis_done(tn_synthesis *synthesis)
{
    tn_free(synthesis->images);
    *synthesis = (tn_synthesis){0};
}
