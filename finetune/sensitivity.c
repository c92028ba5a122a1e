#include "finetune/sensitivity.h"

#include "core/memory.h"
#include "finetune/divergence.h"
#include "finetune/weight_placement.h"
#include "network/plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *const tn_budget_bits[TN_BUDGET_WIDTHS] = {"1.58", "2", "3", "4", "8"};

const char *tn_budget_scheme(int width)
{
    return width == 0 ? "twn" : "fixed";
}

static const double STORED_BITS[TN_BUDGET_WIDTHS] = {2, 2, 3, 4, 8};

enum { IMAGES = 256, POSITIONS = 16384 };

/* A float parameter that calibration changes, and the layer whose width decides its value. */
typedef struct owned_param {
    const char *name;
    size_t at; /* in the store */
    size_t owner;
} owned_param;

typedef struct measuring {
    tn_device *device;
    tn_sensitivity *table;
    const tn_probe *probe;
    tn_probe_network network;
    const tn_reporter *reporter;
    int64_t images; /* measured on, of the probe's */
    tn_params *float_params;
    float *logits; /* [batch, classes] */
    float *scratch;
    owned_param *param;
    size_t n_params;
    size_t *step_of_layer;
    tn_plan_buffer *live; /* what is to be put back before a layer's step */
    float **kept;
    size_t n_live;
} measuring;

static void drop_live(measuring *m)
{
    for (size_t i = 0; i < m->n_live; i++)
        tn_free(m->kept[i]);
    m->n_live = 0;
}

static void measuring_done(measuring *m)
{
    drop_live(m);
    tn_params_destroy(m->float_params);
    tn_free(m->logits);
    tn_free(m->scratch);
    tn_free(m->param);
    tn_free(m->step_of_layer);
    tn_free(m->live);
    tn_free(m->kept);
}

static uint64_t layer_bytes(const tn_qweight *weight, int b)
{
    double bits = (double)(weight->rows * weight->cols) * STORED_BITS[b];
    return (uint64_t)ceil(bits / 8) + (uint64_t)weight->n_scales * 4;
}

static const tn_converted *item_of(const tn_sensitivity *table, size_t layer, int b)
{
    return &table->width[b].conversion.item[layer];
}

/* --- one layer in the float network ------------------------------------------------------------
 */

static tn_status place_layer(measuring *m, size_t layer, int b, tn_error *error)
{
    const tn_converted *item = item_of(m->table, layer, b);
    tn_status status = tn_weight_place(m->network.params, item->layer, &item->weight, error);
    for (size_t i = 0; status == TN_OK && i < m->n_params; i++) {
        if (m->param[i].owner != layer)
            continue;
        const tn_value *value = tn_graph_value(m->table->width[b].graph, m->param[i].name);
        const tn_param *param = tn_params_at(m->network.params, m->param[i].at);
        if (!value || !value->constant)
            continue;
        status = tn_tensor_read_float(value->constant, 0, param->count, m->scratch, error);
        if (status == TN_OK)
            status = tn_params_set(m->network.params, m->param[i].at, m->scratch, error);
    }
    return status;
}

static tn_status restore_param(measuring *m, size_t at, tn_error *error)
{
    tn_status status = tn_params_get(m->float_params, at, m->scratch, error);
    return status == TN_OK ? tn_params_set(m->network.params, at, m->scratch, error) : status;
}

static tn_status restore_layer(measuring *m, size_t layer, tn_error *error)
{
    const char *name = item_of(m->table, layer, 0)->layer->weight->name;
    tn_status status = restore_param(m, tn_params_find(m->network.params, name), error);
    for (size_t i = 0; status == TN_OK && i < m->n_params; i++)
        if (m->param[i].owner == layer)
            status = restore_param(m, m->param[i].at, error);
    return status;
}

/* --- one batch ---------------------------------------------------------------------------------
 */

/* Saves what the steps from `step` on read. */
static tn_status keep_live(measuring *m, size_t step, tn_error *error)
{
    drop_live(m);
    size_t n = tn_plan_live(m->network.plan, step, m->live);
    for (; m->n_live < n; m->n_live++) {
        const tn_plan_buffer *buffer = &m->live[m->n_live];
        float *copy = tn_alloc(buffer->bytes);
        if (!copy)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the sensitivity table");
        m->kept[m->n_live] = copy;
        tn_status status =
            m->device->type->download(m->device, copy, buffer->data, buffer->bytes, error);
        if (status != TN_OK) {
            m->n_live++;
            return status;
        }
    }
    return TN_OK;
}

static tn_status put_back(measuring *m, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < m->n_live; i++)
        status = m->device->type->upload(m->device, m->live[i].data, m->kept[i], m->live[i].bytes,
                                         error);
    return status;
}

/* KL summed over the batch with one layer at a width, from that layer's step on. */
static tn_status measure_layer(measuring *m, size_t layer, int b, int64_t count,
                               const float *float_logits, tn_error *error)
{
    const int64_t classes = m->network.classes;
    tn_status status = place_layer(m, layer, b, error);
    if (status == TN_OK)
        status = put_back(m, error);
    if (status == TN_OK)
        status = tn_plan_forward(m->network.plan, TN_RUN_INFERENCE, m->step_of_layer[layer],
                                 SIZE_MAX, error);
    if (status == TN_OK)
        status = tn_plan_read(m->network.plan, m->network.logits, m->logits, error);
    for (int64_t i = 0; status == TN_OK && i < count; i++)
        m->table->row[layer].kl[b] +=
            tn_divergence_row(float_logits + i * classes, m->logits + i * classes, classes);
    return status;
}

/* The float network goes on from layer to layer; from each, five times to the end. */
static tn_status measure_batch(measuring *m, int64_t at, tn_error *error)
{
    int64_t count;
    const float *float_logits;
    size_t done = 0;
    tn_status status = tn_probe_batch(m->probe, at, &count, &float_logits, error);
    for (size_t layer = 0; status == TN_OK && layer < m->table->count; layer++) {
        const size_t step = m->step_of_layer[layer];
        if (tn_cancelled(m->reporter))
            return tn_fail(error, TN_ERROR_CANCELLED, "the choice of widths was stopped");
        if (step < done) { /* layers are in the order of nodes, not of steps */
            status = tn_probe_batch(m->probe, at, &count, &float_logits, error);
            done = 0;
        } else {
            status = put_back(m, error);
        }
        if (status == TN_OK)
            status = tn_plan_forward(m->network.plan, TN_RUN_INFERENCE, done, step, error);
        if (status == TN_OK)
            status = keep_live(m, step, error);
        done = step;
        for (int b = 0; status == TN_OK && b < TN_BUDGET_WIDTHS; b++)
            status = measure_layer(m, layer, b, count, float_logits, error);
        if (status == TN_OK)
            status = restore_layer(m, layer, error);
        tn_progress(m->reporter, "measuring sensitivity",
                    (size_t)(at / m->network.batch) * m->table->count + layer + 1,
                    (size_t)((m->images + m->network.batch - 1) / m->network.batch) *
                        m->table->count);
    }
    drop_live(m);
    return status;
}

/* --- preparation -------------------------------------------------------------------------------
 */

/* The last quantized layer before a node in graph order; the first when there is none before. */
static size_t owner_of(const measuring *m, const tn_node *node)
{
    size_t owner = 0;
    for (size_t i = 0; i < m->table->count; i++) {
        const char *name = item_of(m->table, i, 0)->layer->weight->name;
        const tn_value *weight = tn_graph_value(m->network.graph, name);
        if (weight && weight->n_users > 0 && node && weight->users[0]->index <= node->index)
            owner = i;
    }
    return owner;
}

static tn_status find_params(measuring *m, tn_error *error)
{
    size_t count = tn_params_count(m->network.params);
    m->param = tn_alloc_zero(count + 1, sizeof *m->param);
    if (!m->param)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu parameters", count);
    for (size_t i = 0; i < count; i++) {
        const tn_param *param = tn_params_at(m->network.params, i);
        bool weight = false;
        for (size_t k = 0; k < m->table->count; k++)
            weight = weight || !strcmp(item_of(m->table, k, 0)->layer->weight->name, param->name);
        if (!weight && param->role != TN_PARAM_WEIGHT && param->role != TN_PARAM_OTHER)
            m->param[m->n_params++] = (owned_param){param->name, i, owner_of(m, param->node)};
    }
    return TN_OK;
}

static tn_status fit_widths(tn_sensitivity *table, const tn_model *model, const tn_dataset *dataset,
                            const tn_calibrate_options *given, bool hold_out, tn_error *error)
{
    tn_status status = TN_OK;
    for (int b = 0; status == TN_OK && b < TN_BUDGET_WIDTHS; b++) {
        tn_calibrate_options options = *given;
        options.policy.bits = tn_budget_bits[b];
        options.policy.scheme = tn_budget_scheme(b);
        options.hold_out = hold_out;
        options.independent = true; /* so that layers of all widths fit together */
        options.relu_passes = -1;   /* refinements that do not change the order of layers */
        options.positions = POSITIONS;
        if (options.bn == TN_CALIBRATE_BN_AUTO)
            options.bn = TN_CALIBRATE_BN_AFFINE;
        status = tn_calibrate(model, dataset, &options, &table->width[b], error);
    }
    table->count = status == TN_OK ? table->width[0].conversion.count : 0;
    for (int b = 1; status == TN_OK && b < TN_BUDGET_WIDTHS; b++)
        if (table->width[b].conversion.count != table->count)
            status = tn_fail(error, TN_ERROR_USAGE,
                             "the policy selects other layers at %s bits than at %s: give no rules "
                             "with bits of their own beside a budget",
                             tn_budget_bits[b], tn_budget_bits[0]);
    return status;
}

static tn_status step_of(const measuring *m, const tn_node *node, size_t *found, tn_error *error)
{
    tn_status status = TN_OK;
    *found = SIZE_MAX;
    for (size_t k = 0; *found == SIZE_MAX && k < tn_plan_step_count(m->network.plan); k++) {
        tn_plan_step step;
        status = tn_plan_step_at(m->network.plan, k, &step, error);
        if (status != TN_OK)
            return status;
        if (step.node == node)
            *found = k;
    }
    return status;
}

/* The first step that computes with the layer's weight; 0 where a user is no step of its own. */
static tn_status find_steps(measuring *m, tn_error *error)
{
    m->step_of_layer = tn_alloc_zero(m->table->count + 1, sizeof *m->step_of_layer);
    if (!m->step_of_layer)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the sensitivity table");
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < m->table->count; i++) {
        const char *name = item_of(m->table, i, 0)->layer->weight->name;
        const tn_value *weight = tn_graph_value(m->network.graph, name);
        size_t first = SIZE_MAX;
        for (size_t u = 0; status == TN_OK && weight && u < weight->n_users; u++) {
            size_t step;
            status = step_of(m, weight->users[u], &step, error);
            step = step == SIZE_MAX ? 0 : step;
            first = step < first ? step : first;
        }
        m->step_of_layer[i] = first == SIZE_MAX ? 0 : first;
    }
    return status;
}

static tn_status make_arrays(measuring *m, tn_device *device, tn_error *error)
{
    size_t most = 1, buffers = tn_plan_buffer_count(m->network.plan) + 1;
    m->device = device;
    for (size_t i = 0; i < tn_params_count(m->network.params); i++)
        if ((size_t)tn_params_at(m->network.params, i)->count > most)
            most = (size_t)tn_params_at(m->network.params, i)->count;
    m->logits = tn_alloc_array((size_t)(m->network.batch * m->network.classes), sizeof *m->logits);
    m->scratch = tn_alloc_array(most, sizeof *m->scratch);
    m->live = tn_alloc_array(buffers, sizeof *m->live);
    m->kept = tn_alloc_array(buffers, sizeof *m->kept);
    m->table->row = tn_alloc_zero(m->table->count + 1, sizeof *m->table->row);
    if (!m->logits || !m->scratch || !m->live || !m->kept || !m->table->row)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the sensitivity table");
    return tn_params_create(m->network.graph, device, &m->float_params, error);
}

static void finish_rows(measuring *m)
{
    for (size_t i = 0; i < m->table->count; i++) {
        tn_budget_row *row = &m->table->row[i];
        const char *name = item_of(m->table, i, 0)->layer->weight->name;
        const tn_node *node = item_of(m->table, i, 0)->layer->node;
        snprintf(row->name, sizeof row->name, "%s", name);
        snprintf(row->label, sizeof row->label, "%s", tn_node_label(node));
        for (int b = 0; b < TN_BUDGET_WIDTHS; b++) {
            row->bytes[b] = layer_bytes(&item_of(m->table, i, b)->weight, b);
            row->kl[b] /= (double)m->images;
        }
    }
}

/* IMAGES, cut to batches; all where there are fewer. */
static int64_t whole_batches(const tn_probe *probe)
{
    const int64_t all = tn_probe_images(probe), batch = tn_probe_network_of(probe).batch;
    const int64_t some = (IMAGES + batch - 1) / batch * batch;
    return some < all ? some : all;
}

tn_status tn_sensitivity_measure(const tn_model *model, const tn_dataset *dataset,
                                 const tn_calibrate_options *options, const tn_probe *probe,
                                 tn_device *device, tn_sensitivity *out, tn_error *error)
{
    tn_sensitivity table = {0};
    measuring m = {.table = &table,
                   .probe = probe,
                   .network = tn_probe_network_of(probe),
                   .reporter = options->reporter,
                   .images = whole_batches(probe)};
    tn_status status =
        fit_widths(&table, model, dataset, options, tn_probe_needs_hold_out(probe), error);
    if (status == TN_OK)
        status = make_arrays(&m, device, error);
    if (status == TN_OK)
        status = find_params(&m, error);
    if (status == TN_OK)
        status = find_steps(&m, error);
    for (int64_t at = 0; status == TN_OK && at < m.images; at += m.network.batch)
        status = measure_batch(&m, at, error);
    if (status == TN_OK)
        finish_rows(&m);
    measuring_done(&m);
    if (status == TN_OK)
        *out = table;
    else
        tn_sensitivity_done(&table);
    return status;
}

void tn_sensitivity_done(tn_sensitivity *sensitivity)
{
    for (int b = 0; b < TN_BUDGET_WIDTHS; b++)
        tn_calibration_done(&sensitivity->width[b]);
    tn_free(sensitivity->row);
    *sensitivity = (tn_sensitivity){0};
}
