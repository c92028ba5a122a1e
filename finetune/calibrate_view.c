#include "finetune/calibrate_view.h"

#include "core/memory.h"
#include "finetune/batchnorm.h"
#include "finetune/calibrate_wide.h"
#include "onnx_io/ops/op.h"

#include <math.h>
#include <string.h>

void tn_layer_work_done(tn_layer_work *work)
{
    tn_free(work->w);
    tn_free(work->bias);
    tn_free(work->gain);
    tn_free(work->offset);
    tn_free(work->fit.slope);
    tn_free(work->fit.shift);
}

static tn_status work_alloc(tn_layer_work *work, int64_t rows, int64_t cols, tn_error *error)
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

static tn_status conv_patches(const tn_node *node, tn_patches *patches, tn_error *error)
{
    tn_window window;
    tn_status status = tn_window_parse(node, &window, error);
    if (status != TN_OK)
        return status;
    *patches = (tn_patches){.spatial = window.spatial,
                            .batch = node->inputs[0]->dims[0],
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

static void linear_patches(const tn_node *node, const tn_layer *layer, tn_patches *patches)
{
    int64_t count = 1;
    for (int i = 0; i < node->inputs[0]->rank; i++)
        count *= node->inputs[0]->dims[i];
    *patches = (tn_patches){.batch = count / layer->cols, .channels = layer->cols, .group = 1};
}

tn_status tn_layer_patches(const tn_node *node, const tn_layer *layer, tn_patches *patches,
                           tn_error *error)
{
    if (!layer->is_linear)
        return conv_patches(node, patches, error);
    linear_patches(node, layer, patches);
    return TN_OK;
}

/* Why a layer whose Gram matrix would be too large cannot be fitted by blocks, or NULL. */
static const char *wide_unfit(const tn_walk *walk, const tn_layer *layer, const tn_qweight *weight)
{
    tn_patches patches;
    if (walk->options->method == TN_CALIBRATE_ROUND ||
        tn_layer_patches(layer->node, layer, &patches, NULL) != TN_OK)
        return "more than 8192 inputs";
    if (patches.group > 1)
        return "more than 8192 inputs, grouped";
    return tn_wide_fits(&patches, weight) ? NULL
                                          : "more than 8192 inputs, in groups that cross blocks";
}

const char *tn_layer_unfit(const tn_walk *walk, const tn_layer *layer, const tn_qweight *weight)
{
    const tn_node *node = layer->node;
    if (!weight->codes)
        return "no codes to fit";
    if (walk->options->method == TN_CALIBRATE_ROUND && walk->bn == TN_CALIBRATE_BN_KEEP)
        return "not asked for";
    if (!strcmp(node->type, "ConvTranspose"))
        return "ConvTranspose";
    if (!strcmp(node->type, "Gemm")) {
        tn_gemm_params gemm;
        if (tn_gemm_parse(node, &gemm, NULL) != TN_OK || gemm.trans_a || gemm.alpha != 1.0f ||
            gemm.beta != 1.0f)
            return "Gemm with transA, alpha or beta";
    }
    tn_chain chain;
    tn_chain_find(node, layer->rows, &chain);
    if (strcmp(node->type, "MatMul") != 0 && node->n_inputs > 2 && node->inputs[2] && !chain.bias)
        return "a bias that is no constant per channel";
    return layer->cols > TN_WIDE_COLS ? wide_unfit(walk, layer, weight) : NULL;
}

/* The network whose values the layers are fitted on. */
static tn_plan *fed_by(const tn_walk *walk)
{
    return walk->options->independent ? walk->float_plan : walk->plan;
}

/* A value that is there before a step and needed later: only then do the networks keep it. */
static bool live_value(const tn_plan *plan, const tn_walk *walk, size_t step, const char *name,
                       tn_plan_buffer *buffer)
{
    if (!tn_plan_value_buffer(plan, name, buffer))
        return false;
    size_t n = tn_plan_live(plan, step, walk->scratch);
    for (size_t i = 0; i < n; i++)
        if (walk->scratch[i].id == buffer->id)
            return true;
    return false;
}

/* The other operand of the residual sum, in both networks, if it is there already and lies as the
 * output does. */
static void find_other(const tn_walk *walk, size_t step, tn_layer_work *work)
{
    const tn_value *other = work->chain.other, *output = work->chain.output;
    if (!other)
        return;
    tn_plan_buffer f, q;
    bool same = other->rank == output->rank;
    for (int i = 0; same && i < other->rank; i++)
        same = other->dims[i] == output->dims[i];
    if (same && live_value(walk->float_plan, walk, step, other->name, &f) &&
        live_value(fed_by(walk), walk, step, other->name, &q) &&
        f.channels_last == work->output.channels_last &&
        q.channels_last == work->output.channels_last) {
        work->other_f = f;
        work->other_q = q;
        work->view.other_f = f.data;
        work->view.other_q = q.data;
    } else {
        work->view.relu = false; /* what the ReLU sees is not known yet */
    }
}

/* gain and offset of what stands between output and sum: a BN of the float network. */
static tn_status find_gain(const tn_walk *walk, int64_t channels, tn_layer_work *work,
                           tn_error *error)
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
                          tn_layer_work *work, tn_error *error)
{
    tn_layer_view *view = &work->view;
    int64_t count = tn_tensor_count(work->chain.bias->constant);
    tn_status status = read_param(walk->float_params, work->chain.bias, count, work->bias, error);
    for (int64_t o = count; o < channels; o++)
        work->bias[o] = work->bias[0];
    work->bias_inside = work->chain.output == node->outputs[0];
    bool counted = work->bias_inside && view->centered; /* in the target */
    for (int64_t o = 0; status == TN_OK && o < channels && !counted; o++)
        work->offset[o] += work->gain[o] * (double)work->bias[o];
    view->bias = work->bias_inside && !view->centered ? work->bias : NULL;
    return status;
}

static tn_status look_at_arrays(const tn_walk *walk, const tn_layer *layer, size_t step,
                                tn_layer_work *work, tn_error *error)
{
    const tn_node *node = layer->node;
    tn_layer_view *view = &work->view;
    if (!tn_plan_step_buffer(fed_by(walk), step, 0, &work->input) ||
        !tn_plan_step_buffer(walk->float_plan, step, -1, &work->output) ||
        (node->inputs[0]->rank > 2 && work->input.channels_last == layer->is_linear))
        return tn_fail(error, TN_ERROR_MODEL, "the input of %s lies in an unexpected order",
                       tn_quote(tn_node_label(node)));
    tn_status status = tn_layer_patches(node, layer, &view->patches, error);
    view->patches.data = work->input.data;
    view->output = work->output.data;
    return status;
}

tn_status tn_layer_look(const tn_walk *walk, const tn_layer *layer, size_t step,
                        tn_layer_work *work, tn_error *error)
{
    tn_layer_view *view = &work->view;
    tn_chain_find(layer->node, layer->rows, &work->chain);
    tn_status status = work_alloc(work, layer->rows, layer->cols, error);
    if (status == TN_OK)
        status = tn_layer_rows(layer, work->w, error);
    if (status == TN_OK)
        status = look_at_arrays(walk, layer, step, work, error);
    if (status != TN_OK)
        return status;
    view->channels = layer->rows;
    view->w = work->w;
    view->gain = work->gain;
    view->offset = work->offset;
    view->relu = work->chain.relu;
    bool later = work->chain.bn_later && !walk->options->independent;
    bool absorbs = work->chain.bn || work->chain.bias_is_own || later;
    view->centered = absorbs && walk->bn != TN_CALIBRATE_BN_KEEP;
    view->no_slope = layer->scheme.granularity == TN_PER_TENSOR && !work->chain.bn;
    find_other(walk, step, work);
    if (work->chain.bn)
        status = find_gain(walk, layer->rows, work, error);
    return status == TN_OK && work->chain.bias
               ? see_bias(walk, layer->node, layer->rows, work, error)
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

tn_status tn_layer_absorb(const tn_walk *walk, tn_layer_work *work, tn_qweight *weight,
                          tn_error *error)
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
    if (!chain->bias_is_own)
        return TN_OK; /* a BN further on takes it */
    size_t at = tn_params_find(walk->params, chain->bias->name);
    for (int64_t o = 0; o < channels; o++)
        work->bias[o] = (float)(fit->shift[o] + (work->bias_inside ? 0 : (double)work->bias[o]));
    return tn_params_set(walk->params, at, work->bias, error);
}
