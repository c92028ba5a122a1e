/* What surrounds the forms: shared and otherwise used weights, MatMul + Add, scheme half, --rest
 * float16, fallbacks and refusals, target runtimes, failing allocations, damaged records. */
#include "converter/byte_census.h"
#include "converter/pack.h"
#include "converter/record.h"
#include "converter/unpack.h"
#include "converter/verify.h"
#include "core/memory.h"
#include "core/random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

static tn_error error;

static const tn_policy all = {
    .scheme = "fixed", .bits = "8", .first_layer = "8", .last_layer = "8"};

static void must(tn_status status)
{
    if (status != TN_OK)
        fail_msg("%s", error.message);
}

static Onnx__NodeProto *add_node(tn_model *model, const char *type, const char *a, const char *b,
                                 const char *output)
{
    const char *inputs[] = {a, b, NULL}, *outputs[] = {output, NULL};
    Onnx__NodeProto *node = tn_edit_add_node(model, SIZE_MAX, type, output, inputs, outputs);
    assert_non_null(node);
    return node;
}

static void add_weight(tn_model *model, const char *name, int rank, const int64_t *dims)
{
    float values[512];
    size_t count = 1;
    for (int i = 0; i < rank; i++)
        count *= (size_t)dims[i];
    assert_true(count <= sizeof values / sizeof *values);
    for (size_t i = 0; i < count; i++)
        values[i] = (float)(i % 7) - 3.0f;
    assert_non_null(tn_edit_add_initializer(model, name, TN_FLOAT, rank, dims, values,
                                            count * sizeof *values, true));
}

typedef struct scene {
    tn_model *model;
    tn_graph *graph;
    tn_layers layers;
    tn_qweight weight[4];
    tn_pack_item item[4];
} scene;

static void fill(tn_qweight *weight, const tn_layer *layer, int bits, bool half_integer)
{
    *weight = (tn_qweight){.rank = layer->weight->rank,
                           .axis = layer->axis,
                           .granularity = TN_PER_CHANNEL,
                           .bits = bits,
                           .low = -(1 << (bits - 1)),
                           .high = (1 << (bits - 1)) - 1,
                           .scheme = half_integer ? "dorefa" : "fixed"};
    memcpy(weight->dims, layer->weight->dims, sizeof weight->dims);
    must(tn_qweight_init(weight, false, half_integer, &error));
    for (int64_t i = 0; i < weight->rows * weight->cols; i++)
        weight->codes[i] = (int16_t)(weight->low + (int)(i % (weight->high - weight->low + 1)));
    for (int64_t i = 0; i < weight->n_scales; i++) {
        weight->scale[i] = 0.25f + (float)i;
        if (half_integer)
            weight->zero[i] = -0.5f;
    }
}

static void open_scene(scene *s, int bits, bool half_integer)
{
    must(tn_graph_create(s->model, NULL, &s->graph, &error));
    must(tn_layers_select(s->graph, &all, &s->layers, &error));
    assert_true(s->layers.count <= 4);
    for (size_t i = 0; i < s->layers.count; i++) {
        fill(&s->weight[i], &s->layers.layer[i], bits, half_integer);
        s->item[i] = (tn_pack_item){&s->layers.layer[i], &s->weight[i]};
    }
}

static void close_scene(scene *s)
{
    for (size_t i = 0; i < s->layers.count; i++)
        tn_qweight_done(&s->weight[i]);
    tn_graph_destroy(s->graph);
    tn_model_destroy(s->model);
}

static const int64_t image[] = {1, 3, 5, 5}, kernel[] = {3, 3, 3, 3}, matrix[] = {5, 4},
                     row[] = {2, 5}, bias[] = {4};

/* Two convolutions of one weight; with `other`, the weight is added up as well. */
static void start_shared(scene *s, bool other)
{
    *s = (scene){0};
    must(tn_model_create("shared", 8, 13, &s->model, &error));
    must(tn_edit_add_input(s->model, "x", TN_FLOAT, 4, image, &error));
    add_weight(s->model, "w", 4, kernel);
    must(tn_edit_set_ints(s->model, add_node(s->model, "Conv", "x", "w", "a"), "pads",
                          (const int64_t[]){1, 1, 1, 1}, 4, &error));
    add_node(s->model, "Conv", "a", "w", "y");
    must(tn_edit_add_output(s->model, "y", TN_FLOAT, 4, image, &error));
    if (other) {
        add_node(s->model, "Add", "x", "w", "z"); /* never run: shapes need not fit */
        s->model->proto->graph->node[2]->input[0] = s->model->proto->graph->node[2]->input[1];
        must(tn_edit_add_output(s->model, "z", TN_FLOAT, 4, kernel, &error));
    }
    open_scene(s, 4, false);
    assert_int_equal(s->layers.count, 1);
}

static void test_shared(void **state)
{
    (void)state;
    for (int other = 0; other < 2; other++) {
        scene s;
        tn_model *packed;
        tn_verification verification;
        start_shared(&s, other);
        must(tn_pack(s.graph, s.item, 1, &(tn_pack_options){0}, NULL, &packed, &error));
        must(tn_verify(packed, s.model, &verification, &error));
        assert_int_equal(verification.layers, 1);
        const Onnx__GraphProto *graph = packed->proto->graph;
        size_t users = 0, kept = 0;
        for (size_t i = 0; i < graph->n_node; i++)
            users += strcmp(graph->node[i]->op_type, "Conv") == 0 &&
                     strcmp(graph->node[i]->input[1], other ? "w_quantized" : "w") == 0;
        for (size_t i = 0; i < graph->n_initializer; i++)
            kept += strcmp(graph->initializer[i]->name, "w") == 0;
        assert_int_equal(users, 2);
        assert_int_equal(kept, other);
        tn_model_destroy(packed);
        close_scene(&s);
    }
}

static void start_product(scene *s, int64_t opset, bool with_add, bool half_integer)
{
    *s = (scene){0};
    must(tn_model_create("product", 7, opset, &s->model, &error));
    must(tn_edit_add_input(s->model, "x", TN_FLOAT, 2, row, &error));
    add_weight(s->model, "w", 2, matrix);
    add_weight(s->model, "b", 1, bias);
    add_node(s->model, "MatMul", "x", "w", with_add ? "product" : "y");
    if (with_add)
        add_node(s->model, "Add", "b", "product", "y");
    must(tn_edit_add_output(s->model, "y", TN_FLOAT, 2, (const int64_t[]){2, 4}, &error));
    open_scene(s, 2, half_integer);
    assert_int_equal(s->layers.count, 1);
}

/* MatMul and the Add behind it become one Gemm(transB = 1); below opset 11 it always has a bias. */
static void test_product(void **state)
{
    static const struct {
        int64_t opset;
        bool with_add;
        size_t inputs;
    } cases[] = {{13, true, 3}, {9, true, 3}, {13, false, 2}, {9, false, 3}};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        scene s;
        tn_model *packed;
        tn_verification verification;
        start_product(&s, cases[i].opset, cases[i].with_add, false);
        must(tn_pack(s.graph, s.item, 1, &(tn_pack_options){0}, NULL, &packed, &error));
        must(tn_verify(packed, s.model, &verification, &error));
        const Onnx__GraphProto *graph = packed->proto->graph;
        const Onnx__NodeProto *last = graph->node[graph->n_node - 1];
        assert_string_equal(last->op_type, "Gemm");
        assert_string_equal(last->output[0], "y");
        assert_int_equal(last->n_input, cases[i].inputs);
        if (cases[i].with_add)
            assert_string_equal(last->input[2], "b");
        for (size_t n = 0; n < graph->n_node; n++) {
            assert_string_not_equal(graph->node[n]->op_type, "MatMul");
            assert_string_not_equal(graph->node[n]->op_type, "Add");
        }
        tn_model_destroy(packed);
        close_scene(&s);
    }
}

static void expect_refusal(scene *s, const tn_pack_options *options, const char *word)
{
    tn_pack_plan plan;
    tn_error refusal = {0};
    assert_int_equal(tn_pack_choose(s->graph, s->item, s->layers.count, options, &plan, &refusal),
                     TN_ERROR_USAGE);
    if (!strstr(refusal.message, word))
        fail_msg("no \"%s\" in: %s", word, refusal.message);
}

static void test_choice(void **state)
{
    scene s;
    tn_pack_plan plan;
    (void)state;
    start_product(&s, 13, true, true);
    expect_refusal(&s, &(tn_pack_options){.form = tn_form_find("qdq")}, "half-integer");
    expect_refusal(&s, &(tn_pack_options){.form = tn_form_find("int8-lut")}, "half-integer");
    expect_refusal(
        &s,
        &(tn_pack_options){.form = tn_form_find("int2"), .runtime = tn_runtime_find("ort-1.20.1")},
        "opset 25");
    must(tn_pack_choose(s.graph, s.item, 1,
                        &(tn_pack_options){.runtime = tn_runtime_find("ort-1.10")}, &plan, &error));
    assert_int_equal(plan.opset, 13);
    assert_string_equal(plan.needs, "any ONNX Runtime from 1.10 (opset 13, IR 7)");
    must(tn_pack_choose(s.graph, s.item, 1, &(tn_pack_options){.form = tn_form_find("int2")}, &plan,
                        &error));
    assert_int_equal(plan.opset, 25);
    assert_int_equal(plan.ir, 13);
    assert_string_equal(plan.needs, "ONNX Runtime from 1.24.3 (opset 25, IR 13)");
    close_scene(&s);
    assert_null(tn_runtime_find("ort-1.9"));
    assert_null(tn_runtime_find("ort-1.1"));
    assert_null(tn_form_find("int3"));
}

/* A layer the form cannot hold takes the next that can, and the plan says why. */
static void test_fallback(void **state)
{
    scene s;
    tn_pack_plan plan;
    (void)state;
    start_product(&s, 13, false, false);
    static const struct {
        int bits;
        const char *wanted, *form;
    } cases[] = {{3, "lut", "planes"},   {8, "lut", "lut"},           {16, "lut", "int2"},
                 {16, "planes", "int2"}, {7, "int8-lut", "int8-lut"}, {5, "qdq", "qdq"},
                 {16, "qdq", "qdq"}};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        s.weight[0].bits = cases[i].bits;
        must(tn_pack_choose(s.graph, s.item, 1,
                            &(tn_pack_options){.form = tn_form_find(cases[i].wanted)}, &plan,
                            &error));
        assert_string_equal(plan.choice[0].form->id, cases[i].form);
        assert_int_equal(plan.choice[0].reason != NULL,
                         strcmp(cases[i].wanted, cases[i].form) != 0);
    }
    close_scene(&s);
}

static void test_half(void **state)
{
    scene s;
    tn_model *packed;
    tn_graph *graph;
    (void)state;
    start_product(&s, 13, true, false);
    s.item[0].weight = NULL;
    must(tn_pack(s.graph, s.item, 1, &(tn_pack_options){0}, NULL, &packed, &error));
    must(tn_graph_create(packed, NULL, &graph, &error));
    const tn_value *value = tn_graph_value(graph, "w"), *stored = tn_graph_value(graph, "w_half");
    assert_non_null(value->constant);
    assert_int_equal(value->dtype, TN_FLOAT);
    assert_int_equal(stored->dtype, TN_FLOAT16);
    float decoded[20];
    must(tn_tensor_read_float(value->constant, 0, 20, decoded, &error));
    for (int i = 0; i < 20; i++) /* small integers: exact; written as [4, 5] */
        assert_true(decoded[i] == (float)((i % 5 * 4 + i / 5) % 7) - 3.0f);
    tn_verification verification;
    must(tn_verify(packed, s.model, &verification, &error));
    assert_int_equal(verification.halves, 1);
    const Onnx__GraphProto *file = packed->proto->graph;
    for (size_t i = 0; i < file->n_initializer; i++)
        if (strcmp(file->initializer[i]->name, "w_half") == 0)
            file->initializer[i]->raw_data.data[7] ^= 0x40;
    tn_error ignored = {0};
    assert_int_equal(tn_verify(packed, NULL, &verification, &ignored), TN_ERROR_DIFFERS);
    assert_non_null(strstr(ignored.message, "FLOAT16 weights of layer"));
    tn_graph_destroy(graph);
    tn_model_destroy(packed);
    close_scene(&s);
}

/* Every allocation of packing and of reading back fails once: an error, nothing lost. */
static void test_failing_allocations(void **state)
{
    static const char *const forms[] = {"lut", "int2", "planes", "qdq", "float", "qonnx"};
    (void)state;
    for (size_t f = 0; f < sizeof forms / sizeof *forms; f++) {
        scene s;
        const tn_pack_options options = {.form = tn_form_find(forms[f]), .prune_dead = true};
        start_product(&s, 13, true, false);
        bool failed = true;
        for (uint64_t n = 1; failed; n++) {
            tn_model *packed = NULL;
            tn_graph *graph = NULL;
            tn_unpacked unpacked = {0};
            tn_error ignored = {0};
            uint64_t before = tn_memory_stats_get().live;
            tn_memory_fail_call(n, 0);
            tn_status status = tn_pack(s.graph, s.item, 1, &options, NULL, &packed, &ignored);
            if (status == TN_OK)
                status = tn_graph_create(packed, NULL, &graph, &ignored);
            if (status == TN_OK)
                status = tn_unpack(graph, NULL, &unpacked, &ignored);
            failed = status != TN_OK;
            tn_memory_fail_call(0, 0);
            if (failed)
                assert_int_equal(status, TN_ERROR_LIMIT);
            tn_unpacked_done(&unpacked);
            tn_graph_destroy(graph);
            tn_model_destroy(packed);
            /* plans live in the original graph's arena: some growth is right */
            assert_true(tn_memory_stats_get().live <= before + (1 << 20));
        }
        close_scene(&s);
    }
}

/* The short record says what the long one says, in every form, and less of it. */
static void test_compact_record(void **state)
{
    (void)state;
    for (size_t f = 0; tn_form_at(f); f++) {
        char *text[2] = {0};
        for (int compact = 0; compact < 2; compact++) {
            scene s;
            tn_model *packed;
            tn_record record;
            tn_verification verification;
            const tn_pack_options options = {.form = tn_form_at(f), .prune_dead = compact};
            start_product(&s, 13, true, false);
            must(tn_pack(s.graph, s.item, 1, &options, NULL, &packed, &error));
            must(tn_record_parse(packed, &record, &error));
            assert_string_equal(record.layer[0].node, tn_node_label(s.item[0].layer->node));
            assert_string_equal(record.layer[0].weight, "w");
            assert_ptr_equal(record.layer[0].form, tn_form_at(f));
            assert_int_equal(record.layer[0].shape.bits, s.weight[0].bits);
            tn_record_done(&record);
            if (tn_form_at(f)->self_contained) {
                must(tn_verify(packed, NULL, &verification, &error));
                assert_int_equal(verification.layers, 1);
            }
            text[compact] = tn_strdup(tn_model_metadata(packed, "ternion"));
            assert_non_null(text[compact]);
            tn_model_destroy(packed);
            close_scene(&s);
        }
        assert_non_null(strstr(text[0], "\"schema\":1"));
        assert_non_null(strstr(text[1], "\"schema\":2"));
        assert_true(strlen(text[1]) < strlen(text[0]) + 12);
        tn_free(text[0]);
        tn_free(text[1]);
    }
}

/* What is read back is not what was to be written: an error, and no file. */
static void test_read_back(void **state)
{
    static const char path[] = "pack_test_read_back.onnx";
    scene s;
    tn_model *packed;
    tn_error differs = {0};
    (void)state;
    start_product(&s, 13, true, false);
    must(tn_pack(s.graph, s.item, 1, &(tn_pack_options){0}, NULL, &packed, &error));
    s.weight[0].codes[3] = (int16_t)-s.weight[0].codes[3] - 1;
    assert_int_equal(tn_pack_write(packed, s.item, 1, path,
                                   &(tn_write_options){.external = TN_EXTERNAL_ALWAYS}, NULL,
                                   &differs),
                     TN_ERROR_DIFFERS);
    assert_int_equal(access(path, F_OK), -1);
    assert_int_equal(access("pack_test_read_back.onnx.data", F_OK), -1);
    tn_model_destroy(packed);
    close_scene(&s);
}

/* Any damage to the record's text: ignored or read, never worse. */
static void damage_record(bool compact)
{
    scene s;
    tn_model *packed;
    const tn_pack_options options = {.prune_dead = compact,
                                     .activations = "{\"range\":\"mse\",\"values\":{\"x\":8}}"};
    start_product(&s, 13, true, false);
    must(tn_pack(s.graph, s.item, 1, &options, NULL, &packed, &error));
    char *whole = strdup(tn_model_metadata(packed, "ternion"));
    size_t length = strlen(whole);
    tn_random random = tn_random_make(11, TN_PURPOSE_TEST, 0, 0);
    for (int round = 0; round < 3000; round++) {
        tn_graph *graph;
        tn_unpacked unpacked;
        tn_error ignored = {0};
        char *text = strdup(whole);
        size_t place = tn_random_below(&random, (uint32_t)length);
        if (round % 3 == 0)
            text[place] = (char)(32 + tn_random_below(&random, 95));
        else if (round % 3 == 1)
            text[place] = (char)('0' + tn_random_below(&random, 10));
        else
            text[place] = '\0';
        must(tn_edit_set_metadata(packed, "ternion", text, &error));
        must(tn_graph_create(packed, NULL, &graph, &error));
        if (tn_unpack(graph, NULL, &unpacked, &ignored) == TN_OK)
            tn_unpacked_done(&unpacked);
        tn_graph_destroy(graph);
        tn_verification verification;
        tn_byte_census census;
        /* the values are not quantized: never right, whatever the text says */
        if (tn_verify(packed, NULL, &verification, &ignored) == TN_OK)
            assert_int_equal(verification.activations, 0);
        must(tn_byte_census_take(packed, &census, &error));
        free(text);
    }
    free(whole);
    tn_model_destroy(packed);
    close_scene(&s);
}

static void test_damaged_record(void **state)
{
    (void)state;
    damage_record(false);
    damage_record(true);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_shared),         cmocka_unit_test(test_product),
        cmocka_unit_test(test_choice),         cmocka_unit_test(test_fallback),
        cmocka_unit_test(test_half),           cmocka_unit_test(test_failing_allocations),
        cmocka_unit_test(test_damaged_record), cmocka_unit_test(test_read_back),
        cmocka_unit_test(test_compact_record),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
