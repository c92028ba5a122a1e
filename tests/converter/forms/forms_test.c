/* Every form x scheme x granularity x kind of layer, on small models with odd sizes: what is packed
 * is read back code for code, folds to exactly tn_qweight_value, and stays the same through chains
 * of forms. */
#include "converter/pack.h"
#include "converter/record.h"
#include "converter/unpack.h"
#include "converter/verify.h"
#include "core/random.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

/* A model of one layer. */
typedef struct kind {
    const char *name, *type;
    int rank, input_rank;
    int64_t dims[5], input[5];
    int64_t group, trans_b;
    tn_dtype dtype;
    bool bias_add; /* an Add of a bias behind it */
    int64_t opset, ir;
} kind;

static const kind kinds[] = {
    {"conv", "Conv", 4, 4, {5, 3, 3, 3}, {1, 3, 7, 7}, 1, 0, TN_FLOAT, false, 13, 7},
    {"conv-opset7", "Conv", 4, 4, {5, 3, 3, 3}, {1, 3, 7, 7}, 1, 0, TN_FLOAT, false, 7, 3},
    {"conv-half", "Conv", 4, 4, {5, 3, 1, 1}, {1, 3, 4, 4}, 1, 0, TN_FLOAT16, false, 13, 7},
    {"conv-double", "Conv", 4, 4, {3, 2, 2, 2}, {1, 2, 4, 4}, 1, 0, TN_DOUBLE, false, 11, 6},
    {"depthwise", "Conv", 4, 4, {7, 1, 3, 3}, {1, 7, 5, 5}, 7, 0, TN_FLOAT, false, 9, 4},
    {"conv1d", "Conv", 3, 3, {4, 2, 5}, {1, 2, 9}, 1, 0, TN_FLOAT, false, 17, 8},
    {"one-weight", "Conv", 4, 4, {1, 1, 1, 1}, {1, 1, 3, 3}, 1, 0, TN_FLOAT, false, 13, 7},
    {"deconv", "ConvTranspose", 4, 4, {3, 5, 3, 3}, {1, 3, 4, 4}, 1, 0, TN_FLOAT, false, 13, 7},
    {"gemm", "Gemm", 2, 2, {7, 13}, {2, 13}, 1, 1, TN_FLOAT, false, 11, 6},
    {"gemm-transposed", "Gemm", 2, 2, {13, 7}, {2, 13}, 1, 0, TN_FLOAT, false, 11, 6},
    {"matmul", "MatMul", 2, 2, {13, 7}, {2, 13}, 1, 0, TN_FLOAT, false, 9, 4},
    {"matmul-add", "MatMul", 2, 2, {13, 7}, {2, 13}, 1, 0, TN_FLOAT, true, 13, 7},
    {"matmul-high", "MatMul", 2, 3, {13, 7}, {2, 3, 13}, 1, 0, TN_FLOAT, true, 13, 7},
};

/* A scheme by its arithmetic. */
typedef struct arithmetic {
    const char *scheme;
    bool ternary;
    int bits, low, high;
    bool two_scales;
    float zero_step; /* zeros are multiples of it, plus zero_offset; both 0: none */
    float zero_offset;
} arithmetic;

static const arithmetic arithmetics[] = {
    {"twn", true, 2, -1, 1, false, 0, 0},         {"ttq", true, 2, -1, 1, true, 0, 0},
    {"fixed", false, 2, -2, 1, false, 0, 0},      {"fixed", false, 3, -4, 3, false, 0, 0},
    {"fixed", false, 4, -8, 7, false, 0, 0},      {"fixed", false, 5, -15, 15, false, 0, 0},
    {"fixed", false, 6, -32, 31, false, 0, 0},    {"fixed", false, 7, -64, 63, false, 0, 0},
    {"fixed", false, 8, -128, 127, false, 0, 0},  {"fixed", false, 16, -32768, 32767, false, 0, 0},
    {"affine", false, 4, -8, 7, false, 1, 0},     {"affine", false, 8, -128, 127, false, 1, 0},
    {"dorefa", false, 2, -2, 1, false, 0, -0.5f}, {"dorefa", false, 4, -8, 7, false, 0, -0.5f},
};

typedef struct bench {
    tn_model *model;
    tn_graph *graph;
    tn_layers layers;
    tn_qweight weight;
    tn_pack_item item;
    char path[64];
} bench;

static uint64_t seed;
static tn_error error;

static void must(tn_status status)
{
    if (status != TN_OK)
        fail_msg("seed %llu: %s", (unsigned long long)seed, error.message);
}

static void add_layer(tn_model *model, const kind *k)
{
    const char *inputs[] = {"x", "w", strcmp(k->type, "Gemm") == 0 ? "b" : NULL, NULL};
    const char *outputs[] = {k->bias_add ? "product" : "y", NULL};
    static const unsigned char zeros[8192];
    static const int64_t unknown[5] = {-1, -1, -1, -1, -1};
    int64_t columns = k->dims[k->trans_b ? 0 : 1];
    int bytes = tn_dtype_bits(k->dtype) / 8;
    int64_t count = 1;
    for (int i = 0; i < k->rank; i++)
        count *= k->dims[i];
    assert_true(count * bytes <= (int64_t)sizeof zeros);
    must(tn_edit_add_input(model, "x", k->dtype, k->input_rank, k->input, &error));
    must(tn_edit_add_output(model, "y", k->dtype, k->input_rank, unknown, &error));
    assert_non_null(tn_edit_add_initializer(model, "w", k->dtype, k->rank, k->dims, zeros,
                                            (size_t)(count * bytes), true));
    if (k->bias_add || inputs[2])
        assert_non_null(tn_edit_add_initializer(model, "b", k->dtype, 1, &columns, zeros,
                                                (size_t)(columns * bytes), true));
    Onnx__NodeProto *node = tn_edit_add_node(model, SIZE_MAX, k->type, "layer", inputs, outputs);
    assert_non_null(node);
    if (k->trans_b)
        must(tn_edit_set_int(model, node, "transB", 1, &error));
    if (k->group > 1)
        must(tn_edit_set_int(model, node, "group", k->group, &error));
    if (k->bias_add) {
        const char *sums[] = {"product", "b", NULL}, *results[] = {"y", NULL};
        assert_non_null(tn_edit_add_node(model, SIZE_MAX, "Add", "bias", sums, results));
    }
}

static void open_graph(bench *b)
{
    static const tn_policy all = {
        .scheme = "fixed", .bits = "8", .first_layer = "8", .last_layer = "8"};
    must(tn_graph_create(b->model, NULL, &b->graph, &error));
    must(tn_layers_select(b->graph, &all, &b->layers, &error));
    assert_int_equal(b->layers.count, 1);
}

/* Random codes that use the whole range, scales over many orders of magnitude. */
static void fill(tn_qweight *weight, const arithmetic *a, uint64_t sample)
{
    tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 0, sample);
    uint32_t span = (uint32_t)(a->high - a->low + 1);
    for (int64_t i = 0; i < weight->rows * weight->cols; i++)
        weight->codes[i] = (int16_t)(a->low + (int)tn_random_below(&random, span));
    for (int64_t i = 0; i < weight->n_scales; i++) {
        weight->scale[i] = expf(tn_random_normal(&random)) * 0.01f;
        if (weight->scale_neg)
            weight->scale_neg[i] = expf(tn_random_normal(&random)) * 0.01f;
        if (weight->zero)
            weight->zero[i] = a->zero_offset +
                              a->zero_step * (float)(a->low + (int)tn_random_below(&random, span));
    }
}

static void start(bench *b, const kind *k, const arithmetic *a, tn_granularity granularity,
                  int64_t group, uint64_t sample)
{
    *b = (bench){0};
    const char *folder = access("/dev/shm", W_OK) == 0 ? "/dev/shm/" : ""; /* fsync is slow */
    snprintf(b->path, sizeof b->path, "%sforms_test_%ld.onnx", folder, (long)getpid());
    must(tn_model_create("test", k->ir, k->opset, &b->model, &error));
    add_layer(b->model, k);
    open_graph(b);
    const tn_layer *layer = &b->layers.layer[0];
    b->weight = (tn_qweight){.rank = k->rank,
                             .axis = layer->axis,
                             .granularity = granularity,
                             .group = group,
                             .bits = a->bits,
                             .ternary = a->ternary,
                             .low = a->low,
                             .high = a->high,
                             .scheme = a->scheme};
    memcpy(b->weight.dims, k->dims, sizeof k->dims);
    must(tn_qweight_init(&b->weight, a->two_scales, a->zero_step != 0 || a->zero_offset != 0,
                         &error));
    fill(&b->weight, a, sample);
    b->item = (tn_pack_item){layer, &b->weight};
}

static void finish(bench *b)
{
    tn_graph_destroy(b->graph);
    tn_model_destroy(b->model);
    tn_qweight_done(&b->weight);
    unlink(b->path);
}

/* The codes as they are in the file: rows stay, dims turn where the layer is transposed. */
static void assert_same(const tn_qweight *read, const tn_qweight *expected)
{
    assert_int_equal(read->rows, expected->rows);
    assert_int_equal(read->cols, expected->cols);
    assert_int_equal(read->n_scales, expected->n_scales);
    assert_memory_equal(read->codes, expected->codes,
                        (size_t)(read->rows * read->cols) * sizeof *read->codes);
    assert_memory_equal(read->scale, expected->scale, (size_t)read->n_scales * sizeof(float));
    assert_int_equal(read->scale_neg != NULL, expected->scale_neg != NULL);
    assert_int_equal(read->zero != NULL, expected->zero != NULL);
    if (read->scale_neg)
        assert_memory_equal(read->scale_neg, expected->scale_neg,
                            (size_t)read->n_scales * sizeof(float));
    for (int64_t i = 0; read->zero && i < read->n_scales; i++)
        assert_true(read->zero[i] == expected->zero[i]);
    assert_int_equal(read->low, expected->low);
    assert_int_equal(read->high, expected->high);
    assert_int_equal(read->ternary, expected->ternary);
    assert_string_equal(read->scheme, expected->scheme);
}

static bool is_held(const tn_form *form, const bench *b)
{
    tn_pack_plan plan;
    tn_error refusal = {0};
    const tn_pack_options options = {.form = form};
    tn_status status = tn_pack_choose(b->graph, &b->item, 1, &options, &plan, &refusal);
    if (status == TN_OK)
        return true;
    assert_int_equal(status, TN_ERROR_USAGE);
    assert_true(strlen(refusal.message) > 20);
    return false;
}

/* The file at b->path holds `expected`, and its nodes compute exactly its values. */
static void check_file(const bench *b, const tn_qweight *expected)
{
    tn_model *model;
    tn_verification verification;
    bench again = {0};
    must(tn_model_read(b->path, NULL, &model, &error));
    again.model = model;
    open_graph(&again);
    tn_unpacked unpacked;
    must(tn_unpack(again.graph, NULL, &unpacked, &error));
    assert_true(unpacked.from_record);
    assert_int_equal(unpacked.count, 1);
    assert_same(unpacked.item[0].weight, expected);
    tn_unpacked_done(&unpacked);
    must(tn_verify(model, NULL, &verification, &error));
    assert_int_equal(verification.layers, 1);
    tn_graph_destroy(again.graph);
    tn_model_destroy(model);
}

static bool pack_to_file(bench *b, const tn_form *form)
{
    const tn_pack_options options = {.form = form};
    const tn_write_options replace = {.replace = true};
    tn_model *packed;
    if (!is_held(form, b))
        return false;
    must(tn_pack(b->graph, &b->item, 1, &options, NULL, &packed, &error));
    must(tn_pack_write(packed, &b->item, 1, b->path, &replace, NULL, &error));
    tn_model_destroy(packed);
    return true;
}

/* fp16 values may coincide: codes are then not to be had back from form float. */
static bool is_reversible(const kind *k, const tn_form *form)
{
    return k->dtype != TN_FLOAT16 || strcmp(form->id, "float") != 0;
}

static void test_every_form(void **state)
{
    static const struct {
        tn_granularity granularity;
        int64_t group;
    } grains[] = {{TN_PER_TENSOR, 0},
                  {TN_PER_CHANNEL, 0},
                  {TN_PER_GROUP, 4},
                  {TN_PER_GROUP, 9},
                  {TN_PER_GROUP, 1000}};
    uint64_t sample = 0, packed = 0;
    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        for (size_t a = 0; a < sizeof arithmetics / sizeof *arithmetics; a++) {
            for (size_t g = 0; g < sizeof grains / sizeof *grains; g++) {
                for (size_t f = 0; tn_form_at(f); f++) {
                    bench b;
                    if (!is_reversible(&kinds[k], tn_form_at(f)))
                        continue;
                    start(&b, &kinds[k], &arithmetics[a], grains[g].granularity, grains[g].group,
                          ++sample);
                    if (pack_to_file(&b, tn_form_at(f))) {
                        check_file(&b, &b.weight);
                        packed++;
                    }
                    finish(&b);
                }
            }
        }
    }
    print_message("%llu files, seed %llu\n", (unsigned long long)packed, (unsigned long long)seed);
    assert_true(packed > 2500);
}

/* The file of `path` in another form, by way of unpacking it. */
static void change_form(const char *path, const tn_form *form)
{
    const tn_pack_options options = {.form = form};
    const tn_write_options replace = {.replace = true};
    bench b = {0};
    tn_model *packed;
    tn_unpacked unpacked;
    must(tn_model_read(path, NULL, &b.model, &error));
    open_graph(&b);
    must(tn_unpack(b.graph, NULL, &unpacked, &error));
    assert_true(unpacked.from_record);
    must(tn_pack(b.graph, unpacked.item, unpacked.count, &options, NULL, &packed, &error));
    char next[80];
    snprintf(next, sizeof next, "%s.next", path);
    must(tn_pack_write(packed, unpacked.item, unpacked.count, next, &replace, NULL, &error));
    assert_int_equal(rename(next, path), 0);
    tn_model_destroy(packed);
    tn_unpacked_done(&unpacked);
    tn_graph_destroy(b.graph);
    tn_model_destroy(b.model);
}

static void test_chains(void **state)
{
    static const char *const chain[] = {"float",    "lut",   "int2", "qdq",    "float",
                                        "planes",   "qonnx", "qdq",  "planes", "int2",
                                        "int8-lut", "lut",   "lut",  "float"};
    static const tn_granularity grains[] = {TN_PER_TENSOR, TN_PER_CHANNEL};
    (void)state;
    for (size_t k = 0; k < sizeof kinds / sizeof *kinds; k++) {
        for (size_t i = 0; i < 2 * sizeof arithmetics / sizeof *arithmetics; i++) {
            bench b;
            const arithmetic *a = &arithmetics[i / 2];
            start(&b, &kinds[k], a, grains[i % 2], 0, 100000 + i);
            pack_to_file(&b, tn_form_find("lut"));
            for (size_t f = 0; f < sizeof chain / sizeof *chain; f++) {
                const tn_form *form = tn_form_find(chain[f]);
                if (!is_held(form, &b) || !is_reversible(&kinds[k], form))
                    continue;
                change_form(b.path, form);
                check_file(&b, &b.weight);
            }
            finish(&b);
        }
    }
}

/* Adds `by` to the first byte of an initializer whose name ends with `suffix`. */
static void tamper(tn_model *model, const char *suffix, int by)
{
    Onnx__GraphProto *graph = model->proto->graph;
    for (size_t i = 0; i < graph->n_initializer; i++) {
        Onnx__TensorProto *tensor = graph->initializer[i];
        size_t length = strlen(tensor->name), tail = strlen(suffix);
        if (length >= tail && strcmp(tensor->name + length - tail, suffix) == 0) {
            unsigned char *copy = tn_arena_alloc(&model->arena, tensor->raw_data.len);
            memcpy(copy, tensor->raw_data.data, tensor->raw_data.len);
            copy[0] = (unsigned char)(copy[0] + by);
            tensor->raw_data.data = copy;
            return;
        }
    }
    fail_msg("no initializer %s", suffix);
}

/* Replaces `from` by `to`, of the same length, in the record. */
static void rewrite(tn_model *model, const char *from, const char *to)
{
    char *text = strdup(tn_model_metadata(model, "ternion")), *place = strstr(text, from);
    if (!place)
        fail_msg("no %s in %s", from, text);
    memcpy(place, to, strlen(to));
    must(tn_edit_set_metadata(model, "ternion", text, &error));
    free(text);
}

static int warnings;

static void count_warning(void *context, tn_log_level level, const char *message)
{
    (void)context;
    warnings += level == TN_LOG_WARNING && message[0] != '\0';
}

/* A record that does not hold is ignored with a warning and refused by verify; what is then read
 * are the values themselves. */
static void test_tampering(void **state)
{
    static const struct {
        const char *initializer, *from, *to;
    } cases[] = {
        {"_codes", NULL, NULL},
        {"_scale", NULL, NULL},
        {NULL, "\"hash\":\"", "\"hash\":\"~"},
        {NULL, "\"schema\":1", "\"schema\":7"},
        {NULL, "w_codes", "w_c0des"},
        {NULL, "\"shape\":[5", "\"shape\":[9"},
        {NULL, "3,3]", "3,4]"},
        {NULL, "\"twn\"", "\"xyz\""},
        {NULL, "\"lut\"", "\"qdq\""},
        {NULL, "\"weight\":\"w\"", "\"weight\":\"x\""},
        {NULL, "\"layers\":[", "\"lazers\":["},
        {NULL, "{", "["},
    };
    static const tn_reporter reporter = {.log = count_warning};
    (void)state;
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        bench b, again = {0};
        tn_unpacked unpacked;
        tn_verification verification;
        tn_error broken = {0};
        start(&b, &kinds[0], &arithmetics[0], TN_PER_CHANNEL, 0, i);
        assert_true(pack_to_file(&b, tn_form_find("lut")));
        must(tn_model_read(b.path, NULL, &again.model, &error));
        if (cases[i].initializer)
            tamper(again.model, cases[i].initializer, 1);
        else
            rewrite(again.model, cases[i].from, cases[i].to);
        open_graph(&again);
        warnings = 0;
        must(tn_unpack(again.graph, &reporter, &unpacked, &error));
        assert_false(unpacked.from_record);
        assert_int_equal(warnings, 1);
        if (!cases[i].initializer) { /* the values are whole: recognized as what they are */
            assert_int_equal(unpacked.count, 1);
            assert_same(unpacked.item[0].weight, &b.weight);
        }
        tn_unpacked_done(&unpacked);
        assert_int_equal(tn_verify(again.model, NULL, &verification, &broken), TN_ERROR_DIFFERS);
        tn_graph_destroy(again.graph);
        tn_model_destroy(again.model);
        finish(&b);
    }
}

/* Values without a record are recognized where they lie on few levels. */
static void test_recognition(void **state)
{
    (void)state;
    for (size_t a = 0; a < 9; a++) {
        for (size_t grain = 0; grain < 2; grain++) {
            bench b, again = {0};
            tn_unpacked unpacked;
            start(&b, &kinds[0], &arithmetics[a], grain ? TN_PER_CHANNEL : TN_PER_TENSOR, 0, a);
            assert_true(pack_to_file(&b, tn_form_find("float")));
            must(tn_model_read(b.path, NULL, &again.model, &error));
            again.model->proto->n_metadata_props = 0;
            open_graph(&again);
            must(tn_unpack(again.graph, NULL, &unpacked, &error));
            assert_int_equal(unpacked.count, 1);
            for (int64_t i = 0; i < b.weight.rows * b.weight.cols; i++) {
                float read =
                    tn_qweight_value(unpacked.item[0].weight, i / b.weight.cols, i % b.weight.cols);
                float value = tn_qweight_value(&b.weight, i / b.weight.cols, i % b.weight.cols);
                assert_memory_equal(&read, &value, sizeof value);
            }
            if (arithmetics[a].ternary)
                assert_same(unpacked.item[0].weight, &b.weight);
            tn_unpacked_done(&unpacked);
            tn_graph_destroy(again.graph);
            tn_model_destroy(again.model);
            finish(&b);
        }
    }
}

int main(void)
{
    const char *text = getenv("TERNION_TEST_SEED");
    seed = text ? strtoull(text, NULL, 10) : 20240229;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_form),
        cmocka_unit_test(test_chains),
        cmocka_unit_test(test_tampering),
        cmocka_unit_test(test_recognition),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
