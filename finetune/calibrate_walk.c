#include "finetune/calibrate_walk.h"

#include "core/memory.h"
#include "finetune/batchnorm.h"
#include "finetune/calibrate_blocks.h"
#include "finetune/calibrate_chunks.h"
#include "finetune/calibrate_view.h"
#include "finetune/calibrate_wide.h"
#include "finetune/divergence.h"
#include "finetune/host_copy.h"
#include "finetune/weight_placement.h"

#include <string.h>

enum { MAX_CHUNK = 32, MIN_CHUNK = 4, CHUNK_FLOATS = 1200000 };

int64_t tn_walk_chunk(int64_t images, int64_t floats_per_image)
{
    int64_t chunk = CHUNK_FLOATS / (floats_per_image > 0 ? floats_per_image : 1);
    chunk = chunk > MAX_CHUNK ? MAX_CHUNK : chunk < MIN_CHUNK ? MIN_CHUNK : chunk;
    return chunk < images ? chunk : images;
}

/* --- creation -----------------------------------------------------------------------------------
 */

static bool uses(const tn_layer *layer, const tn_node *node)
{
    for (size_t u = 0; u < layer->n_users; u++)
        if (layer->users[u] == node)
            return true;
    return false;
}

/* Which steps are layers, and what differs between the networks behind them. */
static tn_status mark_steps(tn_walk *walk, tn_error *error)
{
    for (size_t i = 0; i < walk->steps; i++) {
        tn_plan_step step;
        tn_plan_buffer output;
        tn_status status = tn_plan_step_at(walk->plan, i, &step, error);
        if (status != TN_OK)
            return status;
        bool product = step.verb == TN_VERB_CONV || step.verb == TN_VERB_GEMM ||
                       !strcmp(step.type, "ConvTranspose");
        walk->layer_of_step[i] = SIZE_MAX;
        walk->touched_step[i] = tn_plan_step_reads(walk->plan, i, walk->touched);
        for (size_t k = 0; product && k < walk->layers->count; k++) {
            const tn_layer *layer = &walk->layers->layer[k];
            if (!layer->quantized || !uses(layer, step.node))
                continue;
            walk->touched_step[i] = true;
            if (layer->node == step.node)
                walk->layer_of_step[i] = k;
        }
        if (walk->touched_step[i] && tn_plan_step_buffer(walk->plan, i, -1, &output))
            walk->touched[output.id] = true;
    }
    return TN_OK;
}

static tn_status make_arrays(tn_walk *walk, tn_error *error)
{
    size_t buffers = tn_plan_buffer_count(walk->plan);
    tn_extent shape;
    walk->steps = tn_plan_step_count(walk->plan);
    tn_status status = tn_plan_shape(walk->plan, tn_plan_logits(walk->plan), &shape, error);
    if (status != TN_OK)
        return status;
    walk->classes = tn_extent_count(&shape) / walk->chunk_images;
    size_t logits = (size_t)(walk->images * walk->classes);
    walk->layer_of_step = tn_alloc_array(walk->steps + 1, sizeof *walk->layer_of_step);
    walk->touched_step = tn_alloc_zero(walk->steps + 1, sizeof *walk->touched_step);
    walk->touched = tn_alloc_zero(buffers + 1, sizeof *walk->touched);
    walk->scratch = tn_alloc_zero(buffers + 1, sizeof *walk->scratch);
    walk->here = tn_alloc_zero(TN_WALK_NETWORKS * buffers + 1, sizeof *walk->here);
    walk->fresh = tn_alloc_zero(TN_WALK_NETWORKS * buffers + 1, sizeof *walk->fresh);
    walk->marked = tn_alloc_zero(buffers + 1, sizeof *walk->marked);
    walk->logits[0] = tn_alloc_array(logits, sizeof(float));
    walk->logits[1] = tn_alloc_array(logits, sizeof(float));
    walk->rounded = tn_alloc_array(logits, sizeof(float));
    walk->logits_of_chunk =
        tn_alloc_array((size_t)(walk->chunk_images * walk->classes), sizeof(float));
    if (!walk->layer_of_step || !walk->touched_step || !walk->touched || !walk->scratch ||
        !walk->here || !walk->fresh || !walk->marked || !walk->logits[0] || !walk->logits[1] ||
        !walk->rounded || !walk->logits_of_chunk)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu steps", walk->steps);
    return mark_steps(walk, error);
}

tn_status tn_walk_create(const tn_graph *graph, const tn_layers *layers, tn_device *device,
                         const tn_calibrate_options *options, int64_t images, tn_walk *walk,
                         tn_error *error)
{
    tn_walk made = {
        .options = options, .graph = graph, .layers = layers, .device = device, .images = images};
    tn_plan_options plan = {.no_fusion = true, .separate_bn = true, .precision = TN_PRECISION_FP32};
    made.weight = tn_alloc_zero(layers->count + 1, sizeof *made.weight);
    made.report = tn_alloc_zero(layers->count + 1, sizeof *made.report);
    tn_status status = TN_OK;
    made.bn_of_layer = tn_alloc_zero(layers->count + 1, sizeof *made.bn_of_layer);
    if (!made.weight || !made.report || !made.bn_of_layer)
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu layers", layers->count);
    if (status == TN_OK)
        status = tn_params_create(graph, device, &made.float_params, error);
    if (status == TN_OK)
        status = tn_params_create(graph, device, &made.params, error);
    plan.params = made.float_params;
    if (status == TN_OK)
        status = tn_plan_create(graph, device, &plan, &made.float_plan, error);
    plan.params = made.params;
    if (status == TN_OK)
        status = tn_plan_create(graph, device, &plan, &made.plan, error);
    if (status == TN_OK) {
        made.chunk_images = tn_plan_batch(made.plan);
        status = make_arrays(&made, error);
    }
    if (status == TN_OK)
        *walk = made;
    else
        tn_walk_done(&made);
    return status;
}

void tn_walk_done(tn_walk *walk)
{
    tn_plan_destroy(walk->plan);
    tn_plan_destroy(walk->float_plan);
    tn_params_destroy(walk->params);
    tn_params_destroy(walk->float_params);
    for (size_t i = 0; walk->weight && i < walk->layers->count; i++)
        tn_qweight_done(&walk->weight[i]);
    tn_free(walk->weight);
    tn_free(walk->report);
    tn_free(walk->bn_of_layer);
    tn_free(walk->layer_of_step);
    tn_free(walk->touched_step);
    tn_free(walk->touched);
    tn_free(walk->scratch);
    tn_free(walk->here);
    tn_free(walk->fresh);
    tn_free(walk->marked);
    tn_free(walk->logits[0]);
    tn_free(walk->logits[1]);
    tn_free(walk->rounded);
    tn_free(walk->logits_of_chunk);
    tn_activation_store_destroy(walk->store);
    *walk = (tn_walk){0};
}

/* --- a layer ------------------------------------------------------------------------------------
 */

/* What feeds the fit of one layer. */
typedef struct layer_feed {
    tn_walk *walk;
    const tn_layer_work *work;
    size_t step;
} layer_feed;

/* The first pass brings the networks to the layer; later ones look at what was kept. */
static tn_status load_for_fit(void *context, int pass, int64_t chunk, int64_t *images,
                              tn_error *error)
{
    layer_feed *feed = context;
    tn_walk *walk = feed->walk;
    const tn_layer_work *work = feed->work;
    *images = tn_walk_images_in(walk, chunk, walk->fitted);
    tn_status status = TN_OK;
    if (pass == 0)
        status = tn_walk_pass(walk, chunk, feed->step + 1, feed->step, error);
    else
        tn_walk_forget(walk);
    if (status != TN_OK || *images == 0)
        return status;
    int inputs = walk->options->independent ? TN_WALK_FLOAT : TN_WALK_QUANTIZED;
    status = tn_walk_need(walk, inputs, &work->input, chunk, error);
    if (status == TN_OK)
        status = tn_walk_need(walk, TN_WALK_FLOAT, &work->output, chunk, error);
    if (status == TN_OK && work->other_f.count > 0)
        status = tn_walk_need(walk, TN_WALK_FLOAT, &work->other_f, chunk, error);
    if (status == TN_OK && work->other_q.count > 0)
        status = tn_walk_need(walk, inputs, &work->other_q, chunk, error);
    return status;
}

static tn_status run_fit(tn_walk *walk, size_t index, size_t step, bool in_block,
                         tn_layer_work *work, tn_error *error)
{
    const tn_layer *layer = &walk->layers->layer[index];
    tn_qweight *weight = &walk->weight[index];
    tn_calibrated_layer *report = &walk->report[index];
    layer_feed feed = {walk, work, step};
    tn_layer_fit_options options = {.method = walk->options->method,
                                    .damping = walk->options->damping,
                                    .sweeps = walk->options->sweeps,
                                    .relu_passes = walk->options->relu_passes,
                                    .positions = walk->options->positions,
                                    .no_residual = walk->options->no_residual};
    if (in_block)
        options.method = TN_CALIBRATE_CD; /* where learning starts */
    else if (options.method == TN_CALIBRATE_ADAROUND)
        tn_log(walk->options->reporter, TN_LOG_INFO, "%s is in no block: it is learned by itself",
               layer->weight->name);
    if (options.method == TN_CALIBRATE_ADAROUND && weight->scale_neg) {
        options.method = TN_CALIBRATE_CD;
        report->reason = "two scales";
    }
    bool wide = layer->cols > TN_WIDE_COLS && options.method != TN_CALIBRATE_ROUND;
    if (wide && options.method != TN_CALIBRATE_CD) {
        options.method = TN_CALIBRATE_CD;
        report->reason = "more than 8192 inputs";
    }
    report->method = tn_calibrate_method_name(options.method);
    tn_status status = tn_layer_look(walk, layer, step, work, error);
    tn_layer_source source = {.chunks = tn_walk_chunks(walk),
                              .chunk_images = walk->chunk_images,
                              .images = walk->fitted,
                              .batch_per_image = work->view.patches.batch / walk->chunk_images,
                              .load = load_for_fit,
                              .context = &feed,
                              .device = walk->device};
    if (status == TN_OK)
        status = (wide ? tn_wide_fit_run : tn_layer_fit_run)(&work->view, &source, &options, weight,
                                                             &work->fit, error);
    if (status == TN_OK)
        report->output_error = work->fit.error;
    return status;
}

static tn_status fit_layer(tn_walk *walk, size_t index, size_t step, bool in_block, tn_error *error)
{
    const tn_layer *layer = &walk->layers->layer[index];
    tn_qweight *weight = &walk->weight[index];
    tn_layer_work work = {0};
    tn_status status = run_fit(walk, index, step, in_block, &work, error);
    /* in a network whose BNs are folded the corrections here are the only ones */
    if (status == TN_OK && (walk->bn == TN_CALIBRATE_BN_AFFINE ||
                            (walk->bn != TN_CALIBRATE_BN_KEEP && !work.chain.bn))) {
        status = tn_layer_absorb(walk, &work, weight, error);
        walk->bn_of_layer[index] = work.chain.bn;
    }
    if (status == TN_OK)
        status = tn_weight_place(walk->params, layer, weight, error);
    tn_layer_work_done(&work);
    tn_walk_stand_at(walk, step + 1, step);
    return status;
}

/* --- a BatchNorm --------------------------------------------------------------------------------
 */

static bool is_fitted_bn(const tn_walk *walk, const tn_node *bn)
{
    for (size_t i = 0; i < walk->layers->count; i++)
        if (walk->bn_of_layer[i] == bn)
            return true;
    return false;
}

/* Whether the step is a BN whose input has changed and that nothing else corrects. */
static bool wants_correction(const tn_walk *walk, size_t step)
{
    tn_plan_step at;
    tn_plan_buffer input;
    if (walk->bn == TN_CALIBRATE_BN_KEEP || walk->options->independent ||
        tn_plan_step_at(walk->plan, step, &at, NULL) != TN_OK ||
        strcmp(at.type, "BatchNormalization") != 0 || at.verb != TN_VERB_BATCH_NORM ||
        !walk->touched_step[step] || !tn_plan_step_buffer(walk->plan, step, 0, &input))
        return false;
    if (at.node->inputs[0]->rank > 2 && !input.channels_last)
        return false; /* over something that came from no convolution: left alone */
    if (!tn_bn_is_own(at.node))
        return false;
    return walk->bn != TN_CALIBRATE_BN_AFFINE || !is_fitted_bn(walk, at.node);
}

/* The chunk's fitted images of both networks into the sums. copies: one for each network. */
static tn_status add_moments(tn_walk *walk, int64_t chunk, const tn_plan_buffer *f,
                             const tn_plan_buffer *q, tn_host_copy *copies, tn_moment_sums *sums,
                             tn_error *error)
{
    const int64_t rows = q->count / sums->channels / walk->chunk_images; /* of an image */
    const float *host_f = NULL, *host_q = NULL;
    tn_status status = tn_walk_need(walk, TN_WALK_FLOAT, f, chunk, error);
    if (status == TN_OK)
        status = tn_walk_need(walk, TN_WALK_QUANTIZED, q, chunk, error);
    if (status == TN_OK)
        status =
            tn_host_copy_get(&copies[0], walk->device, f->data, (size_t)f->count, &host_f, error);
    if (status == TN_OK)
        status =
            tn_host_copy_get(&copies[1], walk->device, q->data, (size_t)q->count, &host_q, error);
    if (status == TN_OK)
        tn_moment_sums_add(sums, host_f, host_q,
                           rows * tn_walk_images_in(walk, chunk, walk->fitted));
    return status;
}

static tn_status correct_bn(tn_walk *walk, size_t step, tn_error *error)
{
    tn_plan_step at;
    tn_plan_buffer f, q;
    tn_moment_sums sums;
    tn_status status = tn_plan_step_at(walk->plan, step, &at, error);
    if (status != TN_OK || !tn_plan_step_buffer(walk->float_plan, step, 0, &f) ||
        !tn_plan_step_buffer(walk->plan, step, 0, &q))
        return status;
    tn_host_copy copies[2] = {{0}, {0}};
    status = tn_moment_sums_init(&sums, at.node->inputs[0]->dims[1], error);
    if (status != TN_OK)
        return status;
    for (int64_t c = 0; status == TN_OK && c < tn_walk_chunks(walk); c++) {
        status = tn_walk_pass(walk, c, step, step, error);
        if (status == TN_OK)
            status = add_moments(walk, c, &f, &q, copies, &sums, error);
    }
    tn_host_copy_done(&copies[0]);
    tn_host_copy_done(&copies[1]);
    if (status == TN_OK)
        status = tn_bn_correct(walk->params, at.node, &sums, walk->bn, error);
    tn_moment_sums_done(&sums);
    tn_walk_stand_at(walk, step, step);
    return status;
}

/* --- the walk -----------------------------------------------------------------------------------
 */

/* Rounded weights and the float network's other parameters. */
static tn_status start_over(tn_walk *walk, tn_error *error)
{
    tn_status status = tn_params_copy(walk->params, walk->float_params, error);
    for (size_t i = 0; status == TN_OK && i < walk->layers->count; i++) {
        tn_converted converted = {0};
        walk->report[i] =
            (tn_calibrated_layer){.name = walk->layers->layer[i].weight->name, .output_error = -1};
        walk->bn_of_layer[i] = NULL;
        if (!walk->layers->layer[i].quantized)
            continue;
        status = tn_convert_layer(&walk->layers->layer[i], &converted, error);
        if (status != TN_OK)
            break;
        tn_qweight_done(&walk->weight[i]);
        walk->weight[i] = converted.weight;
    }
    return status;
}

/* Layers that no data can help stay as they were rounded. */
static tn_status round_unfit(tn_walk *walk, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < walk->layers->count; i++) {
        const tn_layer *layer = &walk->layers->layer[i];
        walk->report[i].reason =
            layer->quantized ? tn_layer_unfit(walk, layer, &walk->weight[i]) : NULL;
        if (!walk->report[i].reason)
            continue;
        walk->report[i].method = tn_calibrate_method_name(TN_CALIBRATE_ROUND);
        status = tn_weight_place(walk->params, layer, &walk->weight[i], error);
    }
    return status;
}

static tn_status read_logits(tn_walk *walk, tn_plan *plan, int64_t chunk, float *logits,
                             tn_error *error)
{
    tn_status status = tn_plan_read(plan, tn_plan_logits(plan), walk->logits_of_chunk, error);
    if (status == TN_OK)
        memcpy(logits + chunk * walk->chunk_images * walk->classes, walk->logits_of_chunk,
               (size_t)(tn_walk_images_in(walk, chunk, walk->images) * walk->classes) *
                   sizeof *logits);
    return status;
}

/* From the last stop to the logits. */
static tn_status finish_run(tn_walk *walk, tn_error *error)
{
    tn_status status = TN_OK;
    for (int64_t c = 0; status == TN_OK && c < tn_walk_chunks(walk); c++) {
        status = tn_walk_load(walk, c, error);
        if (status == TN_OK)
            status = tn_walk_steps(walk, walk->steps, walk->steps, error);
        if (status == TN_OK)
            status = read_logits(walk, walk->float_plan, c, walk->logits[TN_WALK_FLOAT], error);
        if (status == TN_OK)
            status = read_logits(walk, walk->plan, c, walk->logits[TN_WALK_QUANTIZED], error);
    }
    return status;
}

tn_status tn_walk_round(tn_walk *walk, const float *values, tn_error *error)
{
    walk->values = values;
    tn_status status = start_over(walk, error);
    for (size_t i = 0; status == TN_OK && i < walk->layers->count; i++)
        if (walk->layers->layer[i].quantized)
            status =
                tn_weight_place(walk->params, &walk->layers->layer[i], &walk->weight[i], error);
    int64_t size = tn_walk_image_floats(walk) * walk->chunk_images;
    for (int64_t c = 0; status == TN_OK && c < tn_walk_chunks(walk); c++) {
        if (tn_cancelled(walk->options->reporter))
            return tn_fail(error, TN_ERROR_CANCELLED, "calibration was stopped");
        status = tn_plan_write_input(walk->plan, 0, values + c * size,
                                     tn_walk_images_in(walk, c, walk->images), error);
        if (status == TN_OK)
            status = tn_plan_forward(walk->plan, TN_RUN_INFERENCE, 0, SIZE_MAX, error);
        if (status == TN_OK)
            status = read_logits(walk, walk->plan, c, walk->rounded, error);
    }
    return status;
}

double tn_walk_rounded_kl(const tn_walk *walk)
{
    double kl, agreement;
    tn_divergence_mean(walk->logits[TN_WALK_FLOAT], walk->rounded, walk->images, walk->classes, &kl,
                       &agreement);
    return kl;
}

static tn_status make_store(tn_walk *walk, tn_error *error)
{
    tn_activation_store_destroy(walk->store);
    walk->store = NULL;
    return tn_activation_store_create(walk->device,
                                      (size_t)tn_walk_chunks(walk) *
                                          tn_plan_buffer_count(walk->plan) * TN_WALK_NETWORKS,
                                      walk->options->memory, &walk->store, error);
}

/* What is to be done at one step: a layer is fitted, a BatchNorm corrected, a block learned. */
static tn_status walk_step(tn_walk *walk, tn_walk_blocks *blocks, size_t step, tn_error *error)
{
    size_t layer = walk->layer_of_step[step];
    tn_status status = tn_walk_blocks_enter(walk, blocks, step, error);
    if (status == TN_OK && layer != SIZE_MAX && !walk->report[layer].reason)
        status = fit_layer(walk, layer, step, tn_walk_blocks_hold(blocks, layer), error);
    else if (status == TN_OK && wants_correction(walk, step))
        status = correct_bn(walk, step, error);
    return status == TN_OK ? tn_walk_blocks_leave(walk, blocks, step, error) : status;
}

tn_status tn_walk_run(tn_walk *walk, const float *values, int64_t fitted, tn_calibrate_bn bn,
                      tn_error *error)
{
    walk->values = values;
    walk->fitted = fitted;
    walk->bn = bn;
    tn_walk_stand_at(walk, 0, 0);
    tn_status status = make_store(walk, error);
    if (status == TN_OK)
        status = start_over(walk, error);
    if (status == TN_OK)
        status = round_unfit(walk, error);
    tn_walk_blocks blocks = {0};
    if (status == TN_OK)
        status = tn_walk_blocks_create(walk, &blocks, error);
    for (size_t i = 0; status == TN_OK && i < walk->steps; i++) {
        if (tn_cancelled(walk->options->reporter)) {
            status = tn_fail(error, TN_ERROR_CANCELLED, "calibration was stopped");
            break;
        }
        status = walk_step(walk, &blocks, i, error);
        tn_progress(walk->options->reporter, "calibrating", i + 1, walk->steps);
    }
    tn_walk_blocks_done(&blocks);
    if (status == TN_OK)
        status = finish_run(walk, error);
    walk->spilled += tn_activation_store_spilled(walk->store);
    tn_activation_store_destroy(walk->store);
    walk->store = NULL;
    return status;
}

void tn_walk_compare(const tn_walk *walk, int64_t first, int64_t last, double *kl,
                     double *agreement)
{
    tn_divergence_mean(walk->logits[TN_WALK_FLOAT] + first * walk->classes,
                       walk->logits[TN_WALK_QUANTIZED] + first * walk->classes, last - first,
                       walk->classes, kl, agreement);
}
