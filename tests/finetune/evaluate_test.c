/* Evaluation on glyphs with seeded networks of the zoo: figures do not depend on how the images are
 * batched, and follow from the predictions. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/memory.h"
#include "data/glyphs.h"
#include "finetune/divergence.h"
#include "finetune/preflight.h"
#include "onnx_io/zoo/zoo.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { TEST = 101 };

static char folder[] = "/tmp/ternion-evaluate-XXXXXX";
static tn_dataset *glyphs;
static tn_device *device;
static tn_model *network, *other;

static tn_status create(const char *id, uint64_t seed, int64_t classes, tn_model **model)
{
    tn_zoo_options options = {.seed = seed, .classes = classes};
    return tn_zoo_create(id, &options, model, NULL);
}

static int set_up(void **state)
{
    (void)state;
    tn_glyphs_options options = {.seed = 3, .train = 50, .test = TEST};
    return !mkdtemp(folder) || tn_glyphs_write(folder, &options, NULL) != TN_OK ||
           tn_dataset_open(folder, TN_SPLIT_VAL, NULL, &glyphs, NULL) != TN_OK ||
           tn_device_create_cpu(&device, NULL) != TN_OK ||
           create("resnet8", 1, 10, &network) != TN_OK || create("resnet8", 2, 10, &other) != TN_OK;
}

static int tear_down(void **state)
{
    (void)state;
    char command[64];
    tn_dataset_close(glyphs);
    tn_model_destroy(network);
    tn_model_destroy(other);
    tn_device_destroy(device);
    snprintf(command, sizeof command, "rm -r %s", folder);
    return system(command);
}

static tn_evaluation evaluate(size_t batch, size_t limit)
{
    tn_evaluation e;
    tn_error error = {0};
    tn_evaluate_options options = {
        .batch = batch, .limit = limit, .keep_predictions = true, .keep_logits = true};
    if (tn_evaluate_model(network, glyphs, device, &options, &e, &error) != TN_OK)
        fail_msg("%s", error.message);
    return e;
}

static void batches_do_not_matter(void **state)
{
    (void)state;
    tn_evaluation whole = evaluate(101, 0);
    static const size_t batches[] = {1, 7, 64, 200};
    assert_int_equal(whole.images, TEST);
    for (size_t b = 0; b < 4; b++) {
        tn_evaluation e = evaluate(batches[b], 0);
        assert_int_equal(e.images, TEST);
        assert_int_equal(e.correct_top1, whole.correct_top1);
        assert_int_equal(e.correct_topk, whole.correct_topk);
        assert_true(fabs(e.loss - whole.loss) < 1e-5);
        for (size_t i = 0; i < TEST * 10; i++)
            assert_true(fabsf(e.logits[i] - whole.logits[i]) < 1e-4f);
        tn_evaluation_done(&e);
    }
    tn_evaluation_done(&whole);
}

/* Every figure again, from the logits and labels. */
static void figures_follow_from_logits(void **state)
{
    (void)state;
    tn_evaluation e = evaluate(32, 0);
    size_t top1 = 0, top5 = 0, sum = 0, correct = 0;
    double loss = 0.0;
    for (size_t i = 0; i < e.images; i++) {
        const float *z = e.logits + 10 * i;
        int32_t label = tn_dataset_label(glyphs, i);
        int better = 0;
        double total = 0.0;
        for (int k = 0; k < 10; k++) {
            better += z[k] > z[label];
            total += exp((double)z[k]);
        }
        loss -= log(exp((double)z[label]) / total);
        top1 += better == 0;
        top5 += better < 5;
        assert_int_equal(e.predictions[i].index, i);
        assert_int_equal(e.predictions[i].label, label);
        assert_true(e.predictions[i].logit == z[e.predictions[i].top1]);
    }
    for (int k = 0; k < 10; k++) {
        sum += e.class_images[k];
        correct += e.class_correct[k];
    }
    assert_int_equal(e.correct_top1, top1);
    assert_int_equal(e.correct_topk, top5);
    assert_int_equal(sum, TEST);
    assert_int_equal(correct, top1);
    assert_true(fabs(e.loss - loss / TEST) < 1e-5);
    assert_true(e.top1_low <= e.top1 && e.top1 <= e.top1_high);
    tn_evaluation_done(&e);
}

static void limit_draws_the_same_images(void **state)
{
    (void)state;
    tn_evaluation all = evaluate(16, 0), some = evaluate(16, 40);
    assert_int_equal(some.images, 40);
    for (size_t i = 0; i < 40; i++) {
        uint32_t index = some.predictions[i].index;
        assert_true(i == 0 || index > some.predictions[i - 1].index);
        assert_int_equal(some.predictions[i].top1, all.predictions[index].top1);
    }
    tn_evaluation_done(&all);
    tn_evaluation_done(&some);
}

static void agreement_of_two(void **state)
{
    (void)state;
    tn_comparison c;
    tn_error error = {0};
    if (tn_evaluate_pair(network, network, glyphs, device, NULL, NULL, &c, &error) != TN_OK)
        fail_msg("%s", error.message);
    assert_int_equal(c.agreed, TEST);
    assert_true(c.kl == 0.0 && c.agreement == 1.0);
    tn_comparison_done(&c);
    assert_int_equal(tn_evaluate_pair(network, other, glyphs, device, NULL, NULL, &c, &error),
                     TN_OK);
    double kl = 0.0;
    size_t agreed = 0;
    for (size_t i = 0; i < TEST; i++) {
        double a[10], b[10], sum_a = 0.0, sum_b = 0.0;
        for (int k = 0; k < 10; k++) {
            sum_a += a[k] = exp((double)c.a.logits[10 * i + (size_t)k]);
            sum_b += b[k] = exp((double)c.b.logits[10 * i + (size_t)k]);
        }
        for (int k = 0; k < 10; k++)
            kl += a[k] / sum_a * log(a[k] / sum_a / (b[k] / sum_b));
        agreed += c.a.predictions[i].top1 == c.b.predictions[i].top1;
    }
    assert_int_equal(c.agreed, agreed);
    assert_true(fabs(c.kl - kl / TEST) < 1e-6);
    assert_true(c.kl > 0.0);
    tn_comparison_done(&c);
}

/* An overflow is no match, a class masked by -inf no overflow. */
static void overflows_do_not_agree(void **state)
{
    (void)state;
    static const float plain[3] = {1, 3, 2}, broken[3] = {1, NAN, 2}, none[3] = {NAN, NAN, NAN},
                       high[3] = {1, INFINITY, 2}, masked[3] = {-INFINITY, 3, 2};
    static const float *const bad[] = {broken, none, high};
    for (size_t i = 0; i < 3; i++) {
        assert_true(isinf(tn_divergence_row(plain, bad[i], 3)));
        assert_true(isinf(tn_divergence_row(bad[i], bad[i], 3)));
        assert_int_equal(tn_first_maximum(bad[i], 3), TN_NO_MAXIMUM);
        assert_false(tn_same_maximum(bad[i], bad[i], 3));
    }
    assert_true(tn_divergence_row(masked, masked, 3) == 0);
    assert_true(isfinite(tn_divergence_row(masked, plain, 3)));
    assert_true(tn_same_maximum(masked, plain, 3));
}

/* Overwrites the parameter with NaN from element `from` on. */
static void break_parameter(tn_model *model, const char *name, size_t from)
{
    static const float nan = NAN;
    const Onnx__GraphProto *graph = model->proto->graph;
    for (size_t i = 0; i < graph->n_initializer; i++) {
        const Onnx__TensorProto *tensor = graph->initializer[i];
        if (strcmp(tensor->name, name) != 0)
            continue;
        for (size_t at = from * sizeof nan; at < tensor->raw_data.len; at += sizeof nan)
            memcpy(tensor->raw_data.data + at, &nan, sizeof nan);
        return;
    }
    fail_msg("no parameter %s", name);
}

static void outputs_that_are_not_finite_are_wrong(void **state)
{
    (void)state;
    tn_evaluation e;
    tn_error error = {0};
    tn_model *model;
    assert_int_equal(create("resnet8", 1, 10, &model), TN_OK);
    break_parameter(model, "linear.bias", 9);
    assert_int_equal(tn_evaluate_model(model, glyphs, device, NULL, &e, &error), TN_ERROR_MODEL);
    assert_non_null(strstr(error.message, "not finite on any of 101 images"));
    tn_evaluate_network opened;
    assert_int_equal(tn_evaluate_open(model, glyphs, device, NULL, &opened, NULL), TN_OK);
    tn_evaluate_options options = {.preprocess = &opened.preprocess};
    assert_int_equal(tn_evaluate_plan(opened.plan, glyphs, &options, &e, NULL), TN_OK);
    assert_int_equal(e.not_finite, TEST);
    assert_int_equal(e.correct_top1 + e.correct_topk, 0);
    tn_evaluation_done(&e);
    tn_evaluate_close(&opened);
    tn_model_destroy(model);
}

static void wilson_interval(void **state)
{
    (void)state;
    double low, high;
    /* R: binom.confint(x, n, method = "wilson") */
    tn_wilson_interval(81, 263, &low, &high);
    assert_true(fabs(low - 0.25527) < 1e-4 && fabs(high - 0.36620) < 1e-4);
    tn_wilson_interval(0, 10, &low, &high);
    assert_true(low == 0.0 && fabs(high - 0.27754) < 1e-4);
    tn_wilson_interval(10, 10, &low, &high);
    assert_true(high == 1.0 && fabs(low - 0.72246) < 1e-4);
}

static void other_classes_are_refused(void **state)
{
    (void)state;
    static const int64_t classes[] = {9, 11};
    for (int i = 0; i < 2; i++) {
        tn_model *model;
        tn_evaluation e;
        tn_error error = {0};
        assert_int_equal(create("resnet8", 1, classes[i], &model), TN_OK);
        assert_int_equal(tn_evaluate_model(model, glyphs, device, NULL, &e, &error), TN_ERROR_DATA);
        assert_non_null(strstr(error.message, "10 classes"));
        assert_non_null(strstr(error.message, "'ring'"));
        tn_model_destroy(model);
    }
}

static void wrong_size_is_refused(void **state)
{
    (void)state;
    tn_evaluation e;
    tn_error error = {0};
    tn_preprocess preprocess;
    assert_int_equal(tn_preprocess_preset("none", &preprocess, NULL), TN_OK);
    assert_int_equal(tn_preprocess_set(&preprocess, "crop", "28", NULL), TN_OK);
    tn_evaluate_options options = {.preprocess = &preprocess};
    tn_status status = tn_evaluate_model(network, glyphs, device, &options, &e, &error);
    assert_int_equal(status, TN_ERROR_DATA);
    assert_non_null(strstr(error.message, "28x28"));
}

static bool always(void *context)
{
    return ++*(int *)context > 2;
}

static void cancels(void **state)
{
    (void)state;
    int calls = 0;
    tn_evaluation e;
    tn_error error = {0};
    tn_reporter reporter = {.context = &calls, .cancelled = always};
    tn_evaluate_options options = {.batch = 10, .reporter = &reporter};
    assert_int_equal(tn_evaluate_model(network, glyphs, device, &options, &e, &error),
                     TN_ERROR_CANCELLED);
    assert_non_null(strstr(error.message, "20 of 101"));
}

/* An untrained network guesses: the preflight says so and names no remedy. */
static void preflight_knows_guessing(void **state)
{
    (void)state;
    tn_preflight p;
    tn_error error = {0};
    if (tn_preflight_run(network, glyphs, device, NULL, &p, &error) != TN_OK)
        fail_msg("%s", error.message);
    assert_int_equal(p.images, TEST);
    assert_true(p.near_chance && p.n_variants > 5);
    assert_int_equal(p.n_better, 0);
    assert_non_null(strstr(p.message, "guessing gets 10.0 %"));
}

static void nothing_leaks(void **state)
{
    (void)state;
    uint64_t live = tn_memory_stats_get().live;
    tn_evaluation e = evaluate(13, 0);
    tn_evaluation_done(&e);
    assert_int_equal(tn_memory_stats_get().live, live);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(batches_do_not_matter),
        cmocka_unit_test(figures_follow_from_logits),
        cmocka_unit_test(limit_draws_the_same_images),
        cmocka_unit_test(agreement_of_two),
        cmocka_unit_test(overflows_do_not_agree),
        cmocka_unit_test(outputs_that_are_not_finite_are_wrong),
        cmocka_unit_test(wilson_interval),
        cmocka_unit_test(other_classes_are_refused),
        cmocka_unit_test(wrong_size_is_refused),
        cmocka_unit_test(cancels),
        cmocka_unit_test(preflight_knows_guessing),
        cmocka_unit_test(nothing_leaks),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
