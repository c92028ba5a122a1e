#include "finetune/restore_bn.h"

#include "core/memory.h"
#include "finetune/host_copy.h"
#include "finetune/trained.h"
#include "network/plan.h"
#include "onnx_io/edit.h"
#include "onnx_io/substitute.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

static const char suffix[] = "/restored_bn"; /* of the inserted nodes' names */
static const double epsilon = 1e-5;

typedef struct measured {
    const tn_node *node; /* the convolution, of the graph */
    int64_t channels;
    double *sum, *square; /* per channel */
    double count;
} measured;

/* What BatchNorm folds into must be the convolution's own. */
static bool is_shared(const tn_value *value)
{
    return value && value->n_users > 1;
}

static bool needs_bn(const tn_node *node)
{
    if (strcmp(node->type, "Conv") || !node->outputs[0] || node->outputs[0]->rank < 3 ||
        is_shared(node->inputs[1]) || (node->n_inputs > 2 && is_shared(node->inputs[2])))
        return false;
    const tn_value *output = node->outputs[0];
    return !(output->n_users == 1 && !strcmp(output->users[0]->type, "BatchNormalization"));
}

static tn_status list_convs(const tn_graph *graph, measured **list, size_t *count, tn_error *error)
{
    measured *found = tn_alloc_zero(graph->n_nodes + 1, sizeof *found);
    size_t n = 0;
    if (!found)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for BN statistics");
    *list = found;
    for (size_t i = 0; i < graph->n_nodes; i++) {
        const tn_node *node = graph->nodes[i];
        if (node->folded || !needs_bn(node))
            continue;
        if (node->outputs[0]->dtype != TN_FLOAT)
            return tn_fail(error, TN_ERROR_USAGE,
                           "node %s computes %s: BatchNorm can be restored in FLOAT networks alone",
                           tn_quote(tn_node_label(node)), tn_dtype_name(node->outputs[0]->dtype));
        measured *m = &found[n++];
        m->node = node;
        m->channels = node->outputs[0]->dims[1];
        m->sum = tn_alloc_zero((size_t)m->channels, sizeof(double));
        m->square = tn_alloc_zero((size_t)m->channels, sizeof(double));
        if (!m->sum || !m->square)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for BN statistics");
    }
    *count = n;
    return TN_OK;
}

static void add_values(measured *m, const float *data, bool channels_last, int64_t samples,
                       int64_t pixels)
{
#pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < m->channels; c++) {
        double sum = 0, square = 0;
        for (int64_t i = 0; i < samples * pixels; i++) {
            int64_t n = i / pixels, p = i % pixels;
            int64_t at = channels_last ? i * m->channels + c : (n * m->channels + c) * pixels + p;
            double x = (double)data[at];
            sum += x;
            square += x * x;
        }
        m->sum[c] += sum;
        m->square[c] += square;
    }
    m->count += (double)(samples * pixels);
}

static tn_status add_batch(tn_plan *plan, tn_device *device, tn_host_copy *copy,
                           const tn_batch *batch, measured *list, size_t count, tn_error *error)
{
    tn_status status = tn_plan_write_images(plan, 0, batch->values, (int64_t)batch->count, error);
    if (status == TN_OK)
        status = tn_plan_forward(plan, TN_RUN_INFERENCE, 0, SIZE_MAX, error);
    for (size_t i = 0; status == TN_OK && i < count; i++) {
        const float *data = NULL;
        bool channels_last;
        const tn_value *output = list[i].node->outputs[0];
        int64_t pixels = 1;
        for (int d = 2; d < output->rank; d++)
            pixels *= output->dims[d];
        status = tn_plan_raw(plan, output->name, &data, &channels_last, error);
        if (status == TN_OK)
            status = tn_host_copy_get(copy, device, data,
                                      (size_t)(tn_plan_batch(plan) * list[i].channels * pixels),
                                      &data, error);
        if (status == TN_OK)
            add_values(&list[i], data, channels_last, (int64_t)batch->count, pixels);
    }
    return status;
}

static tn_status measure(const tn_graph *graph, tn_device *device, const tn_train_data *data,
                         size_t images, measured *list, size_t count, tn_error *error)
{
    tn_plan *plan = NULL;
    tn_loader *loader = NULL;
    tn_host_copy copy = {0};
    size_t n = tn_dataset_count(data->train);
    images = images < n ? images : n;
    const char **taps = tn_alloc_array(count + 1, sizeof *taps);
    uint32_t *subset = tn_alloc_array(images + 1, sizeof *subset);
    tn_status status = taps && subset ? TN_OK : tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    for (size_t i = 0; taps && i < count; i++)
        taps[i] = list[i].node->outputs[0]->name;
    const tn_plan_options options = {
        .separate_bn = true, .precision = TN_PRECISION_FP32, .taps = taps, .n_taps = count};
    if (status == TN_OK)
        status = tn_dataset_draw(data->train, 0, images, subset, error);
    if (status == TN_OK)
        status = tn_plan_create(graph, device, &options, &plan, error);
    const tn_loader_options loading = {.preprocess = data->preprocess,
                                       .output = TN_LOADER_VALUES_NHWC,
                                       .batch = plan ? (size_t)tn_plan_batch(plan) : 1,
                                       .replace_bad = true,
                                       .max_bad = data->max_bad,
                                       .subset = subset,
                                       .n_subset = images};
    if (status == TN_OK)
        status = tn_loader_create(data->train, &loading, &loader, error);
    if (status == TN_OK)
        status = tn_loader_start(loader, 0, 0, error);
    for (const tn_batch *batch = NULL; status == TN_OK;) {
        status = tn_loader_next(loader, &batch, error);
        if (status != TN_OK || !batch)
            break;
        status = add_batch(plan, device, &copy, batch, list, count, error);
    }
    tn_host_copy_done(&copy);
    tn_loader_destroy(loader);
    tn_plan_destroy(plan);
    tn_free(subset);
    tn_free(taps);
    return status;
}

static size_t position_of(const tn_model *model, const Onnx__NodeProto *node)
{
    size_t i = 0;
    while (i < model->proto->graph->n_node && model->proto->graph->node[i] != node)
        i++;
    return i;
}

/* The convolution writes to a fresh name; the BN takes that and writes what the convolution wrote.
 */
static tn_status insert_bn(tn_model *model, const measured *m, tn_error *error)
{
    static const char *const vector_names[4] = {"gamma", "beta", "mean", "variance"};
    const char *output = m->node->outputs[0]->name, *names[4], *label = tn_node_label(m->node);
    char text[256];
    snprintf(text, sizeof text, "%.200s/before_bn", output);
    const char *inner = tn_edit_unique_name(model, text);
    snprintf(text, sizeof text, "%.200s%s", label, suffix);
    const char *node_name = tn_edit_unique_name(model, text);
    float *vector = tn_alloc_array((size_t)m->channels, sizeof *vector);
    bool ok = inner && node_name && vector;
    for (int v = 0; ok && v < 4; v++) {
        for (int64_t c = 0; c < m->channels; c++) {
            double mean = m->sum[c] / m->count, var = m->square[c] / m->count - mean * mean;
            /* a dead channel keeps a deviation of 1, so that the fold stays finite */
            float variance = var > 1e-12 ? (float)var : (float)(1 - epsilon);
            vector[c] = v == 0   ? (float)sqrt((double)variance + epsilon)
                        : v == 3 ? variance
                                 : (float)mean;
        }
        snprintf(text, sizeof text, "%.180s%s/%s", label, suffix, vector_names[v]);
        names[v] = tn_edit_unique_name(model, text);
        ok = names[v] && tn_edit_add_initializer(model, names[v], TN_FLOAT, 1, &m->channels, vector,
                                                 (size_t)m->channels * sizeof *vector, true);
    }
    tn_free(vector);
    Onnx__NodeProto *bn = NULL;
    if (ok) {
        const char *const inputs[] = {inner, names[0], names[1], names[2], names[3], NULL};
        const char *const outputs[] = {output, NULL};
        bn = tn_edit_add_node(model, position_of(model, m->node->proto) + 1, "BatchNormalization",
                              node_name, inputs, outputs);
    }
    if (!bn)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory restoring BatchNorm");
    union {
        const char *from;
        char *to;
    } name = {.from = inner}; /* the arena's; nobody writes to it */
    m->node->proto->output[0] = name.to;
    return tn_edit_set_float(model, bn, "epsilon", (float)epsilon, error);
}

tn_status tn_restore_bn(tn_model *model, const tn_train_data *data, size_t images,
                        tn_device *device, size_t *count, tn_error *error)
{
    tn_graph *graph = NULL;
    measured *list = NULL;
    size_t n = 0;
    const tn_graph_options batch = {.batch = 64};
    tn_status status = tn_graph_create(model, &batch, &graph, error);
    if (status == TN_OK)
        status = list_convs(graph, &list, &n, error);
    if (status == TN_OK && n > 0)
        status = measure(graph, device, data, images, list, n, error);
    for (size_t i = 0; status == TN_OK && i < n; i++)
        status = insert_bn(model, &list[i], error);
    if (status == TN_OK && count)
        *count = n;
    for (size_t i = 0; list && list[i].node; i++) {
        tn_free(list[i].sum);
        tn_free(list[i].square);
    }
    tn_free(list);
    tn_graph_destroy(graph);
    return status;
}

/* --- folding again ------------------------------------------------------------------------- */

typedef struct fold {
    const tn_node *bn, *conv;
    int64_t channels;
    float *factor, *shift; /* y = factor * conv without bias + shift */
} fold;

static bool was_restored(const tn_node *node)
{
    return !strcmp(node->type, "BatchNormalization") && strstr(node->name, suffix) &&
           node->inputs[0]->producer && !strcmp(node->inputs[0]->producer->type, "Conv");
}

static tn_status make_fold(const tn_node *bn, fold *made, tn_error *error)
{
    fold f = {.bn = bn, .conv = bn->inputs[0]->producer};
    float eps;
    tn_status status = tn_node_float(bn, "epsilon", 1e-5f, &eps, error);
    f.channels = tn_tensor_count(bn->inputs[1]->constant);
    size_t n = (size_t)f.channels;
    float *numbers = tn_alloc_zero(5 * n, sizeof *numbers); /* gamma beta mean variance bias */
    f.factor = tn_alloc_array(2 * n, sizeof(float));
    f.shift = f.factor ? f.factor + n : NULL;
    if (status == TN_OK && (!numbers || !f.factor))
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory folding BatchNorm");
    for (size_t v = 0; status == TN_OK && v < 4; v++)
        status = tn_tensor_read_float(bn->inputs[v + 1]->constant, 0, f.channels, numbers + v * n,
                                      error);
    const tn_value *bias = f.conv->n_inputs > 2 ? f.conv->inputs[2] : NULL;
    if (status == TN_OK && bias)
        status = tn_tensor_read_float(bias->constant, 0, f.channels, numbers + 4 * n, error);
    for (size_t c = 0; status == TN_OK && c < n; c++) {
        double g = (double)numbers[c] / sqrt((double)numbers[3 * n + c] + (double)eps);
        f.factor[c] = (float)g;
        f.shift[c] = (float)(((double)numbers[4 * n + c] - (double)numbers[2 * n + c]) * g +
                             (double)numbers[n + c]);
    }
    tn_free(numbers);
    if (status == TN_OK)
        *made = f;
    else
        tn_free(f.factor);
    return status;
}

static void flip_row(tn_qweight *weight, int64_t row)
{
    int16_t *codes = weight->codes + row * weight->cols;
    for (int64_t i = 0; i < weight->cols; i++) {
        int code = -codes[i]; /* -2^(b-1) has no mirror: the nearest code stands for it */
        codes[i] = (int16_t)(code > weight->high ? weight->high : code);
    }
    for (int64_t s = row * weight->groups_per_row; s < (row + 1) * weight->groups_per_row; s++) {
        if (weight->zero)
            weight->zero[s] = -weight->zero[s];
        if (weight->scale_neg) {
            float positive = weight->scale[s];
            weight->scale[s] = weight->scale_neg[s];
            weight->scale_neg[s] = positive;
        }
    }
}

static tn_status fold_codes(const fold *f, tn_qweight *weight, tn_error *error)
{
    if (weight->granularity == TN_PER_TENSOR)
        return tn_fail(error, TN_ERROR_USAGE,
                       "node %s: restored BatchNorm folds into scales per channel or group, not "
                       "into one per tensor: use --granularity channel",
                       tn_quote(tn_node_label(f->conv)));
    for (int64_t row = 0; row < weight->rows; row++) {
        float factor = fabsf(f->factor[row]);
        if (factor < 1e-30f) {
            memset(weight->codes + row * weight->cols, 0,
                   (size_t)weight->cols * sizeof *weight->codes);
            for (int64_t g = 0; weight->zero && g < weight->groups_per_row; g++)
                weight->zero[row * weight->groups_per_row + g] = 0;
            continue;
        }
        if (f->factor[row] < 0)
            flip_row(weight, row);
        for (int64_t g = 0; g < weight->groups_per_row; g++) {
            int64_t s = row * weight->groups_per_row + g;
            weight->scale[s] *= factor;
            if (weight->scale_neg)
                weight->scale_neg[s] *= factor;
        }
    }
    return TN_OK;
}

static tn_status fold_floats(const fold *f, tn_model *model, tn_error *error)
{
    const tn_value *value = f->conv->inputs[1];
    int64_t count = tn_tensor_count(value->constant), cols = count / f->channels;
    float *w = tn_alloc_array((size_t)count, sizeof *w);
    if (!w)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory folding BatchNorm");
    tn_status status = tn_tensor_read_float(value->constant, 0, count, w, error);
    for (int64_t i = 0; i < count; i++)
        w[i] *= f->factor[i / cols];
    if (status == TN_OK)
        status = tn_substitute_values(model, value->name, value->constant->dtype,
                                      value->constant->rank, value->constant->dims, w, error);
    tn_free(w);
    return status;
}

static tn_status fold_bias(const fold *f, tn_model *model, tn_error *error)
{
    const tn_value *bias = f->conv->n_inputs > 2 ? f->conv->inputs[2] : NULL;
    if (bias)
        return tn_substitute_values(model, bias->name, bias->constant->dtype, 1, &f->channels,
                                    f->shift, error);
    char text[256];
    snprintf(text, sizeof text, "%.200s.bias", f->conv->inputs[1]->name);
    const char *name = tn_edit_unique_name(model, text);
    if (!name || !tn_edit_add_initializer(model, name, TN_FLOAT, 1, &f->channels, f->shift,
                                          (size_t)f->channels * sizeof(float), true))
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory folding BatchNorm");
    return tn_edit_set_input(model, f->conv->proto, 2, name, error);
}

static tn_status fold_one(const tn_node *bn, tn_trained *trained, tn_error *error)
{
    fold f = {0};
    tn_status status = make_fold(bn, &f, error);
    if (status != TN_OK)
        return status;
    tn_qweight *weight = NULL;
    for (size_t i = 0; i < trained->conversion.count; i++)
        if (trained->conversion.item[i].layer->node == f.conv &&
            trained->conversion.item[i].weight.codes)
            weight = &trained->conversion.item[i].weight;
    status = weight ? fold_codes(&f, weight, error) : fold_floats(&f, trained->model, error);
    if (status == TN_OK)
        status = fold_bias(&f, trained->model, error);
    if (status == TN_OK) {
        f.conv->proto->output[0] = bn->proto->output[0];
        tn_edit_remove_node(trained->model, bn->proto);
        for (size_t v = 1; v < 5; v++)
            tn_edit_remove_initializer(trained->model, bn->inputs[v]->name);
    }
    tn_free(f.factor);
    return status;
}

tn_status tn_restored_bn_fold(tn_trained *trained, const tn_train_data *data,
                              const tn_train_options *options, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < trained->graph->n_nodes; i++)
        if (was_restored(trained->graph->nodes[i]))
            status = fold_one(trained->graph->nodes[i], trained, error);
    if (status == TN_OK)
        status = tn_trained_rebuild(trained, options, error);
    if (status == TN_OK)
        status = tn_trained_reprove(trained, data, options, error);
    return status;
}
