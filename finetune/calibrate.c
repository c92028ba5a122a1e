#include "finetune/calibrate.h"

#include "core/memory.h"
#include "finetune/calibrate_images.h"
#include "finetune/calibrate_walk.h"
#include "onnx_io/substitute.h"

#include <string.h>
#include <time.h>

static const char *const METHODS[] = {"auto", "round", "cd", "gptq", "adaround"};
static const char *const BN_MODES[] = {"auto", "keep", "reestimate", "control", "affine"};

enum {
    SAMPLES = 256,
    SWEEPS = 30,
    RELU_PASSES = 1,
    MIN_HELD_OUT = 32, /* on fewer a wrong choice costs more than a right one wins */
    POSITIONS = 65536,
    QUICK_POSITIONS = 8192,
    QUICK_IMAGES = 96
};

static bool parse(const char *const *names, size_t count, const char *name, size_t *which)
{
    for (size_t i = 0; i < count; i++)
        if (!strcmp(names[i], name)) {
            *which = i;
            return true;
        }
    return false;
}

bool tn_calibrate_method_parse(const char *name, tn_calibrate_method *method)
{
    size_t which;
    if (!parse(METHODS, sizeof METHODS / sizeof METHODS[0], name, &which))
        return false;
    *method = (tn_calibrate_method)which;
    return true;
}

bool tn_calibrate_bn_parse(const char *name, tn_calibrate_bn *bn)
{
    size_t which;
    if (!parse(BN_MODES, sizeof BN_MODES / sizeof BN_MODES[0], name, &which))
        return false;
    *bn = (tn_calibrate_bn)which;
    return true;
}

const char *tn_calibrate_method_name(tn_calibrate_method method)
{
    return METHODS[method];
}

const char *tn_calibrate_bn_name(tn_calibrate_bn bn)
{
    return BN_MODES[bn];
}

/* A quarter of what the library may use at all is left to activations. */
static uint64_t store_limit(void)
{
    uint64_t all = tn_memory_limit_get(), most = UINT64_C(1) << 30;
    return all > 0 && all / 4 < most ? all / 4 : most;
}

static tn_calibrate_options resolve(const tn_calibrate_options *options)
{
    tn_calibrate_options resolved = *options;
    if (resolved.method == TN_CALIBRATE_AUTO)
        resolved.method = TN_CALIBRATE_CD;
    if (resolved.samples == 0)
        resolved.samples = SAMPLES;
    if (!(resolved.damping > 0))
        resolved.damping = 0.01;
    if (resolved.sweeps <= 0)
        resolved.sweeps = SWEEPS;
    if (resolved.positions <= 0)
        resolved.positions = POSITIONS;
    if (resolved.relu_passes == 0)
        resolved.relu_passes = RELU_PASSES;
    if (resolved.relu_passes < 0)
        resolved.relu_passes = 0;
    if (resolved.memory == 0)
        resolved.memory = store_limit();
    return resolved;
}

/* Schemes chosen elsewhere replace the policy's. */
static void take_schemes(const tn_layers *from, tn_layers *layers)
{
    for (size_t i = 0; from && i < layers->count; i++)
        for (size_t k = 0; k < from->count; k++)
            if (!strcmp(from->layer[k].weight->name, layers->layer[i].weight->name)) {
                layers->layer[i].quantized = from->layer[k].quantized;
                layers->layer[i].scheme = from->layer[k].scheme;
                layers->layer[i].reason = from->layer[k].reason;
            }
}

/* What one calibration holds while it runs. */
typedef struct calibrate_run {
    const tn_model *model;
    tn_calibrate_options options;
    tn_device *device, *own_device;
    tn_calibrate_images images;
    tn_graph *graph;
    tn_layers layers;
    tn_walk walk;
} calibrate_run;

static void run_done(calibrate_run *run)
{
    tn_walk_done(&run->walk);
    tn_graph_destroy(run->graph);
    tn_calibrate_images_done(&run->images);
    tn_device_destroy(run->own_device);
}

static tn_status run_prepare(calibrate_run *run, const tn_dataset *dataset, tn_error *error)
{
    tn_status status = TN_OK;
    if (!run->device) {
        status = tn_device_create_cpu(&run->own_device, error);
        run->device = run->own_device;
    }
    if (status == TN_OK)
        status = tn_calibrate_images_load(run->model, dataset, &run->options, &run->images, error);
    tn_graph_options graph = {
        .batch = tn_walk_chunk(run->images.count, run->images.size),
        .input_rank = 3,
        .input_dims = {run->images.dims[0], run->images.dims[1], run->images.dims[2]},
        .output = run->options.output};
    if (status == TN_OK)
        status = tn_graph_create_near(run->model, &graph, &run->graph, error);
    if (status == TN_OK)
        status = tn_layers_select(run->graph, &run->options.policy, &run->layers, error);
    if (status == TN_OK) {
        take_schemes(run->options.schemes, &run->layers);
        status = tn_walk_create(run->graph, &run->layers, run->device, &run->options,
                                run->images.count, &run->walk, error);
    }
    if (status != TN_OK)
        tn_error_prepend(error, "calibration");
    return status;
}

/* What is tried in mode auto, best first: a later one must be clearly better, as the KL of some
 * dozen images is noisy. */
static const double MARGIN = 0.2;

static const tn_calibrate_bn TRIED[] = {TN_CALIBRATE_BN_AFFINE, TN_CALIBRATE_BN_CONTROL,
                                        TN_CALIBRATE_BN_REESTIMATE, TN_CALIBRATE_BN_KEEP};

/* One mode on the images from `first` on, the last `held` of them held out. */
static tn_status try_bn(calibrate_run *run, int64_t first, int64_t held, tn_calibrate_bn mode,
                        double *kl, tn_error *error)
{
    const tn_calibrate_images *images = &run->images;
    int64_t n = images->count - first;
    double agreement;
    run->walk.images = n;
    tn_status status =
        tn_walk_run(&run->walk, images->values + first * images->size, n - held, mode, error);
    run->walk.images = images->count;
    if (status == TN_OK)
        tn_walk_compare(&run->walk, n - held, n, kl, &agreement);
    return status;
}

static tn_status choose_bn(calibrate_run *run, tn_calibration *calibration, tn_error *error)
{
    int64_t n = run->images.count, held = n / 4;
    calibration->kl_held_out = -1;
    calibration->bn = run->options.bn;
    if (run->options.bn != TN_CALIBRATE_BN_AUTO)
        return TN_OK;
    calibration->bn = TN_CALIBRATE_BN_AFFINE;
    if (held < MIN_HELD_OUT)
        return TN_OK;
    /* the modes differ by far more than more images and the last refinements of the codes do */
    tn_calibrate_options quick = run->options;
    quick.relu_passes = 0;
    if (quick.method == TN_CALIBRATE_ADAROUND)
        quick.method = TN_CALIBRATE_CD;
    quick.positions = quick.positions < QUICK_POSITIONS ? quick.positions : QUICK_POSITIONS;
    run->walk.options = &quick;
    int64_t first = n - held - QUICK_IMAGES > 0 ? n - held - QUICK_IMAGES : 0;
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < sizeof TRIED / sizeof TRIED[0]; i++) {
        double kl = 0;
        status = try_bn(run, first, held, TRIED[i], &kl, error);
        if (status != TN_OK)
            break;
        tn_log(run->options.reporter, TN_LOG_INFO, "batch norm %s: held-out KL %.4f",
               tn_calibrate_bn_name(TRIED[i]), kl);
        if (i == 0 || kl < (1 - MARGIN) * calibration->kl_held_out) {
            calibration->kl_held_out = kl;
            calibration->bn = TRIED[i];
        }
    }
    run->walk.options = &run->options;
    calibration->held_out = (size_t)held;
    return status;
}

static tn_status run_all(calibrate_run *run, tn_calibration *calibration, tn_error *error)
{
    int64_t n = run->images.count;
    double agreement;
    tn_status status = choose_bn(run, calibration, error);
    if (status == TN_OK && !run->options.hold_out)
        status = tn_walk_round(&run->walk, run->images.values, error);
    int64_t fitted = run->options.hold_out ? n - n / 4 : n;
    if (status == TN_OK)
        status = tn_walk_run(&run->walk, run->images.values, fitted, calibration->bn, error);
    if (status == TN_OK && fitted < n) {
        tn_walk_compare(&run->walk, fitted, n, &calibration->kl_held_out, &agreement);
        calibration->held_out = (size_t)(n - fitted);
    }
    if (status == TN_OK)
        tn_walk_compare(&run->walk, 0, n, &calibration->kl, &calibration->agreement);
    calibration->kl_round =
        status == TN_OK && !run->options.hold_out ? tn_walk_rounded_kl(&run->walk) : -1;
    calibration->spilled = run->walk.spilled;
    calibration->images = (size_t)n;
    calibration->method = run->options.method;
    return status;
}

/* --- the result ------------------------------------------------------------------------------- */

static bool is_quantized(const tn_layers *layers, const char *name)
{
    for (size_t i = 0; i < layers->count; i++)
        if (layers->layer[i].quantized && !strcmp(layers->layer[i].weight->name, name))
            return true;
    return false;
}

/* A parameter, if it differs from the model's, into the copy. */
static tn_status copy_param(const calibrate_run *run, size_t i, tn_calibration *calibration,
                            tn_error *error)
{
    const tn_param *param = tn_params_at(run->walk.params, i);
    const tn_value *value = tn_graph_value(run->graph, param->name);
    const size_t count = (size_t)param->count;
    if (!value || is_quantized(&run->layers, param->name))
        return TN_OK;
    float *numbers = tn_alloc_array(count, 2 * sizeof *numbers);
    if (!numbers)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for the corrected parameters");
    tn_status status = tn_params_get(run->walk.params, i, numbers, error);
    if (status == TN_OK)
        status = tn_params_get(run->walk.float_params, i, numbers + count, error);
    if (status == TN_OK && memcmp(numbers, numbers + count, count * sizeof *numbers) != 0) {
        status = tn_substitute_values(calibration->model, param->name, value->constant->dtype,
                                      param->rank, param->dims, numbers, error);
        calibration->params_changed++;
    }
    tn_free(numbers);
    return status;
}

static tn_status copy_params(const calibrate_run *run, tn_calibration *calibration, tn_error *error)
{
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < tn_params_count(run->walk.params); i++)
        status = copy_param(run, i, calibration, error);
    return status;
}

/* Moves a weight, and measures it. */
static tn_status collect_weight(const tn_layer *layer, tn_qweight *weight, tn_converted *item,
                                tn_error *error)
{
    *item = (tn_converted){.layer = layer, .weight = *weight};
    *weight = (tn_qweight){0};
    return tn_converted_measure(item, layer, error);
}

/* Moves the walk's weights into the result, beside the layers of its graph. */
static tn_status collect_weights(calibrate_run *run, tn_calibration *calibration, tn_error *error)
{
    size_t count = run->layers.count;
    calibration->conversion.item = tn_alloc_zero(count + 1, sizeof *calibration->conversion.item);
    calibration->layer = tn_alloc_zero(count + 1, sizeof *calibration->layer);
    if (!calibration->conversion.item || !calibration->layer)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for %zu layers", count);
    tn_status status = TN_OK;
    for (size_t i = 0; status == TN_OK && i < calibration->layers.count; i++) {
        const tn_layer *layer = &calibration->layers.layer[i];
        size_t from = 0;
        while (from < count && strcmp(run->layers.layer[from].weight->name, layer->weight->name))
            from++;
        if (from == count || !layer->quantized)
            continue;
        calibration->layer[calibration->conversion.count] = run->walk.report[from];
        calibration->layer[calibration->conversion.count].name = layer->weight->name;
        status =
            collect_weight(layer, &run->walk.weight[from],
                           &calibration->conversion.item[calibration->conversion.count], error);
        calibration->conversion.count++;
    }
    return status;
}

static tn_status collect(calibrate_run *run, tn_calibration *calibration, tn_error *error)
{
    tn_status status = tn_model_copy(run->model, &calibration->model, error);
    if (status == TN_OK)
        status = copy_params(run, calibration, error);
    if (status == TN_OK)
        status = tn_graph_create(calibration->model, NULL, &calibration->graph, error);
    if (status == TN_OK)
        status =
            tn_layers_select(calibration->graph, &run->options.policy, &calibration->layers, error);
    if (status == TN_OK) {
        take_schemes(run->options.schemes, &calibration->layers);
        status = collect_weights(run, calibration, error);
    }
    return status;
}

static double now(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec + 1e-9 * (double)time.tv_nsec;
}

tn_status tn_calibrate(const tn_model *model, const tn_dataset *dataset,
                       const tn_calibrate_options *options, tn_calibration *out, tn_error *error)
{
    double started = now();
    tn_calibration calibration = {0};
    calibrate_run run = {.model = model, .options = resolve(options), .device = options->device};
    tn_status status = run_prepare(&run, dataset, error);
    if (status == TN_OK)
        status = run_all(&run, &calibration, error);
    if (status == TN_OK)
        status = collect(&run, &calibration, error);
    run_done(&run);
    calibration.seconds = now() - started;
    calibration.peak_bytes = tn_memory_stats_get().highwater;
    if (status == TN_OK)
        *out = calibration;
    else
        tn_calibration_done(&calibration);
    return status;
}

void tn_calibration_done(tn_calibration *calibration)
{
    tn_conversion_done(&calibration->conversion);
    tn_free(calibration->layer);
    tn_graph_destroy(calibration->graph);
    tn_model_destroy(calibration->model);
    *calibration = (tn_calibration){0};
}
