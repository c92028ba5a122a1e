/* Edits of a model: what was added is there, what was removed is gone, the rest is untouched. */
#include "onnx_io/edit.h"
#include "onnx_io/graph.h"
#include "small_model.h"
#include "temp_folder.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

static tn_model *model;
static wire file;

static int setup(void **state)
{
    temp_make(state);
    file = small_model(40);
    return (int)tn_model_read_bytes(file.bytes, file.size, NULL, &model, NULL);
}

static int teardown(void **state)
{
    tn_model_destroy(model);
    wire_free(&file);
    return temp_remove(state);
}

/* Written, read again and linked: the edited model is valid. The graph is the caller's. */
static tn_graph *reread(tn_model **back)
{
    tn_graph *graph = NULL;
    tn_error error = {0};
    tn_write_options options = {.replace = true};
    if (tn_model_write(model, temp_path("o.onnx"), &options, NULL, &error) != TN_OK ||
        tn_model_read(temp_path("o.onnx"), NULL, back, &error) != TN_OK ||
        tn_graph_create(*back, NULL, &graph, &error) != TN_OK)
        fail_msg("%s", error.message);
    return graph;
}

static void unique_names(void **state)
{
    (void)state;
    assert_string_equal(tn_edit_unique_name(model, "new"), "new");
    assert_string_equal(tn_edit_unique_name(model, "new"), "new_1");
    assert_string_equal(tn_edit_unique_name(model, "new"), "new_2");
    assert_string_equal(tn_edit_unique_name(model, "conv"), "conv_1");           /* a node */
    assert_string_equal(tn_edit_unique_name(model, "flat"), "flat_1");           /* a value */
    assert_string_equal(tn_edit_unique_name(model, "t"), "t_1");                 /* in a branch */
    assert_string_equal(tn_edit_unique_name(model, "fc.weight"), "fc.weight_1"); /* initializer */
    assert_string_equal(tn_edit_unique_name(model, "x"), "x_1");                 /* input */
}

static void inserts_nodes(void **state)
{
    (void)state;
    const char *inputs[] = {"x", "scale", NULL}, *outputs[] = {"scaled", NULL};
    const int64_t none[1] = {0};
    const float half = 0.5f;
    tn_error error = {0};
    assert_non_null(tn_edit_add_initializer(model, "scale", TN_FLOAT, 0, none, &half, 4, true));
    Onnx__NodeProto *node = tn_edit_add_node(model, 0, "Mul", "mul", inputs, outputs);
    assert_non_null(node);
    assert_ptr_equal(model->proto->graph->node[0], node);
    assert_int_equal(tn_edit_set_input(model, model->proto->graph->node[1], 0, "scaled", &error),
                     TN_OK);
    /* many more: lists grow by themselves */
    for (int i = 0; i < 300; i++) {
        char name[16];
        snprintf(name, sizeof name, "c%d", i);
        const char *in[] = {i ? "x" : "scaled", NULL}, *out[] = {name, NULL};
        assert_non_null(tn_edit_add_node(model, i % 2 ? SIZE_MAX : 3, "Relu", name, in, out));
        assert_non_null(tn_edit_add_initializer(model, tn_edit_unique_name(model, "i"), TN_FLOAT, 0,
                                                none, &half, 4, false));
    }
    tn_model *back = NULL;
    tn_graph *graph = reread(&back);
    assert_int_equal(graph->n_nodes, 306);
    assert_string_equal(tn_graph_value(graph, "conv")->producer->inputs[0]->producer->name, "mul");
    assert_int_equal(tn_graph_value(graph, "x")->n_users, 300);
    assert_int_equal(back->proto->graph->n_initializer, 304);
    tn_graph_destroy(graph);
    tn_model_destroy(back);
}

static void attributes(void **state)
{
    (void)state;
    const char *inputs[] = {"x", NULL}, *outputs[] = {"p", NULL};
    const int64_t kernel[2] = {2, 3};
    tn_error error = {0};
    Onnx__NodeProto *node = tn_edit_add_node(model, 1, "AveragePool", "pool", inputs, outputs);
    assert_int_equal(tn_edit_set_ints(model, node, "kernel_shape", kernel, 2, &error), TN_OK);
    assert_int_equal(tn_edit_set_int(model, node, "ceil_mode", 0, &error), TN_OK);
    assert_int_equal(tn_edit_set_int(model, node, "ceil_mode", 1, &error), TN_OK);
    assert_int_equal(tn_edit_set_string(model, node, "auto_pad", "VALID", &error), TN_OK);
    assert_int_equal(tn_edit_set_float(model, node, "alpha", 0.5f, &error), TN_OK);
    assert_int_equal(node->n_attribute, 4);
    tn_edit_remove_attribute(node, "alpha");
    assert_int_equal(node->n_attribute, 3);
    tn_model *back = NULL;
    tn_graph *graph = reread(&back);
    const tn_node *pool = tn_graph_value(graph, "p")->producer;
    int64_t value = 9;
    float real = 0;
    char text[8] = "";
    const int64_t *values = NULL;
    size_t count = 0;
    assert_int_equal(tn_node_int(pool, "ceil_mode", 0, &value, &error), TN_OK);
    assert_int_equal(value, 1);
    assert_int_equal(tn_node_int(pool, "absent", 7, &value, &error), TN_OK);
    assert_int_equal(value, 7);
    assert_int_equal(tn_node_ints(pool, "kernel_shape", &values, &count, &error), TN_OK);
    assert_int_equal(count, 2);
    assert_int_equal(values[1], 3);
    assert_int_equal(tn_node_string(pool, "auto_pad", "NOTSET", text, sizeof text, &error), TN_OK);
    assert_string_equal(text, "VALID");
    assert_int_equal(tn_node_string(pool, "none", "NOTSET", text, sizeof text, &error), TN_OK);
    assert_string_equal(text, "NOTSET");
    assert_int_equal(tn_node_float(pool, "alpha", 0.25f, &real, &error), TN_OK);
    assert_true(real == 0.25f);
    assert_false(tn_node_has_attribute(pool, "alpha"));
    /* wrong types and texts that are too long */
    assert_int_equal(tn_node_float(pool, "ceil_mode", 0, &real, &error), TN_ERROR_MODEL);
    assert_non_null(strstr(error.message, "ceil_mode must be a float"));
    assert_int_equal(tn_node_int(pool, "kernel_shape", 0, &value, NULL), TN_ERROR_MODEL);
    assert_int_equal(tn_node_ints(pool, "auto_pad", &values, &count, NULL), TN_ERROR_MODEL);
    assert_int_equal(tn_node_string(pool, "ceil_mode", "", text, 8, NULL), TN_ERROR_MODEL);
    assert_int_equal(tn_node_string(pool, "auto_pad", "", text, 5, NULL), TN_ERROR_MODEL);
    tn_graph_destroy(graph);
    tn_model_destroy(back);
}

static size_t count_nodes(void)
{
    return model->proto->graph->n_node;
}

static void prunes(void **state)
{
    (void)state;
    tn_error error = {0};
    const float half = 0.5f;
    const int64_t one[1] = {1};
    const char *shape_in[] = {"x", NULL}, *shape_out[] = {"s", NULL}, *cast_in[] = {"s", NULL},
               *cast_out[] = {"sc", NULL};
    assert_int_equal(tn_edit_prune(model, &error), TN_OK);
    assert_int_equal(count_nodes(), 5); /* nothing is dead, the branches use "fc" */
    assert_int_equal(model->proto->graph->n_initializer, 3);
    assert_non_null(tn_edit_add_initializer(model, "dead", TN_FLOAT, 1, one, &half, 4, true));
    assert_int_equal(tn_edit_add_input(model, "dead", TN_FLOAT, 1, one, &error), TN_OK);
    assert_non_null(tn_edit_add_node(model, 0, "Shape", "", shape_in, shape_out));
    assert_non_null(tn_edit_add_node(model, 1, "Cast", "", cast_in, cast_out));
    const char *only_s[] = {"s", "fc", NULL}, *chain[] = {"sc", "dead", "s", NULL};
    assert_int_equal(tn_edit_prune_names(model, only_s, &error), TN_OK);
    assert_int_equal(count_nodes(), 7); /* "s" is used, so is "fc" */
    assert_int_equal(tn_edit_prune_names(model, chain, &error), TN_OK);
    assert_int_equal(count_nodes(), 5);
    assert_int_equal(model->proto->graph->n_initializer, 3);
    assert_int_equal(model->proto->graph->n_input, 1);
    /* without its users a whole chain goes */
    assert_non_null(tn_edit_add_node(model, 0, "Shape", "", shape_in, shape_out));
    assert_non_null(tn_edit_add_node(model, 0, "Cast", "", cast_in, cast_out));
    assert_int_equal(tn_edit_prune(model, &error), TN_OK);
    assert_int_equal(count_nodes(), 5);
    tn_edit_remove_node(model, model->proto->graph->node[4]);
    assert_int_equal(tn_edit_prune(model, &error), TN_OK);
    assert_int_equal(count_nodes(), 0);
    assert_int_equal(model->proto->graph->n_initializer, 0);
    assert_int_equal(model->proto->graph->n_input, 1); /* inputs of the network stay */
}

static void metadata_and_versions(void **state)
{
    (void)state;
    tn_error error = {0};
    tn_model *copy = NULL;
    assert_int_equal(tn_model_copy(model, &copy, &error), TN_OK);
    assert_string_equal(tn_model_metadata(model, "key"), "value");
    assert_null(tn_model_metadata(model, "none"));
    assert_int_equal(tn_edit_set_metadata(model, "key", "other", &error), TN_OK);
    assert_int_equal(tn_edit_set_metadata(model, "more", "", &error), TN_OK);
    assert_int_equal(tn_edit_set_versions(model, 10, 21, &error), TN_OK);
    assert_int_equal(model->proto->n_metadata_props, 2);
    tn_edit_remove_initializer(model, "fc.bias");
    assert_int_equal(tn_edit_set_input(model, model->proto->graph->node[2], 2, "", &error), TN_OK);
    tn_model *back = NULL;
    tn_graph *graph = reread(&back);
    assert_string_equal(tn_model_metadata(back, "key"), "other");
    assert_string_equal(tn_model_metadata(back, "more"), "");
    assert_int_equal(back->ir_version, 10);
    assert_int_equal(back->opset, 21);
    tn_graph_destroy(graph);
    tn_model_destroy(back);
    /* the copy has seen nothing of it */
    assert_string_equal(tn_model_metadata(copy, "key"), "value");
    assert_int_equal(copy->opset, 17);
    assert_int_equal(copy->proto->graph->n_initializer, 3);
    assert_string_equal(copy->proto->graph->node[2]->input[2], "fc.bias");
    tn_model_destroy(copy);
}

static void graph_options(void **state)
{
    (void)state;
    tn_graph *graph = NULL;
    tn_error error = {0};
    tn_graph_options options = {.batch = 5};
    assert_int_equal(tn_graph_create(model, &options, &graph, &error), TN_OK);
    assert_int_equal(graph->inputs[0]->dims[0], 5);
    assert_int_equal(graph->n_inputs, 1);
    assert_int_equal(graph->n_outputs, 1);
    /* a value that only a branch uses has the If as user */
    const tn_value *fc = tn_graph_value(graph, "fc");
    assert_int_equal(fc->n_users, 2);
    assert_string_equal(fc->users[0]->type, "If");
    assert_null(tn_graph_value(graph, "t"));
    assert_null(tn_graph_value(graph, ""));
    assert_string_equal(tn_node_label(fc->producer), "fc");
    assert_non_null(tn_graph_value(graph, "fc.weight")->constant);
    assert_non_null(tn_graph_value(graph, "flag")->constant);
    tn_graph_destroy(graph);
    options = (tn_graph_options){.output = "none"};
    assert_int_equal(tn_graph_create(model, &options, &graph, &error), TN_ERROR_USAGE);
    options = (tn_graph_options){.input_rank = 2};
    assert_int_equal(tn_graph_create(model, &options, &graph, NULL), TN_ERROR_USAGE);
}

static void expect_broken(const char *text)
{
    tn_graph *graph = NULL;
    tn_error error = {0};
    assert_int_equal(tn_graph_create(model, NULL, &graph, &error), TN_ERROR_MODEL);
    if (!strstr(error.message, text))
        fail_msg("says: %s\nwanted: %s", error.message, text);
    tn_model_destroy(model);
    model = NULL;
    assert_int_equal(tn_model_read_bytes(file.bytes, file.size, NULL, &model, NULL), TN_OK);
}

/* Edits that break the model are found when its graph is built. */
static void broken_edits(void **state)
{
    (void)state;
    const char *x[] = {"x", NULL}, *conv[] = {"conv", NULL}, *none[] = {"none", NULL},
               *in[] = {"q", NULL}, *out[] = {"q", NULL}, *nothing[] = {NULL};
    const int64_t one[1] = {1};
    assert_non_null(tn_edit_add_node(model, 0, "Relu", "again", x, conv));
    expect_broken("both give the value 'conv'");
    assert_non_null(tn_edit_add_node(model, 0, "Relu", "again", none, out));
    expect_broken("'none', which nothing in the graph gives");
    assert_non_null(tn_edit_add_node(model, 0, "Relu", "again", in, out));
    expect_broken("cycle");
    assert_non_null(tn_edit_add_node(model, 0, "Relu", "again", nothing, x));
    expect_broken("'x' is given twice");
    assert_non_null(tn_edit_add_initializer(model, "conv.weight", TN_FLOAT, 1, one, one, 4, true));
    expect_broken("'conv.weight' is given twice");
    assert_non_null(tn_edit_add_initializer(model, "", TN_FLOAT, 1, one, one, 4, true));
    expect_broken("has no name");
    assert_non_null(tn_edit_add_initializer(model, "short", TN_FLOAT, 1, one, one, 3, true));
    expect_broken("has 3 bytes");
    assert_int_equal(tn_edit_add_output(model, "none", TN_FLOAT, 1, one, NULL), TN_OK);
    expect_broken("output 'none'");
}

/* 2 GiB and more: refused as one file, on both ways. The zeros are never touched. */
static void protobuf_limit(void **state)
{
    (void)state;
    const int64_t dims[1] = {(int64_t)600 << 20};
    size_t bytes = (size_t)dims[0] * 4;
    tn_error error = {0};
    void *zeros = mmap(NULL, bytes, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    assert_ptr_not_equal(zeros, MAP_FAILED);
    assert_non_null(tn_edit_add_initializer(model, "big", TN_FLOAT, 1, dims, zeros, bytes, false));
    tn_write_options options = {.external = TN_EXTERNAL_NEVER};
    assert_int_equal(tn_model_write(model, temp_path("o.onnx"), &options, NULL, &error),
                     TN_ERROR_LIMIT);
    assert_non_null(strstr(error.message, "external-data"));
    assert_int_equal(temp_count(), 0);
    munmap(zeros, bytes);
    FILE *large = fopen(temp_path("large.onnx"), "wb");
    assert_non_null(large);
    assert_int_equal(ftruncate(fileno(large), (off_t)1 << 31), 0);
    fclose(large);
    tn_model *read = NULL;
    error = (tn_error){0};
    assert_int_equal(tn_model_read(temp_path("large.onnx"), NULL, &read, &error), TN_ERROR_LIMIT);
    assert_non_null(strstr(error.message, "external data"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(unique_names, setup, teardown),
        cmocka_unit_test_setup_teardown(inserts_nodes, setup, teardown),
        cmocka_unit_test_setup_teardown(attributes, setup, teardown),
        cmocka_unit_test_setup_teardown(prunes, setup, teardown),
        cmocka_unit_test_setup_teardown(metadata_and_versions, setup, teardown),
        cmocka_unit_test_setup_teardown(graph_options, setup, teardown),
        cmocka_unit_test_setup_teardown(broken_edits, setup, teardown),
        cmocka_unit_test_setup_teardown(protobuf_limit, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
