#include "finetune/calibrate_walk.h"

#include "core/memory.h"
#include "finetune/batchnorm.h"
#include "finetune/calibrate_chain.h"
#include "finetune/calibrate_layer.h"
#include "finetune/divergence.h"
#include "onnx_io/ops/op.h"

#include <math.h>
#include <string.h>

tn_status tn_walk_create(const tn_graph *graph, const tn_layers *layers, tn_device *device,
                         const tn_calibrate_options *options, int64_t images, tn_walk *walk,
                         tn_error *error)
{
    tn_walk made = {.options = options, .graph = graph, .layers = layers, .images = images};
    tn_plan_options plan = {.no_fusion = true, .separate_bn = true, .precision = TN_PRECISION_FP32};
    made.weight = tn_alloc_zero(layers->count + 1, sizeof *made.weight);
    made.report = tn_alloc_zero(layers->count + 1, sizeof *made.report);
    made.touched = tn_alloc_zero(graph->n_values + 1, sizeof *made.touched);
    tn_status status = TN_OK;
    if (!made.weight || !made.report || !made.touched)
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
    tn_free(walk->touched);
    *walk = (tn_walk){0};
}

/* --- what a layer sees ---------------------------------------------------------------------- */

/* Buffers of one layer's fit. */
typedef struct layer_work {
    tn_layer_view view;
    tn_chain chain;
    tn_layer_fit fit;
    float *w, *bias;
    double *gain, *offset;
    bool bias_inside; /* the layer's own output holds the bias */
} layer_work;

static void work_done(layer_work *work)
{
    tn_free(work->w);
    tn_free(work->bias);
    tn_free(work->gain);
    tn_free(work->offset);
    tn_free(work->fit.slope);
    tn_free(work->fit.shift);
}

static tn_status work_alloc(layer_work *work, int64_t rows, int64_t cols, tn_error *error)
{
    size_t n = (size_t)rows;
    work->w = tn_alloc_array(n * (size_t)cols, sizeof *work->w);
    work->bias = tn_alloc_zero(n, sizeof *work->bias);
    work->gain = tn_alloc_array(n, sizeof *work->gain);
    work->offset = tn_alloc_zero(n, sizeof *work->offset);
    work->fit.slope = tn_alloc_array(n, sizeof *work->fit.slope);
    work->fit.shift = tn_alloc_zero(n, sizeof *work->fit.shift);
    if (!work->w || !work->bias || !work->gain || !work->offset || !work->fit.slope ||
        !work->fit.shift)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a layer of %lld outputs",
                       (long long)rows);
    for (int64_t o = 0; o < rows; o++)
        work->gain[o] = work->fit.slope[o] = 1;
    return TN_OK;
}

/* The store's numbers of a constant. */
static tn_status read_param(const tn_params *params, const tn_value *value, int64_t count,
                            float *numbers, tn_error *error)
{
    size_t i = value ? tn_params_find(params, value->name) : SIZE_MAX;
    if (i == SIZE_MAX || tn_params_at(params, i)->count != count)
        return tn_fail(error, TN_ERROR_MODEL, "parameter %s is missing in the plan",
                       tn_quote(value ? value->name : NULL));
    return tn_params_get(params, i, numbers, error);
}

/* Why the layer cannot be fitted to data, or NULL. */
static const char *unfit(const tn_walk *walk, const tn_layer *layer)
{
    const tn_node *node = layer->node;
    if (walk->options->method == TN_CALIBRATE_ROUND && walk->bn == TN_CALIBRATE_BN_KEEP)
        return "not asked for";
    if (layer->cols > 8192)
        return "more than 8192 inputs";
    if (!strcmp(node->type, "ConvTranspose"))
        return "ConvTranspose";
    if (!strcmp(node->type, "Gemm")) {
        tn_gemm_params gemm;
        if (tn_gemm_parse(node, &gemm, NULL) != TN_OK || gemm.trans_a || gemm.alpha != 1.0f ||
            gemm.beta != 1.0f)
            return "Gemm with transA, alpha or beta";
    }
    return NULL;
}

static tn_status conv_patches(const tn_node *node, const tn_walk *walk, tn_patches *patches,
                              tn_error *error)
{
    tn_window window;
    tn_status status = tn_window_parse(node, &window, error);
    if (status != TN_OK)
        return status;
    *patches = (tn_patches){.spatial = window.spatial,
                            .batch = walk->fitted,
                            .channels = node->inputs[0]->dims[1],
                            .group = window.group};
    for (int i = 0; i < window.spatial; i++) {
        patches->in[i] = node->inputs[0]->dims[i + 2];
        patches->out[i] = node->outputs[0]->dims[i + 2];
        patches->kernel[i] = window.kernel[i];
        patches->stride[i] = window.stride[i];
        patches->dilation[i] = window.dilation[i];
        patches->pad[i] = window.pad_begin[i];
    }
    return TN_OK;
}

static void linear_patches(const tn_node *node, const tn_walk *walk, const tn_layer *layer,
                           tn_patches *patches)
{
    int64_t count = 1;
    for (int i = 0; i < node->inputs[0]->rank; i++)
        count *= node->inputs[0]->dims[i];
    *patches = (tn_patches){.batch = count / layer->cols * walk->fitted / walk->images,
                            .channels = layer->cols,
                            .group = 1};
}

/* The network whose values the layers are fitted on. */
static tn_plan *fed_by(const tn_walk *walk)
{
    return walk->options->independent ? walk->float_plan : walk->plan;
}

/* The other operand of the residual sum, in both networks, if it is there already and lies as the
 * output does. */
static void find_other(const tn_walk *walk, size_t step, bool channels_last, layer_work *work)
{
    const tn_value *other = work->chain.other, *output = work->chain.output;
    if (!other)
        return;
    bool same = other->rank == output->rank;
    for (int i = 0; same && i < other->rank; i++)
        same = other->dims[i] == output->dims[i];
    size_t made = tn_plan_step_of_value(walk->plan, other->name);
    bool last_f = false, last_q = false;
    const float *f = NULL, *q = NULL;
    if (same && (made == SIZE_MAX || made < step) &&
        tn_plan_raw(walk->float_plan, other->name, &f, &last_f, NULL) == TN_OK &&
        tn_plan_raw(fed_by(walk), other->name, &q, &last_q, NULL) == TN_OK &&
        last_f == channels_last && last_q == channels_last) {
        work->view.other_f = f;
        work->view.other_q = q;
    } else {
        work->view.relu = false; /* what the ReLU sees is not known yet */
    }
}

/* gain and offset of what stands between output and sum: a BN of the float network. */
static tn_status find_gain(const tn_walk *walk, int64_t channels, layer_work *work, tn_error *error)
{
    const tn_node *bn = work->chain.bn;
    float epsilon = 1e-5f, *numbers = tn_alloc_array((size_t)channels, 4 * sizeof *numbers);
    if (!numbers)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a BatchNorm");
    tn_status status = tn_node_float(bn, "epsilon", 1e-5f, &epsilon, error);
    for (size_t i = 0; status == TN_OK && i < 4; i++)
        status = read_param(walk->float_params, bn->inputs[i + 1], channels,
                            numbers + (int64_t)i * channels, error);
    for (int64_t o = 0; status == TN_OK && o < channels; o++) {
        double deviation = sqrt((double)numbers[3 * channels + o] + (double)epsilon);
        work->gain[o] = (double)numbers[o] / deviation;
        work->offset[o] =
            (double)numbers[channels + o] - (double)numbers[2 * channels + o] * work->gain[o];
    }
    tn_free(numbers);
    return status;
}

/* An Add behind a MatMul is not part of its output yet; the bias of Conv and Gemm is. */
static tn_status see_bias(const tn_walk *walk, const tn_node *node, int64_t channels,
                          layer_work *work, tn_error *error)
{
    tn_layer_view *view = &work->view;
    tn_status status =
        read_param(walk->float_params, work->chain.bias, channels, work->bias, error);
    work->bias_inside = work->chain.output == node->outputs[0];
    bool counted = work->bias_inside && view->centered; /* in the target */
    for (int64_t o = 0; status == TN_OK && o < channels && !counted; o++)
        work->offset[o] += work->gain[o] * (double)work->bias[o];
    view->bias = work->bias_inside && !view->centered ? work->bias : NULL;
    return status;
}

static tn_status see_layer(const tn_walk *walk, const tn_layer *layer, size_t step,
                           layer_work *work, tn_error *error)
{
    const tn_node *node = layer->node;
    tn_layer_view *view = &work->view;
    bool in_last = false, out_last = false;
    tn_chain_find(node, layer->rows, &work->chain);
    tn_status status = work_alloc(work, layer->rows, layer->cols, error);
    if (status == TN_OK)
        status = tn_layer_rows(layer, work->w, error);
    if (status == TN_OK && layer->is_linear)
        linear_patches(node, walk, layer, &view->patches);
    else if (status == TN_OK)
        status = conv_patches(node, walk, &view->patches, error);
    if (status == TN_OK)
        status =
            tn_plan_raw(fed_by(walk), node->inputs[0]->name, &view->patches.data, &in_last, error);
    if (status == TN_OK)
        status =
            tn_plan_raw(walk->float_plan, node->outputs[0]->name, &view->output, &out_last, error);
    if (status != TN_OK)
        return status;
    if (node->inputs[0]->rank > 2 && in_last == layer->is_linear)
        return tn_fail(error, TN_ERROR_MODEL, "the input of %s lies in an unexpected order",
                       tn_quote(tn_node_label(node)));
    view->channels = layer->rows;
    view->w = work->w;
    view->gain = work->gain;
    view->offset = work->offset;
    view->relu = work->chain.relu;
    bool later = work->chain.bn_later && !walk->options->independent;
    bool absorbs = work->chain.bn || work->chain.bias || later;
    view->centered = absorbs && walk->bn != TN_CALIBRATE_BN_KEEP;
    find_other(walk, step, out_last, work);
    if (work->chain.bn)
        status = find_gain(walk, layer->rows, work, error);
    return status == TN_OK && work->chain.bias ? see_bias(walk, node, layer->rows, work, error)
                                               : status;
}

/* --- corrections behind a layer ------------------------------------------------------------- */

static void scale_weight(tn_qweight *weight, const double *slope)
{
    for (int64_t i = 0; i < weight->n_scales; i++) {
        double factor = slope[i / weight->groups_per_row];
        weight->scale[i] = (float)((double)weight->scale[i] * factor);
        if (weight->scale_neg)
            weight->scale_neg[i] = (float)((double)weight->scale_neg[i] * factor);
    }
}

/* Puts slope and shift where they cost nothing: scales, BN or bias. */
static tn_status absorb(tn_walk *walk, layer_work *work, tn_qweight *weight, tn_error *error)
{
    const tn_chain *chain = &work->chain;
    int64_t channels = work->view.channels;
    tn_layer_fit *fit = &work->fit;
    bool own_scales = weight->granularity != TN_PER_TENSOR;
    if (own_scales)
        scale_weight(weight, fit->slope);
    if (!work->view.centered)
        return TN_OK;
    if (chain->bn)
        return tn_bn_absorb(walk->params, chain->bn, channels, own_scales ? NULL : fit->slope,
                            fit->shift, work->bias_inside ? work->bias : NULL, error);
    if (!chain->bias)
        return TN_OK; /* a BN further on takes it */
    size_t at = tn_params_find(walk->params, chain->bias->name);
    for (int64_t o = 0; o < channels; o++)
        work->bias[o] = (float)(fit->shift[o] + (work->bias_inside ? 0 : (double)work->bias[o]));
    return tn_params_set(walk->params, at, work->bias, error);
}

static tn_status set_weight(const tn_walk *walk, const tn_layer *layer, const tn_qweight *weight,
                            tn_error *error)
{
    float *rows = tn_alloc_array((size_t)(layer->rows * layer->cols), sizeof *rows);
    if (!rows)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the weights of %s",
                       tn_quote(layer->weight->name));
    tn_qweight_dequantize(weight, rows);
    size_t at = tn_params_find(walk->params, layer->weight->name);
    tn_status status = at == SIZE_MAX
                           ? tn_fail(error, TN_ERROR_MODEL, "weight %s is missing in the plan",
                                     tn_quote(layer->weight->name))
                           : tn_params_set_rows(walk->params, at, rows, error);
    tn_free(rows);
    return status;
}

static tn_status fit_layer(tn_walk *walk, size_t index, size_t step, tn_error *error)
{
    const tn_layer *layer = &walk->layers->layer[index];
    tn_qweight *weight = &walk->weight[index];
    tn_calibrated_layer *report = &walk->report[index];
    layer_work work = {0};
    const char *reason = unfit(walk, layer);
    report->reason = reason;
    if (reason) {
        report->method = tn_calibrate_method_name(TN_CALIBRATE_ROUND);
        return set_weight(walk, layer, weight, error);
    }
    tn_layer_fit_options options = {.method = walk->options->method,
                                    .damping = walk->options->damping,
                                    .sweeps = walk->options->sweeps,
                                    .relu_passes = walk->options->relu_passes,
                                    .positions = walk->options->positions,
                                    .no_residual = walk->options->no_residual};
    if (options.method == TN_CALIBRATE_ADAROUND && weight->scale_neg) {
        options.method = TN_CALIBRATE_CD;
        report->reason = "two scales";
    }
    report->method = tn_calibrate_method_name(options.method);
    tn_status status = see_layer(walk, layer, step, &work, error);
    if (status == TN_OK)
        status = tn_layer_fit_run(&work.view, &options, weight, &work.fit, error);
    if (status == TN_OK) {
        report->output_error = work.fit.error;
        if (walk->bn == TN_CALIBRATE_BN_AFFINE)
            status = absorb(walk, &work, weight, error);
        else if (walk->bn != TN_CALIBRATE_BN_KEEP && !work.chain.bn)
            status = absorb(walk, &work, weight, error); /* folded networks: their only means */
    }
    if (status == TN_OK)
        status = set_weight(walk, layer, weight, error);
    work_done(&work);
    return status;
}

/* --- the walk --------------------------------------------------------------------------------- */

/* The layer whose first user the node is: its position, or SIZE_MAX. */
static size_t layer_of(const tn_walk *walk, const tn_node *node)
{
    for (size_t i = 0; i < walk->layers->count; i++)
        if (walk->layers->layer[i].quantized && walk->layers->layer[i].node == node)
            return i;
    return SIZE_MAX;
}

static bool is_fitted_bn(const tn_walk *walk, const tn_node *bn)
{
    for (size_t i = 0; i < walk->layers->count; i++) {
        const tn_layer *layer = &walk->layers->layer[i];
        if (layer->quantized && walk->report[i].output_error >= 0 &&
            layer->node->outputs[0] == bn->inputs[0])
            return true;
    }
    return false;
}

static tn_status correct_bn(tn_walk *walk, const tn_node *bn, tn_error *error)
{
    bool affine = walk->bn == TN_CALIBRATE_BN_AFFINE;
    if (walk->bn == TN_CALIBRATE_BN_KEEP || walk->options->independent ||
        (affine && is_fitted_bn(walk, bn)))
        return TN_OK;
    const float *f = NULL, *q = NULL;
    bool last_f = false, last_q = false;
    tn_status status = tn_plan_raw(walk->float_plan, bn->inputs[0]->name, &f, &last_f, error);
    if (status == TN_OK)
        status = tn_plan_raw(walk->plan, bn->inputs[0]->name, &q, &last_q, error);
    if (status != TN_OK)
        return status;
    const tn_value *x = bn->inputs[0];
    if (x->rank > 2 && (!last_f || !last_q))
        return TN_OK; /* BN over something that came from no convolution: left alone */
    int64_t rows = 1;
    for (int i = 0; i < x->rank; i++)
        rows *= i == 1 ? 1 : x->dims[i];
    return tn_bn_correct(walk->params, bn, x->dims[1], rows / walk->images * walk->fitted, f, q,
                         walk->bn, error);
}

/* One step in both networks. */
static tn_status walk_step(tn_walk *walk, size_t i, tn_error *error)
{
    tn_plan_step step;
    tn_status status = tn_plan_step_at(walk->plan, i, &step, error);
    if (status != TN_OK)
        return status;
    size_t layer = layer_of(walk, step.node);
    bool touched = layer != SIZE_MAX;
    for (size_t k = 0; k < step.node->n_inputs; k++)
        touched = touched || (step.node->inputs[k] && walk->touched[step.node->inputs[k]->index]);
    for (size_t k = 0; k < step.node->n_outputs; k++)
        if (step.node->outputs[k])
            walk->touched[step.node->outputs[k]->index] = touched;
    if (!strcmp(step.type, "BatchNormalization") && touched)
        status = correct_bn(walk, step.node, error);
    if (status == TN_OK)
        status = tn_plan_forward(walk->float_plan, TN_RUN_INFERENCE, i, i + 1, error);
    if (status == TN_OK && layer != SIZE_MAX)
        status = fit_layer(walk, layer, i, error);
    if (status == TN_OK)
        status = tn_plan_forward(walk->plan, TN_RUN_INFERENCE, i, i + 1, error);
    return status;
}

/* Rounded weights and the float network's other parameters. */
static tn_status start_over(tn_walk *walk, tn_error *error)
{
    tn_status status = tn_params_copy(walk->params, walk->float_params, error);
    for (size_t i = 0; status == TN_OK && i < walk->layers->count; i++) {
        tn_converted converted = {0};
        walk->report[i] =
            (tn_calibrated_layer){.name = walk->layers->layer[i].weight->name, .output_error = -1};
        if (!walk->layers->layer[i].quantized)
            continue;
        status = tn_convert_layer(&walk->layers->layer[i], &converted, error);
        if (status != TN_OK)
            break;
        tn_qweight_done(&walk->weight[i]);
        walk->weight[i] = converted.weight;
    }
    memset(walk->touched, 0, walk->graph->n_values * sizeof *walk->touched);
    return status;
}

tn_status tn_walk_run(tn_walk *walk, const float *nchw, int64_t fitted, tn_calibrate_bn bn,
                      tn_error *error)
{
    walk->fitted = fitted;
    walk->bn = bn;
    tn_status status = start_over(walk, error);
    if (status == TN_OK)
        status = tn_plan_write_input(walk->float_plan, 0, nchw, walk->images, error);
    if (status == TN_OK)
        status = tn_plan_write_input(walk->plan, 0, nchw, walk->images, error);
    size_t steps = tn_plan_step_count(walk->plan);
    for (size_t i = 0; status == TN_OK && i < steps; i++) {
        if (tn_cancelled(walk->options->reporter))
            return tn_fail(error, TN_ERROR_CANCELLED, "calibration was stopped");
        status = walk_step(walk, i, error);
        tn_progress(walk->options->reporter, "calibrating", i + 1, steps);
    }
    return status;
}

tn_status tn_walk_compare(const tn_walk *walk, int64_t first, int64_t last, double *kl,
                          double *agreement, tn_error *error)
{
    const char *logits = tn_plan_logits(walk->plan);
    tn_extent shape;
    tn_status status = tn_plan_shape(walk->plan, logits, &shape, error);
    if (status != TN_OK)
        return status;
    int64_t count = tn_extent_count(&shape), classes = count / walk->images;
    float *f = tn_alloc_array((size_t)count, sizeof *f),
          *q = tn_alloc_array((size_t)count, sizeof *q);
    if (!f || !q)
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for logits");
    if (status == TN_OK)
        status = tn_plan_read(walk->float_plan, logits, f, error);
    if (status == TN_OK)
        status = tn_plan_read(walk->plan, logits, q, error);
    if (status == TN_OK)
        tn_divergence_mean(f + first * classes, q + first * classes, last - first, classes, kl,
                           agreement);
    tn_free(f);
    tn_free(q);
    return status;
}
