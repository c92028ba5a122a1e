#include "finetune/budget.h"

#include "core/memory.h"
#include "finetune/probe.h"

#include <string.h>

enum {
    BISECTIONS = 8,
    MIN_IMAGES = 8,
    NARROWEST = 2 /* ternary and 2 bits: which of them is smaller depends on the form */
};

/* A choice of widths and what was measured of it. */
typedef struct candidate {
    int *width; /* [count] */
    uint64_t bytes;
    bool measured;
    tn_probe_result result;
    int uniform; /* -1: widths differ */
} candidate;

typedef struct budget_search {
    const tn_budget_options *options;
    const tn_model *model;
    const tn_dataset *dataset;
    tn_sensitivity table;
    tn_probe *probe;
    tn_budget *budget;
    candidate *candidates;
    size_t n_candidates, capacity;
    size_t uniform[TN_BUDGET_WIDTHS];    /* candidates */
    bool dominated[TN_BUDGET_WIDTHS];    /* widths no layer is given */
    double scale[TN_BUDGET_WIDTHS];      /* of the table's KL */
    uint64_t overhead[TN_BUDGET_WIDTHS]; /* bytes a layer, beside the table's */
} budget_search;

static void search_done(budget_search *search)
{
    for (size_t i = 0; i < search->n_candidates; i++)
        tn_free(search->candidates[i].width);
    tn_free(search->candidates);
    tn_probe_destroy(search->probe);
    tn_sensitivity_done(&search->table);
}

/* --- candidates ---------------------------------------------------------------------------------
 */

/* Bytes of the file with these widths: codes of the table's fits, whose size is the same. */
static tn_status size_of(const budget_search *search, const int *width, uint64_t *bytes,
                         tn_error *error)
{
    const tn_sensitivity *table = &search->table;
    tn_calibration mixed = table->width[0];
    mixed.conversion.item = tn_alloc_array(table->count + 1, sizeof *mixed.conversion.item);
    if (!mixed.conversion.item)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the choice of widths");
    for (size_t i = 0; i < table->count; i++) {
        mixed.conversion.item[i] = table->width[width[i]].conversion.item[i];
        mixed.conversion.item[i].layer = table->width[0].conversion.item[i].layer;
    }
    tn_status status = search->options->size(search->options->size_context, &mixed, bytes, error);
    tn_free(mixed.conversion.item);
    return status;
}

/* Adds a candidate unless there is the same already; where it is. */
static tn_status add_candidate(budget_search *search, const int *width, size_t *where,
                               tn_error *error)
{
    size_t count = search->table.count, bytes = count * sizeof *width;
    for (*where = 0; *where < search->n_candidates; ++*where)
        if (!memcmp(search->candidates[*where].width, width, bytes))
            return TN_OK;
    if (search->n_candidates == search->capacity) {
        size_t capacity = 2 * search->capacity + 16;
        candidate *grown = tn_realloc(search->candidates, capacity * sizeof *grown);
        if (!grown)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the choice of widths");
        search->candidates = grown;
        search->capacity = capacity;
    }
    candidate added = {.width = tn_alloc_array(count + 1, sizeof *width)};
    if (!added.width)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the choice of widths");
    memcpy(added.width, width, bytes);
    added.uniform = width[0];
    for (size_t i = 1; i < count; i++)
        if (width[i] != width[0])
            added.uniform = -1;
    search->candidates[search->n_candidates++] = added;
    return search->options->size ? size_of(search, width, &search->candidates[*where].bytes, error)
                                 : TN_OK;
}

/* Calibrates the network with these widths, one layer after the other. */
static tn_status calibrate_widths(budget_search *search, const int *width, bool hold_out,
                                  tn_calibration *calibration, tn_error *error)
{
    tn_calibrate_options options = search->options->calibrate;
    tn_layers schemes = {.count = search->table.count};
    schemes.layer = tn_alloc_zero(schemes.count + 1, sizeof *schemes.layer);
    if (!schemes.layer)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the chosen widths");
    for (size_t i = 0; i < schemes.count; i++)
        schemes.layer[i] = *search->table.width[width[i]].conversion.item[i].layer;
    options.schemes = &schemes;
    options.policy.bits = tn_budget_bits[0];
    options.policy.scheme = "twn";
    options.hold_out = hold_out;
    if (options.bn == TN_CALIBRATE_BN_AUTO)
        options.bn = TN_CALIBRATE_BN_AFFINE;
    tn_status status = tn_calibrate(search->model, search->dataset, &options, calibration, error);
    search->budget->calibrations++;
    tn_free(schemes.layer);
    return status;
}

/* Calibrates a candidate as the result will be and measures it on images it was not fitted to. */
static tn_status judge(budget_search *search, size_t which, tn_error *error)
{
    candidate *c = &search->candidates[which];
    if (c->measured)
        return TN_OK;
    tn_calibration calibration = {0};
    tn_status status = calibrate_widths(search, c->width, tn_probe_needs_hold_out(search->probe),
                                        &calibration, error);
    if (status == TN_OK)
        status = tn_probe_measure(search->probe, &calibration, &c->result, error);
    tn_calibration_done(&calibration);
    c->measured = status == TN_OK;
    if (status == TN_OK)
        tn_log(search->options->calibrate.reporter, TN_LOG_INFO,
               "%s%s, %llu bytes: held-out KL %.4f, expected loss %.2f points (+- %.2f)",
               c->uniform < 0 ? "several widths" : tn_budget_bits[c->uniform],
               c->uniform < 0 ? "" : " bits", (unsigned long long)c->bytes, c->result.kl,
               c->result.loss, c->result.deviation);
    return status;
}

static tn_status check_lowest(uint64_t lowest, uint64_t limit, tn_error *error)
{
    if (limit == 0 || lowest <= limit)
        return TN_OK;
    return tn_fail(
        error, TN_ERROR_USAGE,
        "with every layer at its smallest the file has %llu bytes, %llu more than the %llu "
        "asked for: ask for %llu bytes or more, quantize the first and last layer too "
        "(--first-layer, --last-layer), or add --prune-dead --rest float16",
        (unsigned long long)lowest, (unsigned long long)(lowest - limit), (unsigned long long)limit,
        (unsigned long long)lowest);
}

/* Bytes of the file with all layers rounded to one width: as many as calibrated ones take. */
static tn_status rounded_size(const tn_model *model, const tn_budget_options *options, int b,
                              uint64_t *bytes, tn_error *error)
{
    tn_calibration rounded = {0};
    tn_policy policy = options->calibrate.policy;
    policy.bits = tn_budget_bits[b];
    policy.scheme = tn_budget_scheme(b);
    tn_status status = tn_graph_create(model, NULL, &rounded.graph, error);
    if (status == TN_OK)
        status = tn_layers_select(rounded.graph, &policy, &rounded.layers, error);
    if (status == TN_OK)
        status = tn_convert(&rounded.layers, NULL, &rounded.conversion, error);
    if (status == TN_OK)
        status = options->size(options->size_context, &rounded, bytes, error);
    tn_calibration_done(&rounded);
    return status;
}

tn_status tn_budget_check(const tn_model *model, const tn_budget_options *options, tn_error *error)
{
    uint64_t lowest = UINT64_MAX;
    tn_status status = TN_OK;
    if (options->target_size == 0)
        return TN_OK;
    for (int b = 0; status == TN_OK && b < NARROWEST; b++) {
        uint64_t bytes = 0;
        status = rounded_size(model, options, b, &bytes, error);
        lowest = bytes < lowest ? bytes : lowest;
    }
    return status == TN_OK ? check_lowest(lowest, options->target_size, error) : status;
}

/* Every uniform width, and what it says about the table: sums that should be the whole network's
 * KL, bytes a layer that codes and scales leave out, widths that another one beats for the same
 * bytes. */
static tn_status judge_uniform(budget_search *search, tn_error *error)
{
    tn_sensitivity *table = &search->table;
    int *width = tn_alloc_zero(table->count + 1, sizeof *width);
    tn_status status =
        width ? TN_OK : tn_fail(error, TN_ERROR_LIMIT, "out of memory for the choice of widths");
    for (int b = 0; status == TN_OK && b < TN_BUDGET_WIDTHS; b++) {
        for (size_t i = 0; i < table->count; i++)
            width[i] = b;
        status = add_candidate(search, width, &search->uniform[b], error);
    }
    for (int b = 0; status == TN_OK && b < TN_BUDGET_WIDTHS; b++) {
        double sum = 0;
        uint64_t known = 0;
        for (size_t i = 0; i < table->count; i++) {
            sum += table->row[i].kl[b];
            known += table->row[i].bytes[b] - table->row[i].bytes[0];
        }
        status = judge(search, search->uniform[b], error);
        if (status != TN_OK)
            break;
        const candidate *c = &search->candidates[search->uniform[b]];
        const candidate *lowest = &search->candidates[search->uniform[0]];
        search->budget->kl_uniform[b] = c->result.kl;
        search->scale[b] = sum > 0 && c->result.kl > 0 ? c->result.kl / sum : 1;
        if (c->bytes > lowest->bytes + known)
            search->overhead[b] = (c->bytes - lowest->bytes - known) / table->count;
        for (int a = 0; a < b; a++)
            if (c->result.kl < search->candidates[search->uniform[a]].result.kl &&
                c->bytes <= search->candidates[search->uniform[a]].bytes + table->count)
                search->dominated[a] = true;
    }
    tn_free(width);
    return status;
}

/* --- promotions ---------------------------------------------------------------------------------
 */

static uint64_t bytes_at(const budget_search *search, size_t layer, int b)
{
    return search->table.row[layer].bytes[b] + search->overhead[b];
}

static double loss_at(const budget_search *search, size_t layer, int b)
{
    return search->table.row[layer].kl[b] * search->scale[b];
}

/* KL a layer wins by a change of width, per byte. */
static double gain_of(const budget_search *search, size_t layer, int from, int to)
{
    double bytes = (double)bytes_at(search, layer, to) - (double)bytes_at(search, layer, from);
    return (loss_at(search, layer, from) - loss_at(search, layer, to)) / (bytes > 1 ? bytes : 1);
}

/* The promotion with the most gain per byte among those of at most `left` bytes; false: none.
 * barred: [layers, widths] that are left out, or NULL. */
static bool best_promotion(const budget_search *search, const int *width, const bool *barred,
                           uint64_t left, size_t *layer, int *to)
{
    double most = 0;
    bool found = false;
    for (size_t i = 0; i < search->table.count; i++)
        for (int b = width[i] + 1; b < TN_BUDGET_WIDTHS; b++) {
            uint64_t now = bytes_at(search, i, width[i]), then = bytes_at(search, i, b);
            double gain = gain_of(search, i, width[i], b);
            if (search->dominated[b] || (barred && barred[i * TN_BUDGET_WIDTHS + (size_t)b]) ||
                (then > now && then - now > left) || !(gain > most))
                continue;
            most = gain;
            *layer = i;
            *to = b;
            found = true;
        }
    return found;
}

/* Promotes from where `width` is, which fits, until nothing fits any more. The table's bytes leave
 * out what depends on the mixture, so real ones decide; what is too much by them is barred. */
static tn_status fill(const budget_search *search, int *width, bool *barred, uint64_t limit,
                      tn_error *error)
{
    uint64_t bytes = 0;
    size_t layer;
    int to;
    tn_status status = size_of(search, width, &bytes, error);
    while (status == TN_OK && bytes < limit &&
           best_promotion(search, width, barred, limit - bytes, &layer, &to)) {
        uint64_t then = 0;
        int from = width[layer];
        width[layer] = to;
        status = size_of(search, width, &then, error);
        if (then <= limit) {
            bytes = then;
            continue;
        }
        width[layer] = from;
        barred[layer * TN_BUDGET_WIDTHS + (size_t)to] = true;
    }
    return status;
}

/* --- a budget of bytes --------------------------------------------------------------------------
 */

static bool fits(const budget_search *search, const candidate *c)
{
    return search->options->target_size == 0 || c->bytes <= search->options->target_size;
}

/* From every uniform width that fits: what remains is spent. */
static tn_status choose_size(budget_search *search, tn_error *error)
{
    size_t count = search->table.count, barrable = count * TN_BUDGET_WIDTHS;
    uint64_t limit = search->options->target_size;
    int *width = tn_alloc_array(count + 1, sizeof *width);
    bool *barred = tn_alloc_array(barrable + 1, sizeof *barred);
    tn_status status =
        width && barred ? TN_OK
                        : tn_fail(error, TN_ERROR_LIMIT, "out of memory for the choice of widths");
    for (int b = 0; status == TN_OK && b < TN_BUDGET_WIDTHS; b++) {
        const candidate *start = &search->candidates[search->uniform[b]];
        size_t where;
        if (!fits(search, start))
            continue;
        memcpy(width, start->width, count * sizeof *width);
        memset(barred, 0, barrable * sizeof *barred);
        status = fill(search, width, barred, limit, error);
        if (status == TN_OK)
            status = add_candidate(search, width, &where, error);
        if (status == TN_OK && fits(search, &search->candidates[where]))
            status = judge(search, where, error);
    }
    tn_free(barred);
    tn_free(width);
    return status;
}

/* --- a budget of accuracy -----------------------------------------------------------------------
 */

static bool keeps(const budget_search *search, const candidate *c)
{
    return c->measured && c->result.loss + c->result.deviation <= search->options->target_drop;
}

/* Candidates from all layers at the lowest width to all at the highest, one promotion each. */
static tn_status add_path(budget_search *search, size_t *path, size_t room, size_t *steps,
                          tn_error *error)
{
    size_t count = search->table.count, layer;
    int lowest = 0, to;
    while (search->dominated[lowest])
        lowest++;
    int *width = tn_alloc_array(count + 1, sizeof *width);
    if (!width)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the choice of widths");
    for (size_t i = 0; i < count; i++)
        width[i] = lowest;
    tn_status status = TN_OK;
    for (*steps = 0; status == TN_OK && *steps < room; ++*steps) {
        status = add_candidate(search, width, &path[*steps], error);
        if (status != TN_OK || !best_promotion(search, width, NULL, UINT64_MAX, &layer, &to))
            break;
        width[layer] = to;
    }
    tn_free(width);
    return status;
}

/* Bisects the path for its first candidate that keeps the loss. */
static tn_status choose_drop(budget_search *search, tn_error *error)
{
    size_t room = search->table.count * TN_BUDGET_WIDTHS + 1, steps = 0;
    size_t *path = tn_alloc_array(room, sizeof *path);
    if (!path)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the choice of widths");
    tn_status status = add_path(search, path, room, &steps, error);
    size_t low = 0, high = steps;
    for (int i = 0; status == TN_OK && i < BISECTIONS && low < high; i++) {
        size_t middle = (low + high) / 2;
        status = judge(search, path[middle], error);
        if (status == TN_OK && keeps(search, &search->candidates[path[middle]]))
            high = middle;
        else
            low = middle + 1;
    }
    tn_free(path);
    return status;
}

/* --- the choice ---------------------------------------------------------------------------------
 */

/* Of what was measured and is allowed: the lowest KL, or with a bound on the loss the fewest bytes;
 * SIZE_MAX: nothing is. */
static size_t best_candidate(const budget_search *search)
{
    bool by_bytes = search->options->target_drop > 0;
    size_t best = SIZE_MAX;
    for (size_t i = 0; i < search->n_candidates; i++) {
        const candidate *c = &search->candidates[i];
        if (!c->measured || !fits(search, c) || (by_bytes && !keeps(search, c)))
            continue;
        const candidate *than = best == SIZE_MAX ? NULL : &search->candidates[best];
        if (!than || (by_bytes && c->bytes < than->bytes) ||
            ((!by_bytes || c->bytes == than->bytes) && c->result.kl < than->result.kl))
            best = i;
    }
    return best;
}

static tn_status nothing_keeps(const budget_search *search, tn_error *error)
{
    uint64_t lowest = UINT64_MAX;
    for (int b = 0; b < TN_BUDGET_WIDTHS; b++) {
        uint64_t bytes = search->candidates[search->uniform[b]].bytes;
        lowest = bytes < lowest ? bytes : lowest;
    }
    if (search->options->target_size > 0 && lowest > search->options->target_size)
        return check_lowest(lowest, search->options->target_size, error);
    const candidate *widest = &search->candidates[search->uniform[TN_BUDGET_WIDTHS - 1]];
    if (search->options->target_size > 0)
        return tn_fail(error, TN_ERROR_USAGE,
                       "no choice of widths within %llu bytes keeps the loss below %.2f points: "
                       "give one of the two",
                       (unsigned long long)search->options->target_size,
                       search->options->target_drop);
    return tn_fail(error, TN_ERROR_USAGE,
                   "no choice of widths keeps the loss below %.2f points: with all layers at %s "
                   "bits %.2f points (+- %.2f) are expected on %lld images",
                   search->options->target_drop, tn_budget_bits[TN_BUDGET_WIDTHS - 1],
                   widest->result.loss, widest->result.deviation,
                   (long long)tn_probe_images(search->probe));
}

static tn_status choose(budget_search *search, tn_calibration *out, tn_error *error)
{
    const tn_budget_options *options = search->options;
    tn_budget *budget = search->budget;
    tn_status status = options->target_size > 0 ? choose_size(search, error) : TN_OK;
    if (status == TN_OK && options->target_drop > 0)
        status = choose_drop(search, error);
    size_t best = best_candidate(search);
    if (status == TN_OK && best == SIZE_MAX)
        status = nothing_keeps(search, error);
    if (status != TN_OK)
        return status;
    const candidate *chosen = &search->candidates[best];
    tn_calibration calibration = {0};
    status = calibrate_widths(search, chosen->width, false, &calibration, error);
    if (status == TN_OK)
        status = options->size(options->size_context, &calibration, &budget->bytes, error);
    if (status != TN_OK) {
        tn_calibration_done(&calibration);
        return status;
    }
    for (size_t i = 0; i < budget->count; i++)
        budget->row[i].chosen = chosen->width[i];
    budget->result = chosen->result;
    budget->images = tn_probe_images(search->probe);
    budget->held_out = tn_probe_needs_hold_out(search->probe);
    budget->uniform = chosen->uniform;
    *out = calibration;
    return TN_OK;
}

static tn_status prepare(budget_search *search, tn_device *device, tn_error *error)
{
    tn_calibrate_options options = search->options->calibrate;
    if (options.samples == 0)
        options.samples = 256;
    options.device = device;
    tn_status status =
        tn_probe_create(search->model, search->dataset, &options, 0, device, &search->probe, error);
    if (status == TN_OK && tn_probe_images(search->probe) < MIN_IMAGES)
        status = tn_fail(error, TN_ERROR_USAGE,
                         "a choice of widths is measured on images beside those that are "
                         "calibrated with, or on a quarter of them; here that is %lld, and at "
                         "least %d are needed: give a data set of %d images or more",
                         (long long)tn_probe_images(search->probe), MIN_IMAGES, 4 * MIN_IMAGES);
    if (status == TN_OK)
        status = tn_sensitivity_measure(search->model, search->dataset, &options, search->probe,
                                        device, &search->table, error);
    return status == TN_OK ? judge_uniform(search, error) : status;
}

tn_status tn_budget_choose(const tn_model *model, const tn_dataset *dataset,
                           const tn_budget_options *options, tn_budget *out,
                           tn_calibration *calibration, tn_error *error)
{
    if (!options->sensitivity_only && options->target_size == 0 && !(options->target_drop > 0))
        return tn_fail(error, TN_ERROR_USAGE, "a budget needs a size or a loss of accuracy");
    tn_budget budget = {.uniform = -1};
    budget_search search = {
        .options = options, .model = model, .dataset = dataset, .budget = &budget};
    tn_device *own = NULL, *device = options->calibrate.device;
    tn_status status = tn_budget_check(model, options, error);
    if (status == TN_OK && !device) {
        status = tn_device_create_cpu(&own, error);
        device = own;
    }
    if (status == TN_OK)
        status = prepare(&search, device, error);
    if (status == TN_OK) {
        budget.row = search.table.row;
        budget.count = search.table.count;
    }
    if (status == TN_OK && !options->sensitivity_only)
        status = choose(&search, calibration, error);
    if (status == TN_OK) {
        search.table.row = NULL;
        *out = budget;
    }
    search_done(&search);
    tn_device_destroy(own);
    return status;
}

void tn_budget_done(tn_budget *budget)
{
    tn_free(budget->row);
    *budget = (tn_budget){0};
}
