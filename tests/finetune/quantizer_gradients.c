/* quantizer_gradients OUT SEED: values and gradients of every quantizer on drawn weights, and of
 * the activation steps, for quantizer_autograd.py. A case is a line of text, then its arrays of
 * fp32: scheme bits low high ternary granularity group threshold value rows cols scales rho w g |
 * scale scale_neg zero threshold | values dw dscale dscale_neg (activations: "lsq-activation" or
 * "pact-activation"; features in `group`, the batch in rows). */
#include "converter/quantizer.h"
#include "core/memory.h"
#include "core/random.h"
#include "network/device.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 8192, ROWS = 5, COLS = 37 };

typedef struct arrays {
    float w[MOST], g[MOST], values[MOST], dw[MOST];
    float scale[MOST], scale_neg[MOST], zero[MOST], threshold[MOST], dscale[MOST], dscale_neg[MOST];
} arrays;

static arrays a;

static void put(FILE *file, const float *values, int64_t count)
{
    if (fwrite(values, sizeof *values, (size_t)count, file) != (size_t)count)
        exit(1);
}

static void draw(tn_random *random)
{
    memset(&a, 0, sizeof a);
    for (int i = 0; i < ROWS * COLS; i++) {
        a.w[i] = 0.3f * tn_random_normal(random);
        a.g[i] = tn_random_normal(random);
    }
}

static void weights(FILE *file, tn_random *random, const char *id, int bits, bool ternary,
                    tn_threshold_kind kind, float value, tn_granularity granularity, float rho)
{
    tn_scheme scheme = {.quantizer = tn_quantizer_find(id),
                        .ternary = ternary,
                        .bits = bits,
                        .granularity = granularity,
                        .group = granularity == TN_PER_GROUP ? 9 : 0,
                        .threshold = kind,
                        .threshold_value = value};
    tn_qweight shape = {.rank = 2, .dims = {ROWS, COLS}, .axis = 0};
    if (!scheme.quantizer || scheme.quantizer->resolve(&scheme, NULL) != TN_OK)
        exit(1);
    tn_scheme_apply(&scheme, &shape);
    if (tn_qweight_init(&shape, scheme.quantizer->two_scales, scheme.quantizer->has_zero, NULL) !=
        TN_OK)
        exit(1);
    tn_quantizer_state state = {a.scale, a.scale_neg, a.zero, a.threshold, rho};
    draw(random);
    scheme.quantizer->fit(&scheme, &shape, a.w, NULL, &state);
    if (!scheme.quantizer->refresh || scheme.quantizer->two_scales)
        for (int64_t i = 0; i < shape.n_scales; i++) { /* away from where training starts */
            a.scale[i] *= 0.8f + 0.4f * tn_random_uniform(random);
            a.scale_neg[i] *= 0.8f + 0.4f * tn_random_uniform(random);
        }
    scheme.quantizer->quantize(&scheme, &shape, a.w, &state, NULL, a.values);
    scheme.quantizer->backward(&scheme, &shape, a.w, &state, a.g, a.dw, a.dscale, a.dscale_neg);
    fprintf(file, "%s %d %d %d %d %d %lld %d %.9g %d %d %lld %.9g\n", id, scheme.bits, scheme.low,
            scheme.high, ternary, (int)granularity, (long long)scheme.group, (int)kind,
            (double)value, ROWS, COLS, (long long)shape.n_scales, (double)rho);
    put(file, a.w, ROWS * COLS);
    put(file, a.g, ROWS * COLS);
    const float *states[] = {a.scale, a.scale_neg, a.zero, a.threshold};
    for (int i = 0; i < 4; i++)
        put(file, states[i], shape.n_scales);
    put(file, a.values, ROWS * COLS);
    put(file, a.dw, ROWS * COLS);
    put(file, a.dscale, shape.n_scales);
    put(file, a.dscale_neg, shape.n_scales);
    tn_qweight_done(&shape);
}

/* The device's kernel on a batch of ROWS samples of COLS features. */
static void activation(FILE *file, tn_random *random, tn_device *device, int bits, int zero,
                       bool pact)
{
    float high = (float)((1 << bits) - 1 - zero), step = 0.6f / high;
    tn_task task = {.verb = TN_VERB_FAKE_QUANTIZE, .backward = true};
    task.fake_quantize = (tn_fake_quantize_task){
        .count = ROWS * COLS,
        .low = (float)-zero,
        .high = high,
        .clip_only = pact,
        .step_factor = pact ? 1.0f : (float)(1.0 / sqrt((double)COLS * (double)high))};
    tn_kernel *kernel = NULL;
    if (device->type->prepare(device, &task, &kernel, NULL) != TN_OK)
        exit(1);
    draw(random);
    for (int i = 0; i < ROWS * COLS && zero == 0; i++)
        a.w[i] = fabsf(a.w[i]);
    a.scale[0] = step;
    const float *src[] = {a.w}, *params[] = {a.scale};
    float *dsrc[] = {a.dw}, *dparams[] = {a.dscale};
    bool accumulate[] = {false};
    tn_arguments args = {.src = src,
                         .dst = a.values,
                         .params = params,
                         .ddst = a.g,
                         .dsrc = dsrc,
                         .accumulate = accumulate,
                         .dparams = dparams};
    if (kernel->type->forward(kernel, &args, NULL) != TN_OK ||
        kernel->type->backward(kernel, &args, NULL) != TN_OK)
        exit(1);
    fprintf(file, "%s-activation %d %d %d 0 0 %d 0 0 %d %d 1 0\n", pact ? "pact" : "lsq", bits,
            -zero, (int)high, COLS, ROWS, COLS);
    put(file, a.w, ROWS * COLS);
    put(file, a.g, ROWS * COLS);
    const float *states[] = {a.scale, a.scale_neg, a.zero, a.threshold};
    for (int i = 0; i < 4; i++)
        put(file, states[i], 1);
    put(file, a.values, ROWS * COLS);
    put(file, a.dw, ROWS * COLS);
    put(file, a.dscale, 1);
    put(file, a.dscale_neg, 1);
    tn_kernel_destroy(kernel);
}

int main(int argc, char **argv)
{
    tn_device *device = NULL;
    FILE *file = argc == 3 ? fopen(argv[1], "wb") : NULL;
    if (!file || tn_device_create_cpu(&device, NULL) != TN_OK)
        return 2;
    tn_random random = tn_random_make(strtoull(argv[2], NULL, 10), TN_PURPOSE_TEST, 77, 0);
    static const tn_granularity all[] = {TN_PER_TENSOR, TN_PER_CHANNEL, TN_PER_GROUP};
    static const struct {
        tn_threshold_kind kind;
        float value;
    } thresholds[] = {{TN_THRESHOLD_OPTIMAL, 0},
                      {TN_THRESHOLD_MEAN, 0.7f},
                      {TN_THRESHOLD_MAX, 0.05f},
                      {TN_THRESHOLD_SPARSITY, 0.5f}};
    for (size_t k = 0; k < 3; k++) {
        for (size_t t = 0; t < 4; t++) {
            weights(file, &random, "twn", 0, true, thresholds[t].kind, thresholds[t].value, all[k],
                    0);
            weights(file, &random, "ttq", 0, true, thresholds[t].kind, thresholds[t].value, all[k],
                    0);
        }
        weights(file, &random, "lsq", 0, true, TN_THRESHOLD_OPTIMAL, 0, all[k], 0);
        weights(file, &random, "fixed", 0, true, TN_THRESHOLD_OPTIMAL, 0, all[k], 0);
        for (int bits = 2; bits <= 8; bits += 2) {
            weights(file, &random, "lsq", bits, false, TN_THRESHOLD_OPTIMAL, 0, all[k], 0);
            weights(file, &random, "fixed", bits, false, TN_THRESHOLD_OPTIMAL, 0, all[k], 0);
        }
        for (int bits = 1; bits <= 4; bits++)
            weights(file, &random, "dorefa", bits, false, TN_THRESHOLD_OPTIMAL, 0, all[k], 0);
        for (int r = 0; r < 4; r++)
            weights(file, &random, "parq", 0, r < 3, TN_THRESHOLD_OPTIMAL, 0, all[k],
                    0.3f * (float)r);
    }
    for (int bits = 2; bits <= 8; bits += 3)
        for (int zero = 0; zero < 2; zero++)
            for (int pact = 0; pact < 2; pact++)
                activation(file, &random, device, bits, zero, pact);
    tn_device_destroy(device);
    return fclose(file) != 0;
}
