/* The data-free driver on a small network: codes equal the quantizer's on the whole layer, threads
 * do not change a bit, broken weights are refused by name. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "net.h"

#include "converter/convert.h"
#include "core/threads.h"

#include <float.h>
#include <math.h>
#include <string.h>

static void convert(net *n, const tn_policy *policy, tn_conversion *conversion)
{
    tn_layers layers;
    tn_error error = {0};
    if (tn_layers_select(n->graph, policy, &layers, &error) != TN_OK ||
        tn_convert(&layers, NULL, conversion, &error) != TN_OK)
        fail_msg("%s", error.message);
}

static const tn_policy policies[] = {
    {.scheme = NULL},
    {.threshold = "mean:0.7"},
    {.granularity = "tensor"},
    {.granularity = "tensor", .threshold = "sparsity:0.5"},
    {.granularity = "group:5", .threshold = "sparsity:0.25"},
    {.scheme = "ttq"},
    {.scheme = "ttq", .granularity = "group:9"},
    {.scheme = "fixed", .bits = "3"},
    {.scheme = "affine", .bits = "4", .granularity = "group:4"},
    {.scheme = "dorefa", .bits = "2"},
    {.scheme = "lsq", .bits = "1.58"},
    {.scheme = "parq", .bits = "2"},
    {.scheme = "half"},
};
enum { POLICIES = sizeof policies / sizeof policies[0] };

static void check_figures(const tn_converted *item, const float *w, const float *values)
{
    double energy = 0, error = 0, zeros = 0;
    int64_t n = item->weight.rows * item->weight.cols;
    for (int64_t i = 0; i < n; i++) {
        energy += (double)w[i] * (double)w[i];
        error += ((double)w[i] - (double)values[i]) * ((double)w[i] - (double)values[i]);
        zeros += values[i] == 0.0f;
    }
    assert_true(fabs(item->figures.relmse - error / energy) < 1e-12);
    assert_true(fabs(item->figures.zeros - zeros / (double)n) < 1e-12);
    assert_true(fabs(item->figures.sqnr_db + 10 * log10(error / energy)) < 1e-6);
}

static void equals_the_quantizer(void **state)
{
    (void)state;
    for (int p = 0; p < POLICIES; p++) {
        net n;
        tn_conversion made;
        net_build(&n, 3);
        convert(&n, &policies[p], &made);
        assert_int_equal(made.count, 5);
        for (size_t i = 0; i < made.count; i++) {
            const tn_converted *item = &made.item[i];
            const tn_scheme *scheme = &item->layer->scheme;
            float w[1024], values[1024], threshold[1024];
            assert_int_equal(tn_layer_rows(item->layer, w, NULL), TN_OK);
            if (scheme->quantizer->plain) {
                scheme->quantizer->quantize(scheme, &item->weight, w, NULL, NULL, values);
                check_figures(item, w, values);
                assert_null(item->weight.codes);
                continue;
            }
            tn_qweight whole;
            assert_int_equal(tn_layer_weight_init(item->layer, &whole, NULL), TN_OK);
            tn_quantizer_state fitted = {whole.scale, whole.scale_neg, whole.zero, threshold, 0};
            scheme->quantizer->fit(scheme, &whole, w, NULL, &fitted);
            scheme->quantizer->quantize(scheme, &whole, w, &fitted, whole.codes, values);
            size_t count = (size_t)(whole.rows * whole.cols);
            assert_memory_equal(whole.codes, item->weight.codes, count * sizeof(int16_t));
            assert_memory_equal(whole.scale, item->weight.scale,
                                (size_t)whole.n_scales * sizeof(float));
            check_figures(item, w, values);
            tn_weight_figures again;
            tn_weight_measure(&item->weight, w, &again);
            assert_true(fabs(again.relmse - item->figures.relmse) < 1e-12);
            assert_true(again.zeros == item->figures.zeros &&
                        again.scale_min == item->figures.scale_min &&
                        again.scale_max == item->figures.scale_max &&
                        again.dead_channels == item->figures.dead_channels);
            tn_qweight_done(&whole);
        }
        tn_conversion_done(&made);
        net_done(&n);
    }
}

/* A layer of many blocks and pieces, so that threads share it. */
static void add_large_layer(net *n)
{
    enum { ROWS = 300, COLS = 700 };
    static float data[ROWS * COLS];
    uint32_t x = 12345;
    for (int i = 0; i < ROWS * COLS; i++) {
        x = x * 1664525u + 1013904223u;
        data[i] = ((float)(x >> 8) / 8388608.0f - 1.0f) * (i % 97 == 0 ? 9.0f : 1.0f);
    }
    const char *inputs[] = {"large_in", "large_w", NULL}, *outputs[] = {"large_out", NULL};
    assert_non_null(tn_edit_add_initializer(
        n->model, "large_w", TN_FLOAT, 2, (const int64_t[]){COLS, ROWS}, data, sizeof data, false));
    assert_int_equal(
        tn_edit_add_input(n->model, "large_in", TN_FLOAT, 2, (const int64_t[]){1, COLS}, NULL),
        TN_OK);
    assert_non_null(tn_edit_add_node(n->model, SIZE_MAX, "MatMul", "large", inputs, outputs));
    assert_int_equal(
        tn_edit_add_output(n->model, "large_out", TN_FLOAT, 2, (const int64_t[]){1, ROWS}, NULL),
        TN_OK);
    net_relink(n);
}

static void threads_change_nothing(void **state)
{
    (void)state;
    for (int p = 0; p < POLICIES; p++) {
        net n;
        tn_conversion one, three;
        tn_policy policy = policies[p];
        policy.first_layer = policy.last_layer = policy.scheme == NULL ? "1.58" : NULL;
        if (policy.first_layer == NULL) {
            static const char *const rule[] = {"large=twn"};
            policy.layer_rules = rule;
            policy.n_layer_rules = 1;
        }
        net_build(&n, 4);
        add_large_layer(&n);
        tn_threads_set(1);
        convert(&n, &policy, &one);
        tn_threads_set(3);
        convert(&n, &policy, &three);
        tn_threads_set(0);
        assert_int_equal(one.count, three.count);
        for (size_t i = 0; i < one.count; i++) {
            const tn_qweight *a = &one.item[i].weight, *b = &three.item[i].weight;
            assert_memory_equal(&one.item[i].figures, &three.item[i].figures,
                                sizeof one.item[i].figures);
            if (a->codes == NULL)
                continue;
            assert_memory_equal(a->codes, b->codes, (size_t)(a->rows * a->cols) * sizeof *a->codes);
            assert_memory_equal(a->scale, b->scale, (size_t)a->n_scales * sizeof *a->scale);
        }
        tn_conversion_done(&one);
        tn_conversion_done(&three);
        net_done(&n);
    }
}

static float *weight_data(net *n, const char *name)
{
    Onnx__GraphProto *graph = n->model->proto->graph;
    for (size_t i = 0; i < graph->n_initializer; i++)
        if (strcmp(graph->initializer[i]->name, name) == 0)
            return (float *)(void *)graph->initializer[i]->raw_data.data;
    fail_msg("no initializer %s", name);
    return NULL;
}

static void refuses_broken_weights(void **state)
{
    (void)state;
    static const char *const granularities[] = {"channel", "tensor"};
    for (int g = 0; g < 2; g++) {
        net n;
        tn_layers layers;
        tn_conversion made = {0};
        tn_error error = {0};
        net_build(&n, 5);
        weight_data(&n, "depthwise_w")[13] = g == 0 ? NAN : -INFINITY;
        net_relink(&n);
        tn_policy policy = {.granularity = granularities[g]};
        assert_int_equal(tn_layers_select(n.graph, &policy, &layers, &error), TN_OK);
        assert_int_equal(tn_convert(&layers, NULL, &made, &error), TN_ERROR_MODEL);
        assert_true(made.item == NULL);
        assert_non_null(strstr(error.message, "depthwise_w"));
        assert_non_null(strstr(error.message, "output channel 1, element 4"));
        assert_string_equal(error.node, "depthwise");
        net_done(&n);
    }
}

static void extremes_are_finite(void **state)
{
    (void)state;
    const float extremes[] = {0.0f, 1e-42f, FLT_MAX};
    for (int e = 0; e < 3; e++) {
        for (int p = 0; p < POLICIES; p++) {
            net n;
            tn_conversion made;
            net_build(&n, 6);
            float *w = weight_data(&n, "middle_w");
            for (int i = 0; i < 48; i++)
                w[i] = i % 2 ? extremes[e] : -extremes[e];
            net_relink(&n);
            convert(&n, &policies[p], &made);
            for (size_t i = 0; i < made.count; i++) {
                const tn_qweight *weight = &made.item[i].weight;
                for (int64_t s = 0; weight->scale != NULL && s < weight->n_scales; s++) {
                    assert_true(weight->scale[s] > 0.0f && isfinite(weight->scale[s]));
                    if (weight->scale_neg != NULL)
                        assert_true(weight->scale_neg[s] > 0.0f && isfinite(weight->scale_neg[s]));
                }
                assert_true(made.item[i].figures.relmse == made.item[i].figures.relmse);
            }
            tn_conversion_done(&made);
            net_done(&n);
        }
    }
}

typedef struct record {
    int warnings, progress;
} record;

static void note_log(void *context, tn_log_level level, const char *message)
{
    record *seen = context;
    seen->warnings += level == TN_LOG_WARNING && strstr(message, "middle") != NULL;
}

static void note_progress(void *context, const char *what, uint64_t done, uint64_t total)
{
    (void)what;
    ((record *)context)->progress += done <= total;
}

static bool always(void *context)
{
    (void)context;
    return true;
}

static void warns_and_stops(void **state)
{
    (void)state;
    net n;
    tn_layers layers;
    tn_conversion made = {0};
    tn_error error = {0};
    record seen = {0, 0};
    tn_reporter reporter = {.context = &seen, .log = note_log, .progress = note_progress};
    net_build(&n, 7);
    float *w = weight_data(&n, "middle_w"); /* one outlier a channel: the rest becomes 0 */
    for (int i = 0; i < 48; i++)
        w[i] = i == 0 ? 1000.0f : 1.0f;
    net_relink(&n);
    tn_policy policy = {.granularity = "tensor"};
    assert_int_equal(tn_layers_select(n.graph, &policy, &layers, &error), TN_OK);
    assert_int_equal(tn_convert(&layers, &reporter, &made, &error), TN_OK);
    assert_int_equal(seen.warnings, 2); /* dead channels, zeros */
    assert_int_equal(seen.progress, 5);
    tn_conversion_done(&made);
    reporter.cancelled = always;
    assert_int_equal(tn_convert(&layers, &reporter, &made, &error), TN_ERROR_CANCELLED);
    net_done(&n);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(equals_the_quantizer),   cmocka_unit_test(threads_change_nothing),
        cmocka_unit_test(refuses_broken_weights), cmocka_unit_test(extremes_are_finite),
        cmocka_unit_test(warns_and_stops),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
