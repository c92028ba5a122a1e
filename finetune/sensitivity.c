#include "finetune/sensitivity.h"

#include "core/memory.h"
#include "finetune/divergence.h"
#include "network/plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *const tn_budget_bits[TN_BUDGET_WIDTHS] = {"1.58", "2", "3", "4", "8"};

static const double STORED_BITS[TN_BUDGET_WIDTHS] = {2, 2, 3, 4, 8};

enum { MIN_HELD_OUT = 8, POSITIONS = 16384 };

/* A float parameter that calibration changes, and the layer whose width decides its value. */
typedef struct owned_param {
    const char *name;
    size_t at; /* in the store */
    size_t owner;
} owned_param;

typedef struct measuring {
    tn_sensitivity *table;
    const tn_reporter *reporter;
    int64_t held; /* the last of the images */
    tn_graph *graph;
    tn_params *float_params, *params;
    tn_plan *plan;
    const char *logits;
    int64_t classes;
    float *float_logits, *present_logits; /* [held, classes] */
    float *scratch;
    owned_param *param;
    size_t n_params;
} measuring;

static void measuring_done(measuring *m)
{
    tn_plan_destroy(m->plan);
    tn_params_destroy(m->params);
    tn_params_destroy(m->float_params);
    tn_graph_destroy(m->graph);
    tn_free(m->float_logits);
    tn_free(m->present_logits);
    tn_free(m->scratch);
    tn_free(m->param);
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
    tn_qweight_dequantize(&item->weight, m->scratch);
    size_t at = tn_params_find(m->params, item->layer->weight->name);
    tn_status status = at == SIZE_MAX ? tn_fail(error, TN_ERROR_MODEL, "weight %s is missing",
                                                tn_quote(item->layer->weight->name))
                                      : tn_params_set_rows(m->params, at, m->scratch, error);
    for (size_t i = 0; status == TN_OK && i < m->n_params; i++) {
        if (m->param[i].owner != layer)
            continue;
        const tn_value *value = tn_graph_value(m->table->width[b].graph, m->param[i].name);
        const tn_param *param = tn_params_at(m->params, m->param[i].at);
        if (!value || !value->constant)
            continue;
        status = tn_tensor_read_float(value->constant, 0, param->count, m->scratch, error);
        if (status == TN_OK)
            status = tn_params_set(m->params, m->param[i].at, m->scratch, error);
    }
    return status;
}

static tn_status restore_param(measuring *m, size_t at, tn_error *error)
{
    tn_status status = tn_params_get(m->float_params, at, m->scratch, error);
    return status == TN_OK ? tn_params_set(m->params, at, m->scratch, error) : status;
}

static tn_status restore_layer(measuring *m, size_t layer, tn_error *error)
{
    const char *name = item_of(m->table, layer, 0)->layer->weight->name;
    tn_status status = restore_param(m, tn_params_find(m->params, name), error);
    for (size_t i = 0; status == TN_OK && i < m->n_params; i++)
        if (m->param[i].owner == layer)
            status = restore_param(m, m->param[i].at, error);
    return status;
}

static tn_status measure(measuring *m, double *kl, tn_error *error)
{
    double agreement;
    tn_status status = tn_plan_forward(m->plan, TN_RUN_INFERENCE, 0, SIZE_MAX, error);
    if (status == TN_OK)
        status = tn_plan_read(m->plan, m->logits, m->present_logits, error);
    if (status != TN_OK)
        return status;
    tn_divergence_mean(m->float_logits, m->present_logits, m->held, m->classes, kl, &agreement);
    m->table->measurements++;
    if (tn_cancelled(m->reporter))
        return tn_fail(error, TN_ERROR_CANCELLED, "the choice of widths was stopped");
    return TN_OK;
}

/* --- preparation -------------------------------------------------------------------------------
 */

/* The last quantized layer before a node in graph order; the first when there is none before. */
static size_t owner_of(const measuring *m, const tn_node *node)
{
    size_t owner = 0;
    for (size_t i = 0; i < m->table->count; i++) {
        const char *name = item_of(m->table, i, 0)->layer->weight->name;
        const tn_value *weight = tn_graph_value(m->graph, name);
        if (weight && weight->n_users > 0 && node && weight->users[0]->index <= node->index)
            owner = i;
    }
    return owner;
}

static tn_status find_params(measuring *m, tn_error *error)
{
    size_t count = tn_params_count(m->params);
    m->param = tn_alloc_zero(count + 1, sizeof *m->param);
    if (!m->param)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu parameters", count);
    for (size_t i = 0; i < count; i++) {
        const tn_param *param = tn_params_at(m->params, i);
        bool weight = false;
        for (size_t k = 0; k < m->table->count; k++)
            weight = weight || !strcmp(item_of(m->table, k, 0)->layer->weight->name, param->name);
        if (!weight && param->role != TN_PARAM_WEIGHT && param->role != TN_PARAM_OTHER)
            m->param[m->n_params++] = (owned_param){param->name, i, owner_of(m, param->node)};
    }
    return TN_OK;
}

static tn_status fit_widths(tn_sensitivity *table, const tn_model *model, const tn_dataset *dataset,
                            const tn_calibrate_options *given, tn_error *error)
{
    tn_status status = TN_OK;
    for (int b = 0; status == TN_OK && b < TN_BUDGET_WIDTHS; b++) {
        tn_calibrate_options options = *given;
        options.policy.bits = tn_budget_bits[b];
        options.policy.scheme = b == 0 ? "twn" : "fixed";
        options.hold_out = true;
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

static tn_status make_plan(measuring *m, const tn_model *model, const tn_calibrate_images *images,
                           const char *output, tn_device *device, tn_error *error)
{
    tn_graph_options graph = {.batch = m->held,
                              .input_rank = 3,
                              .input_dims = {images->channels, images->height, images->width},
                              .output = output};
    tn_status status = tn_graph_create(model, &graph, &m->graph, error);
    if (status == TN_OK)
        status = tn_params_create(m->graph, device, &m->params, error);
    if (status == TN_OK)
        status = tn_params_create(m->graph, device, &m->float_params, error);
    tn_plan_options plan = {.precision = TN_PRECISION_FP32, .params = m->params};
    if (status == TN_OK)
        status = tn_plan_create(m->graph, device, &plan, &m->plan, error);
    if (status != TN_OK)
        return status;
    int64_t size = images->channels * images->height * images->width;
    m->logits = tn_plan_logits(m->plan);
    tn_extent extent;
    status = tn_plan_shape(m->plan, m->logits, &extent, error);
    if (status == TN_OK)
        status = tn_plan_write_input(m->plan, 0, images->nchw + (images->count - m->held) * size,
                                     m->held, error);
    if (status == TN_OK)
        m->classes = tn_extent_count(&extent) / m->held;
    return status;
}

static tn_status make_arrays(measuring *m, tn_error *error)
{
    size_t logits = (size_t)(m->held * m->classes), most = 1;
    for (size_t i = 0; i < tn_params_count(m->params); i++)
        if ((size_t)tn_params_at(m->params, i)->count > most)
            most = (size_t)tn_params_at(m->params, i)->count;
    m->float_logits = tn_alloc_array(logits, sizeof *m->float_logits);
    m->present_logits = tn_alloc_array(logits, sizeof *m->present_logits);
    m->scratch = tn_alloc_array(most, sizeof *m->scratch);
    m->table->row = tn_alloc_zero(m->table->count + 1, sizeof *m->table->row);
    if (!m->float_logits || !m->present_logits || !m->scratch || !m->table->row)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the sensitivity table");
    tn_status status = tn_plan_forward(m->plan, TN_RUN_INFERENCE, 0, SIZE_MAX, error);
    if (status == TN_OK)
        status = tn_plan_read(m->plan, m->logits, m->float_logits, error);
    return status;
}

static tn_status fill_row(measuring *m, size_t layer, tn_error *error)
{
    tn_budget_row *row = &m->table->row[layer];
    tn_status status = TN_OK;
    snprintf(row->name, sizeof row->name, "%s", item_of(m->table, layer, 0)->layer->weight->name);
    for (int b = 0; status == TN_OK && b < TN_BUDGET_WIDTHS; b++) {
        row->bytes[b] = layer_bytes(&item_of(m->table, layer, b)->weight, b);
        status = place_layer(m, layer, b, error);
        if (status == TN_OK)
            status = measure(m, &row->kl[b], error);
    }
    return status == TN_OK ? restore_layer(m, layer, error) : status;
}

tn_status tn_sensitivity_measure(const tn_model *model, const tn_dataset *dataset,
                                 const tn_calibrate_options *options,
                                 const tn_calibrate_images *images, tn_device *device,
                                 tn_sensitivity *out, tn_error *error)
{
    tn_sensitivity table = {0};
    measuring m = {.table = &table, .reporter = options->reporter, .held = images->count / 4};
    tn_status status = TN_OK;
    if (m.held < MIN_HELD_OUT)
        status = tn_fail(error, TN_ERROR_USAGE,
                         "a budget needs at least %d calibration images, there are %lld",
                         4 * MIN_HELD_OUT, (long long)images->count);
    if (status == TN_OK)
        status = fit_widths(&table, model, dataset, options, error);
    if (status == TN_OK)
        status = make_plan(&m, model, images, options->output, device, error);
    if (status == TN_OK)
        status = make_arrays(&m, error);
    if (status == TN_OK)
        status = find_params(&m, error);
    for (size_t i = 0; status == TN_OK && i < table.count; i++) {
        status = fill_row(&m, i, error);
        tn_progress(options->reporter, "measuring sensitivity", i + 1, table.count);
    }
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
