/* Calibration on the CUDA device against the CPU's: Gram sums of convolutions and linear layers
 * with everything a target can hold, then whole calibrations with every method and treatment of
 * BatchNorm, with activations on disk, synthesized images, and a sensitivity table.
 * calibration_test [SEED]
 *
 * Built over the emulated runtime here; over the real one it exits 77 without a GPU. */
#include "core/memory.h"
#include "core/random.h"
#include "finetune/budget.h"
#include "finetune/calibrate.h"
#include "finetune/calibrate_wide.h"
#include "finetune/gram.h"
#include "finetune/synthesize.h"
#include "onnx_io/zoo/zoo.h"
#include "tests/gpu/comparison.h"

#include <string.h>

enum { IMAGES = 32, FITTED = 24, SIZE = 16, ARRAYS = 4 };

static int bad;
static tn_device *cpu, *cuda;
static float images[IMAGES * 3 * SIZE * SIZE];

static void must(tn_status status, const tn_error *error)
{
    if (status == TN_OK)
        return;
    printf("FAILED: %s\n", error->message);
    exit(1);
}

static void *room(size_t count, size_t bytes)
{
    void *memory = tn_alloc_zero(count + 1, bytes);
    if (!memory)
        exit(1);
    return memory;
}

static float *noise(size_t count, float offset)
{
    float *values = room(count, sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = comparison_uniform() + offset;
    return values;
}

/* --- Gram sums ----------------------------------------------------------------------------------
 */

typedef struct gram_case {
    const char *name;
    tn_patches patches; /* batch: of both chunks together */
    int64_t outputs, limit;
    bool cross_only, residual, bias, relaxed, nothing;
} gram_case;

/* x, output, other_f and other_q of one chunk in the device's memory. */
static void place(tn_device *device, float *const *host, const size_t *counts, float **placed)
{
    tn_error error = {0};
    for (int i = 0; i < ARRAYS; i++) {
        placed[i] = device->type->alloc(device, counts[i] * sizeof(float));
        if (!placed[i])
            exit(1);
        must(device->type->upload(device, placed[i], host[i], counts[i] * sizeof(float), &error),
             &error);
    }
}

/* Two chunks, of two thirds of the batch and of the rest. */
static void sum_chunks(const gram_case *c, tn_device *device, const tn_gram_target *given,
                       float *const *host, const size_t *image, tn_gram *gram)
{
    tn_error error = {0};
    tn_gram_target target = *given;
    tn_gram_pass *pass = NULL;
    int64_t batch = c->patches.batch, first = 2 * batch / 3;
    tn_patches whole = c->patches, chunk = c->patches;
    must(tn_gram_init(gram, c->outputs, tn_patches_cols(&whole), whole.group, &error), &error);
    must(tn_gram_pass_create(device, &whole, tn_patches_rows(&whole), c->limit, c->cross_only,
                             &target, gram, &pass, &error),
         &error);
    for (int k = 0; k < 2; k++) {
        float *from[ARRAYS], *placed[ARRAYS];
        size_t counts[ARRAYS];
        chunk.batch = k == 0 ? first : batch - first;
        for (int i = 0; i < ARRAYS; i++) {
            from[i] = host[i] + (k == 0 ? 0 : (size_t)first * image[i]);
            counts[i] = (size_t)chunk.batch * image[i];
        }
        place(device, from, counts, placed);
        chunk.data = placed[0];
        target.output = c->nothing ? NULL : placed[1];
        target.other_f = c->residual ? placed[2] : NULL;
        target.other_q = c->residual ? placed[3] : NULL;
        tn_patches before = whole;
        before.batch = k == 0 ? 0 : first;
        must(tn_gram_pass_add(pass, &chunk, tn_patches_rows(&before), &error), &error);
        for (int i = 0; i < ARRAYS; i++)
            device->type->release(device, placed[i]);
    }
    must(tn_gram_pass_finish(pass, &error), &error);
    tn_gram_pass_destroy(pass);
}

/* The largest difference over the largest number. */
static double difference(const double *a, const double *b, int64_t count)
{
    double most = 0, largest = 0;
    for (int64_t i = 0; i < count; i++) {
        most = fmax(most, fabs(a[i] - b[i]));
        largest = fmax(largest, fabs(a[i]));
        if (isnan(b[i]))
            return (double)INFINITY;
    }
    return largest > 0 ? most / largest : most;
}

static void compare_sums(const gram_case *c)
{
    const int64_t cols = tn_patches_cols(&c->patches), channels = c->outputs;
    size_t batch = (size_t)c->patches.batch, image[ARRAYS] = {(size_t)c->patches.channels};
    for (int i = 0; i < c->patches.spatial; i++)
        image[0] *= (size_t)c->patches.in[i];
    image[1] = (size_t)(tn_patches_rows(&c->patches) * channels) / batch;
    image[2] = image[3] = image[1];
    float *host[ARRAYS], *bias = noise((size_t)channels, 0);
    float *correction = noise((size_t)channels, 1), *values = noise((size_t)(channels * cols), 0);
    double *vectors = room((size_t)channels, 4 * sizeof *vectors);
    for (int i = 0; i < ARRAYS; i++)
        host[i] = noise(batch * image[i], i == 0 ? 0.3f : 0);
    for (int64_t i = 0; i < 4 * channels; i++)
        vectors[i] = 0.7 + 0.5 * (double)comparison_uniform();
    const tn_gram_target target = {.channels = channels,
                                   .bias = c->bias ? bias : NULL,
                                   .correction = c->residual ? correction : NULL,
                                   .values = c->relaxed ? values : NULL,
                                   .gain = vectors,
                                   .offset = vectors + channels,
                                   .slope = vectors + 2 * channels,
                                   .shift = vectors + 3 * channels};
    tn_gram a, b;
    sum_chunks(c, cpu, &target, host, image, &a);
    sum_chunks(c, cuda, &target, host, image, &b);
    double worst = difference(a.inner, b.inner, c->patches.group * cols * cols);
    worst = fmax(worst, difference(a.cross, b.cross, channels * cols));
    worst = fmax(worst, difference(a.sum_x, b.sum_x, c->patches.group * cols));
    worst = fmax(worst, difference(a.sum_y, b.sum_y, channels));
    worst = fmax(worst, difference(a.sum_yy, b.sum_yy, channels));
    /* what the present weights give differs by rounding, and so may which target is taken */
    double tolerance = c->relaxed ? 1e-4 : 1e-6;
    bool ok = worst <= tolerance && a.count == b.count && (c->cross_only || a.count > 0);
    printf("%-24s %7.0f positions  %s  %.1e\n", c->name, a.count, ok ? "ok" : "DIFFERS", worst);
    bad += !ok;
    tn_gram_done(&a);
    tn_gram_done(&b);
    for (int i = 0; i < ARRAYS; i++)
        tn_free(host[i]);
    tn_free(bias);
    tn_free(correction);
    tn_free(values);
    tn_free(vectors);
}

static void compare_all_sums(void)
{
    const tn_patches plain = {2, 9, 12, 1, {11, 9}, {11, 9}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, NULL};
    const tn_patches strided = {2, 9, 3, 1, {15, 13}, {8, 7}, {3, 5}, {2, 2}, {1, 1}, {1, 2}, NULL};
    const tn_patches grouped = {2,      6,      12,     3,      {11, 9}, {11, 9},
                                {3, 3}, {1, 1}, {2, 2}, {2, 2}, NULL};
    const tn_patches depthwise = {2,      6,      8,      8,      {11, 9}, {11, 9},
                                  {3, 3}, {1, 1}, {1, 1}, {1, 1}, NULL};
    const tn_patches line = {1, 7, 5, 1, {100}, {50}, {4}, {2}, {1}, {1}, NULL};
    const tn_patches linear = {.batch = 700, .channels = 37, .group = 1};
    const gram_case cases[] = {
        {"convolution", plain, 5, 0, false, false, false, false, false},
        {"all of the target", plain, 70, 0, false, true, true, true, false},
        {"cross alone, relaxed", plain, 70, 500, true, true, false, true, false},
        {"strided, thinned", strided, 17, 300, false, false, true, false, false},
        {"many tiles",
         {2, 60, 3, 1, {16, 16}, {16, 16}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, NULL},
         4,
         0,
         false,
         false,
         false,
         true,
         false},
        {"grouped, dilated", grouped, 6, 0, false, true, false, true, false},
        {"depthwise", depthwise, 16, 0, false, false, false, false, false},
        {"one axis", line, 3, 0, true, false, false, false, false},
        {"linear", linear, 10, 0, false, true, true, true, false},
        {"linear, no target", linear, 10, 250, false, false, false, false, true}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        compare_sums(&cases[i]);
}

/* --- layers by blocks of columns ----------------------------------------------------------------
 */

static tn_status everything(void *context, int pass, int64_t chunk, int64_t *count, tn_error *error)
{
    (void)pass, (void)chunk, (void)error;
    *count = *(const int64_t *)context;
    return TN_OK;
}

/* A convolution of 540 inputs: the host does all but hold the activations. */
static void compare_wide(void)
{
    enum { ROWS = 7, BATCH = 9 };
    tn_patches patches = {2, BATCH, 60, 1, {6, 5}, {6, 5}, {3, 3}, {1, 1}, {1, 1}, {1, 1}, NULL};
    const int64_t cols = tn_patches_cols(&patches), rows = tn_patches_rows(&patches);
    int64_t count = BATCH;
    size_t counts[ARRAYS] = {BATCH * 60 * 30, (size_t)(rows * ROWS), 1, 1};
    float *host[ARRAYS], *w = noise((size_t)(ROWS * cols), 0);
    double ones[ROWS], zeros[ROWS] = {0}, slope[2][ROWS], shift[2][ROWS];
    tn_device *const devices[2] = {cpu, cuda};
    tn_qweight weight[2];
    tn_error error = {0};
    for (int i = 0; i < ARRAYS; i++)
        host[i] = noise(counts[i], 0.2f);
    for (int i = 0; i < ROWS; i++)
        ones[i] = 1;
    for (int d = 0; d < 2; d++) {
        float *placed[ARRAYS];
        place(devices[d], host, counts, placed);
        patches.data = placed[0];
        const tn_layer_view view = {.patches = patches,
                                    .channels = ROWS,
                                    .w = w,
                                    .output = placed[1],
                                    .gain = ones,
                                    .offset = zeros,
                                    .centered = true};
        const tn_layer_source source = {1, BATCH, BATCH, 1, everything, &count, devices[d]};
        const tn_layer_fit_options options = {
            .method = TN_CALIBRATE_CD, .damping = 0.01, .sweeps = 30, .positions = 65536};
        tn_layer_fit fit = {.slope = slope[d], .shift = shift[d]};
        weight[d] = (tn_qweight){.rank = 2,
                                 .dims = {ROWS, cols},
                                 .granularity = TN_PER_CHANNEL,
                                 .low = -1,
                                 .high = 1,
                                 .bits = 2};
        must(tn_qweight_init(&weight[d], false, false, &error), &error);
        for (int64_t i = 0; i < ROWS; i++)
            weight[d].scale[i] = 0.5f;
        for (int64_t i = 0; i < ROWS * cols; i++)
            weight[d].codes[i] = (int16_t)((w[i] > 0.3f) - (w[i] < -0.3f));
        must(tn_wide_fit_run(&view, &source, &options, &weight[d], &fit, &error), &error);
    }
    int64_t used = 0;
    for (int64_t i = 0; i < ROWS * cols; i++)
        used += weight[0].codes[i] != 0;
    bool ok = used > 0 &&
              !memcmp(weight[0].codes, weight[1].codes, (size_t)(ROWS * cols) * sizeof(int16_t)) &&
              !memcmp(slope[0], slope[1], sizeof slope[0]) &&
              !memcmp(shift[0], shift[1], sizeof shift[0]);
    printf("blocks of columns: %s, %lld of %lld codes are not 0\n", ok ? "the same" : "DIFFER",
           (long long)used, (long long)(ROWS * cols));
    bad += !ok;
    for (int i = 0; i < ARRAYS; i++)
        tn_free(host[i]);
    tn_free(w);
    tn_qweight_done(&weight[0]);
    tn_qweight_done(&weight[1]);
}

/* --- whole calibrations -------------------------------------------------------------------------
 */

typedef struct run {
    const char *network;
    tn_calibrate_method method;
    tn_calibrate_bn bn;
    uint64_t memory;
    bool independent;
} run;

static tn_calibration calibrate(const tn_model *model, const run *r, tn_device *device)
{
    tn_calibration calibration = {0};
    tn_error error = {0};
    const tn_calibrate_options options = {.method = r->method,
                                          .bn = r->bn,
                                          .samples = FITTED,
                                          .images = images,
                                          .memory = r->memory,
                                          .independent = r->independent,
                                          .device = device};
    must(tn_calibrate(model, NULL, &options, &calibration, &error), &error);
    return calibration;
}

/* Shares of codes that are the same, and scales' distance. */
static double equal_codes(const tn_calibration *a, const tn_calibration *b, double *scales)
{
    double equal = 0, all = 0;
    *scales = 0;
    for (size_t i = 0; i < a->conversion.count; i++) {
        const tn_qweight *p = &a->conversion.item[i].weight, *q = &b->conversion.item[i].weight;
        for (int64_t k = 0; k < p->rows * p->cols; k++)
            equal += p->codes[k] == q->codes[k];
        all += (double)(p->rows * p->cols);
        *scales = fmax(*scales, comparison_distance(p->scale, q->scale, (size_t)p->n_scales));
    }
    return equal / all;
}

/* The largest relative difference of layers' output errors; infinite where methods differ. */
static double compare_layers(const tn_calibration *a, const tn_calibration *b)
{
    double worst = 0;
    for (size_t i = 0; i < a->conversion.count; i++) {
        const tn_calibrated_layer *p = &a->layer[i], *q = &b->layer[i];
        if (strcmp(p->method, q->method) != 0)
            return (double)INFINITY;
        if (p->output_error > 0)
            worst = fmax(worst, fabs(p->output_error - q->output_error) / p->output_error);
    }
    return worst;
}

/* Where one layer's codes decide about the next ones' inputs, and one code about the next, rounding
 * grows: images that differ by 3e-7 change up to 8 % of the codes on the CPU alone, and not how
 * good they are. Layers that are fitted each by itself leave only ties to it. */
static void compare_calibrations(const run *r)
{
    const tn_zoo_options zoo = {.classes = 10, .input = {3, SIZE, SIZE}, .seed = 5};
    tn_model *model = NULL;
    tn_error error = {0};
    must(tn_zoo_create(r->network, &zoo, &model, &error), &error);
    tn_calibration a = calibrate(model, r, cpu), b = calibrate(model, r, cuda);
    double scales, differ = 1 - equal_codes(&a, &b, &scales);
    double layers = compare_layers(&a, &b), kl = fabs(a.kl - b.kl) / a.kl;
    const bool spread = differ > 0.002; /* scales are those of the codes */
    bool ok = a.conversion.count == b.conversion.count && a.conversion.count > 0 &&
              differ <= (r->independent ? 0.002 : 0.15) && layers <= 0.01 &&
              kl <= (spread ? 0.1 : 0.03) && scales <= (spread ? 0.1 : 0.01) && a.bn == b.bn &&
              a.params_changed == b.params_changed && (a.spilled > 0) == (b.spilled > 0);
    printf(
        "%-14s %-8s %-10s %s  %.3f %% of codes differ, scales %.1e, layers' errors %.1e, KL %.5f "
        "and %.5f\n",
        r->network, tn_calibrate_method_name(r->method), tn_calibrate_bn_name(a.bn),
        ok ? "ok" : "DIFFERS", 100 * differ, scales, layers, a.kl, b.kl);
    fflush(stdout);
    bad += !ok;
    tn_calibration_done(&a);
    tn_calibration_done(&b);
    tn_model_destroy(model);
}

/* --- what goes with calibration -----------------------------------------------------------------
 */

static void compare_synthesis(const tn_model *model)
{
    tn_synthesis made[2];
    tn_device *const devices[2] = {cpu, cuda};
    tn_error error = {0};
    for (int i = 0; i < 2; i++) {
        const tn_synthesize_options options = {
            .samples = 6, .batch = 4, .steps = 4, .seed = 3, .device = devices[i]};
        must(tn_synthesize(model, &options, &made[i], &error), &error);
    }
    size_t count = made[0].samples * 3 * SIZE * SIZE;
    double images_apart = comparison_distance(made[0].images, made[1].images, count);
    double losses = fabs(made[0].last_loss - made[1].last_loss) / made[0].last_loss;
    bool ok = images_apart <= 1e-3 && losses <= 1e-4 && made[0].last_loss < made[0].first_loss;
    printf("synthesized images: %s  %.1e, losses %.1e\n", ok ? "ok" : "DIFFERS", images_apart,
           losses);
    bad += !ok;
    tn_synthesis_done(&made[0]);
    tn_synthesis_done(&made[1]);
}

static void compare_sensitivity(const tn_model *model)
{
    tn_budget budget[2];
    tn_calibration unused[2];
    tn_device *const devices[2] = {cpu, cuda};
    tn_error error = {0};
    double worst = 0;
    for (int i = 0; i < 2; i++) {
        const tn_budget_options options = {.calibrate = {.method = TN_CALIBRATE_ROUND,
                                                         .bn = TN_CALIBRATE_BN_KEEP,
                                                         .samples = IMAGES,
                                                         .images = images,
                                                         .device = devices[i]},
                                           .sensitivity_only = true};
        memset(&unused[i], 0, sizeof unused[i]);
        must(tn_budget_choose(model, NULL, &options, &budget[i], &unused[i], &error), &error);
    }
    for (size_t i = 0; i < budget[0].count; i++)
        for (int w = 0; w < TN_BUDGET_WIDTHS; w++)
            worst = fmax(worst, fabs(budget[0].row[i].kl[w] - budget[1].row[i].kl[w]) /
                                    (budget[0].row[i].kl[w] + 1e-6));
    bool ok = worst <= 1e-2 && budget[0].count == budget[1].count && budget[0].count > 0;
    printf("sensitivity of %zu layers: %s  %.1e\n", budget[0].count, ok ? "ok" : "DIFFERS", worst);
    bad += !ok;
    for (int i = 0; i < 2; i++) {
        tn_budget_done(&budget[i]);
        tn_calibration_done(&unused[i]);
    }
}

/* Smooth fields, as in photographs. */
static void make_images(void)
{
    for (int i = 0; i < IMAGES * 3; i++) {
        float a = comparison_uniform(), b = comparison_uniform();
        float fx = comparison_uniform(), fy = comparison_uniform();
        for (int y = 0; y < SIZE; y++)
            for (int x = 0; x < SIZE; x++)
                images[(i * SIZE + y) * SIZE + x] =
                    a + b * sinf(fx * (float)x + fy * (float)y) + 0.3f * comparison_uniform();
    }
}

int main(int argc, char **argv)
{
    static const run runs[] = {
        {"resnet8", TN_CALIBRATE_CD, TN_CALIBRATE_BN_KEEP, 0, true},
        {"resnet8", TN_CALIBRATE_CD, TN_CALIBRATE_BN_AFFINE, 100000, false},
        {"resnet8", TN_CALIBRATE_GPTQ, TN_CALIBRATE_BN_REESTIMATE, 0, false},
        {"resnet8", TN_CALIBRATE_ADAROUND, TN_CALIBRATE_BN_CONTROL, 0, false},
        {"densenet-small", TN_CALIBRATE_ROUND, TN_CALIBRATE_BN_AFFINE, 0, false}};
    const tn_zoo_options zoo = {.classes = 10, .input = {3, SIZE, SIZE}, .seed = 5};
    tn_model *model = NULL;
    tn_error error = {0};
    comparison_seed(argc, argv, 1, 20281);
    int skip = comparison_open(&cpu, &cuda);
    if (skip)
        return skip;
    make_images();
    compare_all_sums();
    compare_wide();
    must(tn_zoo_create("resnet8", &zoo, &model, &error), &error);
    compare_synthesis(model);
    compare_sensitivity(model);
    tn_model_destroy(model);
    for (size_t i = 0; i < sizeof runs / sizeof runs[0]; i++)
        compare_calibrations(&runs[i]);
    tn_device_destroy(cuda);
    tn_device_destroy(cpu);
    return bad > 0;
}
