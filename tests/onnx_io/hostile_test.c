/* Model files made to hurt: each is refused with its reason, quickly and without much memory. */
#include "onnx_io/graph.h"
#include "onnx_io/model.h"
#include "wire.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static double seconds(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + 1e-9 * (double)now.tv_nsec;
}

#if defined(__SANITIZE_ADDRESS__) || !defined(__OPTIMIZE__)
static const double time_limit = 20;
#else
static const double time_limit = 1;
#endif

/* With TERNION_DUMP=FOLDER every file is left there too, for tests of the program. */
static void dump(const wire *file, bool legal)
{
    static int number;
    char path[1024];
    const char *folder = getenv("TERNION_DUMP");
    if (!folder)
        return;
    snprintf(path, sizeof path, "%s/%s-%03d.onnx", folder, legal ? "legal" : "illegal", ++number);
    FILE *out = fopen(path, "wb");
    if (!out || fwrite(file->bytes, 1, file->size, out) != file->size || fclose(out) != 0)
        fail_msg("cannot write %s", path);
}

/* Reads and frees the file; the error must contain `text`, or text is NULL and it must load. */
static void expect(wire *file, const char *text)
{
    tn_model *model = NULL;
    tn_error error = {0};
    dump(file, !text);
    uint64_t live = tn_memory_stats_get().live;
    double start = seconds();
    tn_status status = tn_model_read_bytes(file->bytes, file->size, NULL, &model, &error);
    double took = seconds() - start;
    if (took > time_limit)
        fail_msg("took %.2f s", took);
    assert_true(tn_memory_stats_get().live - live <= (64u << 20) + 5 * file->size + (4u << 20));
    if (!text) {
        if (status != TN_OK)
            fail_msg("refused: %s", error.message);
        tn_model_destroy(model);
    } else {
        if (status == TN_OK)
            fail_msg("accepted; wanted: %s", text);
        assert_true(status == TN_ERROR_MODEL || status == TN_ERROR_LIMIT);
        assert_int_equal(status, error.code);
        assert_null(model);
        if (!strstr(error.message, text))
            fail_msg("says: %s\nwanted: %s", error.message, text);
    }
    assert_true(tn_memory_stats_get().live == live);
    wire_free(file);
}

static void expect_graph(wire *graph, const char *text)
{
    wire model = wire_model(graph);
    expect(&model, text);
}

/* The graph with one more tensor as initializer. */
static void expect_tensor(wire *tensor, const char *text)
{
    wire graph = wire_graph();
    wire_message(&graph, 5, tensor);
    expect_graph(&graph, text);
}

static wire nested(int depth)
{
    wire inner = {0};
    for (int i = 0; i < depth; i++) {
        wire attribute = {0}, node = {0}, graph = {0};
        wire_message(&attribute, 6, &inner);
        wire_message(&node, 5, &attribute);
        wire_message(&graph, 1, &node);
        inner = graph;
    }
    return inner;
}

static void nesting(void **state)
{
    (void)state;
    wire small = nested(33), large = nested(3000), graph = {0};
    expect_graph(&small, "subgraphs are nested more than 32 deep");
    expect_graph(&large, "nested more than");
    /* 100,000 levels, built from the inside out in one buffer */
    size_t size = 0, room = 100000 * 24;
    unsigned char *end = malloc(room), *at = end ? end + room : NULL;
    assert_non_null(end);
    for (int i = 0; i < 300000; i++) {
        const unsigned char tags[3] = {0x32, 0x2a, 0x0a}; /* g, attribute, node */
        unsigned char prefix[6];
        size_t n = 0, length = size;
        prefix[n++] = tags[i % 3];
        for (; length >= 0x80; length >>= 7)
            prefix[n++] = (unsigned char)(length | 0x80);
        prefix[n++] = (unsigned char)length;
        if (n > (size_t)(at - end))
            break;
        at -= n;
        memcpy(at, prefix, n);
        size += n;
    }
    wire_raw(&graph, at, size);
    free(end);
    expect_graph(&graph, "nested more than");
    /* types nest too */
    wire type = {0}, value = {0}, outer = wire_graph();
    for (int i = 0; i < 1000; i++) {
        wire sequence = {0}, next = {0};
        wire_message(&sequence, 1, &type);
        wire_message(&next, 4, &sequence);
        type = next;
    }
    wire_text(&value, 1, "z");
    wire_message(&value, 2, &type);
    wire_message(&outer, 13, &value);
    expect_graph(&outer, "nested more than 100 deep");
}

static void nesting_in_bounds(void **state)
{
    (void)state;
    wire inner = {0};
    for (int i = 0; i < 31; i++) {
        wire attribute = {0}, node = wire_node("If", "", "x", ""), graph = {0};
        char name[16];
        snprintf(name, sizeof name, "v%d", i);
        wire_text(&node, 2, name);
        wire_text(&attribute, 1, "then_branch");
        wire_message(&attribute, 6, &inner);
        wire_message(&node, 5, &attribute);
        wire_message(&graph, 1, &node);
        inner = graph;
    }
    wire graph = wire_graph(), attribute = {0}, node = wire_node("If", "outer", "x", "z");
    wire_text(&attribute, 1, "then_branch");
    wire_message(&attribute, 6, &inner);
    wire_message(&node, 5, &attribute);
    wire_message(&graph, 1, &node);
    expect_graph(&graph, NULL);
}

static void counts(void **state)
{
    (void)state;
    const struct {
        unsigned tag;
        const char *text;
    } kinds[] = {{0x0a, "more than 1000000 NodeProto"}, {0x2a, "more than 1000000 TensorProto"}};
    for (size_t k = 0; k < 2; k++) {
        wire graph = {0};
        for (int i = 0; i < 2000000; i++) {
            wire_byte(&graph, kinds[k].tag);
            wire_byte(&graph, 0);
        }
        expect_graph(&graph, kinds[k].text);
    }
    wire graph = {0}, node = {0};
    for (int i = 0; i < 2000000; i++) {
        wire_byte(&node, 0x2a);
        wire_byte(&node, 0);
    }
    wire_message(&graph, 1, &node);
    expect_graph(&graph, "more than 1000000 AttributeProto");
    wire strings = {0}, empty = {0};
    for (int i = 0; i < 4000000; i++) { /* inputs of one node: the quota ends it */
        wire_byte(&strings, 0x0a);
        wire_byte(&strings, 0);
    }
    wire_message(&empty, 1, &strings);
    expect_graph(&empty, "--max-memory");
}

static void quota_option(void **state)
{
    (void)state;
    wire graph = wire_graph(), file = wire_model(&graph);
    tn_model *model = NULL;
    tn_error error = {0};
    tn_read_options options = {.max_memory = 256};
    assert_int_equal(tn_model_read_bytes(file.bytes, file.size, &options, &model, &error),
                     TN_ERROR_LIMIT);
    assert_non_null(strstr(error.message, "--max-memory"));
    wire_free(&file);
}

static void repeated_singular(void **state)
{
    (void)state;
    wire graph = wire_graph();
    for (int i = 0; i < 500000; i++) {
        wire_byte(&graph, 0x0a);
        wire_byte(&graph, 0);
    }
    wire file = wire_model(&graph);
    for (int i = 0; i < 20000; i++) {
        wire_byte(&file, 0x3a);
        wire_byte(&file, 0);
    }
    expect(&file, "it comes twice");
    wire tensor = wire_tensor("w", 1, NULL, 0, "abcd", 4);
    wire_bytes(&tensor, 9, "abcd", 4);
    expect_tensor(&tensor, "raw_data: it comes twice");
    wire type = {0}, value = {0}, shape = {0}, tensor_type = {0}, again = {0};
    wire_message(&tensor_type, 2, &shape);
    wire_message(&type, 1, &tensor_type);
    wire_message(&type, 1, &again);
    wire_text(&value, 1, "v");
    wire_message(&value, 2, &type);
    graph = wire_graph();
    wire_message(&graph, 13, &value);
    expect_graph(&graph, "it comes twice");
}

static void texts(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
        const char *text;
    } bad[] = {{"w.bin\0../../etc/passwd", 22, "NUL"},
               {"\xff\xfe", 2, "UTF-8"},
               {"\xc0\xaf", 2, "UTF-8"},         /* overlong */
               {"\xed\xa0\x80", 3, "UTF-8"},     /* surrogate */
               {"\xf4\x90\x80\x80", 4, "UTF-8"}, /* beyond U+10FFFF */
               {"abc\xe2\x82", 5, "UTF-8"}};     /* cut */
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        wire graph = wire_graph(), tensor = {0};
        wire_bytes(&tensor, 8, bad[i].bytes, bad[i].size);
        wire_message(&graph, 5, &tensor);
        expect_graph(&graph, bad[i].text);
    }
    /* absent strings everywhere */
    wire graph = wire_graph(), node = {0};
    wire_message(&graph, 1, &node);
    expect_graph(&graph, "no operator type");
    wire no_name = wire_graph(), info = {0};
    wire_message(&no_name, 11, &info);
    expect_graph(&no_name, "has no name");
    wire no_tensor_name = wire_tensor("", 1, NULL, 0, "abcd", 4);
    expect_tensor(&no_tensor_name, "has no name");
    wire no_output = wire_graph(), output = {0};
    wire_message(&no_output, 12, &output);
    expect_graph(&no_output, "output");
    /* names that would disguise themselves on a terminal load, and are escaped in messages */
    const char *names[] = {"</script>", "\x1b[31mred",
                           ("a\xe2\x80\xae"
                            "b")};
    for (size_t i = 0; i < 3; i++) {
        wire strange = wire_graph(), relu = wire_node("Relu", names[i], "x", names[i]);
        wire_message(&strange, 1, &relu);
        expect_graph(&strange, NULL);
        wire broken = wire_graph();
        relu = wire_node("Relu", names[i], "absent", "z");
        wire_message(&broken, 1, &relu);
        wire file = wire_model(&broken);
        tn_model *model = NULL;
        tn_error error = {0};
        assert_int_equal(tn_model_read_bytes(file.bytes, file.size, NULL, &model, &error),
                         TN_ERROR_MODEL);
        assert_null(strchr(error.message, 0x1b));
        assert_null(strstr(error.message, "\xe2\x80\xae"));
        wire_free(&file);
    }
}

static void dims(void **state)
{
    (void)state;
    static const struct {
        int64_t dims[2];
        size_t rank;
        const char *text;
    } bad[] = {{{(int64_t)1 << 32, (int64_t)1 << 32}, 2, "overflows"},
               {{(int64_t)1 << 62, 4}, 2, "overflows"},
               {{-1}, 1, "is -1"},
               {{INT64_MIN}, 1, "dimension 0"},
               {{INT64_MAX}, 1, "too large"},
               {{INT64_MAX / 4}, 1, "too large"},
               {{INT64_MAX / 64}, 1, "its shape needs"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        wire tensor = wire_tensor("w", 1, bad[i].dims, bad[i].rank, "abcd", 4);
        expect_tensor(&tensor, bad[i].text);
    }
    int64_t *many = calloc(1 << 20, sizeof *many);
    assert_non_null(many);
    for (int i = 0; i < 1 << 20; i++)
        many[i] = 1;
    wire ranks = wire_tensor("w", 1, many, 1 << 20, "abcd", 4);
    expect_tensor(&ranks, "dimensions; at most 16");
    wire seventeen = wire_tensor("w", 1, many, 17, "abcd", 4);
    expect_tensor(&seventeen, "dimensions; at most 16");
    wire sixteen = wire_tensor("w", 1, many, 16, "abcd", 4);
    expect_tensor(&sixteen, NULL);
    free(many);
    const int64_t zero[2] = {0, INT64_MAX};
    wire empty = wire_tensor("w", 1, zero, 1, NULL, 0);
    expect_tensor(&empty, NULL);
    wire empty_large = wire_tensor("w", 1, zero, 2, NULL, 0);
    expect_tensor(&empty_large, NULL);
    wire scalar = wire_tensor("w", 1, NULL, 0, "abcd", 4);
    expect_tensor(&scalar, NULL);
}

static void payloads(void **state)
{
    (void)state;
    unsigned char zeros[5000] = {0};
    const int64_t three = 3, thousand = 1250, five = 5;
    wire tensor = wire_tensor("w", 1, &three, 1, zeros, 11);
    expect_tensor(&tensor, "has 11 bytes of data; its shape needs 12");
    tensor = wire_tensor("w", 1, &three, 1, zeros, 13);
    expect_tensor(&tensor, "has 13 bytes of data; its shape needs 12");
    tensor = wire_tensor("w", 1, &three, 1, NULL, 0);
    expect_tensor(&tensor, "its shape needs 3");
    /* the same for payloads that stay in the map */
    tensor = wire_tensor("w", 1, &thousand, 1, zeros, 4999);
    expect_tensor(&tensor, "has 4999 bytes of data; its shape needs 5000");
    tensor = wire_tensor("w", 1, &thousand, 1, zeros, 5000);
    expect_tensor(&tensor, NULL);
    tensor = wire_tensor("w", 1, &thousand, 1, NULL, 0);
    wire_bytes(&tensor, 4, zeros, 5000);
    expect_tensor(&tensor, NULL);
    tensor = wire_tensor("w", 1, &thousand, 1, NULL, 0);
    wire_bytes(&tensor, 4, zeros, 4998);
    expect_tensor(&tensor, "");
    tensor = wire_tensor("w", 1, &thousand, 1, zeros, 5000);
    wire_bytes(&tensor, 4, zeros, 5000);
    expect_tensor(&tensor, "elements in two fields");
    tensor = wire_tensor("w", 1, &three, 1, zeros, 12);
    wire_bytes(&tensor, 4, zeros, 12);
    expect_tensor(&tensor, "elements in two fields");
    tensor = wire_tensor("w", 1, &thousand, 1, NULL, 0);
    wire_bytes(&tensor, 4, zeros, 4996);
    wire_bytes(&tensor, 4, zeros, 4);
    expect_tensor(&tensor, "several pieces");
    tensor = wire_tensor("w", 1, &three, 1, NULL, 0);
    wire_bytes(&tensor, 5, zeros, 3);
    expect_tensor(&tensor, "field of another type");
    tensor = wire_tensor("w", 99, &three, 1, zeros, 12);
    expect_tensor(&tensor, "element type 99");
    tensor = wire_tensor("w", 8, &three, 1, zeros, 12);
    expect_tensor(&tensor, "cannot have raw data");
    /* five 2-bit elements are two bytes, five 4-bit ones three */
    tensor = wire_tensor("w", 26, &five, 1, zeros, 2);
    expect_tensor(&tensor, NULL);
    tensor = wire_tensor("w", 26, &five, 1, zeros, 5);
    expect_tensor(&tensor, "its shape needs 2");
    tensor = wire_tensor("w", 22, &five, 1, zeros, 3);
    expect_tensor(&tensor, NULL);
    tensor = wire_tensor("w", 22, &five, 1, NULL, 0);
    wire_bytes(&tensor, 5, zeros, 5);
    expect_tensor(&tensor, "its shape needs 3");
    tensor = wire_tensor("w", 1, &three, 1, zeros, 12);
    wire_int(&tensor, 536870911, 0); /* the reader's own mark */
    expect_tensor(&tensor, "reserved");
    tensor = wire_tensor("w", 1, &three, 1, NULL, 0);
    wire_int(&tensor, 14, 1);
    expect_tensor(&tensor, "there is no location");
}

static wire two_relus(const char *in1, const char *out1, const char *in2, const char *out2)
{
    wire graph = wire_graph(), first = wire_node("Relu", "first", in1, out1),
         second = wire_node("Relu", "second", in2, out2);
    wire_message(&graph, 1, &first);
    wire_message(&graph, 1, &second);
    return graph;
}

static void cycles(void **state)
{
    (void)state;
    wire graph = two_relus("a", "a", "x", "b");
    expect_graph(&graph, "cycle: node 'first' needs 'first'");
    graph = two_relus("b", "a", "a", "b");
    expect_graph(&graph, "cycle");
    graph = two_relus("b", "a", "x", "b"); /* out of order, acyclic */
    expect_graph(&graph, NULL);
    /* inside a branch, and through a value the branch captures */
    wire branch = {0}, node = wire_node("Relu", "inner", "c", "c"), attribute = {0};
    wire_message(&branch, 1, &node);
    wire_message(&attribute, 6, &branch);
    node = wire_node("If", "if", "x", "z");
    wire_message(&node, 5, &attribute);
    graph = wire_graph();
    wire_message(&graph, 1, &node);
    expect_graph(&graph, "cycle: node 'inner'");
    node = wire_node("Relu", "inner", "z", "d");
    wire_message(&branch, 1, &node);
    wire_message(&attribute, 6, &branch);
    node = wire_node("If", "if", "x", "z");
    wire_message(&node, 5, &attribute);
    graph = wire_graph();
    wire_message(&graph, 1, &node);
    expect_graph(&graph, "cycle: node 'if'");
    /* a chain of 200,000 nodes in the worst order */
    graph = wire_graph();
    for (int i = 200000; i > 0; i--) {
        char in[16], out[16];
        snprintf(in, sizeof in, i == 1 ? "x" : "c%d", i - 1);
        snprintf(out, sizeof out, "c%d", i);
        node = wire_node("Relu", "", in, out);
        wire_message(&graph, 1, &node);
    }
    expect_graph(&graph, NULL);
}

static void names(void **state)
{
    (void)state;
    wire graph = two_relus("x", "a", "x", "a");
    expect_graph(&graph, "given twice: by 'first' and by 'second'");
    graph = two_relus("x", "x", "x", "b");
    expect_graph(&graph, "given twice: by a graph input and by 'first'");
    graph = two_relus("x", "a", "nowhere", "b");
    expect_graph(&graph, "node 'second' uses 'nowhere'");
    graph = wire_graph();
    for (int i = 0; i < 2; i++) {
        wire tensor = wire_tensor("w", 1, NULL, 0, "abcd", 4);
        wire_message(&graph, 5, &tensor);
    }
    expect_graph(&graph, "given twice: by an initializer and by an initializer");
    graph = wire_graph();
    for (int i = 0; i < 2; i++) {
        wire info = wire_value("again");
        wire_message(&graph, 11, &info);
    }
    expect_graph(&graph, "given twice");
    /* an initializer listed as input is fine (IR 3 wants it) */
    graph = wire_graph();
    wire tensor = wire_tensor("w", 1, NULL, 0, "abcd", 4), info = wire_value("w");
    wire_message(&graph, 5, &tensor);
    wire_message(&graph, 11, &info);
    expect_graph(&graph, NULL);
    /* shadowing */
    wire branch = {0}, node = wire_node("Relu", "inner", "x", "y"), attribute = {0};
    wire_message(&branch, 1, &node);
    wire_message(&attribute, 6, &branch);
    node = wire_node("If", "if", "x", "z");
    wire_message(&node, 5, &attribute);
    graph = wire_graph();
    wire_message(&graph, 1, &node);
    expect_graph(&graph, "given twice: by 'r' and by 'inner'");
    graph = wire_graph();
    info = wire_value("nothing");
    wire_message(&graph, 12, &info);
    expect_graph(&graph, "output 'nothing' is given by nothing");
}

static wire versioned(uint64_t ir, uint64_t opset, const char *domain)
{
    wire model = {0}, import = {0}, graph = wire_graph();
    wire_int(&model, 1, ir);
    wire_message(&model, 7, &graph);
    wire_text(&import, 1, domain);
    wire_int(&import, 2, opset);
    wire_message(&model, 8, &import);
    return model;
}

static void versions(void **state)
{
    (void)state;
    wire file = versioned(2, 17, "");
    expect(&file, "IR version 2; 3 to 13");
    file = versioned(14, 17, "");
    expect(&file, "IR version 14");
    file = versioned(3, 7, "");
    expect(&file, NULL);
    file = versioned(13, 25, "ai.onnx");
    expect(&file, NULL);
    file = versioned(8, 6, "");
    expect(&file, "opset 6; 7 to 25");
    file = versioned(8, 26, "");
    expect(&file, "opset 26");
    file = versioned(8, 1, "ai.onnx.ml");
    expect(&file, "no default domain");
    file = versioned(8, 17, "");
    wire import = {0};
    wire_int(&import, 2, 18);
    wire_message(&file, 8, &import);
    expect(&file, "twice, as opset 17 and as 18");
    file = versioned(8, 17, "");
    import = (wire){0};
    wire_text(&import, 1, "ai.onnx");
    wire_int(&import, 2, 17);
    wire_message(&file, 8, &import);
    expect(&file, NULL);
    wire nothing = {0};
    expect(&nothing, "empty");
    wire_int(&nothing, 1, 8);
    expect(&nothing, "no graph");
}

static void wire_format(void **state)
{
    (void)state;
    static const struct {
        const char *bytes;
        size_t size;
    } bad[] = {
        {"\x08", 1},                                              /* tag without value */
        {"\x08\xff\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01", 12}, /* 11-byte varint */
        {"\x3a\x05"
         "ab",
         4},                                 /* longer than the file */
        {"\x3a\xff\xff\xff\xff\xff\x01", 7}, /* 6-byte length */
        {"\x3a\xff\xff\xff\xff\x7f", 6},     /* 2^35 bytes */
        {"\x0b\x0c", 2},                     /* group */
        {"\x0e\x00", 2},                     /* wire type 6 */
        {"\x00\x00", 2},                     /* field 0 */
        {"\x0d\x00\x00\x00\x00", 5},         /* ir_version as fixed32 */
        {"\x38\x01", 2},                     /* graph as a number */
        {"GIF89a.......", 13},
    };
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        wire file = {0};
        wire_raw(&file, bad[i].bytes, bad[i].size);
        expect(&file, "not a valid ONNX file");
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nesting),
        cmocka_unit_test(nesting_in_bounds),
        cmocka_unit_test(counts),
        cmocka_unit_test(quota_option),
        cmocka_unit_test(repeated_singular),
        cmocka_unit_test(texts),
        cmocka_unit_test(dims),
        cmocka_unit_test(payloads),
        cmocka_unit_test(cycles),
        cmocka_unit_test(names),
        cmocka_unit_test(versions),
        cmocka_unit_test(wire_format),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
