/* The plan's promises: sub-ranges, taps, injections, freezing, accumulation, shared parameters,
 * memory. Networks come from zoo/; their values are compared with themselves run another way. */
#include "core/memory.h"
#include "core/threads.h"
#include "onnx_io/edit.h"
#include "tests/network/zoo_plan.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

enum { BATCH = 4 };

static float *read_value(tn_plan *plan, const char *name, size_t *count)
{
    tn_extent extent;
    ok(tn_plan_shape(plan, name, &extent, &error));
    *count = (size_t)tn_extent_count(&extent);
    float *values = malloc(*count * sizeof(float));
    assert_non_null(values);
    ok(tn_plan_read(plan, name, values, &error));
    return values;
}

static void run(fixture *f, tn_run_mode mode, float *logits)
{
    ok(tn_plan_forward(f->plan, mode, 0, SIZE_MAX, &error));
    ok(tn_plan_read(f->plan, "logits", logits, &error));
}

static void loss_and_backward(fixture *f, bool accumulate)
{
    tn_loss_options loss = {.labels = f->labels, .count = BATCH};
    tn_loss_result result;
    ok(tn_plan_loss(f->plan, &loss, &result, &error));
    assert_true(isfinite(result.loss) && result.loss > 0.0);
    ok(tn_plan_backward(f->plan, 0, SIZE_MAX, accumulate, &error));
}

static void ranges_equal_the_whole(void **state)
{
    (void)state;
    fixture f;
    float whole[BATCH * CLASSES], parts[BATCH * CLASSES];
    open_network(&f, "resnet20", BATCH);
    tn_plan_options options = {.keep_all = true};
    open_plan(&f, &options);
    size_t n = tn_plan_step_count(f.plan);
    run(&f, TN_RUN_INFERENCE, whole);
    for (size_t k = 1; k < n; k += 5) {
        tn_plan_step step;
        size_t count;
        ok(tn_plan_step_at(f.plan, k - 1, &step, &error));
        float *value = read_value(f.plan, step.output, &count);
        open_plan(&f, &options); /* fresh memory: only what is written is there */
        ok(tn_plan_forward(f.plan, TN_RUN_INFERENCE, 0, k, &error));
        ok(tn_plan_write_value(f.plan, step.output, value, &error));
        ok(tn_plan_forward(f.plan, TN_RUN_INFERENCE, k, n, &error));
        ok(tn_plan_read(f.plan, "logits", parts, &error));
        assert_memory_equal(whole, parts, sizeof(whole));
        free(value);
    }
    close_network(&f);
}

static void taps_survive_fusion(void **state)
{
    (void)state;
    fixture f;
    float logits[BATCH * CLASSES], tapped[BATCH * CLASSES];
    open_network(&f, "resnet20", BATCH);
    tn_plan_options plain = {.no_fusion = true, .keep_all = true, .precision = TN_PRECISION_FP32};
    open_plan(&f, &plain);
    run(&f, TN_RUN_INFERENCE, logits);
    for (size_t i = 0; i < f.graph->n_nodes; i += 7) {
        const tn_node *node = f.graph->nodes[i];
        size_t count, again;
        if (node->folded || tn_plan_step_of_node(f.plan, tn_node_label(node)) == SIZE_MAX)
            continue;
        const char *name = node->outputs[0]->name;
        float *want = read_value(f.plan, name, &count);
        tn_plan_options options = {.taps = &name, .n_taps = 1, .precision = TN_PRECISION_FP32};
        open_plan(&f, &options);
        run(&f, TN_RUN_INFERENCE, tapped);
        float *got = read_value(f.plan, name, &again);
        for (size_t j = 0; j < count; j++)
            assert_true(fabsf(got[j] - want[j]) <= 1e-4f * (1.0f + fabsf(want[j])));
        free(want);
        free(got);
        open_plan(&f, &plain);
        run(&f, TN_RUN_INFERENCE, logits);
    }
    const char *unknown = "no such value";
    tn_plan_options options = {.taps = &unknown, .n_taps = 1};
    tn_plan *plan = NULL;
    assert_int_equal(tn_plan_create(f.graph, f.device, &options, &plan, NULL), TN_ERROR_USAGE);
    assert_null(plan);
    close_network(&f);
}

static void backward_in_parts_and_by_injection(void **state)
{
    (void)state;
    fixture f;
    int64_t n;
    size_t count;
    float logits[BATCH * CLASSES], seed[BATCH * CLASSES];
    open_network(&f, "resnet20", BATCH);
    tn_plan_options options = {.training = true, .loss = true, .keep_all = true};
    open_plan(&f, &options);
    run(&f, TN_RUN_TRAINING, logits);
    loss_and_backward(&f, false);
    float *whole = gradients(&f, &n);
    ok(tn_plan_read_gradient(f.plan, "logits", seed, &error));
    ok(tn_plan_forward(f.plan, TN_RUN_BATCH_STATISTICS, 0, SIZE_MAX, &error));
    ok(tn_params_zero_gradients(tn_plan_params(f.plan), &error));
    ok(tn_plan_inject(f.plan, "logits", seed, &error));
    size_t half = tn_plan_step_count(f.plan) / 2;
    ok(tn_plan_backward(f.plan, half, SIZE_MAX, false, &error));
    ok(tn_plan_backward(f.plan, 0, half, false, &error));
    float *parts = gradients(&f, &n);
    assert_memory_equal(whole, parts, (size_t)n * sizeof(float));
    /* the gradient of a value, injected there, gives the same gradients before it */
    tn_plan_step step;
    ok(tn_plan_step_at(f.plan, half, &step, &error));
    free(read_value(f.plan, step.output, &count));
    float *middle = malloc(count * sizeof(float));
    assert_non_null(middle);
    ok(tn_plan_read_gradient(f.plan, step.output, middle, &error));
    ok(tn_plan_forward(f.plan, TN_RUN_BATCH_STATISTICS, 0, half + 1, &error));
    ok(tn_params_zero_gradients(tn_plan_params(f.plan), &error));
    ok(tn_plan_inject(f.plan, step.output, middle, &error));
    ok(tn_plan_backward(f.plan, half, half + 1, false, &error));
    if (step.weight != SIZE_MAX) {
        const tn_param *p = tn_params_at(tn_plan_params(f.plan), step.weight);
        int64_t total;
        size_t at = (size_t)(p->gradient - tn_params_gradients(tn_plan_params(f.plan), &total));
        assert_memory_equal(p->gradient, whole + at, (size_t)p->count * sizeof(float));
    }
    free(middle);
    free(whole);
    free(parts);
    close_network(&f);
}

static void planned_memory_gives_the_same_gradients(void **state)
{
    static const char *const ids[] = {"resnet20", "squeezenet1.1"};
    (void)state;
    for (size_t k = 0; k < 2; k++) {
        fixture f;
        int64_t n;
        float logits[BATCH * CLASSES];
        open_network(&f, ids[k], BATCH);
        tn_plan_options options = {.training = true, .loss = true, .keep_all = true};
        open_plan(&f, &options);
        ok(tn_plan_set_dropout(f.plan, 5, 1, 40, &error));
        run(&f, TN_RUN_TRAINING, logits);
        loss_and_backward(&f, false);
        float *want = gradients(&f, &n);
        tn_plan_memory all = tn_plan_memory_get(f.plan);
        options.keep_all = false;
        for (int threads = 1; threads <= 3; threads++) {
            tn_threads_set(threads);
            open_plan(&f, &options);
            ok(tn_plan_set_dropout(f.plan, 5, 1, 40, &error));
            uint64_t calls = tn_memory_stats_get().calls;
            run(&f, TN_RUN_TRAINING, logits);
            loss_and_backward(&f, false);
            assert_int_equal(tn_memory_stats_get().calls, calls);
            float *got = gradients(&f, &n);
            assert_memory_equal(want, got, (size_t)n * sizeof(float));
            free(got);
        }
        tn_threads_set(0);
        tn_plan_memory planned = tn_plan_memory_get(f.plan);
        assert_true(planned.values < all.values);
        assert_int_equal(planned.arena, planned.values + planned.packed + planned.workspace);
        free(want);
        close_network(&f);
    }
}

static void frozen_and_accumulated(void **state)
{
    (void)state;
    fixture f;
    int64_t n;
    float logits[BATCH * CLASSES];
    open_network(&f, "resnet20", BATCH);
    tn_plan_options options = {.training = true, .loss = true};
    open_plan(&f, &options);
    tn_params *params = tn_plan_params(f.plan);
    run(&f, TN_RUN_BATCH_STATISTICS, logits);
    loss_and_backward(&f, false);
    float *once = gradients(&f, &n);
    run(&f, TN_RUN_BATCH_STATISTICS, logits);
    loss_and_backward(&f, true);
    float *twice = gradients(&f, &n);
    for (int64_t i = 0; i < n; i++)
        assert_true(fabsf(twice[i] - 2.0f * once[i]) <= 1e-6f + 1e-5f * fabsf(once[i]));
    for (size_t i = 0; i < tn_params_count(params); i++)
        tn_params_at(params, i)->frozen = i % 2 == 0;
    memset(tn_params_gradients(params, &n), 0x55, (size_t)n * sizeof(float));
    float marker;
    memset(&marker, 0x55, sizeof(marker));
    run(&f, TN_RUN_BATCH_STATISTICS, logits);
    loss_and_backward(&f, false);
    for (size_t i = 0; i < tn_params_count(params); i++) {
        const tn_param *p = tn_params_at(params, i);
        if (!p->gradient)
            continue;
        const float *was = once + (p->gradient - tn_params_gradients(params, &n));
        for (int64_t j = 0; j < p->count; j++)
            assert_memory_equal(&p->gradient[j], p->frozen ? &marker : &was[j], sizeof(float));
    }
    free(once);
    free(twice);
    close_network(&f);
}

static void plans_share_parameters(void **state)
{
    (void)state;
    fixture f;
    float four[BATCH * CLASSES], two[2 * CLASSES], before[BATCH * CLASSES];
    open_network(&f, "resnet20", BATCH);
    open_plan(&f, NULL);
    tn_params *params = tn_plan_params(f.plan);
    run(&f, TN_RUN_INFERENCE, before);
    tn_graph_options options = {.batch = 2};
    tn_plan_options shared = {.params = params};
    tn_graph *graph = NULL;
    tn_plan *plan = NULL;
    ok(tn_graph_create(f.model, &options, &graph, &error));
    ok(tn_plan_create(graph, f.device, &shared, &plan, &error));
    assert_ptr_equal(tn_plan_params(plan), params);
    for (size_t i = 0; i < tn_params_count(params); i++) {
        const tn_param *p = tn_params_at(params, i);
        if (p->role != TN_PARAM_WEIGHT)
            continue;
        float *rows = malloc((size_t)p->count * sizeof(float));
        assert_non_null(rows);
        ok(tn_params_get_rows(params, i, rows, &error));
        for (int64_t j = 0; j < p->count; j++)
            rows[j] = rows[j] * 0.9f + 0.001f;
        ok(tn_params_set_rows(params, i, rows, &error));
        free(rows);
    }
    run(&f, TN_RUN_INFERENCE, four);
    assert_memory_not_equal(before, four, sizeof(four));
    ok(tn_plan_write_input(plan, 0, f.input, 2, &error));
    ok(tn_plan_forward(plan, TN_RUN_INFERENCE, 0, SIZE_MAX, &error));
    ok(tn_plan_read(plan, "logits", two, &error));
    for (int i = 0; i < 2 * CLASSES; i++)
        assert_true(fabsf(two[i] - four[i]) <= 1e-4f * (1.0f + fabsf(four[i])));
    tn_plan_destroy(plan);
    tn_graph_destroy(graph);
    close_network(&f);
}

/* running = keep * running + (1 - keep) * batch, the variance unbiased; in double from a tap. */
static void statistics_move(void **state)
{
    (void)state;
    fixture f;
    size_t count, step = 0;
    tn_plan_step s = {0};
    open_network(&f, "resnet20", BATCH);
    tn_plan_options options = {.separate_bn = true, .keep_all = true, .bn_momentum = 0.75f};
    open_plan(&f, &options);
    for (;; step++) {
        ok(tn_plan_step_at(f.plan, step, &s, &error));
        if (s.verb == TN_VERB_BATCH_NORM)
            break;
    }
    float mean[16], variance[16], moved[16];
    float logits[BATCH * CLASSES];
    run(&f, TN_RUN_TRAINING, logits);
    ok(tn_plan_batch_statistics(f.plan, step, mean, variance, &error));
    float *x = read_value(f.plan, s.input, &count);
    size_t mean_param = tn_params_find(tn_plan_params(f.plan), s.node->inputs[3]->name);
    size_t var_param = tn_params_find(tn_plan_params(f.plan), s.node->inputs[4]->name);
    for (size_t c = 0; c < 16; c++) {
        double sum = 0.0, square = 0.0, n = BATCH * 32 * 32;
        for (size_t i = 0; i < count; i++)
            sum += i / 1024 % 16 == c ? (double)x[i] : 0.0;
        for (size_t i = 0; i < count; i++)
            square += i / 1024 % 16 == c ? pow((double)x[i] - sum / n, 2.0) : 0.0;
        assert_true(fabs((double)mean[c] - sum / n) < 1e-5);
        assert_true(fabs((double)variance[c] - square / n) < 1e-4 * square / n);
        ok(tn_params_get(tn_plan_params(f.plan), mean_param, moved, &error));
        assert_true(fabs((double)moved[c] - 0.25 * sum / n) < 1e-5);
        ok(tn_params_get(tn_plan_params(f.plan), var_param, moved, &error));
        assert_true(fabs((double)moved[c] - 0.75 - 0.25 * square / (n - 1.0)) < 1e-4);
    }
    float before[16];
    memcpy(before, moved, sizeof(before));
    run(&f, TN_RUN_BATCH_STATISTICS, logits);
    ok(tn_params_get(tn_plan_params(f.plan), var_param, moved, &error));
    assert_memory_equal(before, moved, sizeof(before));
    free(x);
    close_network(&f);
}

static void dropout_is_keyed(void **state)
{
    (void)state;
    fixture f;
    size_t count;
    open_network(&f, "squeezenet1.1", BATCH);
    tn_plan_options options = {.training = true, .no_fusion = true, .keep_all = true};
    open_plan(&f, &options);
    tn_plan_step s = {0};
    size_t at = SIZE_MAX;
    for (size_t i = 0; i < tn_plan_step_count(f.plan); i++) {
        ok(tn_plan_step_at(f.plan, i, &s, &error));
        if (s.verb == TN_VERB_DROPOUT) {
            at = i;
            break;
        }
    }
    assert_true(at != SIZE_MAX);
    float *outputs[3];
    for (int i = 0; i < 3; i++) {
        ok(tn_plan_set_dropout(f.plan, 11, 0, i == 1 ? 1000 : 0, &error));
        ok(tn_plan_forward(f.plan, TN_RUN_TRAINING, 0, at + 1, &error));
        outputs[i] = read_value(f.plan, s.output, &count);
    }
    float *x = read_value(f.plan, s.input, &count);
    assert_memory_equal(outputs[0], outputs[2], count * sizeof(float));
    assert_memory_not_equal(outputs[0], outputs[1], count * sizeof(float));
    size_t kept = 0, nonzero = 0;
    for (size_t i = 0; i < count; i++) {
        nonzero += x[i] != 0.0f;
        kept += outputs[0][i] != 0.0f;
        assert_true(outputs[0][i] == 0.0f || fabsf(outputs[0][i] - 2.0f * x[i]) < 1e-5f);
    }
    assert_true(fabs((double)kept / (double)nonzero - 0.5) < 0.05);
    for (int i = 0; i < 3; i++)
        free(outputs[i]);
    free(x);
    close_network(&f);
}

static void unsupported_are_listed_together(void **state)
{
    (void)state;
    tn_model *model = NULL;
    tn_graph *graph = NULL;
    tn_device *device = NULL;
    tn_plan *plan = NULL;
    int64_t dims[2] = {1, 4};
    memset(&error, 0, sizeof(error));
    ok(tn_model_create("odd", 7, 13, &model, &error));
    ok(tn_edit_add_input(model, "x", TN_FLOAT, 2, dims, &error));
    ok(tn_edit_add_output(model, "z", TN_FLOAT, 2, dims, &error));
    const char *x[] = {"x", NULL}, *y[] = {"y", NULL}, *z[] = {"z", NULL};
    assert_non_null(tn_edit_add_node(model, SIZE_MAX, "Det", "first", x, y));
    assert_non_null(tn_edit_add_node(model, SIZE_MAX, "Bernoulli", "second", y, z));
    ok(tn_graph_create(model, NULL, &graph, &error));
    ok(tn_device_create_cpu(&device, &error));
    assert_int_equal(tn_plan_create(graph, device, NULL, &plan, &error), TN_ERROR_MODEL);
    assert_non_null(strstr(error.message, "first"));
    assert_non_null(strstr(error.message, "Det"));
    assert_non_null(strstr(error.message, "second"));
    assert_non_null(strstr(error.message, "Bernoulli"));
    tn_device_destroy(device);
    tn_graph_destroy(graph);
    tn_model_destroy(model);
}

/* 1e-2 of the largest logit where the processor has bf16; elsewhere an error that says so. */
static void bf16_runs_or_is_refused(void **state)
{
    (void)state;
    fixture f;
    float exact[BATCH * CLASSES], rounded[BATCH * CLASSES], most = 0.0f;
    open_network(&f, "resnet20", BATCH);
    open_plan(&f, NULL);
    assert_int_equal(tn_plan_precision(f.plan),
                     f.device->bf16 ? TN_PRECISION_BF16 : TN_PRECISION_FP32);
    tn_plan_options options = {.precision = TN_PRECISION_FP32};
    open_plan(&f, &options);
    run(&f, TN_RUN_INFERENCE, exact);
    options.precision = TN_PRECISION_BF16;
    if (f.device->bf16 || f.device->bf16_runs) {
        open_plan(&f, &options);
        run(&f, TN_RUN_INFERENCE, rounded);
        for (int i = 0; i < BATCH * CLASSES; i++)
            most = fabsf(exact[i]) > most ? fabsf(exact[i]) : most;
        for (int i = 0; i < BATCH * CLASSES; i++)
            assert_true(fabsf(rounded[i] - exact[i]) < 2e-2f * most);
        assert_memory_not_equal(exact, rounded, sizeof(exact));
    }
    f.device->bf16 = f.device->bf16_runs = false;
    tn_plan *plan = NULL;
    assert_int_equal(tn_plan_create(f.graph, f.device, &options, &plan, &error), TN_ERROR_USAGE);
    assert_non_null(strstr(error.message, "AMX"));
    close_network(&f);
}

static void every_failing_allocation_is_survived(void **state)
{
    (void)state;
    fixture f;
    open_network(&f, "resnet20", BATCH);
    tn_plan_options options = {.training = true, .loss = true};
    uint64_t live = tn_memory_stats_get().live;
    tn_status status = TN_ERROR_LIMIT;
    uint64_t call = 1;
    for (; status != TN_OK && call < 100000; call += call < 200 ? 1 : 37) {
        tn_error failure = {0};
        tn_memory_fail_call(call, 1);
        status = tn_plan_create(f.graph, f.device, &options, &f.plan, &failure);
        tn_memory_fail_call(0, 0);
        if (status != TN_OK) {
            assert_int_equal(status, TN_ERROR_LIMIT);
            assert_null(f.plan);
            assert_true(tn_memory_stats_get().live == live);
        }
    }
    assert_int_equal(status, TN_OK);
    close_network(&f);
    assert_true(tn_memory_stats_get().live == 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ranges_equal_the_whole),
        cmocka_unit_test(taps_survive_fusion),
        cmocka_unit_test(backward_in_parts_and_by_injection),
        cmocka_unit_test(planned_memory_gives_the_same_gradients),
        cmocka_unit_test(frozen_and_accumulated),
        cmocka_unit_test(plans_share_parameters),
        cmocka_unit_test(statistics_move),
        cmocka_unit_test(dropout_is_keyed),
        cmocka_unit_test(unsupported_are_listed_together),
        cmocka_unit_test(bf16_runs_or_is_refused),
        cmocka_unit_test(every_failing_allocation_is_survived),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
