#include "converter/equalize.h"

#include "core/memory.h"
#include "onnx_io/substitute.h"

#include <math.h>
#include <string.h>

enum { SWEEPS = 10 }; /* a layer is consumer of one link and source of the next */

/* A constant being changed. */
typedef struct numbers {
    const tn_value *value;
    float *at;
    int64_t count;
    bool changed;
} numbers;

typedef struct work {
    const tn_layers *layers;
    tn_equalize_when when;
    numbers *list;
    size_t count;
} work;

/* What feeds a consumer: a BN (gamma, beta) or a convolution (weight, bias). */
typedef struct source {
    const tn_node *node;
    bool is_bn, clipped;
} source;

tn_status tn_equalize_parse(const char *text, tn_equalize_when *when, tn_error *error)
{
    static const char *const names[] = {"never", "auto", "always"};
    for (int i = 0; i < 3; i++)
        if (!strcmp(text ? text : "never", names[i])) {
            *when = (tn_equalize_when)i;
            return TN_OK;
        }
    return tn_fail(error, TN_ERROR_USAGE, "equalize is %s; expected never, auto or always",
                   tn_quote(text));
}

static bool is_type(const tn_node *node, const char *type)
{
    return node && !node->folded && !strcmp(node->type, type);
}

/* In fp32: what is scaled is written back as such. */
static bool is_own(const tn_value *value)
{
    return tn_value_is_own(value) && value->constant->dtype == TN_FLOAT;
}

static bool is_own_conv(const tn_node *node)
{
    if (!is_type(node, "Conv") || !is_own(node->inputs[1]) || node->inputs[1]->rank < 3)
        return false;
    return node->n_inputs < 3 || !node->inputs[2] || is_own(node->inputs[2]);
}

/* In its inference form, with parameters of its own. */
static bool is_own_bn(const tn_node *node)
{
    int64_t training = 0;
    if (!is_type(node, "BatchNormalization") || node->n_inputs < 5 || node->n_outputs > 1 ||
        tn_node_has_attribute(node, "spatial") ||
        tn_node_int(node, "training_mode", 0, &training, NULL) != TN_OK || training != 0)
        return false;
    for (size_t i = 1; i < 5; i++)
        if (!is_own(node->inputs[i]))
            return false;
    return true;
}

static bool is_homogeneous(const tn_node *node)
{
    return is_type(node, "Relu") || is_type(node, "LeakyRelu") || is_type(node, "PRelu");
}

/* The only thing that reads it. */
static bool is_private(const tn_value *value)
{
    return value && value->n_users == 1 && !value->is_output;
}

static const tn_layer *layer_of(const work *job, const tn_node *node)
{
    for (size_t i = 0; node && i < job->layers->count; i++)
        if (job->layers->layer[i].node == node && job->layers->layer[i].quantized)
            return &job->layers->layer[i];
    return NULL;
}

static source find_source(const tn_node *consumer)
{
    source found = {NULL, false, false};
    const tn_value *value = consumer->inputs[0];
    while (is_private(value) && is_homogeneous(value->producer))
        value = value->producer->inputs[0];
    if (!is_private(value) || !value->producer)
        return found;
    found.clipped = is_type(value->producer, "Clip");
    found.is_bn = is_own_bn(value->producer);
    if (found.is_bn || is_own_conv(value->producer))
        found.node = value->producer;
    return found;
}

static tn_status take(work *job, const tn_value *value, numbers **taken, tn_error *error)
{
    for (size_t i = 0; i < job->count; i++)
        if (job->list[i].value == value) {
            *taken = &job->list[i];
            return TN_OK;
        }
    numbers *made = &job->list[job->count];
    *made = (numbers){.value = value, .count = tn_tensor_count(value->constant)};
    made->at = tn_alloc_array((size_t)made->count, sizeof *made->at);
    if (!made->at)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory equalizing %s", tn_quote(value->name));
    job->count++;
    *taken = made;
    return tn_tensor_read_float(value->constant, 0, made->count, made->at, error);
}

/* values [channels, count / channels] times factor (or divided by it) per channel */
static tn_status scale(work *job, const tn_value *value, const float *factor, int64_t channels,
                       bool divide, tn_error *error)
{
    numbers *n = NULL;
    tn_status status = take(job, value, &n, error);
    if (status != TN_OK)
        return status;
    if (n->count % channels != 0)
        return tn_fail(error, TN_ERROR_MODEL,
                       "constant %s has %lld values; expected a multiple of "
                       "%lld channels",
                       tn_quote(value->name), (long long)n->count, (long long)channels);
    int64_t run = n->count / channels;
    for (int64_t i = 0; i < n->count; i++)
        n->at[i] = divide ? n->at[i] / factor[i / run] : n->at[i] * factor[i / run];
    n->changed = true;
    return TN_OK;
}

static void row_ranges(const numbers *w, int64_t channels, float *range)
{
    int64_t run = w->count / channels;
    for (int64_t c = 0; c < channels; c++) {
        range[c] = 0;
        for (int64_t i = c * run; i < (c + 1) * run; i++)
            range[c] = fmaxf(range[c], fabsf(w->at[i]));
    }
}

/* Weight [outputs, inputs / groups, kernel]: which input channel an element meets. */
typedef struct columns {
    int64_t outputs, per_group, groups, kernel;
} columns;

static int64_t column_of(const columns *shape, int64_t element)
{
    int64_t row = element / (shape->per_group * shape->kernel);
    int64_t group = row / (shape->outputs / shape->groups);
    return group * shape->per_group + element / shape->kernel % shape->per_group;
}

static tn_status conv_columns(const tn_node *conv, columns *shape, tn_error *error)
{
    const tn_tensor *w = conv->inputs[1]->constant;
    tn_status status = tn_node_int(conv, "group", 1, &shape->groups, error);
    shape->outputs = w->dims[0];
    shape->per_group = w->dims[1];
    int64_t row = shape->outputs * shape->per_group;
    if (status == TN_OK && (row <= 0 || shape->groups <= 0 || shape->outputs % shape->groups != 0))
        status = tn_fail(error, TN_ERROR_MODEL, "node %s: %lld groups do not divide its channels",
                         tn_quote(tn_node_label(conv)), (long long)shape->groups);
    if (status == TN_OK)
        shape->kernel = tn_tensor_count(w) / row;
    return status;
}

/* 1 for channels that are dead on either side; bounded, so that none of the numbers overflow. */
static float bounded(double factor)
{
    return isfinite(factor) && factor > 0 ? (float)fmin(fmax(factor, 1e-4), 1e4) : 1.0f;
}

/* The geometric mean of what is not 0. */
static double middle(const float *range, int64_t count)
{
    double sum = 0;
    int64_t alive = 0;
    for (int64_t c = 0; c < count; c++)
        if (range[c] > 0 && isfinite(range[c])) {
            sum += log((double)range[c]);
            alive++;
        }
    return alive ? exp(sum / (double)alive) : 1;
}

/* W times t, bias times t, mean times t, gamma by t: the BN's output stays. */
static tn_status equalize_rows(work *job, const tn_node *conv, const tn_node *bn, tn_error *error)
{
    int64_t channels = conv->inputs[1]->constant->dims[0];
    float *t = tn_alloc_array((size_t)channels, sizeof *t);
    numbers *w = NULL;
    tn_status status = t ? take(job, conv->inputs[1], &w, error)
                         : tn_fail(error, TN_ERROR_LIMIT, "out of memory equalizing rows");
    if (status == TN_OK) {
        row_ranges(w, channels, t);
        double target = middle(t, channels);
        for (int64_t c = 0; c < channels; c++)
            t[c] = bounded(target / (double)t[c]);
        status = scale(job, conv->inputs[1], t, channels, false, error);
    }
    if (status == TN_OK && conv->n_inputs > 2 && conv->inputs[2])
        status = scale(job, conv->inputs[2], t, channels, false, error);
    if (status == TN_OK)
        status = scale(job, bn->inputs[3], t, channels, false, error);
    if (status == TN_OK)
        status = scale(job, bn->inputs[1], t, channels, true, error);
    tn_free(t);
    return status;
}

/* s [channels] of one link from the ranges of its two sides. */
static tn_status link_factors(work *job, const source *from, const tn_node *consumer,
                              const columns *shape, float *s, tn_error *error)
{
    int64_t channels = shape->per_group * shape->groups;
    const tn_layer *layer = layer_of(job, from->node);
    bool balance = layer && !from->is_bn && layer->scheme.granularity == TN_PER_TENSOR;
    float *range = tn_alloc_array((size_t)channels, sizeof *range);
    numbers *first = NULL, *second = NULL;
    tn_status status = range ? take(job, consumer->inputs[1], &second, error)
                             : tn_fail(error, TN_ERROR_LIMIT, "out of memory equalizing a link");
    if (status == TN_OK)
        status = take(job, from->node->inputs[1], &first, error);
    if (status == TN_OK &&
        (first->count % channels != 0 || first->value->constant->dims[0] != channels))
        status = tn_fail(error, TN_ERROR_MODEL, "node %s reads %lld channels, %s writes others",
                         tn_quote(tn_node_label(consumer)), (long long)channels,
                         tn_quote(tn_node_label(from->node)));
    if (status == TN_OK) {
        memset(s, 0, (size_t)channels * sizeof *s);
        for (int64_t i = 0; i < second->count; i++) {
            float *most = &s[column_of(shape, i)];
            *most = fmaxf(*most, fabsf(second->at[i]));
        }
        row_ranges(first, channels, range);
        double target = middle(s, channels);
        for (int64_t c = 0; c < channels; c++)
            s[c] = range[c] > 0 ? bounded(balance ? sqrt((double)s[c] / (double)range[c])
                                                  : (double)s[c] / target)
                                : 1.0f;
    }
    tn_free(range);
    return status;
}

static tn_status equalize_link(work *job, const source *from, const tn_node *consumer,
                               tn_error *error)
{
    columns shape;
    numbers *w = NULL;
    tn_status status = conv_columns(consumer, &shape, error);
    if (status != TN_OK)
        return status;
    int64_t channels = shape.per_group * shape.groups;
    float *s = tn_alloc_array((size_t)channels, sizeof *s);
    status = s ? link_factors(job, from, consumer, &shape, s, error)
               : tn_fail(error, TN_ERROR_LIMIT, "out of memory equalizing a link");
    size_t shift = from->is_bn ? 2 : from->node->n_inputs > 2 && from->node->inputs[2] ? 2 : 0;
    if (status == TN_OK)
        status = scale(job, from->node->inputs[1], s, channels, false, error);
    if (status == TN_OK && shift)
        status = scale(job, from->node->inputs[shift], s, channels, false, error);
    if (status == TN_OK)
        status = take(job, consumer->inputs[1], &w, error);
    if (status == TN_OK) {
        for (int64_t i = 0; i < w->count; i++)
            w->at[i] /= s[column_of(&shape, i)];
        w->changed = true;
    }
    tn_free(s);
    return status;
}

static bool is_depthwise(const tn_layer *layer)
{
    return layer->groups > 1 && layer->groups == layer->rows;
}

static bool per_tensor(const tn_layer *layer)
{
    return layer->scheme.granularity == TN_PER_TENSOR;
}

static bool wants_rows(const tn_layer *layer, const tn_node *bn)
{
    return layer && per_tensor(layer) && is_own_conv(layer->node) && is_own_bn(bn);
}

/* A depthwise row meets one input channel: with a scale per channel nothing is to be won. */
static bool wants_link(const work *job, const tn_layer *layer)
{
    return layer && is_own_conv(layer->node) &&
           (per_tensor(layer) || (job->when == TN_EQUALIZE_ALWAYS && !is_depthwise(layer)));
}

static tn_status sweep(work *job, const tn_graph *graph, tn_equalized *equalized, tn_error *error)
{
    tn_status status = TN_OK;
    *equalized = (tn_equalized){0};
    for (size_t i = 0; status == TN_OK && i < graph->n_nodes; i++) {
        const tn_layer *layer = layer_of(job, graph->nodes[i]);
        if (!wants_link(job, layer))
            continue;
        source from = find_source(layer->node);
        equalized->clipped += from.clipped;
        if (!from.node)
            continue;
        status = equalize_link(job, &from, layer->node, error);
        equalized->links++;
    }
    for (size_t i = 0; status == TN_OK && i < graph->n_nodes; i++) {
        const tn_layer *layer = layer_of(job, graph->nodes[i]);
        const tn_value *output = layer ? layer->node->outputs[0] : NULL;
        const tn_node *bn = is_private(output) ? output->users[0] : NULL;
        if (!bn || bn->inputs[0] != output || !wants_rows(layer, bn))
            continue;
        status = equalize_rows(job, layer->node, bn, error);
        equalized->rows++;
    }
    return status;
}

/* Bodies of If, Loop and Scan may read any value by its name. */
static bool has_subgraph(const tn_graph *graph)
{
    for (size_t i = 0; i < graph->n_nodes; i++)
        for (size_t a = 0; a < graph->nodes[i]->proto->n_attribute; a++)
            if (graph->nodes[i]->proto->attribute[a]->g ||
                graph->nodes[i]->proto->attribute[a]->n_graphs)
                return true;
    return false;
}

tn_status tn_equalize(tn_model *model, const tn_graph *graph, const tn_layers *layers,
                      tn_equalize_when when, tn_equalized *equalized, tn_error *error)
{
    work job = {.layers = layers, .when = when};
    *equalized = (tn_equalized){0};
    if (when == TN_EQUALIZE_NEVER || has_subgraph(graph))
        return TN_OK;
    job.list = tn_alloc_array(graph->n_values + 1, sizeof *job.list);
    tn_status status = job.list ? TN_OK : tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    for (int i = 0; status == TN_OK && i < SWEEPS; i++)
        status = sweep(&job, graph, equalized, error);
    for (size_t i = 0; status == TN_OK && i < job.count; i++) {
        const tn_value *value = job.list[i].value;
        if (job.list[i].changed)
            status = tn_substitute_values(model, value->name, TN_FLOAT, value->constant->rank,
                                          value->constant->dims, job.list[i].at, error);
    }
    for (size_t i = 0; i < job.count; i++)
        tn_free(job.list[i].at);
    tn_free(job.list);
    return status;
}
