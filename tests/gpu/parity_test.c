/* A training step of whole networks on the CUDA device against the CPU device: loss, gradients of
 * all parameters, running statistics. Device memory is poisoned before. parity_test [bf16 | tf32]
 * [SEED]
 *
 * Built over the emulated runtime here; over the real one it exits 77 without a GPU. */
#include "core/memory.h"
#include "network/plan.h"
#include "onnx_io/zoo/zoo.h"
#include "tests/gpu/comparison.h"

#include <string.h>

typedef struct outcome {
    tn_loss_result loss;
    float *values; /* gradients, or running statistics, of all parameters in order */
    size_t count;
} outcome;

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

/* *own: how far the CPU's step in bf16 is from its own in fp32; 0 where it has none. */
static tn_status compare(const char *id, int64_t size, int64_t batch, tn_precision precision,
                         tn_device *cpu, tn_device *cuda, double *worst, double *own,
                         tn_error *error)
{
    const tn_zoo_options zoo = {.classes = 10, .input = {3, size, size}, .seed = comparison_state};
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
        images[i] = 2.0f * comparison_uniform();
    for (int i = 0; i < 16; i++)
        labels[i] = i == 1 ? -1 : i % 10, partners[i] = (3 * i + 1) % 10, mix[i] = 0.03f * (float)i;
    for (int i = 0; i < 160; i++)
        teacher[i] = 3.0f * comparison_uniform();
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
        *worst = fmax(comparison_distance(a.values, b.values, a.count), relative);
        *own = 0.0;
        if (precision == TN_PRECISION_BF16 && (cpu->bf16 || cpu->bf16_runs)) {
            status = step(graph, cpu, &tested, images, &loss, &c, error);
            *own = status == TN_OK ? comparison_distance(a.values, c.values, a.count) : 0.0;
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
    comparison_seed(argc, argv, 2, 20261);
    int bad = comparison_open(&cpu, &cuda);
    if (bad)
        return bad;
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
        bool ok = status == TN_OK && worst <= most;
        printf("%-16s %s  %.2e of %.0e\n", nets[i].id, comparison_verdict(status, &error, ok),
               worst, most);
        fflush(stdout);
        bad += !ok;
        tn_error_clear(&error);
    }
    tn_device_destroy(cuda);
    tn_device_destroy(cpu);
    return bad > 0;
}
