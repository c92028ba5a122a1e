#include "finetune/block_network.h"

#include "core/memory.h"
#include "core/random.h"
#include "onnx_io/extract.h"

#include <string.h>

size_t tn_block_key(const tn_block *block, int64_t chunk, size_t which)
{
    return (size_t)chunk * (block->n_inputs + 1) + which;
}

static int64_t count_of(const tn_value *value)
{
    int64_t count = 1;
    for (int i = 0; i < value->rank; i++)
        count *= value->dims[i];
    return count;
}

static bool is_layer(const tn_node *node)
{
    return !node->folded && (!strcmp(node->type, "Conv") || !strcmp(node->type, "Gemm") ||
                             !strcmp(node->type, "MatMul"));
}

static tn_status make_plan(tn_block_network *network, tn_device *device, tn_error *error)
{
    tn_status status = tn_graph_create(network->model, NULL, &network->graph, error);
    if (status == TN_OK)
        status = tn_params_create(network->graph, device, &network->params, error);
    for (size_t i = 0; status == TN_OK && i < tn_params_count(network->params); i++)
        tn_params_at(network->params, i)->frozen = true;
    if (status != TN_OK)
        return status;
    const char **taps = tn_alloc_zero(network->graph->n_nodes + 1, sizeof *taps);
    if (!taps)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a block");
    tn_plan_options options = {.training = true,
                               .separate_bn = true,
                               .precision = TN_PRECISION_FP32,
                               .taps = taps,
                               .params = network->params};
    for (size_t i = 0; i < network->graph->n_nodes; i++) {
        const tn_node *node = network->graph->nodes[i];
        if (is_layer(node) && !node->inputs[0]->is_input)
            taps[options.n_taps++] = node->inputs[0]->name;
    }
    status = tn_plan_create(network->graph, device, &options, &network->plan, error);
    tn_free(taps);
    return status;
}

tn_status tn_block_network_create(const tn_graph *graph, const tn_block *block, tn_device *device,
                                  tn_block_network *out, tn_error *error)
{
    tn_block_network network = {.block = block, .device = device};
    tn_status status = tn_model_extract(graph, block->first, block->last, block->inputs,
                                        block->n_inputs, block->output, &network.model, error);
    if (status == TN_OK)
        status = make_plan(&network, device, error);
    if (status == TN_OK) {
        const tn_value *output = block->output;
        int64_t most = 1, all = count_of(output);
        for (size_t i = 0; i < block->n_inputs; i++)
            most = count_of(block->inputs[i]) > most ? count_of(block->inputs[i]) : most;
        network.batch = output->dims[0];
        network.channels = output->dims[1];
        network.space = all / (network.batch * network.channels);
        network.input = tn_alloc_array((size_t)most, sizeof(float));
        network.output = tn_alloc_array((size_t)all, sizeof(float));
        network.target = tn_alloc_array((size_t)all, sizeof(float));
        if (!network.input || !network.output || !network.target)
            status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for a block");
    }
    if (status == TN_OK)
        *out = network;
    else
        tn_block_network_done(&network);
    return status;
}

void tn_block_network_done(tn_block_network *network)
{
    tn_plan_destroy(network->plan);
    tn_params_destroy(network->params);
    tn_graph_destroy(network->graph);
    tn_model_destroy(network->model);
    tn_free(network->input);
    tn_free(network->output);
    tn_free(network->target);
    *network = (tn_block_network){0};
}

tn_status tn_block_network_exchange(tn_block_network *network, tn_params *whole, bool back,
                                    tn_error *error)
{
    tn_params *from = back ? network->params : whole, *to = back ? whole : network->params;
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < tn_params_count(network->params); i++) {
        const char *name = tn_params_at(network->params, i)->name;
        size_t source = tn_params_find(from, name), target = tn_params_find(to, name);
        if (source == SIZE_MAX || target == SIZE_MAX)
            return tn_fail(error, TN_ERROR_MODEL, "parameter %s is missing in the plan",
                           tn_quote(name));
        size_t count = (size_t)tn_params_at(from, source)->count;
        float *numbers = tn_alloc_array(count, sizeof *numbers);
        if (!numbers)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a block");
        status = tn_params_get(from, source, numbers, error);
        if (status == TN_OK)
            status = tn_params_set(to, target, numbers, error);
        tn_free(numbers);
    }
    return status;
}

static int64_t images_in(const tn_block_data *data, int64_t chunk, int64_t of)
{
    int64_t left = of - chunk * data->chunk_images;
    return left < 0 ? 0 : left < data->chunk_images ? left : data->chunk_images;
}

/* Errors of one channel over images [first, last), output becoming the difference. */
static void channel_error(const tn_block_network *network, bool centered, int64_t channel,
                          int64_t first, int64_t last, double *error, double *all)
{
    int64_t space = network->space;
    double n = (double)((last - first) * space), sum = 0, sum_y = 0, square_y = 0;
    for (int64_t b = first; b < last; b++) {
        float *output = network->output + (b * network->channels + channel) * space;
        const float *target = network->target + (b * network->channels + channel) * space;
        for (int64_t i = 0; i < space; i++) {
            double y = (double)target[i];
            output[i] -= target[i];
            sum += (double)output[i];
            sum_y += y;
            square_y += y * y;
        }
    }
    float mean = centered && n > 0 ? (float)(sum / n) : 0;
    double square = 0;
    for (int64_t b = first; b < last; b++) {
        float *output = network->output + (b * network->channels + channel) * space;
        for (int64_t i = 0; i < space; i++) {
            output[i] -= mean;
            square += (double)output[i] * (double)output[i];
        }
    }
    *error = square;
    *all = n > 0 ? square_y - sum_y * sum_y / n : 0;
}

static tn_status add_errors(tn_block_network *network, const tn_block_data *data, int64_t first,
                            int64_t last, double *error_sum, double *all_sum, tn_error *error)
{
    double *sums = tn_alloc_array((size_t)network->channels, 2 * sizeof *sums);
    if (!sums)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a block");
#pragma omp parallel for schedule(static)
    for (int64_t c = 0; c < network->channels; c++)
        channel_error(network, data->centered, c, first, last, &sums[2 * c], &sums[2 * c + 1]);
    for (int64_t c = 0; c < network->channels; c++) {
        *error_sum += sums[2 * c];
        *all_sum += sums[2 * c + 1];
    }
    tn_free(sums);
    return TN_OK;
}

static tn_status write_inputs(tn_block_network *network, const tn_block_data *data, int64_t chunk,
                              tn_error *error)
{
    const tn_block *block = network->block;
    tn_status status = TN_OK;
    for (size_t k = 0; status == TN_OK && k < block->n_inputs; k++) {
        status = tn_activation_store_get(data->store, tn_block_key(block, chunk, k), network->input,
                                         (size_t)count_of(block->inputs[k]), error);
        for (size_t i = 0; status == TN_OK && i < network->graph->n_inputs; i++)
            if (!strcmp(network->graph->inputs[i]->name, block->inputs[k]->name))
                status =
                    tn_plan_write_input(network->plan, i, network->input, network->batch, error);
    }
    return status;
}

tn_status tn_block_network_run(tn_block_network *network, const tn_block_data *data, int64_t chunk,
                               tn_error *error)
{
    tn_status status = write_inputs(network, data, chunk, error);
    if (status == TN_OK)
        status = tn_plan_forward(network->plan, TN_RUN_INFERENCE, 0, SIZE_MAX, error);
    return status == TN_OK
               ? tn_plan_read(network->plan, network->block->output->name, network->output, error)
               : status;
}

tn_status tn_block_network_forward(tn_block_network *network, const tn_block_data *data,
                                   int64_t chunk, tn_block_error *sums, tn_error *error)
{
    const tn_block *block = network->block;
    int64_t count = images_in(data, chunk, data->images);
    int64_t fitted = images_in(data, chunk, data->fitted);
    int64_t all = network->batch * network->channels * network->space;
    tn_status status = tn_block_network_run(network, data, chunk, error);
    if (status == TN_OK)
        status = tn_activation_store_get(data->store, tn_block_key(block, chunk, block->n_inputs),
                                         network->target, (size_t)all, error);
    if (status == TN_OK && fitted > 0)
        status = add_errors(network, data, 0, fitted, &sums->fitted, &sums->fitted_all, error);
    if (status == TN_OK && fitted < count)
        status = add_errors(network, data, fitted, count, &sums->held, &sums->held_all, error);
    return status;
}

/* What network->output holds for the fitted images, as gradient at the block's output. */
static tn_status push_back(tn_block_network *network, int64_t fitted, tn_error *error)
{
    int64_t size = network->channels * network->space;
    memset(network->output + fitted * size, 0,
           (size_t)((network->batch - fitted) * size) * sizeof(float));
    tn_status status =
        tn_plan_inject(network->plan, network->block->output->name, network->output, error);
    return status == TN_OK ? tn_plan_backward(network->plan, 0, SIZE_MAX, false, error) : status;
}

tn_status tn_block_network_backward(tn_block_network *network, const tn_block_data *data,
                                    int64_t chunk, tn_error *error)
{
    int64_t fitted = images_in(data, chunk, data->fitted);
    for (int64_t i = 0; i < fitted * network->channels * network->space; i++)
        network->output[i] *= 2;
    return push_back(network, fitted, error);
}

tn_status tn_block_network_probe(tn_block_network *network, const tn_block_data *data,
                                 int64_t chunk, tn_error *error)
{
    int64_t fitted = images_in(data, chunk, data->fitted);
    int64_t count = fitted * network->channels * network->space;
    tn_random random = tn_random_make(0, TN_PURPOSE_CALIBRATE, 1, (uint64_t)chunk);
    uint32_t bits = 0;
    for (int64_t i = 0; i < count; i++, bits >>= 1) {
        if (i % 32 == 0)
            bits = tn_random_u32(&random);
        network->output[i] = bits & 1 ? 1.0f : -1.0f;
    }
    return push_back(network, fitted, error);
}
