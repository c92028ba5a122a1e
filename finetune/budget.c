#include "finetune/budget.h"

#include "core/memory.h"
#include "finetune/calibrate_images.h"
#include "finetune/divergence.h"
#include "network/plan.h"

#include <math.h>
#include <stdio.h>
#include <string.h>

const char *const tn_budget_bits[TN_BUDGET_WIDTHS] = {"1.58", "2", "3", "4", "8"};

static const double STORED_BITS[TN_BUDGET_WIDTHS] = {2, 2, 3, 4, 8};

/* A float parameter that calibration changes, and the layer whose width decides its value. */
typedef struct owned_param {
    const char *name;
    size_t at; /* in the store */
    size_t owner;
} owned_param;

typedef struct budget_search {
    const tn_budget_options *options;
    tn_calibration width[TN_BUDGET_WIDTHS]; /* whole networks */
    tn_calibrate_images images;
    int64_t held; /* the last of them */
    tn_graph *graph;
    tn_params *params;
    tn_plan *plan;
    const char *logits;
    int64_t classes;
    float *float_logits, *present_logits; /* [held, classes] */
    float *scratch;
    size_t count; /* layers */
    int *choice;  /* [count] */
    owned_param *param;
    size_t n_params;
    int measurements;
    double disagreement;
} budget_search;

static void search_done(budget_search *search)
{
    for (int b = 0; b < TN_BUDGET_WIDTHS; b++)
        tn_calibration_done(&search->width[b]);
    tn_calibrate_images_done(&search->images);
    tn_plan_destroy(search->plan);
    tn_params_destroy(search->params);
    tn_graph_destroy(search->graph);
    tn_free(search->float_logits);
    tn_free(search->present_logits);
    tn_free(search->scratch);
    tn_free(search->choice);
    tn_free(search->param);
}

static uint64_t layer_bytes(const tn_qweight *weight, int b)
{
    double bits = (double)(weight->rows * weight->cols) * STORED_BITS[b];
    return (uint64_t)ceil(bits / 8) + (uint64_t)weight->n_scales * 4;
}

/* --- putting layers of different widths together ---------------------------------------------- */

static const tn_converted *item_of(const budget_search *search, size_t layer, int b)
{
    return &search->width[b].conversion.item[layer];
}

static tn_status place_layer(budget_search *search, size_t layer, int b, tn_error *error)
{
    const tn_converted *item = item_of(search, layer, b);
    tn_qweight_dequantize(&item->weight, search->scratch);
    size_t at = tn_params_find(search->params, item->layer->weight->name);
    tn_status status = at == SIZE_MAX
                           ? tn_fail(error, TN_ERROR_MODEL, "weight %s is missing",
                                     tn_quote(item->layer->weight->name))
                           : tn_params_set_rows(search->params, at, search->scratch, error);
    for (size_t i = 0; status == TN_OK && i < search->n_params; i++) {
        if (search->param[i].owner != layer)
            continue;
        const tn_value *value = tn_graph_value(search->width[b].graph, search->param[i].name);
        const tn_param *param = tn_params_at(search->params, search->param[i].at);
        if (!value || !value->constant)
            continue;
        status = tn_tensor_read_float(value->constant, 0, param->count, search->scratch, error);
        if (status == TN_OK)
            status = tn_params_set(search->params, search->param[i].at, search->scratch, error);
    }
    return status;
}

/* KL of the network as it is placed now. */
static tn_status measure(budget_search *search, double *kl, tn_error *error)
{
    double agreement;
    tn_status status = tn_plan_forward(search->plan, TN_RUN_INFERENCE, 0, SIZE_MAX, error);
    if (status == TN_OK)
        status = tn_plan_read(search->plan, search->logits, search->present_logits, error);
    if (status != TN_OK)
        return status;
    tn_divergence_mean(search->float_logits, search->present_logits, search->held, search->classes,
                       kl, &agreement);
    search->disagreement = 1 - agreement;
    search->measurements++;
    if (tn_cancelled(search->options->calibrate.reporter))
        return tn_fail(error, TN_ERROR_CANCELLED, "the choice of widths was stopped");
    return TN_OK;
}

/* KL with one layer at another width. */
static tn_status try_layer(budget_search *search, size_t layer, int b, double *kl, tn_error *error)
{
    tn_status status = place_layer(search, layer, b, error);
    if (status == TN_OK)
        status = measure(search, kl, error);
    if (status == TN_OK)
        status = place_layer(search, layer, search->choice[layer], error);
    return status;
}

static tn_status place_uniform(budget_search *search, int b, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < search->count; i++) {
        search->choice[i] = b;
        status = place_layer(search, i, b, error);
    }
    return status;
}

/* --- preparation --------------------------------------------------------------------------------
 */

/* The last quantized layer before a node in graph order; the first when there is none before. */
static size_t owner_of(const budget_search *search, const tn_node *node)
{
    size_t owner = 0;
    for (size_t i = 0; i < search->count; i++) {
        const char *name = item_of(search, i, 0)->layer->weight->name;
        const tn_value *weight = tn_graph_value(search->graph, name);
        if (weight && weight->n_users > 0 && node && weight->users[0]->index <= node->index)
            owner = i;
    }
    return owner;
}

static tn_status find_params(budget_search *search, tn_error *error)
{
    size_t count = tn_params_count(search->params);
    search->param = tn_alloc_zero(count + 1, sizeof *search->param);
    if (!search->param)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu parameters", count);
    for (size_t i = 0; i < count; i++) {
        const tn_param *param = tn_params_at(search->params, i);
        bool weight = false;
        for (size_t k = 0; k < search->count; k++)
            weight = weight || !strcmp(item_of(search, k, 0)->layer->weight->name, param->name);
        if (!weight && param->role != TN_PARAM_WEIGHT && param->role != TN_PARAM_OTHER)
            search->param[search->n_params++] =
                (owned_param){param->name, i, owner_of(search, param->node)};
    }
    return TN_OK;
}

static tn_status calibrate_widths(budget_search *search, const tn_model *model,
                                  const tn_dataset *dataset, tn_error *error)
{
    tn_status status = TN_OK;
    for (int b = 0; status == TN_OK && b < TN_BUDGET_WIDTHS; b++) {
        tn_calibrate_options options = search->options->calibrate;
        options.policy.bits = tn_budget_bits[b];
        options.policy.scheme = b == 0 ? "twn" : "fixed";
        options.hold_out = true;
        options.independent = true; /* so that layers of all widths fit together */
        if (options.bn == TN_CALIBRATE_BN_AUTO)
            options.bn = TN_CALIBRATE_BN_AFFINE;
        status = tn_calibrate(model, dataset, &options, &search->width[b], error);
        if (status == TN_OK)
            tn_log(options.reporter, TN_LOG_DEBUG, "all layers at %s bits: held-out KL %.4f",
                   tn_budget_bits[b], search->width[b].kl_held_out);
    }
    search->count = status == TN_OK ? search->width[0].conversion.count : 0;
    for (int b = 1; status == TN_OK && b < TN_BUDGET_WIDTHS; b++)
        if (search->width[b].conversion.count != search->count)
            status = tn_fail(error, TN_ERROR_USAGE,
                             "the policy selects other layers at %s bits than at %s: give no rules "
                             "with bits of their own beside a budget",
                             tn_budget_bits[b], tn_budget_bits[0]);
    return status;
}

static tn_status make_plan(budget_search *search, const tn_model *model, tn_device *device,
                           tn_error *error)
{
    const tn_calibrate_images *images = &search->images;
    search->held = images->count / 4;
    if (search->held < 8)
        return tn_fail(error, TN_ERROR_USAGE,
                       "a budget needs at least 32 calibration images, there are %lld",
                       (long long)images->count);
    tn_graph_options graph = {.batch = search->held,
                              .input_rank = 3,
                              .input_dims = {images->channels, images->height, images->width},
                              .output = search->options->calibrate.output};
    tn_status status = tn_graph_create(model, &graph, &search->graph, error);
    if (status == TN_OK)
        status = tn_params_create(search->graph, device, &search->params, error);
    tn_plan_options plan = {.precision = TN_PRECISION_FP32, .params = search->params};
    if (status == TN_OK)
        status = tn_plan_create(search->graph, device, &plan, &search->plan, error);
    if (status != TN_OK)
        return status;
    int64_t size = images->channels * images->height * images->width;
    search->logits = tn_plan_logits(search->plan);
    tn_extent extent;
    status = tn_plan_shape(search->plan, search->logits, &extent, error);
    if (status == TN_OK)
        status = tn_plan_write_input(search->plan, 0,
                                     images->nchw + (images->count - search->held) * size,
                                     search->held, error);
    if (status == TN_OK)
        search->classes = tn_extent_count(&extent) / search->held;
    return status;
}

static tn_status make_arrays(budget_search *search, tn_error *error)
{
    size_t logits = (size_t)(search->held * search->classes), most = 1;
    for (size_t i = 0; i < tn_params_count(search->params); i++)
        if ((size_t)tn_params_at(search->params, i)->count > most)
            most = (size_t)tn_params_at(search->params, i)->count;
    search->float_logits = tn_alloc_array(logits, sizeof *search->float_logits);
    search->present_logits = tn_alloc_array(logits, sizeof *search->present_logits);
    search->scratch = tn_alloc_array(most, sizeof *search->scratch);
    search->choice = tn_alloc_zero(search->count + 1, sizeof *search->choice);
    if (!search->float_logits || !search->present_logits || !search->scratch || !search->choice)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the choice of widths");
    tn_status status = tn_plan_forward(search->plan, TN_RUN_INFERENCE, 0, SIZE_MAX, error);
    if (status == TN_OK)
        status = tn_plan_read(search->plan, search->logits, search->float_logits, error);
    return status;
}

/* --- the table and the choice ------------------------------------------------------------------
 */

static tn_status fill_table(budget_search *search, tn_budget *budget, tn_error *error)
{
    budget->row = tn_alloc_zero(search->count + 1, sizeof *budget->row);
    if (!budget->row)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the sensitivity table");
    budget->count = search->count;
    tn_status status = TN_OK;
    for (int b = TN_BUDGET_WIDTHS - 1; status == TN_OK && b >= 0; b--) {
        status = place_uniform(search, b, error);
        if (status == TN_OK)
            status = measure(search, &budget->kl_uniform[b], error);
    }
    budget->kl = budget->kl_uniform[0];
    for (size_t i = 0; status == TN_OK && i < search->count; i++) {
        tn_budget_row *row = &budget->row[i];
        snprintf(row->name, sizeof row->name, "%s", item_of(search, i, 0)->layer->weight->name);
        row->kl[0] = budget->kl_uniform[0];
        for (int b = 0; b < TN_BUDGET_WIDTHS; b++)
            row->bytes[b] = layer_bytes(&item_of(search, i, b)->weight, b);
        for (int b = 1; status == TN_OK && b < TN_BUDGET_WIDTHS; b++)
            status = try_layer(search, i, b, &row->kl[b], error);
        tn_progress(search->options->calibrate.reporter, "measuring sensitivity", i + 1,
                    search->count);
    }
    return status;
}

/* A promotion of one layer: gain of KL per byte, as measured in round `round`. */
typedef struct promotion {
    int to;
    double gain, kl, disagreement;
    int round;
} promotion;

/* The best width to go to from where the layer is, by gains taken from the table. */
static promotion guess_promotion(const tn_budget_row *row, int from)
{
    promotion best = {.to = -1};
    for (int to = from + 1; to < TN_BUDGET_WIDTHS; to++) {
        double bytes = (double)row->bytes[to] - (double)row->bytes[from];
        double gain = (row->kl[from] - row->kl[to]) / (bytes > 1 ? bytes : 1);
        if (best.to < 0 || gain > best.gain)
            best = (promotion){.to = to, .gain = gain, .round = -1};
    }
    return best;
}

static bool affordable(const tn_budget_row *row, int from, int to, uint64_t left)
{
    return row->bytes[to] <= row->bytes[from] || row->bytes[to] - row->bytes[from] <= left;
}

/* The promotion with the most gain per byte now; layer = SIZE_MAX when there is none. */
static tn_status best_promotion(budget_search *search, const tn_budget *budget, uint64_t left,
                                int round, promotion *queue, size_t *layer, tn_error *error)
{
    for (;;) {
        size_t best = SIZE_MAX;
        for (size_t i = 0; i < search->count; i++) {
            promotion *p = &queue[i];
            int from = search->choice[i];
            while (p->to > from && !affordable(&budget->row[i], from, p->to, left)) {
                p->to--; /* a smaller step may still fit */
                p->round = -1;
            }
            if (p->to > from && (best == SIZE_MAX || p->gain > queue[best].gain))
                best = i;
        }
        *layer = best;
        if (best == SIZE_MAX || queue[best].round == round)
            return TN_OK;
        promotion *p = &queue[best];
        tn_status status = try_layer(search, best, p->to, &p->kl, error);
        if (status != TN_OK)
            return status;
        double bytes = (double)budget->row[best].bytes[p->to] -
                       (double)budget->row[best].bytes[search->choice[best]];
        p->gain = (budget->kl - p->kl) / (bytes > 1 ? bytes : 1);
        p->disagreement = search->disagreement;
        p->round = round;
    }
}

static bool good_enough(const budget_search *search, double disagreement)
{
    return search->options->target_drop > 0 && 100 * disagreement <= search->options->target_drop;
}

/* The largest uniform width whose bytes, by the table, fit into `left` more than the lowest. */
static int widest_uniform(const tn_budget *budget, uint64_t left)
{
    int widest = 0;
    for (int b = 1; b < TN_BUDGET_WIDTHS; b++) {
        uint64_t more = 0;
        for (size_t i = 0; i < budget->count; i++)
            more += budget->row[i].bytes[b] - budget->row[i].bytes[0];
        if (more <= left)
            widest = b;
    }
    return widest;
}

/* Promotes layer after layer from the widest uniform width that fits into `left` bytes (from the
 * lowest when bytes do not count), and spends what remains. */
static tn_status promote(budget_search *search, tn_budget *budget, uint64_t left, tn_error *error)
{
    promotion *queue = tn_alloc_zero(search->count + 1, sizeof *queue);
    if (!queue)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the choice of widths");
    int start = left == UINT64_MAX ? 0 : widest_uniform(budget, left);
    tn_status status = place_uniform(search, start, error);
    if (status == TN_OK)
        status = measure(search, &budget->kl, error);
    budget->disagreement = search->disagreement;
    for (size_t i = 0; i < search->count; i++) {
        left -= left == UINT64_MAX ? 0 : budget->row[i].bytes[start] - budget->row[i].bytes[0];
        queue[i] = guess_promotion(&budget->row[i], start);
    }
    for (int round = 0; status == TN_OK && !good_enough(search, budget->disagreement); round++) {
        size_t layer;
        status = best_promotion(search, budget, left, round, queue, &layer, error);
        if (status != TN_OK || layer == SIZE_MAX)
            break; /* a gain that looks negative is noise: bytes that are left are spent */
        promotion *p = &queue[layer];
        const tn_budget_row *row = &budget->row[layer];
        uint64_t cost = row->bytes[p->to] > row->bytes[search->choice[layer]]
                            ? row->bytes[p->to] - row->bytes[search->choice[layer]]
                            : 0;
        left -= left == UINT64_MAX ? 0 : cost;
        search->choice[layer] = p->to;
        budget->kl = p->kl;
        budget->disagreement = p->disagreement;
        status = place_layer(search, layer, p->to, error);
        queue[layer] = guess_promotion(row, p->to);
    }
    tn_free(queue);
    return status;
}

/* Calibrates the network in the present choice of widths, one layer after the other. */
static tn_status calibrate_choice(const budget_search *search, const tn_model *model,
                                  const tn_dataset *dataset, bool hold_out,
                                  tn_calibration *calibration, tn_error *error)
{
    tn_calibrate_options options = search->options->calibrate;
    tn_layers schemes = {.count = search->count};
    schemes.layer = tn_alloc_zero(search->count + 1, sizeof *schemes.layer);
    if (!schemes.layer)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the chosen widths");
    for (size_t i = 0; i < search->count; i++)
        schemes.layer[i] = *item_of(search, i, search->choice[i])->layer;
    options.schemes = &schemes;
    options.policy.bits = tn_budget_bits[0];
    options.policy.scheme = "twn";
    options.hold_out = hold_out;
    if (options.bn == TN_CALIBRATE_BN_AUTO)
        options.bn = TN_CALIBRATE_BN_AFFINE;
    tn_status status = tn_calibrate(model, dataset, &options, calibration, error);
    tn_free(schemes.layer);
    return status;
}

/* Held-out KL of the present choice, calibrated for good. */
static tn_status judge_choice(const budget_search *search, const tn_model *model,
                              const tn_dataset *dataset, double *kl, tn_error *error)
{
    tn_calibration calibration = {0};
    tn_status status = calibrate_choice(search, model, dataset, true, &calibration, error);
    if (status == TN_OK)
        *kl = calibration.kl_held_out;
    tn_calibration_done(&calibration);
    return status;
}

/* Bytes of the file with the present choice: codes of the table's fits, whose size is the same. */
static tn_status size_of_choice(const budget_search *search, uint64_t *bytes, tn_error *error)
{
    tn_calibration mixed = search->width[0];
    mixed.conversion.item = tn_alloc_array(search->count + 1, sizeof *mixed.conversion.item);
    if (!mixed.conversion.item)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the choice of widths");
    for (size_t i = 0; i < search->count; i++) {
        mixed.conversion.item[i] = *item_of(search, i, search->choice[i]);
        mixed.conversion.item[i].layer = item_of(search, i, 0)->layer; /* of that graph */
    }
    tn_status status = search->options->size(search->options->size_context, &mixed, bytes, error);
    tn_free(mixed.conversion.item);
    return status;
}

/* Mixed widths must beat the uniform one that fits, or that one is taken. */
static tn_status compare_uniform(budget_search *search, const tn_model *model,
                                 const tn_dataset *dataset, uint64_t left, tn_budget *budget,
                                 tn_error *error)
{
    double mixed = 0, uniform = 0;
    int width = widest_uniform(budget, left);
    tn_status status = judge_choice(search, model, dataset, &mixed, error);
    int *kept = tn_alloc_array(search->count + 1, sizeof *kept);
    if (status == TN_OK && !kept)
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the choice of widths");
    if (status != TN_OK) {
        tn_free(kept);
        return status;
    }
    memcpy(kept, search->choice, search->count * sizeof *kept);
    for (size_t i = 0; i < search->count; i++)
        search->choice[i] = width;
    status = judge_choice(search, model, dataset, &uniform, error);
    tn_log(search->options->calibrate.reporter, TN_LOG_INFO,
           "held-out KL: widths by layer %.4f, all layers at %s bits %.4f", mixed,
           tn_budget_bits[width], uniform);
    if (status == TN_OK && mixed <= uniform)
        memcpy(search->choice, kept, search->count * sizeof *kept);
    if (status == TN_OK)
        budget->kl = mixed <= uniform ? mixed : uniform;
    tn_free(kept);
    return status;
}

/* Takes back the promotion that costs least per byte by the table; false: none is left. */
static bool demote(budget_search *search, const tn_budget *budget)
{
    size_t best = SIZE_MAX;
    int best_to = 0;
    double least = (double)INFINITY;
    for (size_t i = 0; i < search->count; i++) {
        const tn_budget_row *row = &budget->row[i];
        int from = search->choice[i], to = from - 1;
        while (to >= 0 && row->bytes[to] >= row->bytes[from])
            to--; /* 2 bits are stored as ternary is */
        if (to < 0)
            continue;
        double loss = (row->kl[to] - row->kl[from]) / (double)(row->bytes[from] - row->bytes[to]);
        if (loss < least) {
            least = loss;
            best = i;
            best_to = to;
        }
    }
    if (best != SIZE_MAX)
        search->choice[best] = best_to;
    return best != SIZE_MAX;
}

/* What the form of a width adds a layer (tables, nodes), from the sizes of whole files. */
static tn_status add_overhead(budget_search *search, tn_budget *budget, uint64_t *lowest,
                              tn_error *error)
{
    tn_status status = TN_OK;
    for (int b = 0; status == TN_OK && b < TN_BUDGET_WIDTHS; b++) {
        uint64_t bytes = 0, known = 0;
        for (size_t i = 0; i < search->count; i++) {
            search->choice[i] = b;
            known += budget->row[i].bytes[b] - budget->row[i].bytes[0];
        }
        status = size_of_choice(search, &bytes, error);
        if (b == 0)
            *lowest = bytes;
        else if (status == TN_OK && bytes > *lowest + known)
            for (size_t i = 0; i < search->count; i++)
                budget->row[i].bytes[b] += (bytes - *lowest - known) / search->count;
    }
    return status;
}

/* The table's bytes leave out what a form adds: takes back promotions until the file fits. */
static tn_status demote_to_fit(budget_search *search, const tn_budget *budget, tn_error *error)
{
    uint64_t bytes = 0;
    for (;;) {
        tn_status status = size_of_choice(search, &bytes, error);
        if (status != TN_OK || bytes <= search->options->target_size || !demote(search, budget))
            return status;
    }
}

static tn_status choose(budget_search *search, const tn_model *model, const tn_dataset *dataset,
                        tn_budget *budget, tn_calibration *out, tn_error *error)
{
    const tn_budget_options *options = search->options;
    uint64_t lowest = 0, left = UINT64_MAX;
    tn_status status = add_overhead(search, budget, &lowest, error);
    if (status == TN_OK && options->target_size > 0) {
        if (lowest > options->target_size)
            return tn_fail(error, TN_ERROR_USAGE,
                           "with every layer ternary the file has %llu bytes, %llu more than the "
                           "%llu asked for: quantize the first and last layer too, or add "
                           "--prune-dead --rest float16",
                           (unsigned long long)lowest,
                           (unsigned long long)(lowest - options->target_size),
                           (unsigned long long)options->target_size);
        left = options->target_size - lowest;
    }
    if (status == TN_OK)
        status = promote(search, budget, left, error);
    if (status == TN_OK && options->target_drop > 0 && !good_enough(search, budget->disagreement))
        status = tn_fail(error, TN_ERROR_USAGE,
                         "no choice of widths keeps the loss below %.2f points: %.2f %% of the "
                         "held-out images change their class",
                         options->target_drop, 100 * budget->disagreement);
    if (status == TN_OK && options->target_size > 0)
        status = demote_to_fit(search, budget, error);
    if (status == TN_OK && options->target_size > 0)
        status = compare_uniform(search, model, dataset, left, budget, error);
    if (status == TN_OK && options->target_size > 0)
        status = demote_to_fit(search, budget, error);
    tn_calibration calibration = {0};
    if (status == TN_OK)
        status = calibrate_choice(search, model, dataset, false, &calibration, error);
    if (status == TN_OK)
        status = options->size(options->size_context, &calibration, &budget->bytes, error);
    for (size_t i = 0; status == TN_OK && i < budget->count; i++)
        budget->row[i].chosen = search->choice[i];
    if (status == TN_OK)
        *out = calibration;
    else
        tn_calibration_done(&calibration);
    return status;
}

tn_status tn_budget_choose(const tn_model *model, const tn_dataset *dataset,
                           const tn_budget_options *options, tn_budget *out,
                           tn_calibration *calibration, tn_error *error)
{
    if (!options->sensitivity_only && options->target_size == 0 && !(options->target_drop > 0))
        return tn_fail(error, TN_ERROR_USAGE, "a budget needs a size or a loss of accuracy");
    budget_search search = {.options = options};
    tn_budget budget = {0};
    tn_device *own = NULL, *device = options->calibrate.device;
    tn_calibrate_options images = options->calibrate;
    if (images.samples == 0)
        images.samples = 256;
    tn_status status = TN_OK;
    if (!device) {
        status = tn_device_create_cpu(&own, error);
        device = own;
    }
    if (status == TN_OK)
        status = tn_calibrate_images_load(model, dataset, &images, &search.images, error);
    if (status == TN_OK)
        status = calibrate_widths(&search, model, dataset, error);
    if (status == TN_OK)
        status = make_plan(&search, model, device, error);
    if (status == TN_OK)
        status = make_arrays(&search, error);
    if (status == TN_OK)
        status = find_params(&search, error);
    if (status == TN_OK)
        status = fill_table(&search, &budget, error);
    if (status == TN_OK && !options->sensitivity_only)
        status = choose(&search, model, dataset, &budget, calibration, error);
    budget.measurements = search.measurements;
    search_done(&search);
    tn_device_destroy(own);
    if (status == TN_OK)
        *out = budget;
    else
        tn_budget_done(&budget);
    return status;
}

void tn_budget_done(tn_budget *budget)
{
    tn_free(budget->row);
    *budget = (tn_budget){0};
}
