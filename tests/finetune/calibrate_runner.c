/* Calibrates and evaluates, for measurements and tests:
 *
 *   calibrate_runner MODEL DATA [KEY=VALUE]...
 *
 * Images come from DATA:train, accuracy from DATA:val. Keys: seed, samples, method, bn, scheme,
 * bits, granularity, relu, positions, residual (0: off), damping, sweeps, memory (MB), threads,
 * draws (number of seeds), limit. Prints one line per draw: accuracy of float and calibrated
 * network, KL, seconds, a hash.
 */
#include "converter/record.h"
#include "core/memory.h"
#include "core/threads.h"
#include "finetune/calibrate.h"
#include "finetune/divergence.h"
#include "finetune/evaluate.h"
#include "finetune/synthesize.h"
#include "network/plan.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 64 };

typedef struct calibrate_job {
    const char *model_path, *data;
    tn_calibrate_options options;
    int draws, synthesize;
    double class_weight;
    size_t limit;
    tn_model *model;
    tn_dataset *train, *val;
    tn_device *device;
    float *logits; /* of the float network on the validation part */
} calibrate_job;

static bool set(calibrate_job *job, const char *key, const char *value)
{
    tn_calibrate_options *o = &job->options;
    if (!strcmp(key, "seed"))
        o->seed = strtoull(value, NULL, 10);
    else if (!strcmp(key, "samples"))
        o->samples = strtoul(value, NULL, 10);
    else if (!strcmp(key, "method"))
        return tn_calibrate_method_parse(value, &o->method);
    else if (!strcmp(key, "bn"))
        return tn_calibrate_bn_parse(value, &o->bn);
    else if (!strcmp(key, "scheme"))
        o->policy.scheme = value;
    else if (!strcmp(key, "bits"))
        o->policy.bits = value;
    else if (!strcmp(key, "granularity"))
        o->policy.granularity = value;
    else if (!strcmp(key, "relu"))
        o->relu_passes = atoi(value) > 0 ? atoi(value) : -1;
    else if (!strcmp(key, "residual"))
        o->no_residual = atoi(value) == 0;
    else if (!strcmp(key, "damping"))
        o->damping = atof(value);
    else if (!strcmp(key, "sweeps"))
        o->sweeps = atoi(value);
    else if (!strcmp(key, "positions"))
        o->positions = atol(value);
    else if (!strcmp(key, "memory")) /* MB of activations */
        o->memory = strtoull(value, NULL, 10) << 20;
    else if (!strcmp(key, "threads"))
        tn_threads_set(atoi(value));
    else if (!strcmp(key, "synthesize")) /* steps */
        job->synthesize = atoi(value);
    else if (!strcmp(key, "class_weight"))
        job->class_weight = atof(value);
    else if (!strcmp(key, "draws"))
        job->draws = atoi(value);
    else if (!strcmp(key, "limit"))
        job->limit = strtoul(value, NULL, 10);
    else
        return false;
    return true;
}

/* Accuracy and KL on the validation part; weights from a calibration, or the model's own. */
static tn_status accuracy(calibrate_job *job, const tn_calibration *calibration, double *top1,
                          double *kl, tn_error *error)
{
    tn_graph *graph = NULL;
    tn_plan *plan = NULL;
    tn_graph_options options = {.batch = BATCH};
    tn_plan_options inference = {.precision = TN_PRECISION_FP32};
    tn_evaluation evaluation = {0};
    tn_preprocess preprocess;
    const tn_model *model = calibration ? calibration->model : job->model;
    tn_status status = tn_evaluate_preprocess(model, job->val, NULL, &preprocess, NULL, error);
    if (status == TN_OK)
        status = tn_graph_create(model, &options, &graph, error);
    if (status == TN_OK)
        status = tn_plan_create(graph, job->device, &inference, &plan, error);
    for (size_t i = 0; status == TN_OK && calibration && i < calibration->conversion.count; i++) {
        const tn_converted *item = &calibration->conversion.item[i];
        float *rows = malloc((size_t)(item->weight.rows * item->weight.cols) * sizeof *rows);
        tn_qweight_dequantize(&item->weight, rows);
        tn_params *params = tn_plan_params(plan);
        status = tn_params_set_rows(params, tn_params_find(params, item->layer->weight->name), rows,
                                    error);
        free(rows);
    }
    tn_evaluate_options evaluate = {
        .preprocess = &preprocess, .batch = BATCH, .limit = job->limit, .keep_logits = true};
    if (status == TN_OK)
        status = tn_evaluate_plan(plan, job->val, &evaluate, &evaluation, error);
    if (status == TN_OK)
        *top1 = 100 * evaluation.top1;
    if (status == TN_OK && calibration) {
        double agreement;
        tn_divergence_mean(job->logits, evaluation.logits, (int64_t)evaluation.images,
                           evaluation.classes, kl, &agreement);
    } else if (status == TN_OK) {
        job->logits = evaluation.logits;
        evaluation.logits = NULL;
    }
    tn_evaluation_done(&evaluation);
    tn_plan_destroy(plan);
    tn_graph_destroy(graph);
    return status;
}

static uint64_t hash(const tn_calibration *calibration)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < calibration->conversion.count; i++)
        sum = sum * 31 + tn_record_hash(&calibration->conversion.item[i].weight);
    return sum;
}

static void print_log(void *context, tn_log_level level, const char *message)
{
    (void)context;
    (void)level;
    printf("  %s\n", message);
}

static tn_status run(calibrate_job *job, tn_error *error)
{
    double float_top1 = 0, sum = 0, sum_kl = 0, seconds = 0;
    const bool verbose = getenv("VERBOSE") != NULL;
    static const tn_reporter reporter = {.log = print_log};
    if (verbose)
        job->options.reporter = &reporter;
    tn_status status = accuracy(job, NULL, &float_top1, NULL, error);
    for (int d = 0; status == TN_OK && d < job->draws; d++, job->options.seed++) {
        tn_calibration calibration = {0};
        double top1 = 0, kl = 0;
        tn_synthesis synthesis = {0};
        job->options.device = job->device;
        if (job->synthesize > 0) {
            tn_synthesize_options options = {.samples = job->options.samples,
                                             .steps = job->synthesize,
                                             .class_weight = job->class_weight,
                                             .seed = job->options.seed,
                                             .device = job->device};
            status = tn_synthesize(job->model, &options, &synthesis, error);
            if (status != TN_OK)
                break;
            printf("synthesized: loss %.4f to %.4f in %.1f s\n", synthesis.first_loss,
                   synthesis.last_loss, synthesis.seconds);
            job->options.images = synthesis.images;
            job->options.samples = synthesis.samples;
        }
        status = tn_calibrate(job->model, job->train, &job->options, &calibration, error);
        if (status == TN_OK)
            status = accuracy(job, &calibration, &top1, &kl, error);
        if (status == TN_OK)
            printf("seed %llu float %.2f calibrated %.2f test kl %.4f calibration kl %.4f (round "
                   "%.4f, held out %.4f) "
                   "agreement %.4f method %s bn %s images %zu seconds %.2f peak %.0f MB spilled "
                   "%.0f MB hash "
                   "%016llx\n",
                   (unsigned long long)job->options.seed, float_top1, top1, kl, calibration.kl,
                   calibration.kl_round, calibration.kl_held_out, calibration.agreement,
                   tn_calibrate_method_name(calibration.method),
                   tn_calibrate_bn_name(calibration.bn), calibration.images, calibration.seconds,
                   1e-6 * (double)calibration.peak_bytes, 1e-6 * (double)calibration.spilled,
                   (unsigned long long)hash(&calibration));
        for (size_t i = 0; verbose && i < calibration.conversion.count; i++)
            printf("  %s: %s%s%s error %.4f\n", calibration.layer[i].name,
                   calibration.layer[i].method, calibration.layer[i].reason ? ", " : "",
                   calibration.layer[i].reason ? calibration.layer[i].reason : "",
                   calibration.layer[i].output_error);
        fflush(stdout);
        tn_synthesis_done(&synthesis);
        sum += top1;
        sum_kl += kl;
        seconds += calibration.seconds;
        tn_calibration_done(&calibration);
    }
    if (status == TN_OK && job->draws > 1)
        printf("mean of %d: %.3f test kl %.4f in %.2f s\n", job->draws, sum / job->draws,
               sum_kl / job->draws, seconds / job->draws);
    return status;
}

int main(int argc, char **argv)
{
    tn_error error = {0};
    char data[2][1024];
    if (argc < 3)
        return 2;
    calibrate_job job = {.model_path = argv[1], .data = argv[2], .draws = 1};
    for (int i = 3; i < argc; i++) {
        char *equals = strchr(argv[i], '=');
        if (!equals)
            return 2;
        *equals = '\0';
        if (!set(&job, argv[i], equals + 1)) {
            fprintf(stderr, "unknown %s\n", argv[i]);
            return 2;
        }
    }
    snprintf(data[0], sizeof data[0], "%s:train", job.data);
    snprintf(data[1], sizeof data[1], "%s:val", job.data);
    tn_status status = tn_model_read(job.model_path, NULL, &job.model, &error);
    if (status == TN_OK)
        status = tn_dataset_open(data[0], TN_SPLIT_TRAIN, NULL, &job.train, &error);
    if (status == TN_OK)
        status = tn_dataset_open(data[1], TN_SPLIT_VAL, NULL, &job.val, &error);
    if (status == TN_OK)
        status = tn_device_create_cpu(&job.device, &error);
    if (status == TN_OK)
        status = run(&job, &error);
    if (status != TN_OK)
        fprintf(stderr, "%s\n", error.message);
    tn_free(job.logits);
    tn_device_destroy(job.device);
    tn_dataset_close(job.val);
    tn_dataset_close(job.train);
    tn_model_destroy(job.model);
    return (int)status;
}
