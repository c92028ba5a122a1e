/* Every truncation and every changed byte of a model: a clean error, or a model that holds. */
#include "onnx_io/edit.h"
#include "onnx_io/graph.h"
#include "onnx_io/model.h"
#include "small_model.h"
#include "temp_folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Reads, builds the graph, looks at every constant; OK when all went well. The bytes lie at the end
 * of a heap block, so that a sanitizer sees one byte too many. */
static tn_status use(const unsigned char *bytes, size_t size)
{
    tn_model *model = NULL;
    tn_graph *graph = NULL;
    tn_error error = {0};
    unsigned char *copy = malloc(size ? size : 1);
    assert_non_null(copy);
    memcpy(copy, bytes, size);
    uint64_t live = tn_memory_stats_get().live;
    tn_status status = tn_model_read_bytes(copy, size, NULL, &model, &error);
    if (status == TN_OK)
        status = tn_graph_create(model, NULL, &graph, &error);
    double sum = 0;
    for (size_t i = 0; status == TN_OK && i < graph->n_values; i++) {
        const tn_tensor *constant = graph->values[i]->constant;
        float last = 0;
        int64_t count = constant ? tn_tensor_count(constant) : 0;
        if (count > 0 && tn_tensor_read_float(constant, count - 1, 1, &last, NULL) == TN_OK)
            sum += (double)last;
    }
    assert_true(status == TN_OK || status == TN_ERROR_MODEL || status == TN_ERROR_LIMIT);
    assert_true((status == TN_OK) == (error.code == TN_OK));
    assert_true(sum < 1e300 || sum >= 1e300 || sum != sum);
    tn_graph_destroy(graph);
    tn_model_destroy(model);
    assert_true(tn_memory_stats_get().live == live);
    free(copy);
    return status;
}

static void truncated(void **state)
{
    (void)state;
    const int large[2] = {2, 40};
    for (int k = 0; k < 2; k++) {
        wire file = small_model(large[k]);
        assert_int_equal(use(file.bytes, file.size), TN_OK);
        size_t accepted = 0;
        for (size_t size = 0; size < file.size; size++)
            accepted += use(file.bytes, size) == TN_OK;
        assert_true(accepted <= 2); /* cut before the metadata or the unknown field */
        wire_free(&file);
    }
}

static void flipped(void **state)
{
    (void)state;
    wire file = small_model(40);
    size_t accepted = 0;
    for (size_t at = 0; at < file.size; at++) {
        bool is_payload = at > 800 && at + 800 < file.size;
        for (int bit = 0; bit < 8; bit++) {
            if (is_payload && (at % 64 || bit))
                continue;
            file.bytes[at] ^= (unsigned char)(1 << bit);
            accepted += use(file.bytes, file.size) == TN_OK;
            file.bytes[at] ^= (unsigned char)(1 << bit);
        }
        if (is_payload)
            continue;
        unsigned char was = file.bytes[at];
        const unsigned char others[4] = {0, 0x7f, 0x80, 0xff};
        for (int i = 0; i < 4; i++) {
            file.bytes[at] = others[i];
            (void)use(file.bytes, file.size);
        }
        file.bytes[at] = was;
    }
    assert_int_equal(use(file.bytes, file.size), TN_OK);
    assert_true(accepted > 100); /* names and weights may change */
    wire_free(&file);
}

/* Reading, building the graph and writing with the n-th allocation failing, for every n. */
static void allocations_fail(void **state)
{
    (void)state;
    const tn_external external[2] = {TN_EXTERNAL_NEVER, TN_EXTERNAL_ALWAYS};
    wire file = small_model(40);
    temp_write("in.onnx", file.bytes, file.size);
    wire_free(&file);
    for (int round = 0; round < 4; round++) {
        bool done = false;
        uint64_t live = tn_memory_stats_get().live, n = 1;
        for (; !done; n++) {
            tn_model *model = NULL, *copy = NULL;
            tn_graph *graph = NULL;
            tn_error error = {0};
            tn_write_options options = {.external = external[round % 2]};
            tn_memory_fail_call(n, round / 2);
            tn_status status = tn_model_read(temp_path("in.onnx"), NULL, &model, &error);
            if (status == TN_OK)
                status = tn_graph_create(model, NULL, &graph, &error);
            if (status == TN_OK)
                status = tn_model_copy(model, &copy, &error);
            if (status == TN_OK)
                status = tn_model_write(copy, temp_path("out.onnx"), &options, NULL, &error);
            tn_memory_fail_call(0, 0);
            tn_graph_destroy(graph);
            tn_model_destroy(copy);
            tn_model_destroy(model);
            if (status != TN_OK && status != TN_ERROR_LIMIT)
                fail_msg("allocation %llu: %d %s", (unsigned long long)n, status, error.message);
            assert_true(tn_memory_stats_get().live == live);
            done = status == TN_OK;
            assert_int_equal(temp_count(), done ? 2 + round % 2 : 1);
        }
        assert_true(n > 10);
        remove(temp_path("out.onnx"));
        remove(temp_path("out.onnx.data"));
    }
}

/* The same for reading external data. */
static void external_allocations_fail(void **state)
{
    (void)state;
    wire file = small_model(40);
    tn_model *model = NULL;
    tn_write_options options = {.external = TN_EXTERNAL_ALWAYS};
    assert_int_equal(tn_model_read_bytes(file.bytes, file.size, NULL, &model, NULL), TN_OK);
    assert_int_equal(tn_model_write(model, temp_path("e.onnx"), &options, NULL, NULL), TN_OK);
    tn_model_destroy(model);
    wire_free(&file);
    uint64_t live = tn_memory_stats_get().live;
    tn_status status = TN_ERROR_LIMIT;
    for (uint64_t n = 1; status != TN_OK; n++) {
        tn_memory_fail_call(n, 0);
        status = tn_model_read(temp_path("e.onnx"), NULL, &model, NULL);
        tn_memory_fail_call(0, 0);
        assert_true(status == TN_OK || status == TN_ERROR_LIMIT);
        if (status == TN_OK)
            tn_model_destroy(model);
        assert_true(tn_memory_stats_get().live == live);
    }
}

/* All edits, one after the other; false when memory ran out. */
static bool edit_all(tn_model *model)
{
    const int64_t dims[2] = {40, 2000}, ints[3] = {1, 2, 3};
    const char *inputs[] = {"x", NULL}, *outputs[] = {"new", NULL}, *names[] = {"new", NULL};
    static const unsigned char data[40 * 2000];
    const char *unique = tn_edit_unique_name(model, "conv");
    if (!unique ||
        !tn_edit_add_initializer(model, unique, TN_UINT8, 2, dims, data, sizeof data, true))
        return false;
    Onnx__NodeProto *node = tn_edit_add_node(model, 2, "Relu", "n", inputs, outputs);
    if (!node || tn_edit_set_int(model, node, "i", 1, NULL) != TN_OK ||
        tn_edit_set_float(model, node, "f", 1, NULL) != TN_OK ||
        tn_edit_set_ints(model, node, "l", ints, 3, NULL) != TN_OK ||
        tn_edit_set_string(model, node, "s", "text", NULL) != TN_OK ||
        tn_edit_set_input(model, node, 3, "x", NULL) != TN_OK ||
        tn_edit_add_input(model, "z", TN_FLOAT, 2, dims, NULL) != TN_OK ||
        tn_edit_add_output(model, "conv", TN_FLOAT, 2, dims, NULL) != TN_OK ||
        tn_edit_set_metadata(model, "key", "changed", NULL) != TN_OK ||
        tn_edit_set_metadata(model, "other", "new", NULL) != TN_OK ||
        tn_edit_set_versions(model, 9, 18, NULL) != TN_OK)
        return false;
    return tn_edit_prune_names(model, names, NULL) == TN_OK && tn_edit_prune(model, NULL) == TN_OK;
}

static void edit_allocations_fail(void **state)
{
    (void)state;
    wire file = small_model(40);
    uint64_t live = tn_memory_stats_get().live;
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        tn_model *model = NULL, *made = NULL;
        assert_int_equal(tn_model_read_bytes(file.bytes, file.size, NULL, &model, NULL), TN_OK);
        tn_memory_fail_call(n, 0);
        bool created = tn_model_create("g", 8, 17, &made, NULL) == TN_OK;
        done = created && edit_all(model);
        tn_memory_fail_call(0, 0);
        tn_model_destroy(made);
        tn_model_destroy(model);
        assert_true(tn_memory_stats_get().live == live);
    }
    wire_free(&file);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(truncated),
        cmocka_unit_test(flipped),
        cmocka_unit_test_setup_teardown(allocations_fail, temp_make, temp_remove),
        cmocka_unit_test_setup_teardown(external_allocations_fail, temp_make, temp_remove),
        cmocka_unit_test(edit_allocations_fail),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
