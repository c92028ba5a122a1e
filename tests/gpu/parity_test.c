/* A training step of whole networks on the CUDA device against the CPU device: loss, gradients of
 * all parameters, running statistics. Device memory is poisoned before. parity_test [bf16 | tf32]
 * [SEED]
 *
 * Built over the emulated runtime here; over the real one it exits 77 without a GPU. */
#include "core/memory.h"
#include "gpu/cuda_device.h"
#include "network/plan.h"
#include "onnx_io/zoo/zoo.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

typedef struct outcome {
    tn_loss_result loss;
    float *values; /* gradients, or running statistics, of all parameters in order */
    size_t count;
} outcome;

static uint64_t state;

static float uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (float)(int32_t)(state >> 32) / 2147483648.0f;
}

static tn_status step(const tn_graph *graph, tn_device *device, const tn_plan_options *options,
                      const float *images, const tn_loss_options *loss, outcome *out,
                      tn_error *error)
{
    tn_plan *plan = NULL;
    tn_status status = tn_plan_create(graph, device, options, &plan, error);
    if (status == TN_OK)
        status = tn_plan_write_input(plan, 0, images, loss->count, error);
    if (status == TN_OK)
        status = tn_plan_set_dropout(plan, 7, 3, 11, error);
    if (status == TN_OK) {
        status = tn_plan_forward(plan, TN_RUN_TRAINING, 0, SIZE_MAX, error);
    }
    if (status == TN_OK)
        status = tn_plan_loss(plan, loss, &out->loss, error);
    if (status == TN_OK)
        status = tn_plan_backward(plan, 0, SIZE_MAX, false, error);
    tn_params *params = status == TN_OK ? tn_plan_params(plan) : NULL;
    for (size_t i = 0; params && i < tn_params_count(params); i++)
        out->count += (size_t)tn_params_at(params, i)->count;
    out->values = tn_alloc_array(out->count + 1, sizeof(float));
    if (!out->values)
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    size_t at = 0;
    for (size_t i = 0; status == TN_OK && i < tn_params_count(params); i++) {
        const tn_param *p = tn_params_at(params, i);
        status = p->gradient ? tn_params_get_gradient(params, i, out->values + at, error)
                             : tn_params_get(params, i, out->values + at, error);
        at += (size_t)p->count;
    }
    tn_plan_destroy(plan);
    return status;
}

/* |a - b| over |a|, normwise. */
static double distance(const outcome *a, const outcome *b)
{
    double difference = 0.0, norm = 0.0;
    for (size_t i = 0; i < a->count; i++) {
        double d = (double)a->values[i] - (double)b->values[i];
        difference += d * d;
        norm += (double)a->values[i] * (double)a->values[i];
    }
    return sqrt(difference / norm);
}

/* *own: how far the CPU's step in bf16 is from its own in fp32; 0 where it has none. */
static tn_status compare(const char *id, int64_t size, int64_t batch, tn_precision precision,
                         tn_device *cpu, tn_device *cuda, double *worst, double *own,
                         tn_error *error)
{
    const tn_zoo_options zoo = {.classes = 10, .input = {3, size, size}, .seed = state};
    const tn_graph_options graph_options = {.batch = batch};
    const tn_plan_options fp32 = {.training = true, .loss = true, .precision = TN_PRECISION_FP32};
    tn_plan_options tested = fp32;
    tested.precision = precision;
    outcome a = {0}, b = {0}, c = {0};
    tn_model *model = NULL;
    tn_graph *graph = NULL;
    size_t pixels = (size_t)(batch * 3 * size * size);
    float *images = tn_alloc_array(pixels, sizeof(float));
    int32_t labels[16], partners[16];
    float teacher[160], mix[16];
    for (size_t i = 0; images && i < pixels; i++)
        images[i] = 2.0f * uniform();
    for (int i = 0; i < 16; i++)
        labels[i] = i == 1 ? -1 : i % 10, partners[i] = (3 * i + 1) % 10, mix[i] = 0.03f * (float)i;
    for (int i = 0; i < 160; i++)
        teacher[i] = 3.0f * uniform();
    const tn_loss_options loss = {.labels = labels,
                                  .partners = partners,
                                  .mix = mix,
                                  .teacher = teacher,
                                  .count = batch - 1,
                                  .smoothing = 0.1f,
                                  .temperature = 3.0f,
                                  .weight = 0.4f};
    tn_status status = images ? tn_zoo_create(id, &zoo, &model, error) : TN_ERROR_LIMIT;
    if (status == TN_OK)
        status = tn_graph_create(model, &graph_options, &graph, error);
    if (status == TN_OK)
        status = step(graph, cpu, &fp32, images, &loss, &a, error);
    if (status == TN_OK)
        status = step(graph, cuda, &tested, images, &loss, &b, error);
    if (status == TN_OK) {
        double relative = fabs(a.loss.loss - b.loss.loss) / fabs(a.loss.loss);
        *worst = fmax(distance(&a, &b), relative);
        *own = 0.0;
        if (precision == TN_PRECISION_BF16 && (cpu->bf16 || cpu->bf16_runs)) {
            status = step(graph, cpu, &tested, images, &loss, &c, error);
            *own = status == TN_OK ? distance(&a, &c) : 0.0;
        }
        if (precision == TN_PRECISION_FP32 &&
            (a.loss.top1 != b.loss.top1 || a.loss.top5 != b.loss.top5))
            *worst = (double)INFINITY;
    }
    tn_free(a.values);
    tn_free(b.values);
    tn_free(c.values);
    tn_free(images);
    tn_graph_destroy(graph);
    tn_model_destroy(model);
    return status;
}

int main(int argc, char **argv)
{
    static const struct {
        const char *id;
        int64_t size, batch;
    } nets[] = {{"resnet20", 32, 4}, {"densenet-small", 32, 3}, {"squeezenet-bn", 48, 3},
                {"vgg16-bn", 32, 2}, {"resnet18", 40, 3},       {"alexnet", 64, 3}};
    bool bf16 = argc > 1 && strcmp(argv[1], "bf16") == 0;
    bool tf32 = argc > 1 && strcmp(argv[1], "tf32") == 0;
    /* bf16 gradients through ReLU where the processor has no bf16 to compare with: a wrong one is
       of order 1 */
    double tolerance = bf16 ? 0.25 : tf32 ? 0.15 : 1e-4;
    tn_error error = {0};
    tn_device *cpu = NULL, *cuda = NULL;
    int bad = 0;
    state = argc > 2 ? strtoull(argv[2], NULL, 10) : 20261;
    printf("seed %llu\n", (unsigned long long)state);
    if (tn_device_create_cuda(0, &cuda, &error) != TN_OK) {
        printf("skipped: %s\n", error.message);
        return 77;
    }
    if (tn_device_create_cpu(&cpu, &error) != TN_OK)
        return 1;
    for (size_t i = 0; i < sizeof(nets) / sizeof(nets[0]); i++) {
        double worst = (double)INFINITY, own = 0.0;
        if (argc > 3 && strcmp(argv[3], nets[i].id) != 0)
            continue;
        if (!tn_architecture_find(nets[i].id)) {
            printf("%s: no such network\n", nets[i].id);
            bad++;
            continue;
        }
        /* BN over the few values of a small batch blows rounding up: bf16 gets as many as there
           are labels */
        tn_status status = compare(nets[i].id, nets[i].size, bf16 ? 16 : nets[i].batch,
                                   bf16   ? TN_PRECISION_BF16
                                   : tf32 ? TN_PRECISION_TF32
                                          : TN_PRECISION_FP32,
                                   cpu, cuda, &worst, &own, &error);
        /* rounding alone: no worse than another device's */
        double most = own > 0.0 ? 1.5 * own : tolerance;
        printf("%-16s %s  %.2e of %.0e\n", nets[i].id,
               status != TN_OK ? error.message
               : worst <= most ? "ok"
                               : "DIFFERS",
               worst, most);
        fflush(stdout);
        bad += status != TN_OK || !(worst <= most);
        tn_error_clear(&error);
    }
    tn_device_destroy(cuda);
    tn_device_destroy(cpu);
    return bad > 0;
}
