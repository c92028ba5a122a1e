#include "finetune/probe.h"

#include "core/memory.h"
#include "finetune/activation_steps.h"
#include "finetune/calibrate_images.h"
#include "finetune/calibrate_walk.h"
#include "finetune/divergence.h"
#include "finetune/weight_placement.h"

#include <math.h>
#include <string.h>

enum { MORE_IMAGES = 1024, MORE_BYTES = 256 * 1024 * 1024, SAMPLES = 256 };

/* A network that runs on the probe's images. */
typedef struct probed {
    tn_graph *graph;
    tn_params *params;
    tn_plan *plan;
    const char *logits;
} probed;

struct tn_probe {
    tn_calibrate_images images;
    tn_device *device;  /* borrowed */
    const char *output; /* as given */
    probed network;     /* the float one */
    int64_t batch, classes;
    bool hold_out;       /* some of them are calibration images */
    float *logits;       /* [batch, classes] */
    float *float_logits; /* [used, classes] */
};

static void probed_done(probed *network)
{
    tn_plan_destroy(network->plan);
    tn_params_destroy(network->params);
    tn_graph_destroy(network->graph);
}

void tn_probe_destroy(tn_probe *probe)
{
    if (!probe)
        return;
    tn_calibrate_images_done(&probe->images);
    probed_done(&probe->network);
    tn_free(probe->logits);
    tn_free(probe->float_logits);
    tn_free(probe);
}

int64_t tn_probe_images(const tn_probe *probe)
{
    return probe->images.count;
}

bool tn_probe_needs_hold_out(const tn_probe *probe)
{
    return probe->hold_out;
}

/* What it costs on average to name the class at q's top instead of that at f's; all, where a row
 * names none. */
static double loss_of(const float *f, const float *q, int64_t classes)
{
    int64_t top_f = tn_first_maximum(f, classes), top_q = tn_first_maximum(q, classes);
    double sum = 0;
    if (top_f == TN_NO_MAXIMUM || top_q == TN_NO_MAXIMUM)
        return 1;
    for (int64_t i = 0; i < classes; i++)
        sum += exp((double)f[i] - (double)f[top_f]);
    return (1 - exp((double)f[top_q] - (double)f[top_f])) / sum;
}

tn_probe_network tn_probe_network_of(const tn_probe *probe)
{
    return (tn_probe_network){.graph = probe->network.graph,
                              .params = probe->network.params,
                              .plan = probe->network.plan,
                              .logits = probe->network.logits,
                              .batch = probe->batch,
                              .classes = probe->classes};
}

/* As tn_probe_batch, of any network. */
static tn_status write_batch(const tn_probe *probe, const probed *network, int64_t at,
                             int64_t *count, const float **float_logits, tn_error *error)
{
    const tn_calibrate_images *images = &probe->images;
    int64_t left = tn_probe_images(probe) - at;
    *count = left < probe->batch ? left : probe->batch;
    *float_logits = probe->float_logits + at * probe->classes;
    return tn_plan_write_input(network->plan, 0, images->values + at * images->size, *count, error);
}

tn_status tn_probe_batch(const tn_probe *probe, int64_t at, int64_t *count,
                         const float **float_logits, tn_error *error)
{
    return write_batch(probe, &probe->network, at, count, float_logits, error);
}

/* Logits of the images from `at` on. */
static tn_status run_batch(tn_probe *probe, const probed *network, int64_t at, int64_t *count,
                           const float **float_logits, tn_error *error)
{
    tn_status status = write_batch(probe, network, at, count, float_logits, error);
    if (status == TN_OK)
        status = tn_plan_forward(network->plan, TN_RUN_INFERENCE, 0, SIZE_MAX, error);
    if (status == TN_OK)
        status = tn_plan_read(network->plan, network->logits, probe->logits, error);
    return status;
}

int64_t tn_probe_unseen(const tn_dataset *dataset, const tn_calibrate_options *options)
{
    const size_t samples = options->samples ? options->samples : SAMPLES;
    if (!dataset || options->images || tn_dataset_count(dataset) <= samples)
        return 0;
    return (int64_t)(tn_dataset_count(dataset) - samples);
}

/* How many images more than those calibrated with memory allows. */
static tn_status bound(const tn_model *model, const tn_dataset *dataset,
                       const tn_calibrate_options *options, int64_t *more, tn_error *error)
{
    tn_calibrate_options one = *options;
    tn_calibrate_images single;
    one.samples = 1;
    tn_status status = tn_calibrate_images_load(model, dataset, &one, &single, error);
    if (status != TN_OK)
        return status;
    int64_t bytes = single.size * (int64_t)sizeof(float);
    tn_calibrate_images_done(&single);
    int64_t most = MORE_BYTES / (bytes > 0 ? bytes : 1);
    *more = *more < most ? *more : most;
    return TN_OK;
}

static tn_status load_images(tn_probe *probe, const tn_model *model, const tn_dataset *dataset,
                             const tn_calibrate_options *options, int64_t most, tn_error *error)
{
    tn_calibrate_options used = *options;
    int64_t samples = options->samples ? (int64_t)options->samples : SAMPLES;
    int64_t more = tn_probe_unseen(dataset, options), limit = most > 0 ? most : MORE_IMAGES;
    if (most == TN_PROBE_CALIBRATED) {
        used.samples = (size_t)samples;
        return tn_calibrate_images_load(model, dataset, &used, &probe->images, error);
    }
    if (dataset && !options->images && samples > (int64_t)tn_dataset_count(dataset))
        samples = (int64_t)tn_dataset_count(dataset);
    more = more < limit ? more : limit;
    tn_status status = more > 0 ? bound(model, dataset, options, &more, error) : TN_OK;
    if (status == TN_OK && most > 0 && more == 0)
        status = tn_fail(error, TN_ERROR_USAGE,
                         "no images are left beside the %lld calibrated with", (long long)samples);
    if (status != TN_OK)
        return status;
    probe->hold_out = most <= 0 && more < samples;
    used.skip = (size_t)(probe->hold_out ? samples - samples / 4 : samples);
    used.samples = (size_t)(samples + more) - used.skip;
    return tn_calibrate_images_load(model, dataset, &used, &probe->images, error);
}

static tn_status probed_create(const tn_probe *probe, const tn_model *model, probed *network,
                               tn_error *error)
{
    const tn_calibrate_images *images = &probe->images;
    tn_graph_options graph = {.batch = probe->batch,
                              .input_rank = 3,
                              .input_dims = {images->dims[0], images->dims[1], images->dims[2]},
                              .output = probe->output};
    probed made = {0};
    tn_status status = tn_graph_create_near(model, &graph, &made.graph, error);
    if (status == TN_OK)
        status = tn_params_create(made.graph, probe->device, &made.params, error);
    tn_plan_options plan = {.precision = TN_PRECISION_FP32, .params = made.params};
    if (status == TN_OK)
        status = tn_plan_create(made.graph, probe->device, &plan, &made.plan, error);
    if (status != TN_OK) {
        probed_done(&made);
        return status;
    }
    made.logits = tn_plan_logits(made.plan);
    *network = made;
    return TN_OK;
}

static tn_status make_network(tn_probe *probe, const tn_model *model, tn_error *error)
{
    const tn_calibrate_images *images = &probe->images;
    tn_extent extent;
    probe->batch = images->count > 0 ? tn_walk_chunk(images->count, images->size) : 1;
    tn_status status = probed_create(probe, model, &probe->network, error);
    if (status == TN_OK)
        status = tn_plan_shape(probe->network.plan, probe->network.logits, &extent, error);
    if (status == TN_OK)
        probe->batch = tn_plan_batch(probe->network.plan); /* perhaps the file's */
    if (status == TN_OK)
        probe->classes = tn_extent_count(&extent) / probe->batch;
    return status;
}

tn_status tn_probe_create(const tn_model *model, const tn_dataset *dataset,
                          const tn_calibrate_options *options, int64_t most, tn_device *device,
                          tn_probe **out, tn_error *error)
{
    tn_probe *probe = tn_alloc_zero(1, sizeof *probe);
    if (!probe)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the images that are held out");
    probe->device = device;
    probe->output = options->output;
    tn_status status = load_images(probe, model, dataset, options, most, error);
    if (status == TN_OK)
        status = make_network(probe, model, error);
    int64_t used = tn_probe_images(probe);
    if (status == TN_OK) {
        probe->logits = tn_alloc_array((size_t)(probe->batch * probe->classes), sizeof(float));
        probe->float_logits = tn_alloc_array((size_t)(used * probe->classes), sizeof(float));
        if (!probe->logits || !probe->float_logits)
            status =
                tn_fail(error, TN_ERROR_LIMIT, "out of memory for the images that are held out");
    }
    for (int64_t at = 0; status == TN_OK && at < used; at += probe->batch) {
        int64_t count;
        const float *unknown;
        status = run_batch(probe, &probe->network, at, &count, &unknown, error);
        if (status == TN_OK)
            memcpy(probe->float_logits + at * probe->classes, probe->logits,
                   (size_t)(count * probe->classes) * sizeof(float));
    }
    if (status == TN_OK)
        *out = probe;
    else
        tn_probe_destroy(probe);
    return status;
}

/* The calibrated network's weights and float parameters into a store. */
static tn_status place(tn_params *params, const tn_calibration *calibration, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < tn_params_count(params); i++) {
        const tn_param *param = tn_params_at(params, i);
        const tn_value *value = tn_graph_value(calibration->graph, param->name);
        if (!value || !value->constant || tn_tensor_count(value->constant) != param->count)
            continue;
        float *numbers = tn_alloc_array((size_t)param->count, sizeof *numbers);
        if (!numbers)
            return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the images that are held out");
        status = tn_tensor_read_float(value->constant, 0, param->count, numbers, error);
        if (status == TN_OK)
            status = tn_params_set(params, i, numbers, error);
        tn_free(numbers);
    }
    for (size_t i = 0; status == TN_OK && i < calibration->conversion.count; i++) {
        const tn_converted *item = &calibration->conversion.item[i];
        status = tn_weight_place(params, item->layer, &item->weight, error);
    }
    return status;
}

/* How far a network's output is from the float one's. */
static tn_status measure(tn_probe *probe, const probed *network, tn_probe_result *result,
                         tn_error *error)
{
    int64_t used = tn_probe_images(probe), classes = probe->classes;
    double kl = 0, same = 0, sum = 0, square = 0;
    tn_status status = TN_OK;
    for (int64_t at = 0; status == TN_OK && at < used; at += probe->batch) {
        int64_t count;
        const float *float_logits;
        status = run_batch(probe, network, at, &count, &float_logits, error);
        for (int64_t i = 0; status == TN_OK && i < count; i++) {
            const float *f = float_logits + i * classes;
            const float *q = probe->logits + i * classes;
            double loss = loss_of(f, q, classes);
            kl += tn_divergence_row(f, q, classes);
            same += tn_same_maximum(f, q, classes);
            sum += loss;
            square += loss * loss;
        }
    }
    if (status != TN_OK)
        return status;
    double n = used > 0 ? (double)used : 1, mean = sum / n, variance = square / n - mean * mean;
    /* one image more or less that is lost: few images without a change are no proof */
    double doubt = (variance > 0 ? variance : 0) / n + 1 / (n * n);
    *result = (tn_probe_result){
        .kl = kl / n, .agreement = same / n, .loss = 100 * mean, .deviation = 100 * sqrt(doubt)};
    return TN_OK;
}

tn_status tn_probe_measure(tn_probe *probe, const tn_calibration *calibration,
                           tn_probe_result *result, tn_error *error)
{
    tn_status status = place(probe->network.params, calibration, error);
    return status == TN_OK ? measure(probe, &probe->network, result, error) : status;
}

tn_status tn_probe_measure_activations(tn_probe *probe, const tn_calibration *calibration,
                                       const tn_activations *activations, tn_probe_result *result,
                                       tn_error *error)
{
    tn_activation_steps steps = {0};
    probed network = {0};
    tn_status status = tn_activation_steps_create(calibration->model, activations, &steps, error);
    if (status == TN_OK)
        status = probed_create(probe, steps.model, &network, error);
    if (status == TN_OK)
        status = place(network.params, calibration, error);
    if (status == TN_OK)
        status = measure(probe, &network, result, error);
    probed_done(&network);
    tn_activation_steps_done(&steps);
    return status;
}
