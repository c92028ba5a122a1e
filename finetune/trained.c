#include "finetune/trained.h"

#include "core/memory.h"
#include "finetune/bn_statistics.h"
#include "finetune/evaluate.h"
#include "onnx_io/substitute.h"

#include <string.h>

enum { REESTIMATE_IMAGES = 8192, JUDGE_IMAGES = 2048, VALIDATION_IMAGES = 512 };

/* A permutation of the training set: its head measures statistics, its tail judges them. */
static tn_status choose_images(const tn_train_data *data, uint64_t seed, uint32_t **order,
                               size_t *measured, size_t *judged, tn_error *error)
{
    size_t n = tn_dataset_count(data->train);
    uint32_t *drawn = tn_alloc_array(n, sizeof *drawn);
    if (!drawn)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu image numbers", n);
    tn_status status = tn_dataset_draw(data->train, seed, n, drawn, error);
    if (status != TN_OK) {
        tn_free(drawn);
        return status;
    }
    *judged = n / 5 < JUDGE_IMAGES ? n / 5 : JUDGE_IMAGES;
    *measured = n - *judged < REESTIMATE_IMAGES ? n - *judged : REESTIMATE_IMAGES;
    *order = drawn;
    return TN_OK;
}

static tn_loader_options plain_loader(const tn_train_data *data, const tn_train_options *options,
                                      const uint32_t *subset, size_t n)
{
    return (tn_loader_options){.preprocess = data->preprocess,
                               .output = TN_LOADER_VALUES_NHWC,
                               .batch = (size_t)tn_train_rank_batch(options),
                               .replace_bad = true,
                               .max_bad = data->max_bad,
                               .subset = subset,
                               .n_subset = n,
                               .threads = options->threads_loader};
}

static tn_status measure(tn_student *student, const tn_train_data *data,
                         const tn_train_options *options, const uint32_t *subset, size_t n,
                         tn_bn_statistics *statistics, tn_error *error)
{
    tn_loader *loader = NULL;
    /* pictures as training sees them: padding and mixing move the statistics that weights are used
     * to */
    tn_loader_options seen = plain_loader(data, options, subset, n);
    seen.augment = data->augment;
    seen.seed = options->seed;
    seen.drop_last = true;
    tn_status status = tn_loader_create(data->train, &seen, &loader, error);
    if (status == TN_OK)
        status = tn_loader_start(loader, 0, 0, error);
    for (const tn_batch *batch = NULL; status == TN_OK;) {
        status = tn_loader_next(loader, &batch, error);
        if (status != TN_OK || !batch)
            break;
        status =
            tn_plan_write_images(student->plan, 0, batch->values, (int64_t)batch->count, error);
        if (status == TN_OK)
            status = tn_plan_forward(student->plan, TN_RUN_BATCH_STATISTICS, 0, SIZE_MAX, error);
        if (status == TN_OK)
            status = tn_bn_statistics_add(statistics, student->plan, error);
    }
    tn_loader_destroy(loader);
    return status;
}

/* Sum of losses of the judge on training images, against labels or teacher as in training. */
static tn_status judge(tn_student *student, const tn_train_data *data,
                       const tn_train_options *options, const uint32_t *subset, size_t n,
                       double *loss, tn_error *error)
{
    tn_loader *loader = NULL;
    tn_loader_options plain = plain_loader(data, options, subset, n);
    tn_status status = tn_loader_create(data->train, &plain, &loader, error);
    if (status == TN_OK)
        status = tn_loader_start(loader, 0, 0, error);
    double sum = 0;
    for (const tn_batch *batch = NULL; status == TN_OK;) {
        status = tn_loader_next(loader, &batch, error);
        if (status != TN_OK || !batch)
            break;
        tn_loss_result result = {0};
        const tn_sample_batch samples = {
            .nhwc = batch->values, .labels = batch->labels, .count = (int64_t)batch->count};
        status = tn_student_judge(student, &samples, &result, error);
        sum += result.loss;
    }
    tn_loader_destroy(loader);
    if (status == TN_OK)
        *loss = sum;
    return status;
}

tn_status tn_trained_measure(tn_student *student, const tn_train_data *data,
                             const tn_train_options *options, tn_bn_statistics *statistics,
                             tn_error *error)
{
    uint32_t *order = NULL;
    size_t measured = 0, judged = 0;
    const size_t batch = (size_t)tn_train_rank_batch(options);
    const size_t wanted = (VALIDATION_IMAGES + batch - 1) / batch * batch; /* whole batches alone */
    tn_status status = tn_bn_statistics_create(student->plan, statistics, error);
    if (status != TN_OK || statistics->count == 0)
        return status;
    status = choose_images(data, options->seed, &order, &measured, &judged, error);
    if (status == TN_OK)
        status = measure(student, data, options, order, measured < wanted ? measured : wanted,
                         statistics, error);
    if (status == TN_OK && statistics->batches > 0)
        status = tn_bn_statistics_apply(statistics, student->plan, error);
    tn_free(order);
    return status;
}

tn_status tn_trained_reestimate(tn_student *student, const tn_train_data *data,
                                const tn_train_options *options, bool *kept, tn_error *error)
{
    uint32_t *order = NULL;
    size_t measured = 0, judged = 0;
    double before = 0, after = 0;
    tn_bn_statistics statistics = {0};
    tn_status status = tn_bn_statistics_create(student->plan, &statistics, error);
    if (status == TN_OK && statistics.count == 0) {
        tn_bn_statistics_done(&statistics);
        *kept = false;
        return TN_OK;
    }
    if (status == TN_OK)
        status = choose_images(data, options->seed, &order, &measured, &judged, error);
    if (status == TN_OK)
        status = judge(student, data, options, order + measured, judged, &before, error);
    if (status == TN_OK)
        status = measure(student, data, options, order, measured, &statistics, error);
    if (status == TN_OK && statistics.batches > 0)
        status = tn_bn_statistics_apply(&statistics, student->plan, error);
    if (status == TN_OK)
        status = judge(student, data, options, order + measured, judged, &after, error);
    bool better = status == TN_OK && judged > 0 && after < before;
    if (status == TN_OK && !better)
        status = tn_bn_statistics_restore(&statistics, student->plan, error);
    if (status == TN_OK)
        *kept = better;
    tn_bn_statistics_done(&statistics);
    tn_free(order);
    return status;
}

/* --- the result ---------------------------------------------------------------------------- */

static bool is_quantized(const tn_student *student, size_t param)
{
    for (size_t i = 0; i < student->latents.count; i++)
        if (student->latents.item[i].param == param)
            return true;
    return false;
}

/* The copy of the model with every float parameter that training changed. */
static tn_status copy_params(const tn_student *student, tn_model *copy, tn_error *error)
{
    const tn_params *params = student->params;
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < tn_params_count(params); i++) {
        const tn_param *param = tn_params_at(params, i);
        const tn_value *value = tn_graph_value(student->graph, param->name);
        bool statistic = param->role == TN_PARAM_MEAN || param->role == TN_PARAM_VAR;
        if (is_quantized(student, i) || tn_activation_steps_find(&student->steps, i) || !value ||
            !(param->trainable || statistic))
            continue;
        float *numbers = tn_alloc_array((size_t)param->count, sizeof *numbers);
        if (!numbers)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the trained parameters");
        status = tn_params_get(params, i, numbers, error);
        if (status == TN_OK)
            status = tn_substitute_values(copy, param->name, value->constant->dtype, param->rank,
                                          param->dims, numbers, error);
        tn_free(numbers);
    }
    return status;
}

static tn_status copy_weight(const tn_qweight *from, tn_qweight *to, tn_error *error)
{
    tn_qweight copy = *from;
    tn_status status = tn_qweight_init(&copy, from->scale_neg != NULL, from->zero != NULL, error);
    if (status != TN_OK)
        return status;
    size_t scales = (size_t)from->n_scales * sizeof(float);
    memcpy(copy.codes, from->codes, (size_t)(from->rows * from->cols) * sizeof *copy.codes);
    memcpy(copy.scale, from->scale, scales);
    if (from->scale_neg)
        memcpy(copy.scale_neg, from->scale_neg, scales);
    if (from->zero)
        memcpy(copy.zero, from->zero, scales);
    *to = copy;
    return TN_OK;
}

static const tn_layer *find_layer(const tn_layers *layers, const char *weight)
{
    for (size_t i = 0; i < layers->count; i++)
        if (!strcmp(layers->layer[i].weight->name, weight))
            return &layers->layer[i];
    return NULL;
}

static const tn_latent *find_latent(const tn_latents *latents, const tn_layer *layer)
{
    for (size_t i = 0; i < latents->count; i++)
        if (latents->item[i].layer == layer)
            return &latents->item[i];
    return NULL;
}

/* A layer that was trained plainly (half) is written from the trained model's own weights. */
static tn_status collect_layer(const tn_student *student, const tn_layer *layer,
                               tn_trained *trained, tn_error *error)
{
    const tn_latent *latent = find_latent(&student->latents, layer);
    tn_converted *item = &trained->conversion.item[trained->conversion.count];
    item->layer = find_layer(&trained->layers, layer->weight->name);
    if (!item->layer)
        return tn_fail(error, TN_ERROR_MODEL, "layer %s is lost in the trained model",
                       tn_quote(layer->weight->name));
    tn_status status = latent ? copy_weight(&latent->weight, &item->weight, error)
                              : tn_layer_weight_init(item->layer, &item->weight, error);
    trained->conversion.count += status == TN_OK;
    return status == TN_OK ? tn_converted_measure(item, layer, error) : status;
}

static tn_status collect_weights(tn_student *student, tn_trained *trained, tn_error *error)
{
    const size_t count = student->layers.count;
    tn_latents_export(&student->latents);
    trained->conversion.item = tn_alloc_zero(count + 1, sizeof *trained->conversion.item);
    if (!trained->conversion.item)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the trained weights");
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < count; i++)
        if (student->layers.layer[i].quantized)
            status = collect_layer(student, &student->layers.layer[i], trained, error);
    return status;
}

/* The first images as they are judged: of validation where there is some, else of training. */
static tn_status proof_batch(const tn_train_data *data, const tn_train_options *options,
                             tn_loader **loader, const tn_batch **batch, tn_error *error)
{
    tn_loader_options plain = plain_loader(data, options, NULL, 0);
    tn_status status = tn_loader_create(data->val ? data->val : data->train, &plain, loader, error);
    if (status == TN_OK)
        status = tn_loader_start(*loader, 0, 0, error);
    if (status == TN_OK)
        status = tn_loader_next(*loader, batch, error);
    if (status == TN_OK && !*batch)
        status = tn_fail(error, TN_ERROR_DATA, "no images to check the export with");
    return status;
}

static tn_status run_proof(tn_plan *plan, const tn_batch *batch, int64_t classes, float **logits,
                           tn_error *error)
{
    float *read = tn_alloc_array((size_t)(tn_plan_batch(plan) * classes), sizeof *read);
    if (!read)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for logits");
    tn_status status = tn_plan_write_images(plan, 0, batch->values, (int64_t)batch->count, error);
    if (status == TN_OK)
        status = tn_plan_forward(plan, TN_RUN_INFERENCE, 0, SIZE_MAX, error);
    if (status == TN_OK)
        status = tn_plan_read(plan, tn_plan_logits(plan), read, error);
    if (status == TN_OK)
        *logits = read;
    else
        tn_free(read);
    return status;
}

tn_status tn_trained_rebuild(tn_trained *trained, const tn_train_options *options, tn_error *error)
{
    tn_graph *graph = NULL;
    tn_layers layers = {0};
    tn_status status = tn_graph_create(trained->model, NULL, &graph, error);
    if (status == TN_OK && trained->layers.count > 0)
        status = tn_layers_select(graph, &options->policy, &layers, error);
    for (size_t i = 0; status == TN_OK && i < trained->conversion.count; i++) {
        tn_converted *item = &trained->conversion.item[i];
        const char *name = item->layer->weight->name;
        item->layer = find_layer(&layers, name);
        if (!item->layer)
            status = tn_fail(error, TN_ERROR_MODEL, "layer %s is lost in the trained model",
                             tn_quote(name));
    }
    if (status != TN_OK) {
        tn_graph_destroy(graph);
        return status;
    }
    tn_graph_destroy(trained->graph);
    trained->graph = graph;
    trained->layers = layers;
    return TN_OK;
}

/* The numbers as a file keeps them that holds `dtype`. */
static tn_status round_to(tn_dtype dtype, float *numbers, int64_t count, tn_error *error)
{
    tn_tensor tensor = {.dtype = dtype, .rank = 1, .dims = {count}};
    if (dtype == TN_FLOAT)
        return TN_OK;
    if (!tn_dtype_bytes(dtype, (uint64_t)count, &tensor.bytes) ||
        !(tensor.data = tn_alloc_array(tensor.bytes, 1)))
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory to round %lld weights",
                       (long long)count);
    tn_status status = TN_OK;
    for (int64_t i = 0; status == TN_OK && i < count; i++) {
        const double value = (double)numbers[i];
        status = tn_tensor_write_double(&tensor, i, 1, &value, error);
    }
    if (status == TN_OK)
        status = tn_tensor_read_float(&tensor, 0, count, numbers, error);
    tn_free(tensor.data);
    return status;
}

/* Whether the file rounds what was trained: its weights are of a narrower type, or become so. */
static bool is_narrow(const tn_student *student, const tn_conversion *conversion)
{
    for (size_t i = 0; i < conversion->count; i++)
        if (!conversion->item[i].weight.codes)
            return true;
    for (size_t i = 0; i < tn_params_count(student->params); i++) {
        const tn_param *param = tn_params_at(student->params, i);
        const tn_value *value = tn_graph_value(student->graph, param->name);
        if (value && (value->dtype == TN_FLOAT16 || value->dtype == TN_BFLOAT16))
            return true;
    }
    return false;
}

/* A plan of the model with the items' dequantized values, run on the proof's images. */
tn_status tn_trained_reprove(tn_trained *trained, const tn_train_data *data,
                             const tn_train_options *options, tn_error *error)
{
    tn_graph *graph = NULL;
    tn_params *params = NULL;
    tn_plan *plan = NULL;
    tn_loader *loader = NULL;
    const tn_batch *batch = NULL;
    float *logits = NULL;
    const tn_graph_options size = {.batch = tn_train_rank_batch(options)};
    tn_activation_steps steps = {0};
    tn_status status = TN_OK;
    if (trained->activations.count > 0)
        status = tn_activation_steps_create(trained->model, &trained->activations, &steps, error);
    if (status == TN_OK)
        status = tn_graph_create(steps.model ? steps.model : trained->model, &size, &graph, error);
    if (status == TN_OK)
        status = tn_params_create(graph, options->device, &params, error);
    for (size_t i = 0; status == TN_OK && i < trained->conversion.count; i++) {
        const tn_converted *item = &trained->conversion.item[i];
        size_t param = tn_params_find(params, item->layer->weight->name);
        float *rows = tn_alloc_array((size_t)(item->weight.rows * item->weight.cols), sizeof *rows);
        if (!rows || param == SIZE_MAX) {
            tn_free(rows);
            status = tn_fail(error, TN_ERROR_LIMIT, "out of memory to check the trained network");
            break;
        }
        status = tn_converted_values(item->layer, &item->weight, rows, error);
        if (status == TN_OK)
            status = round_to(item->layer->weight->dtype, rows,
                              item->weight.rows * item->weight.cols, error);
        if (status == TN_OK)
            status = tn_params_set_rows(params, param, rows, error);
        tn_free(rows);
    }
    const tn_plan_options inference = {
        .loss = true, .output = options->output, .precision = options->precision, .params = params};
    if (status == TN_OK)
        status = tn_plan_create(graph, options->device, &inference, &plan, error);
    if (status == TN_OK)
        status = proof_batch(data, options, &loader, &batch, error);
    if (status == TN_OK)
        status = run_proof(plan, batch, trained->classes, &logits, error);
    if (status == TN_OK) {
        tn_free(trained->proof_logits);
        trained->proof_logits = logits;
    }
    tn_loader_destroy(loader);
    tn_plan_destroy(plan);
    tn_params_destroy(params);
    tn_graph_destroy(graph);
    tn_activation_steps_done(&steps);
    return status;
}

tn_status tn_trained_collect(tn_student *student, const tn_model *model, const tn_train_data *data,
                             const tn_train_options *options, tn_trained *out, tn_error *error)
{
    tn_trained trained = {.classes = student->classes};
    tn_loader *loader = NULL;
    const tn_batch *batch = NULL;
    tn_status status = tn_model_copy(model, &trained.model, error);
    if (status == TN_OK)
        status = copy_params(student, trained.model, error);
    if (status == TN_OK)
        status = tn_graph_create(trained.model, NULL, &trained.graph, error);
    if (status == TN_OK && student->layers.count > 0)
        status = tn_layers_select(trained.graph, &options->policy, &trained.layers, error);
    if (status == TN_OK)
        status = collect_weights(student, &trained, error);
    if (status == TN_OK && student->steps.model)
        status = tn_activation_steps_export(&student->steps, student->params, &trained.activations,
                                            error);
    if (status == TN_OK)
        status = proof_batch(data, options, &loader, &batch, error);
    if (status == TN_OK) {
        trained.proof_count = (int64_t)batch->count;
        status = run_proof(student->judge, batch, student->classes, &trained.proof_logits, error);
    }
    if (status == TN_OK && is_narrow(student, &trained.conversion))
        status = tn_trained_reprove(&trained, data, options, error);
    tn_loader_destroy(loader);
    if (status == TN_OK)
        *out = trained;
    else
        tn_trained_done(&trained);
    return status;
}

void tn_trained_done(tn_trained *trained)
{
    tn_conversion_done(&trained->conversion);
    tn_activations_done(&trained->activations);
    tn_graph_destroy(trained->graph);
    tn_model_destroy(trained->model);
    tn_free(trained->proof_logits);
    *trained = (tn_trained){0};
}

tn_status tn_trained_prove(const tn_trained *trained, const tn_model *written,
                           const tn_train_data *data, const tn_train_options *options,
                           tn_error *error)
{
    tn_graph *graph = NULL;
    tn_plan *plan = NULL;
    tn_loader *loader = NULL;
    const tn_batch *batch = NULL;
    float *logits = NULL;
    tn_train_options resolved;
    tn_status status = tn_train_resolve(options, &resolved, error);
    if (status != TN_OK)
        return status;
    tn_graph_options size = {.batch = tn_train_rank_batch(&resolved)};
    tn_plan_options inference = {
        .loss = true, .output = resolved.output, .precision = resolved.precision};
    status = tn_graph_create(written, &size, &graph, error);
    if (status == TN_OK)
        status = tn_plan_create(graph, resolved.device, &inference, &plan, error);
    if (status == TN_OK)
        status = proof_batch(data, &resolved, &loader, &batch, error);
    if (status == TN_OK)
        status = run_proof(plan, batch, trained->classes, &logits, error);
    size_t bytes = (size_t)(trained->proof_count * trained->classes) * sizeof(float);
    if (status == TN_OK && memcmp(logits, trained->proof_logits, bytes) != 0)
        status = tn_fail(error, TN_ERROR_DIFFERS,
                         "the written model's logits differ from the trained network's: the file "
                         "must not be used");
    tn_free(logits);
    tn_loader_destroy(loader);
    tn_plan_destroy(plan);
    tn_graph_destroy(graph);
    return status;
}
