#include "finetune/exchange.h"

#include "core/memory.h"
#include "finetune/divergence.h"

typedef struct exchange {
    const tn_probe *probe;
    tn_probe_network network;
    float *rows;   /* of one weight */
    float *logits; /* [batch, classes] */
} exchange;

static tn_status set_weight(const exchange *e, const tn_exchange *layer, const tn_layer *values,
                            tn_error *error)
{
    size_t at = tn_params_find(e->network.params, layer->in->weight->name);
    if (at == SIZE_MAX)
        return tn_fail(error, TN_ERROR_MODEL, "weight %s is missing",
                       tn_quote(layer->in->weight->name));
    tn_status status = tn_layer_rows(values, e->rows, error);
    return status == TN_OK ? tn_params_set_rows(e->network.params, at, e->rows, error) : status;
}

/* Sum of KL over all images, the network as it is. */
static tn_status run_all(const exchange *e, double *sum, tn_error *error)
{
    const tn_probe_network *network = &e->network;
    const int64_t classes = network->classes;
    tn_status status = TN_OK;
    for (int64_t at = 0; status == TN_OK && at < tn_probe_images(e->probe); at += network->batch) {
        const float *float_logits;
        int64_t count;
        status = tn_probe_batch(e->probe, at, &count, &float_logits, error);
        if (status == TN_OK)
            status = tn_plan_forward(network->plan, TN_RUN_INFERENCE, 0, SIZE_MAX, error);
        if (status == TN_OK)
            status = tn_plan_read(network->plan, network->logits, e->logits, error);
        for (int64_t i = 0; status == TN_OK && i < count; i++)
            *sum += tn_divergence_row(float_logits + i * classes, e->logits + i * classes, classes);
    }
    return status;
}

static tn_status make_arrays(exchange *e, const tn_exchange *layers, size_t count, tn_error *error)
{
    int64_t most = 1;
    for (size_t i = 0; i < count; i++) {
        int64_t n = layers[i].in->rows * layers[i].in->cols;
        most = n > most ? n : most;
    }
    e->rows = tn_alloc_array((size_t)most, sizeof *e->rows);
    e->logits = tn_alloc_array((size_t)(e->network.batch * e->network.classes), sizeof *e->logits);
    return e->rows && e->logits ? TN_OK
                                : tn_fail(error, TN_ERROR_LIMIT, "out of memory for the layers");
}

tn_status tn_exchange_measure(const tn_model *model, const tn_dataset *dataset,
                              const tn_calibrate_options *options, int64_t images,
                              tn_device *device, tn_exchange *layers, size_t count, tn_error *error)
{
    tn_calibrate_options all = *options;
    tn_probe *probe = NULL;
    exchange e = {.rows = NULL};
    all.samples = 1; /* nothing is calibrated: one image is left out for it all the same */
    tn_status status = tn_probe_create(model, dataset, &all, images, device, &probe, error);
    if (status == TN_OK) {
        e.probe = probe;
        e.network = tn_probe_network_of(probe);
        status = make_arrays(&e, layers, count, error);
    }
    for (size_t i = 0; status == TN_OK && i < count; i++) {
        if (tn_cancelled(options->reporter)) {
            status = tn_fail(error, TN_ERROR_CANCELLED, "the measurement of layers was stopped");
            break;
        }
        layers[i].kl = 0;
        status = set_weight(&e, &layers[i], layers[i].from, error);
        if (status == TN_OK)
            status = run_all(&e, &layers[i].kl, error);
        if (status == TN_OK)
            status = set_weight(&e, &layers[i], layers[i].in, error);
        layers[i].kl /= (double)tn_probe_images(probe);
        tn_progress(options->reporter, "measuring layers", i + 1, count);
    }
    tn_free(e.rows);
    tn_free(e.logits);
    tn_probe_destroy(probe);
    return status;
}
