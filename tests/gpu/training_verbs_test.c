/* The device's quantizers, optimizer and norm against the processor's own (converter/quantizers,
 * finetune/optimizer): every scheme, granularity, threshold and layout, all tensors in one launch.
 * training_verbs_test [SEED]
 *
 * Promised: values and dw bitwise, states to 1 ulp (statistics that are compared cut by cut), scale
 * gradients to 1e-6 of the sum of what is added; DoReFa's tanh is the device's own. */
#include "core/memory.h"
#include "finetune/optimizer.h"
#include "gpu/cuda_device.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static uint64_t state;
static int bad;

static double uniform(void)
{
    state = state * 6364136223846793005u + 1442695040888963407u;
    return (double)(int32_t)(state >> 32) / 2147483648.0;
}

static void must(tn_status status, const tn_error *error)
{
    if (status == TN_OK)
        return;
    printf("FAILED: %s\n", error->message);
    exit(1);
}

static float *on_device(tn_device *device, const float *host, int64_t count)
{
    tn_error error = {0};
    size_t bytes = (size_t)count * sizeof(float);
    float *memory = device->type->alloc(device, bytes);
    if (!memory)
        exit(1);
    if (host)
        must(device->type->upload(device, memory, host, bytes, &error), &error);
    return memory;
}

static void to_host(tn_device *device, float *host, const float *memory, int64_t count)
{
    tn_error error = {0};
    must(device->type->download(device, host, memory, (size_t)count * sizeof(float), &error),
         &error);
}

typedef struct latent {
    char name[96];
    tn_scheme scheme;
    tn_qweight weight;
    tn_quantizer_state state; /* host */
    float rho_inv;
    float *w, *dvalues, *values, *dw, *dscale, *dscale_neg; /* host; rows */
    tn_quantizer_item item;
} latent;

static float *floats(int64_t count)
{
    float *memory = tn_alloc_zero((size_t)count + 1, sizeof(float));
    if (!memory)
        exit(1);
    return memory;
}

static void make_latent(latent *l, tn_device *device)
{
    tn_error error = {0};
    const tn_qweight *q = &l->weight;
    tn_scheme_apply(&l->scheme, &l->weight);
    must(tn_qweight_init(&l->weight, true, true, &error), &error);
    int64_t n = q->rows * q->cols, scales = q->n_scales;
    float *layout = floats(n);
    l->w = floats(n);
    l->dvalues = floats(n);
    l->values = floats(n);
    l->dw = floats(n);
    l->dscale = floats(scales);
    l->dscale_neg = floats(scales);
    l->state = (tn_quantizer_state){.scale = floats(scales),
                                    .scale_neg = floats(scales),
                                    .zero = floats(scales),
                                    .threshold = floats(scales),
                                    .rho_inv = l->rho_inv};
    bool grid = uniform() > 0.0; /* many equal magnitudes */
    for (int64_t i = 0; i < n; i++) {
        double w = uniform() * uniform();
        l->w[i] = (float)(grid ? rint(w * 16.0) / 16.0 : w);
        l->dvalues[i] = (float)uniform();
    }
    l->scheme.quantizer->fit(&l->scheme, q, l->w, NULL, &l->state);
    for (int64_t i = 0; i < n; i++) /* refresh has something to do */
        l->w[i] = grid ? l->w[i] : l->w[i] * (float)(1.0 + 0.1 * uniform());
    tn_rows_to_layout(l->dvalues, q->rank, q->dims, q->axis, layout);
    const tn_quantizer *quantizer = l->scheme.quantizer;
    bool trained = !quantizer->refresh || quantizer->two_scales;
    l->item = (tn_quantizer_item){
        .scheme = &l->scheme,
        .shape = &l->weight,
        .rho_inv = &l->rho_inv,
        .refresh = quantizer->refresh != NULL,
        .state = {.scale = on_device(device, l->state.scale, scales),
                  .scale_neg = on_device(device, l->state.scale_neg, scales),
                  .zero = on_device(device, l->state.zero, scales),
                  .threshold = on_device(device, l->state.threshold, scales)},
        .w = on_device(device, l->w, n),
        .values = on_device(device, NULL, n),
        .dvalues = on_device(device, layout, n),
        .dw = on_device(device, NULL, n),
        .dscale = trained ? on_device(device, NULL, scales) : NULL,
        .dscale_neg = trained && quantizer->two_scales ? on_device(device, NULL, scales) : NULL};
    tn_free(layout);
}

static void differ(const latent *l, const char *what, int64_t i, double a, double b)
{
    printf("%s: %s[%lld] is %.9g on the device, %.9g here\n", l->name, what, (long long)i, a, b);
    bad++;
}

static bool near(float a, float b, int ulps)
{
    float next = b;
    for (int i = 0; i < ulps; i++)
        next = nextafterf(next, a);
    return a == b || a == next;
}

/* Values up to the last bit of their scales; at most `spare` may differ at all. */
static void compare_rows(const latent *l, const char *what, const float *a, const float *b,
                         int ulps, int64_t spare)
{
    int64_t n = l->weight.rows * l->weight.cols;
    for (int64_t i = 0; i < n; i++)
        if (!near(a[i], b[i], ulps) && spare-- <= 0) {
            differ(l, what, i, (double)a[i], (double)b[i]);
            return;
        }
}

/* DoReFa's dw = d (1 - tanh(w)^2) / most where the device has a tanh of its own, a few units off in
 * the last place: of 1, not of what is left of it where tanh is near 1. */
static void compare_tanh_slopes(const latent *l, const float *a, const float *b, int ulps)
{
    for (int64_t i = 0; i < l->weight.rows * l->weight.cols; i++) {
        double t = tanh((double)l->w[i]), left = 1.0 - t * t;
        double whole = fabs((double)b[i]) / (left > 0x1p-24 ? left : 0x1p-24);
        if (!(fabs((double)a[i] - (double)b[i]) <= 0x1p-23 * ulps * whole)) {
            differ(l, "dw", i, (double)a[i], (double)b[i]);
            return;
        }
    }
}

static void compare_scales(const latent *l, const char *what, const float *a, const float *b,
                           int ulps)
{
    for (int64_t i = 0; i < l->weight.n_scales; i++)
        if (!near(a[i], b[i], ulps)) {
            differ(l, what, i, (double)a[i], (double)b[i]);
            return;
        }
}

static void compare_slopes(const latent *l, const char *what, const float *a, const float *b)
{
    double run = (double)(l->weight.rows * l->weight.cols) / (double)l->weight.n_scales;
    for (int64_t i = 0; i < l->weight.n_scales; i++)
        if (fabs((double)a[i] - (double)b[i]) > 1e-6 * sqrt(run) * (1.0 + fabs((double)b[i]))) {
            differ(l, what, i, (double)a[i], (double)b[i]);
            return;
        }
}

static void compare(latent *l, tn_device *device)
{
    const tn_quantizer *quantizer = l->scheme.quantizer;
    const tn_qweight *q = &l->weight;
    int64_t n = q->rows * q->cols, scales = q->n_scales;
    bool own_tanh = strcmp(quantizer->id, "dorefa") == 0 && !strstr(device->summary, "emulated");
    int ulps = own_tanh ? 4 : 0;
    float *layout = floats(n), *rows = floats(n), *numbers = floats(scales);
    if (quantizer->refresh)
        quantizer->refresh(&l->scheme, q, l->w, &l->state);
    quantizer->quantize(&l->scheme, q, l->w, &l->state, NULL, l->values);
    to_host(device, layout, l->item.values, n);
    tn_rows_from_layout(layout, q->rank, q->dims, q->axis, rows);
    /* a scale of least squares may be one bit off: so are its values */
    compare_rows(l, "value", rows, l->values, ulps + (l->item.refresh ? 1 : 0),
                 own_tanh ? 1 + n / 500 : 0);
    to_host(device, numbers, l->item.state.scale, scales);
    compare_scales(l, "scale", numbers, l->state.scale, 1);
    memcpy(l->state.scale, numbers, (size_t)scales * sizeof(float));
    if (quantizer->has_zero) {
        to_host(device, numbers, l->item.state.zero, scales);
        compare_scales(l, "zero", numbers, l->state.zero, 0);
    }
    quantizer->backward(&l->scheme, q, l->w, &l->state, l->dvalues, l->dw, l->dscale,
                        l->dscale_neg);
    to_host(device, rows, l->item.dw, n);
    if (own_tanh)
        compare_tanh_slopes(l, rows, l->dw, ulps);
    else
        compare_rows(l, "dw", rows, l->dw, ulps, 0);
    if (l->item.dscale) {
        to_host(device, numbers, l->item.dscale, scales);
        compare_slopes(l, "dscale", numbers, l->dscale);
    }
    if (l->item.dscale_neg) {
        to_host(device, numbers, l->item.dscale_neg, scales);
        compare_slopes(l, "dscale_neg", numbers, l->dscale_neg);
    }
    tn_free(layout);
    tn_free(rows);
    tn_free(numbers);
}

/* Runs forward or backward of a kernel that has its state. */
static void run(tn_device *device, tn_kernel *kernel, void *memory, void *workspace, bool backward)
{
    tn_error error = {0};
    tn_arguments args = {.state = memory, .workspace = workspace};
    must(backward ? kernel->type->backward(kernel, &args, &error)
                  : kernel->type->forward(kernel, &args, &error),
         &error);
    must(device->type->synchronize(device, &error), &error);
}

enum { MOST = 400 };
static latent latents[MOST];
static tn_quantizer_item items[MOST];
static int count;

static const struct {
    int rank, axis;
    int64_t dims[4];
} shapes[] = {{4, 0, {7, 5, 3, 3}}, {2, 1, {70, 11}},  {4, 1, {6, 9, 2, 3}},
              {2, 0, {3, 517}},     {2, 0, {3, 4703}}, /* longer than a block can keep */
              {2, 0, {2, 16384}}}; /* one scale: the longest run that is sorted */
enum { SHAPES = sizeof(shapes) / sizeof(shapes[0]) };

static void add(const char *id, int bits, tn_threshold_kind threshold, float value, float rho_inv)
{
    for (int shape = 0; shape < SHAPES; shape++) {
        for (int granularity = 0; granularity < 3; granularity++) {
            if (count == MOST)
                exit(1);
            latent *l = &latents[count++];
            tn_error error = {0};
            l->scheme = (tn_scheme){.quantizer = tn_quantizer_find(id),
                                    .bits = bits,
                                    .granularity = (tn_granularity)granularity,
                                    .group = 8 + 5 * shape,
                                    .threshold = threshold,
                                    .threshold_value = value};
            must(l->scheme.quantizer->resolve(&l->scheme, &error), &error);
            l->weight.rank = shapes[shape].rank;
            l->weight.axis = shapes[shape].axis;
            memcpy(l->weight.dims, shapes[shape].dims, sizeof(shapes[shape].dims));
            l->rho_inv = rho_inv;
            snprintf(l->name, sizeof(l->name), "%s bits %d threshold %d granularity %d shape %d",
                     id, bits, (int)threshold, granularity, shape);
        }
    }
}

static void quantizers(tn_device *device)
{
    const tn_threshold_kind kinds[] = {TN_THRESHOLD_OPTIMAL, TN_THRESHOLD_MEAN, TN_THRESHOLD_MAX,
                                       TN_THRESHOLD_SPARSITY};
    const float values[] = {0.0f, 0.7f, 0.05f, 0.4f};
    for (int i = 0; i < 4; i++) {
        add("twn", 0, kinds[i], values[i], 0.0f);
        add("ttq", 0, kinds[i], values[i], 0.0f);
    }
    for (size_t i = 0; tn_quantizer_at(i); i++) { /* every scheme of the table but the plain ones */
        const tn_quantizer *q = tn_quantizer_at(i);
        if (q->plain || !strcmp(q->id, "twn") || !strcmp(q->id, "ttq"))
            continue;
        add(q->id, 4, TN_THRESHOLD_OPTIMAL, 0.0f, 0.0f);
        add(q->id, 2, TN_THRESHOLD_OPTIMAL, 0.0f, strcmp(q->id, "parq") ? 0.0f : 0.3f);
    }
    add("dorefa", 1, TN_THRESHOLD_OPTIMAL, 0.0f, 0.0f);
    tn_error error = {0};
    tn_kernel *kernel;
    for (int i = 0; i < count; i++) {
        make_latent(&latents[i], device);
        items[i] = latents[i].item;
    }
    tn_task task = {
        .verb = TN_VERB_QUANTIZER, .precision = TN_PRECISION_FP32, .quantizer = {items, count}};
    must(device->type->prepare(device, &task, &kernel, &error), &error);
    void *memory = device->type->alloc(device, kernel->state_bytes);
    void *workspace = device->type->alloc(device, kernel->workspace_bytes);
    tn_arguments args = {.state = memory, .workspace = workspace};
    must(kernel->type->pack(kernel, &args, &error), &error);
    run(device, kernel, memory, workspace, false);
    run(device, kernel, memory, workspace, true);
    for (int i = 0; i < count; i++)
        compare(&latents[i], device);
    tn_kernel_destroy(kernel);
    device->type->release(device, memory);
    device->type->release(device, workspace);
    printf("%d tensors quantized\n", count);
}

enum { TENSORS = 5, STEPS = 4 };

static void fill(float *values, int64_t n)
{
    for (int64_t i = 0; i < n; i++)
        values[i] = (float)uniform();
}

static const int64_t counts[TENSORS] = {1, 4096, 70001, 12, 333};

/* The same tensors for the optimizer here and there. */
static void make_tensors(tn_device *device, tn_optimizer *here, tn_optimizer_item *there,
                         float **values, float **gradients)
{
    tn_error error = {0};
    for (int i = 0; i < TENSORS; i++) {
        float rate = i == 2 ? 1.0f : 0.3f, decay = i == 1 ? 0.01f : 0.0f;
        values[i] = floats(counts[i]);
        gradients[i] = floats(counts[i]);
        fill(values[i], counts[i]);
        must(tn_optimizer_add(here, "tensor", values[i], gradients[i], counts[i], rate, decay,
                              &error),
             &error);
        const float *zeros = here->slots[i].first;
        there[i] = (tn_optimizer_item){.value = on_device(device, values[i], counts[i]),
                                       .gradient = on_device(device, NULL, counts[i]),
                                       .count = counts[i],
                                       .rate = rate,
                                       .decay = decay,
                                       .floor = -INFINITY,
                                       .first = on_device(device, zeros, counts[i]),
                                       .second = on_device(device, zeros, counts[i]),
                                       .average = on_device(device, values[i], counts[i])};
    }
}

static void compare_tensors(tn_device *device, const tn_optimizer *here,
                            const tn_optimizer_item *there)
{
    for (int i = 0; i < TENSORS; i++) {
        const tn_slot *slot = &here->slots[i];
        const struct {
            const float *here, *there;
        } pairs[] = {{slot->value, there[i].value},
                     {slot->first, there[i].first},
                     {slot->second, there[i].second},
                     {slot->average, there[i].average}};
        float *numbers = floats(counts[i]);
        for (int k = 0; k < 4; k++) {
            if (!pairs[k].here)
                continue;
            to_host(device, numbers, pairs[k].there, counts[i]);
            if (memcmp(numbers, pairs[k].here, (size_t)counts[i] * sizeof(float)) != 0) {
                printf("optimizer %d: array %d of tensor %d differs\n", (int)here->rule.kind, k, i);
                bad++;
            }
        }
        tn_free(numbers);
    }
}

/* New gradients here and there, and the norm of both. */
static void next_gradients(tn_device *device, const tn_optimizer *here,
                           const tn_optimizer_item *there, float **gradients, tn_kernel *norm,
                           const tn_arguments *args)
{
    tn_error error = {0};
    double squares;
    for (int i = 0; i < TENSORS; i++) {
        fill(gradients[i], counts[i]);
        must(device->type->upload(device, (void *)(uintptr_t)there[i].gradient, gradients[i],
                                  (size_t)counts[i] * sizeof(float), &error),
             &error);
    }
    must(norm->type->forward(norm, args, &error), &error);
    must(device->type->download(device, &squares, args->dst, sizeof(squares), &error), &error);
    double mine = tn_optimizer_gradient_norm(here);
    if (sqrt(squares) != mine) {
        printf("norm: %.17g on the device, %.17g here\n", sqrt(squares), mine);
        bad++;
    }
}

/* Some steps with averages, bit for bit. */
static void optimizer(tn_device *device, tn_optimizer_kind kind)
{
    tn_error error = {0};
    tn_optimizer here = {.rule = {kind, 0.9f, kind == TN_OPTIMIZER_SGD, 0.9f, 0.999f, 1e-8f},
                         .ema = 0.99f};
    tn_optimizer_item there[TENSORS];
    float *values[TENSORS], *gradients[TENSORS];
    tn_task task = {.precision = TN_PRECISION_FP32, .optimizer = {here.rule, there, TENSORS}};
    tn_kernel *update, *norm;
    make_tensors(device, &here, there, values, gradients);
    task.verb = TN_VERB_OPTIMIZER;
    must(device->type->prepare(device, &task, &update, &error), &error);
    task.verb = TN_VERB_NORM;
    must(device->type->prepare(device, &task, &norm, &error), &error);
    tn_arguments u = {.state = device->type->alloc(device, update->state_bytes),
                      .step = device->type->alloc(device, sizeof(tn_step_state))};
    tn_arguments n = {.state = device->type->alloc(device, norm->state_bytes),
                      .workspace = device->type->alloc(device, norm->workspace_bytes),
                      .dst = device->type->alloc(device, sizeof(double))};
    must(norm->type->pack(norm, &n, &error), &error);
    for (int step = 0; step < STEPS; step++) {
        next_gradients(device, &here, there, gradients, norm, &n);
        /* two updates behind what the host has counted, as if two were dropped since */
        const tn_update next = {.lr = 0.1,
                                .after = {[2] = tn_optimizer_factors(&here, here.steps)}};
        const tn_step_state decided = {.dropped = 2, .updates = 1, .gradient_scale = 0.7f};
        must(device->type->upload(device, u.step, &decided, sizeof decided, &error), &error);
        u.update = &next;
        must(update->type->pack(update, &u, &error), &error);
        must(update->type->forward(update, &u, &error), &error);
        tn_optimizer_step(&here, 0.1, 0.7);
    }
    compare_tensors(device, &here, there);
    for (int i = 0; i < TENSORS; i++) {
        tn_free(values[i]);
        tn_free(gradients[i]);
    }
    tn_kernel_destroy(update);
    tn_kernel_destroy(norm);
    tn_optimizer_done(&here);
}

int main(int argc, char **argv)
{
    tn_error error = {0};
    tn_device *device;
    const char *seed = getenv("TERNION_SEED");
    state = argc > 1 ? strtoull(argv[1], NULL, 10) : seed ? strtoull(seed, NULL, 10) : 20267;
    printf("seed %llu\n", (unsigned long long)state);
    if (tn_device_create_cuda(0, &device, &error) != TN_OK) {
        printf("skipped: %s\n", error.message);
        return 77;
    }
    quantizers(device);
    optimizer(device, TN_OPTIMIZER_SGD);
    optimizer(device, TN_OPTIMIZER_ADAM);
    optimizer(device, TN_OPTIMIZER_ADAMW);
    tn_device_destroy(device);
    printf("%d differences\n", bad);
    return bad > 0;
}
