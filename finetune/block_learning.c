#include "finetune/block_learning.h"

#include "core/memory.h"
#include "finetune/calibrate_chain.h"
#include "finetune/calibrate_view.h"
#include "finetune/descent.h"
#include "finetune/gram.h"

#include <math.h>
#include <string.h>

enum { STEPS = 6, TRIES = 3 };

/* of the first step, and how much a step lowers the error at least for another one to be made */
static const double LENGTH = 0.5, WORTH = 0.001;

/* One layer under way. */
typedef struct learned_layer {
    const tn_layer *layer; /* of the whole network */
    tn_qweight *weight;
    size_t param;           /* in the block's store */
    size_t shifted, source; /* BN mean or bias that takes up a change of the mean, and the
                               parameter whose gradient tells its own; SIZE_MAX: none */
    bool shift_is_mean;     /* of a BN: it moves with the row's mean, a bias against it */
    tn_patches patches;     /* of one chunk */
    const char *input;      /* value the layer reads */
    tn_gram gram;
    tn_gram_target nothing; /* G alone is wanted */
    float *gradient, *sum;  /* [rows, cols] of a chunk, of all */
    float *values, *shift;  /* [rows, cols], [rows] */
    double *shift_sum,
        *gain;         /* [rows] gradient at `source`; what makes that one of the row's mean */
    double *curvature; /* [rows] h */
    int16_t *codes, *first_codes; /* before the step, before all */
    float *scales, *first_scales; /* [2, n_scales] */
    float *shift_before;
} learned_layer;

typedef struct block_learner {
    tn_block_network *network;
    const tn_block_data *data;
    const tn_block_learning_options *options;
    learned_layer *layer;
    size_t n_layers;
    tn_arena arena;
} block_learner;

static tn_status out_of_memory(tn_error *error)
{
    return tn_fail(error, TN_ERROR_LIMIT, "out of memory to learn the rounding of a block");
}

static int64_t chunks_of(int64_t images, const tn_block_data *data)
{
    return (images + data->chunk_images - 1) / data->chunk_images;
}

/* --- preparation --------------------------------------------------------------------------------
 */

/* Which parameter behind the layer takes up a change of its mean, and the factor from the gradient
 * at that (of a BN: at its beta) to the gradient at the row's output, summed over positions. */
static tn_status find_shift(block_learner *learner, learned_layer *layer, const tn_node *node,
                            tn_error *error)
{
    tn_params *params = learner->network->params;
    tn_chain chain, whole;
    int64_t rows = layer->layer->rows;
    layer->shifted = layer->source = SIZE_MAX;
    if (!learner->options->corrections)
        return TN_OK;
    tn_chain_find(node, rows, &chain);
    tn_chain_find(layer->layer->node, rows, &whole); /* sees what other blocks read as well */
    if (chain.bn ? !whole.bn : !whole.bias_is_own)
        return TN_OK;
    const tn_value *shifted = chain.bn ? chain.bn->inputs[3] : chain.bias;
    const tn_value *source = chain.bn ? chain.bn->inputs[2] : chain.bias;
    size_t at = tn_params_find(params, shifted->name), from = tn_params_find(params, source->name);
    if (at == SIZE_MAX || from == SIZE_MAX || tn_params_at(params, at)->count != rows ||
        tn_params_at(params, from)->count != rows)
        return TN_OK;
    layer->shift_is_mean = chain.bn;
    float epsilon = 1e-5f, *numbers = tn_alloc_array((size_t)rows, 2 * sizeof *numbers);
    if (!numbers)
        return out_of_memory(error);
    tn_status status = TN_OK;
    for (int64_t o = 0; o < rows; o++)
        layer->gain[o] = 1;
    if (chain.bn) {
        size_t gamma = tn_params_find(params, chain.bn->inputs[1]->name);
        size_t variance = tn_params_find(params, chain.bn->inputs[4]->name);
        status = tn_node_float(chain.bn, "epsilon", 1e-5f, &epsilon, error);
        if (status == TN_OK)
            status = tn_params_get(params, gamma, numbers, error);
        if (status == TN_OK)
            status = tn_params_get(params, variance, numbers + rows, error);
        for (int64_t o = 0; status == TN_OK && o < rows; o++)
            layer->gain[o] = (double)numbers[o] / sqrt((double)numbers[rows + o] + (double)epsilon);
    }
    tn_free(numbers);
    layer->shifted = at;
    layer->source = from;
    tn_params_at(params, from)->frozen = false;
    return status;
}

static const tn_node *node_of(const tn_graph *graph, const tn_value *weight)
{
    for (size_t i = 0; i < graph->n_nodes; i++)
        for (size_t k = 0; k < graph->nodes[i]->n_inputs; k++)
            if (graph->nodes[i]->inputs[k] && !graph->nodes[i]->folded &&
                !strcmp(graph->nodes[i]->inputs[k]->name, weight->name))
                return graph->nodes[i];
    return NULL;
}

static tn_status alloc_layer(block_learner *learner, learned_layer *layer, tn_error *error)
{
    const tn_qweight *weight = layer->weight;
    tn_arena *arena = &learner->arena;
    size_t rows = (size_t)weight->rows, n = rows * (size_t)weight->cols;
    size_t scales = (size_t)weight->n_scales;
    layer->gradient = tn_arena_array(arena, n, sizeof(float));
    layer->sum = tn_arena_array(arena, n, sizeof(float));
    layer->values = tn_arena_array(arena, n, sizeof(float));
    layer->codes = tn_arena_array(arena, n, sizeof(int16_t));
    layer->scales = tn_arena_array(arena, 2 * scales, sizeof(float));
    layer->first_codes = tn_arena_array(arena, n, sizeof(int16_t));
    layer->first_scales = tn_arena_array(arena, 2 * scales, sizeof(float));
    layer->shift = tn_arena_array(arena, rows, sizeof(float));
    layer->shift_before = tn_arena_array(arena, rows, sizeof(float));
    layer->shift_sum = tn_arena_array(arena, rows, sizeof(double));
    layer->gain = tn_arena_array(arena, rows, sizeof(double));
    layer->curvature = tn_arena_array(arena, rows, sizeof(double));
    if (!layer->gradient || !layer->sum || !layer->values || !layer->codes || !layer->scales ||
        !layer->shift || !layer->shift_before || !layer->shift_sum || !layer->gain ||
        !layer->curvature || !layer->first_codes || !layer->first_scales)
        return out_of_memory(error);
    return tn_gram_init(&layer->gram, weight->rows, weight->cols, layer->layer->groups, error);
}

static tn_status prepare(block_learner *learner, const tn_layers *layers, tn_qweight *weight,
                         tn_error *error)
{
    tn_block_network *network = learner->network;
    const tn_block *block = network->block;
    learner->layer = tn_arena_array(&learner->arena, block->n_layers, sizeof *learner->layer);
    if (!learner->layer)
        return out_of_memory(error);
    memset(learner->layer, 0, block->n_layers * sizeof *learner->layer);
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < block->n_layers; i++) {
        learned_layer *layer = &learner->layer[learner->n_layers++];
        layer->layer = &layers->layer[block->layers[i]];
        layer->weight = &weight[block->layers[i]];
        layer->param = tn_params_find(network->params, layer->layer->weight->name);
        const tn_node *node = node_of(network->graph, layer->layer->weight);
        if (!node || layer->param == SIZE_MAX)
            return tn_fail(error, TN_ERROR_MODEL, "weight %s is missing in its block",
                           tn_quote(layer->layer->weight->name));
        tn_params_at(network->params, layer->param)->frozen = false;
        layer->input = node->inputs[0]->name;
        status = tn_layer_patches(node, layer->layer, &layer->patches, error);
        if (status == TN_OK)
            status = alloc_layer(learner, layer, error);
        if (status == TN_OK)
            status = find_shift(learner, layer, node, error);
    }
    return status;
}

static void done(block_learner *learner)
{
    for (size_t i = 0; i < learner->n_layers; i++)
        tn_gram_done(&learner->layer[i].gram);
    tn_arena_done(&learner->arena);
}

/* --- G and h ------------------------------------------------------------------------------------
 */

static tn_status add_inputs(const block_learner *learner, learned_layer *layer, tn_gram_pass *pass,
                            int64_t chunk, tn_error *error)
{
    const tn_block_data *data = learner->data;
    int64_t images = data->fitted - chunk * data->chunk_images;
    images = images < data->chunk_images ? images : data->chunk_images;
    tn_patches patches = layer->patches;
    int64_t each = patches.batch / learner->network->batch;
    bool channels_last;
    tn_status status =
        tn_plan_raw(learner->network->plan, layer->input, &patches.data, &channels_last, error);
    if (status != TN_OK)
        return status;
    if (patches.spatial > 0 && !channels_last)
        return tn_fail(error, TN_ERROR_MODEL, "the input of %s lies in an unexpected order",
                       tn_quote(layer->input));
    patches.batch = each;
    int64_t first = tn_patches_rows(&patches) * chunk * data->chunk_images;
    patches.batch = each * images;
    return tn_gram_pass_add(pass, &patches, first, error);
}

static tn_status measure_inputs(block_learner *learner, tn_error *error)
{
    const tn_block_data *data = learner->data;
    tn_gram_pass **pass = tn_alloc_zero(learner->n_layers, sizeof *pass);
    tn_status status = pass ? TN_OK : out_of_memory(error);
    for (size_t l = 0; status == TN_OK && l < learner->n_layers; l++) {
        learned_layer *layer = &learner->layer[l];
        tn_patches patches = layer->patches;
        patches.batch = patches.batch / learner->network->batch * data->fitted;
        layer->nothing = (tn_gram_target){.channels = layer->weight->rows};
        status = tn_gram_pass_create(learner->network->device, &patches, tn_patches_rows(&patches),
                                     learner->options->positions, false, &layer->nothing,
                                     &layer->gram, &pass[l], error);
    }
    for (int64_t c = 0; status == TN_OK && c < chunks_of(data->fitted, data); c++) {
        status = tn_block_network_run(learner->network, data, c, error);
        for (size_t l = 0; status == TN_OK && l < learner->n_layers; l++)
            status = add_inputs(learner, &learner->layer[l], pass[l], c, error);
    }
    for (size_t l = 0; pass && l < learner->n_layers; l++) {
        if (status == TN_OK)
            status = tn_gram_pass_finish(pass[l], error);
        tn_gram_pass_destroy(pass[l]);
    }
    tn_free(pass);
    return status;
}

/* Gradients of one chunk at the layers' weights. */
static tn_status read_gradients(block_learner *learner, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t l = 0; status == TN_OK && l < learner->n_layers; l++)
        status = tn_params_get_gradient_rows(learner->network->params, learner->layer[l].param,
                                             learner->layer[l].gradient, error);
    return status;
}

/* Gauss-Newton: with random signs s at the block's output, the mean square of the gradient s'J at
 * a weight is its curvature, which along a row is h x the diagonal of G. */
static tn_status measure_curvature(block_learner *learner, tn_error *error)
{
    const tn_block_data *data = learner->data;
    tn_status status = TN_OK;
    for (size_t l = 0; l < learner->n_layers; l++)
        memset(learner->layer[l].curvature, 0,
               (size_t)learner->layer[l].weight->rows * sizeof(double));
    for (int64_t c = 0; status == TN_OK && c < chunks_of(data->fitted, data); c++) {
        status = tn_block_network_run(learner->network, data, c, error);
        if (status == TN_OK)
            status = tn_block_network_probe(learner->network, data, c, error);
        if (status == TN_OK)
            status = read_gradients(learner, error);
        for (size_t l = 0; status == TN_OK && l < learner->n_layers; l++) {
            learned_layer *layer = &learner->layer[l];
            for (int64_t o = 0; o < layer->weight->rows; o++)
                for (int64_t i = 0; i < layer->weight->cols; i++) {
                    double g = (double)layer->gradient[o * layer->weight->cols + i];
                    layer->curvature[o] += g * g;
                }
        }
    }
    return status;
}

/* From sums of squares to h, and G made ready. */
static void finish_curvature(block_learner *learner)
{
    for (size_t l = 0; l < learner->n_layers; l++) {
        learned_layer *layer = &learner->layer[l];
        tn_gram *gram = &layer->gram;
        tn_patches all = layer->patches;
        all.batch = all.batch / learner->network->batch * learner->data->fitted;
        double share = (double)tn_patches_rows(&all) / gram->count;
        for (int64_t o = 0; o < gram->rows; o++) {
            int64_t group = o / (gram->rows / gram->groups);
            double trace = 0;
            for (int64_t i = 0; i < gram->cols; i++)
                trace += gram->inner[(group * gram->cols + i) * gram->cols + i];
            layer->curvature[o] = trace > 0 ? layer->curvature[o] / (trace * share) : 0;
        }
        /* G stands for all positions: its sums are those of a share of them */
        for (int64_t i = 0; i < gram->groups * gram->cols * gram->cols; i++)
            gram->inner[i] *= share;
        for (int64_t i = 0; i < gram->groups * gram->cols; i++)
            gram->sum_x[i] *= share;
        gram->count *= share;
        bool output = layer->shifted == SIZE_MAX && learner->data->centered;
        if (layer->shifted != SIZE_MAX || output)
            tn_gram_center_inner(gram);
        tn_gram_damp_inner(gram, learner->options->damping, layer->shift_sum);
    }
}

/* --- steps --------------------------------------------------------------------------------------
 */

/* The present weights into the block, and what they are. */
static tn_status apply(block_learner *learner, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t l = 0; status == TN_OK && l < learner->n_layers; l++) {
        learned_layer *layer = &learner->layer[l];
        tn_qweight_dequantize(layer->weight, layer->values);
        status = tn_params_set_rows(learner->network->params, layer->param, layer->values, error);
    }
    return status;
}

/* Error on all images; with `gradients` also their sums over those that are fitted to. */
static tn_status judge(block_learner *learner, bool gradients, tn_block_error *sums,
                       tn_error *error)
{
    const tn_block_data *data = learner->data;
    tn_block_network *network = learner->network;
    tn_status status = TN_OK;
    *sums = (tn_block_error){0};
    for (size_t l = 0; gradients && l < learner->n_layers; l++) {
        learned_layer *layer = &learner->layer[l];
        memset(layer->sum, 0, (size_t)(layer->weight->rows * layer->weight->cols) * sizeof(float));
        memset(layer->shift_sum, 0, (size_t)layer->weight->rows * sizeof(double));
    }
    for (int64_t c = 0; status == TN_OK && c < chunks_of(data->images, data); c++) {
        status = tn_block_network_forward(network, data, c, sums, error);
        if (status != TN_OK || !gradients || c >= chunks_of(data->fitted, data))
            continue;
        status = tn_block_network_backward(network, data, c, error);
        if (status == TN_OK)
            status = read_gradients(learner, error);
        for (size_t l = 0; status == TN_OK && l < learner->n_layers; l++) {
            learned_layer *layer = &learner->layer[l];
            for (int64_t i = 0; i < layer->weight->rows * layer->weight->cols; i++)
                layer->sum[i] += layer->gradient[i];
            if (layer->source == SIZE_MAX)
                continue;
            status = tn_params_get_gradient(network->params, layer->source, layer->shift, error);
            for (int64_t o = 0; o < layer->weight->rows; o++)
                layer->shift_sum[o] += (double)layer->shift[o];
        }
    }
    return status;
}

static double relative(double error, double all)
{
    return all > 0 ? error / all : 0;
}

/* b of the descent's objective v'Gv - 2 v'b, whose gradient at v is that of the block's error over
 * h, times `step`. */
static void linear_terms(learned_layer *layer, double step)
{
    tn_gram *gram = &layer->gram;
    int64_t cols = gram->cols, outputs = gram->rows / gram->groups;
#pragma omp parallel for schedule(static)
    for (int64_t o = 0; o < gram->rows; o++) {
        int64_t group = o / outputs;
        const double *inner = gram->inner + group * cols * cols;
        const double *mean = gram->sum_x + group * cols;
        const float *v = layer->values + o * cols;
        double *b = gram->cross + o * cols, h = layer->curvature[o];
        double moved = layer->shifted != SIZE_MAX ? layer->shift_sum[o] * layer->gain[o] : 0;
        for (int64_t i = 0; i < cols; i++) {
            double g = (double)layer->sum[o * cols + i] - moved * mean[i] / gram->count;
            b[i] = h > 0 ? -step * g / (2 * h) : 0;
        }
        for (int64_t i = 0; i < cols; i++)
            if (v[i] != 0)
                for (int64_t j = 0; j < cols; j++)
                    b[j] += (double)v[i] * inner[i * cols + j];
    }
}

static void copy_codes(learned_layer *layer, int16_t *codes, float *scales, bool back)
{
    tn_qweight *weight = layer->weight;
    size_t n = (size_t)(weight->rows * weight->cols), count = (size_t)weight->n_scales;
    memcpy(back ? weight->codes : codes, back ? codes : weight->codes, n * sizeof *codes);
    memcpy(back ? weight->scale : scales, back ? scales : weight->scale, count * sizeof *scales);
    if (!weight->scale_neg)
        return;
    scales += count;
    memcpy(back ? weight->scale_neg : scales, back ? scales : weight->scale_neg,
           count * sizeof *scales);
}

/* What a step changes, kept or put back. */
static tn_status remember(block_learner *learner, bool back, tn_error *error)
{
    tn_params *params = learner->network->params;
    tn_status status = TN_OK;
    for (size_t l = 0; status == TN_OK && l < learner->n_layers; l++) {
        learned_layer *layer = &learner->layer[l];
        copy_codes(layer, layer->codes, layer->scales, back);
        if (layer->shifted != SIZE_MAX)
            status = back ? tn_params_set(params, layer->shifted, layer->shift_before, error)
                          : tn_params_get(params, layer->shifted, layer->shift_before, error);
    }
    return status;
}

/* The mean of each row's output stays what it was: BN or bias takes up the change. values: before
 * the step. */
static tn_status take_up(block_learner *learner, learned_layer *layer, tn_error *error)
{
    if (layer->shifted == SIZE_MAX)
        return TN_OK;
    const tn_gram *gram = &layer->gram;
    int64_t cols = gram->cols, outputs = gram->rows / gram->groups;
    tn_qweight_dequantize(layer->weight, layer->gradient);
    for (int64_t o = 0; o < gram->rows; o++) {
        double change = 0;
        for (int64_t i = 0; i < cols; i++)
            change +=
                ((double)layer->gradient[o * cols + i] - (double)layer->values[o * cols + i]) *
                gram->sum_x[o / outputs * cols + i] / gram->count;
        layer->shift[o] =
            (float)((double)layer->shift_before[o] + (layer->shift_is_mean ? change : -change));
    }
    return tn_params_set(learner->network->params, layer->shifted, layer->shift, error);
}

/* One step of a given length from where `values` and the gradients were taken. */
static tn_status make_step(block_learner *learner, double step, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t l = 0; status == TN_OK && l < learner->n_layers; l++) {
        learned_layer *layer = &learner->layer[l];
        linear_terms(layer, step);
        status = tn_descent(&layer->gram, NULL, layer->weight, NULL, error);
        if (status == TN_OK)
            status = take_up(learner, layer, error);
    }
    return status;
}

/* Steps while they lower the error on the images that are fitted to. */
static tn_status descend(block_learner *learner, tn_block_error *now, tn_block_learned *learned,
                         tn_error *error)
{
    int steps = learner->options->steps > 0 ? learner->options->steps : STEPS, tries = 0;
    double length = LENGTH;
    tn_status status = TN_OK;
    while (status == TN_OK && learned->steps < steps && tries < TRIES) {
        tn_block_error next;
        status = remember(learner, false, error);
        if (status == TN_OK)
            status = make_step(learner, length, error);
        if (status == TN_OK)
            status = apply(learner, error);
        if (status == TN_OK)
            status = judge(learner, false, &next, error);
        if (status != TN_OK)
            break;
        if (next.fitted < now->fitted) {
            bool enough = next.fitted > (1 - WORTH) * now->fitted;
            learned->steps++;
            tries = 0;
            status = judge(learner, true, now, error);
            if (enough)
                break;
            continue;
        }
        tries++;
        length /= 3;
        status = remember(learner, true, error);
        if (status == TN_OK)
            status = apply(learner, error);
    }
    return status;
}

/* --- the whole ----------------------------------------------------------------------------------
 */

static int64_t count_flips(const learned_layer *layer)
{
    int64_t count = 0;
    for (int64_t i = 0; i < layer->weight->rows * layer->weight->cols; i++)
        count += layer->weight->codes[i] != layer->first_codes[i];
    return count;
}

static tn_status run(block_learner *learner, tn_block_learned *learned, tn_error *error)
{
    tn_block_error now;
    for (size_t l = 0; l < learner->n_layers; l++)
        copy_codes(&learner->layer[l], learner->layer[l].first_codes,
                   learner->layer[l].first_scales, false);
    tn_status status = apply(learner, error);
    if (status == TN_OK)
        status = measure_inputs(learner, error);
    if (status == TN_OK)
        status = measure_curvature(learner, error);
    if (status == TN_OK) {
        finish_curvature(learner);
        status = judge(learner, true, &now, error);
    }
    if (status != TN_OK)
        return status;
    learned->fitted_before = relative(now.fitted, now.fitted_all);
    learned->held_before = relative(now.held, now.held_all);
    status = descend(learner, &now, learned, error);
    learned->fitted = relative(now.fitted, now.fitted_all);
    learned->held = relative(now.held, now.held_all);
    for (size_t l = 0; l < learner->n_layers; l++)
        learned->flips += count_flips(&learner->layer[l]);
    return status;
}

tn_status tn_block_learn(tn_block_network *network, const tn_block_data *data,
                         const tn_layers *layers, const tn_block_learning_options *options,
                         tn_qweight *weight, tn_params *params, tn_block_learned *learned,
                         tn_error *error)
{
    block_learner learner = {.network = network, .data = data, .options = options};
    tn_block_learned result = {0};
    tn_arena_init(&learner.arena);
    tn_status status = tn_block_network_exchange(network, params, false, error);
    if (status == TN_OK)
        status = prepare(&learner, layers, weight, error);
    if (status == TN_OK)
        status = run(&learner, &result, error);
    result.kept = status == TN_OK && result.steps > 0 && result.held < result.held_before;
    if (result.kept)
        status = tn_block_network_exchange(network, params, true, error);
    else if (status == TN_OK)
        for (size_t l = 0; l < learner.n_layers; l++)
            copy_codes(&learner.layer[l], learner.layer[l].first_codes,
                       learner.layer[l].first_scales, true);
    done(&learner);
    *learned = result;
    return status;
}
