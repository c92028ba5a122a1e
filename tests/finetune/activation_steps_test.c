/* Activations quantized in training: what they are in the plan, the gradient of their steps, and
 * that training with them learns, resumes and exports exactly. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/memory.h"
#include "finetune/activation_steps.h"
#include "network/plan.h"
#include "tests/finetune/check_status.h"
#include "tests/finetune/glyph_training.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { BATCH = 32, CLASSES = 10 };

static glyph_training glyphs;
static const tn_augment_options augment = {.pad = 2};
static const tn_policy ternary = {.scheme = "lsq", .bits = "1.58"};

static int setup(void **state)
{
    (void)state;
    tn_error error = {0};
    check(glyph_training_make(&glyphs, 320, 64, &error), &error);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    glyph_training_close(&glyphs);
    return remove_folder(glyphs.folder);
}

static void measure(int bits, tn_activations *ranges)
{
    tn_error error = {0};
    tn_graph *graph = NULL;
    tn_layers layers;
    tn_conversion conversion;
    check(tn_graph_create(glyphs.network, NULL, &graph, &error), &error);
    check(tn_layers_select(graph, &ternary, &layers, &error), &error);
    check(tn_convert(&layers, NULL, &conversion, &error), &error);
    const tn_activation_options options = {
        .bits = bits, .samples = 32, .preprocess = &glyphs.preprocess, .device = glyphs.device};
    check(
        tn_activations_measure(glyphs.network, &conversion, glyphs.train, &options, ranges, &error),
        &error);
    assert_true(ranges->count > 3);
    tn_conversion_done(&conversion);
    tn_graph_destroy(graph);
}

static float *read_value(tn_plan *plan, const char *name, int64_t *count)
{
    tn_error error = {0};
    tn_extent extent;
    check(tn_plan_shape(plan, name, &extent, &error), &error);
    *count = tn_extent_count(&extent);
    float *values = tn_alloc_array((size_t)*count, sizeof *values);
    assert_non_null(values);
    check(tn_plan_read(plan, name, values, &error), &error);
    return values;
}

static void write_noise(tn_plan *plan)
{
    tn_error error = {0};
    static float images[BATCH * 3 * 32 * 32];
    for (size_t i = 0; i < sizeof images / sizeof *images; i++)
        images[i] = sinf((float)(i % 9973) * 0.37f) + 0.2f * cosf((float)(i % 101));
    check(tn_plan_write_input(plan, 0, images, BATCH, &error), &error);
}

/* What reads the range's value in the quantized copy: the DequantizeLinear's output. */
static const char *output_of(const tn_graph *graph, const char *value)
{
    const tn_value *at = tn_graph_value(graph, value);
    for (size_t u = 0; at && u < at->n_users; u++) {
        const tn_node *node = at->users[u];
        while (!strcmp(node->type, "Clip") || !strcmp(node->type, "QuantizeLinear"))
            node = node->outputs[0]->users[0];
        if (!strcmp(node->type, "DequantizeLinear"))
            return node->outputs[0]->name;
    }
    fail_msg("%s is not quantized", value);
    return NULL;
}

/* ds by the formula, in double. */
static double step_gradient(const tn_activation_range *range, const float *x, const float *dy,
                            int64_t count, bool clip_only)
{
    double low = -range->zero, high = ldexp(1, range->bits) - 1 - range->zero, sum = 0;
    for (int64_t i = 0; i < count; i++) {
        double v = (double)(x[i] / range->scale);
        sum += (double)dy[i] * (v < low ? low : v > high ? high : clip_only ? 0 : rint(v) - v);
    }
    return clip_only ? sum : sum / sqrt((double)count / BATCH * high);
}

/* Every quantized value of the training plan is what QuantizeLinear and DequantizeLinear say, bit
 * by bit, and its step's gradient is the formula's. */
static void steps_quantize_and_have_their_gradient(void **state)
{
    (void)state;
    for (int k = 0; k < 4; k++) {
        tn_error error = {0};
        tn_activations ranges;
        tn_activation_steps steps;
        tn_graph *graph = NULL;
        tn_plan *plan = NULL;
        int bits = k % 2 ? 3 : 8;
        bool pact = k > 1;
        measure(bits, &ranges);
        check(tn_activation_steps_create(glyphs.network, &ranges, &steps, &error), &error);
        const tn_graph_options size = {.batch = BATCH};
        check(tn_graph_create(steps.model, &size, &graph, &error), &error);
        const char *names[64];
        for (size_t i = 0; i < ranges.count; i++) {
            names[i] = ranges.range[i].value;
            names[ranges.count + i] = output_of(graph, names[i]);
        }
        const tn_plan_options options = {.training = true,
                                         .loss = true,
                                         .clip_steps = pact,
                                         .taps = names,
                                         .n_taps = 2 * ranges.count,
                                         .gradients = names + ranges.count,
                                         .n_gradients = ranges.count};
        check(tn_plan_create(graph, glyphs.device, &options, &plan, &error), &error);
        tn_train_options bound = {.activation_scheme = pact ? "pact" : "lsq"};
        tn_params *params = tn_plan_params(plan);
        check(tn_activation_steps_bind(&steps, &bound, params, &error), &error);
        int32_t labels[BATCH];
        for (int i = 0; i < BATCH; i++)
            labels[i] = i % CLASSES;
        const tn_loss_options loss = {.labels = labels, .count = BATCH};
        write_noise(plan);
        check(tn_plan_forward(plan, TN_RUN_TRAINING, 0, SIZE_MAX, &error), &error);
        check(tn_plan_loss(plan, &loss, NULL, &error), &error);
        check(tn_plan_backward(plan, 0, SIZE_MAX, false, &error), &error);
        for (size_t i = 0; i < ranges.count; i++) {
            const tn_activation_range *range = &ranges.range[i];
            int64_t count;
            float top = ldexpf(1, bits) - 1, zero = (float)range->zero, gradient;
            float *x = read_value(plan, names[i], &count);
            float *y = read_value(plan, names[ranges.count + i], &count);
            for (int64_t e = 0; e < count; e++) {
                float q = rintf(x[e] / range->scale) + zero;
                q = q < 0 ? 0 : q > top ? top : q;
                float want = (q - zero) * range->scale;
                assert_memory_equal(&want, &y[e], sizeof want);
            }
            check(tn_plan_read_gradient(plan, names[ranges.count + i], y, &error), &error);
            check(tn_params_get_gradient(params, steps.param[i], &gradient, &error), &error);
            double want = step_gradient(range, x, y, count, pact);
            if (!(fabs(want - (double)gradient) <= 1e-5 * fabs(want) + 1e-9))
                fail_msg("%s: the step's gradient is %g, not %g", names[i], (double)gradient, want);
            tn_free(x);
            tn_free(y);
        }
        tn_plan_destroy(plan);
        tn_graph_destroy(graph);
        tn_activation_steps_done(&steps);
        tn_activations_done(&ranges);
    }
}

static tn_train_options options_with(const tn_activations *ranges, const char *scheme)
{
    return (tn_train_options){.policy = ternary,
                              .epochs = 4,
                              .batch = BATCH,
                              .lr = 0.05,
                              .seed = 5,
                              .activations = ranges,
                              .activation_scheme = scheme,
                              .device = glyphs.device};
}

static void train(const tn_train_options *options, tn_trained *trained)
{
    tn_error error = {0};
    const tn_train_data data = glyph_training_data(&glyphs, &augment);
    check(tn_train(glyphs.network, &data, NULL, NULL, options, trained, &error), &error);
}

static void training_moves_steps_and_exports_exactly(void **state)
{
    (void)state;
    static const struct {
        const char *scheme;
        int bits;
    } cases[] = {{"lsq", 2}, {"lsq", 8}, {"pact", 4}, {"fixed", 4}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        tn_error error = {0};
        tn_activations ranges;
        tn_trained trained;
        measure(cases[k].bits, &ranges);
        tn_train_options options = options_with(&ranges, cases[k].scheme);
        train(&options, &trained);
        if (!(trained.last.train_loss < 2.29)) /* chance: log 10 = 2.303 */
            fail_msg("%s, %d bits: training loss %.3f", cases[k].scheme, cases[k].bits,
                     trained.last.train_loss);
        assert_int_equal(trained.activations.count, ranges.count);
        size_t moved = 0;
        for (size_t i = 0; i < ranges.count; i++) {
            assert_true(trained.activations.range[i].scale > 0);
            moved += trained.activations.range[i].scale != ranges.range[i].scale;
        }
        if (strcmp(cases[k].scheme, "fixed"))
            assert_true(moved > ranges.count / 2);
        else
            assert_int_equal(moved, 0);
        check(glyph_training_prove(&glyphs, &trained, &options, &error), &error);
        tn_trained_done(&trained);
        tn_activations_done(&ranges);
    }
}

static void a_resumed_run_is_the_run(void **state)
{
    (void)state;
    tn_activations ranges;
    tn_trained whole, stopped, resumed;
    char run[128];
    measure(4, &ranges);
    tn_train_options options = options_with(&ranges, "lsq");
    options.epochs = 2;
    train(&options, &whole);
    snprintf(run, sizeof run, "%s/run", glyphs.folder);
    options.folder = run;
    options.max_steps = 13;
    train(&options, &stopped);
    options.max_steps = 0;
    options.resume = true;
    train(&options, &resumed);
    assert_string_equal(whole.last.state_hash, resumed.last.state_hash);
    assert_string_not_equal(whole.last.state_hash, stopped.last.state_hash);
    for (size_t i = 0; i < ranges.count; i++)
        assert_memory_equal(&whole.activations.range[i].scale, &resumed.activations.range[i].scale,
                            sizeof(float));
    tn_trained_done(&whole);
    tn_trained_done(&stopped);
    tn_trained_done(&resumed);
    tn_activations_done(&ranges);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_quantize_and_have_their_gradient),
        cmocka_unit_test(training_moves_steps_and_exports_exactly),
        cmocka_unit_test(a_resumed_run_is_the_run),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
