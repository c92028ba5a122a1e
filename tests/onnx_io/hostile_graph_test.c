/* Models whose files are sound and whose operators are not: refused by shape inference, or left
 * unfolded, quickly and without much memory. */
#include "onnx_io/edit.h"
#include "onnx_io/graph.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static tn_model *model;
static Onnx__NodeProto *node;

static int teardown(void **state)
{
    (void)state;
    tn_model_destroy(model);
    model = NULL;
    return 0;
}

static void add_tensor(const char *name, tn_dtype dtype, int rank, const int64_t *dims,
                       const void *data, size_t bytes)
{
    static const unsigned char zeros[4096];
    assert_true(data || bytes <= sizeof zeros);
    assert_non_null(
        tn_edit_add_initializer(model, name, dtype, rank, dims, data ? data : zeros, bytes, true));
}

/* "x" [1, 4, 8, 8] -> Conv with weight [4, 4, 3, 3] -> "y". */
static void make_conv(int weight_rank)
{
    const int64_t x[4] = {1, 4, 8, 8}, w[5] = {4, 4, 3, 3, 1};
    const char *inputs[] = {"x", "w", NULL}, *outputs[] = {"y", NULL};
    size_t bytes = 4;
    for (int i = 0; i < weight_rank; i++)
        bytes *= (size_t)w[i];
    tn_model_destroy(model);
    model = NULL;
    assert_int_equal(tn_model_create("g", 8, 17, &model, NULL), TN_OK);
    assert_int_equal(tn_edit_add_input(model, "x", TN_FLOAT, 4, x, NULL), TN_OK);
    assert_int_equal(tn_edit_add_output(model, "y", TN_FLOAT, 4, x, NULL), TN_OK);
    add_tensor("w", TN_FLOAT, weight_rank, w, NULL, bytes);
    node = tn_edit_add_node(model, 0, "Conv", "conv", inputs, outputs);
    assert_non_null(node);
}

static tn_status build(tn_error *error)
{
    tn_graph *graph = NULL;
    struct timespec from, to;
    clock_gettime(CLOCK_MONOTONIC, &from);
    tn_status status = tn_graph_create(model, NULL, &graph, error);
    clock_gettime(CLOCK_MONOTONIC, &to);
    tn_graph_destroy(graph);
    assert_true(to.tv_sec - from.tv_sec <= 2);
    return status;
}

static void refused(void)
{
    tn_error error = {0};
    tn_status status = build(&error);
    if (status != TN_ERROR_MODEL)
        fail_msg("status %d: %s", (int)status, error.message);
    assert_non_null(strstr(error.message, "conv"));
}

static void convolutions(void **state)
{
    (void)state;
    const int64_t bad[][4] = {{0, 1, 1, 1},
                              {1, INT64_MIN, 1, 1},
                              {-1, 1, 1, 1},
                              {INT64_MAX, INT64_MAX, INT64_MAX, INT64_MAX}};
    const char *lists[] = {"strides", "dilations", "kernel_shape"};
    const int64_t groups[] = {0, -1, 3, 8, INT64_MIN, INT64_MAX};
    const int ranks[] = {1, 2, 3, 5};
    make_conv(4);
    assert_int_equal(build(NULL), TN_OK);
    for (size_t i = 0; i < 4; i++) {
        make_conv(ranks[i]);
        refused();
    }
    for (size_t i = 0; i < sizeof groups / sizeof *groups; i++) {
        make_conv(4);
        assert_int_equal(tn_edit_set_int(model, node, "group", groups[i], NULL), TN_OK);
        refused();
    }
    for (size_t k = 0; k < 3; k++) {
        for (size_t i = 0; i < 4; i++) {
            make_conv(4);
            assert_int_equal(tn_edit_set_ints(model, node, lists[k], bad[i], 2, NULL), TN_OK);
            refused();
        }
        for (size_t count = 1; count < 5; count += 2) {
            const int64_t ones[4] = {3, 3, 3, 3};
            make_conv(4);
            assert_int_equal(tn_edit_set_ints(model, node, lists[k], ones, count, NULL), TN_OK);
            refused();
        }
    }
    for (size_t i = 0; i < 4; i++) {
        make_conv(4);
        const int64_t pads[4] = {bad[i][0], i == 0 ? -100 : bad[i][1], 0, 0};
        assert_int_equal(tn_edit_set_ints(model, node, "pads", pads, i == 2 ? 3 : 4, NULL), TN_OK);
        refused();
    }
}

/* One node on int64 constants, the only thing in the graph. */
static tn_status fold(const char *type, const int64_t *first, size_t n_first, const int64_t *second,
                      size_t n_second)
{
    const char *inputs[] = {"a", second ? "b" : NULL, NULL}, *outputs[] = {"y", NULL};
    const int64_t a = (int64_t)n_first, b = (int64_t)n_second, any[1] = {-1};
    tn_model_destroy(model);
    model = NULL;
    assert_int_equal(tn_model_create("g", 8, 17, &model, NULL), TN_OK);
    assert_int_equal(tn_edit_add_output(model, "y", TN_FLOAT, 1, any, NULL), TN_OK);
    add_tensor("a", TN_INT64, 1, &a, first, n_first * 8);
    if (second)
        add_tensor("b", TN_INT64, 1, &b, second, n_second * 8);
    assert_non_null(tn_edit_add_node(model, 0, type, "node", inputs, outputs));
    uint64_t live = tn_memory_stats_get().live;
    tn_status status = build(NULL);
    assert_true(tn_memory_stats_get().live == live);
    assert_true(tn_memory_stats_get().highwater < (uint64_t)1 << 30);
    return status;
}

static void folding_bombs(void **state)
{
    (void)state;
    const int64_t large[] = {1 << 20, 1 << 20}, overflow[] = {INT64_MAX, 3}, negative[] = {-5},
                  one[] = {1}, minimum[] = {INT64_MIN};
    const char *types[] = {"ConstantOfShape"};
    const int64_t *shapes[] = {large, overflow, negative, minimum};
    const size_t counts[] = {2, 2, 1, 1};
    for (size_t i = 0; i < 4; i++) {
        tn_status status = fold(types[0], shapes[i], counts[i], NULL, 0);
        assert_true(status == TN_OK || status == TN_ERROR_MODEL || status == TN_ERROR_LIMIT);
        status = fold("Expand", one, 1, shapes[i], counts[i]);
        assert_true(status == TN_OK || status == TN_ERROR_MODEL || status == TN_ERROR_LIMIT);
        if (counts[i] == 1) {
            status = fold("Tile", one, 1, shapes[i], counts[i]);
            assert_true(status == TN_OK || status == TN_ERROR_MODEL || status == TN_ERROR_LIMIT);
        }
        status = fold("Reshape", one, 1, shapes[i], counts[i]);
        assert_int_equal(status, TN_ERROR_MODEL);
        status = fold("Gather", one, 1, shapes[i], counts[i]);
        assert_int_equal(status, TN_ERROR_MODEL);
    }
    const int64_t huge[] = {(int64_t)1 << 40};
    assert_int_not_equal(fold("Tile", one, 1, huge, 1), TN_ERROR_IO);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_teardown(convolutions, teardown),
        cmocka_unit_test_teardown(folding_bombs, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
