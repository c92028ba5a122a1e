/* The library through its public header alone, in one process. */
#include "api/ternion.h"

#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <setjmp.h>
#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[] = "/tmp/ternion-library-XXXXXX";

static const char *path(const char *name)
{
    static char text[4][128];
    static int next;
    char *at = text[next++ % 4];
    snprintf(at, sizeof text[0], "%s/%s", folder, name);
    return at;
}

static void created_quantized_exported(void **state)
{
    (void)state;
    tn_error error = {.code = TN_OK};
    tn_create_report *made = NULL;
    assert_int_equal(tn_create_file("resnet8", path("m.onnx"), NULL, NULL, &made, &error), TN_OK);
    assert_int_equal(made->parameters, 75290);
    assert_int_equal(made->classes, 10);
    tn_create_report_free(made);

    tn_conversion_report *report = NULL;
    assert_int_equal(tn_quantize_file(path("m.onnx"), path("q.onnx"), NULL, NULL, &report, &error),
                     TN_OK);
    assert_int_equal(report->n_layers, 8);
    assert_int_equal(report->weights_quantized, 73728);
    assert_true(report->bytes_out * 7 < report->bytes_in);
    assert_false(report->layers[0].quantized);
    assert_true(report->layers[1].relmse > 0.1 && report->layers[1].relmse < 0.3);
    tn_conversion_report_free(report);

    const tn_export_request options = {.out = {.form = "float"}};
    assert_int_equal(
        tn_export_file(path("q.onnx"), path("f.onnx"), &options, NULL, &report, &error), TN_OK);
    tn_conversion_report_free(report);
    tn_compare_report *comparison = NULL;
    assert_int_equal(
        tn_compare_files(path("q.onnx"), path("f.onnx"), NULL, NULL, &comparison, &error), TN_OK);
    assert_true(comparison->relmse == 0);
    assert_int_equal(comparison->n_layers, 8);
    tn_compare_report_free(comparison);
}

static bool stop(void *context)
{
    (void)context;
    return true;
}

static void failures_leave_outputs_alone(void **state)
{
    (void)state;
    tn_error error = {.code = TN_OK};
    tn_conversion_report *report = (tn_conversion_report *)(void *)&error; /* any mark */
    const tn_reporter stopper = {.cancelled = stop};
    assert_int_equal(
        tn_quantize_file(path("m.onnx"), path("s.onnx"), NULL, &stopper, &report, &error),
        TN_ERROR_CANCELLED);
    assert_ptr_equal(report, &error);
    assert_int_not_equal(access(path("s.onnx"), F_OK), 0);
    memset(&error, 0, sizeof error);
    assert_int_equal(
        tn_quantize_file(path("none.onnx"), path("s.onnx"), NULL, NULL, &report, &error),
        TN_ERROR_IO);
    assert_non_null(strstr(error.message, "none.onnx"));
    assert_int_equal(tn_quantize_file(path("m.onnx"), path("q.onnx"), NULL, NULL, &report, NULL),
                     TN_ERROR_USAGE);
    assert_int_equal(tn_verify_file(path("m.onnx"), NULL, NULL, NULL, NULL, NULL) != TN_OK, 1);
}

static void outputs_are_checked(void **state)
{
    (void)state;
    char model[128], set[128];
    snprintf(model, sizeof model, "%s", path("m.onnx"));
    snprintf(set, sizeof set, "%s", path(".:val"));
    const char *const inputs[] = {"none.onnx", model}, *const data[] = {set};
    const tn_output_options replace = {.replace = true};
    assert_int_equal(tn_output_check(path("new"), inputs, 2, NULL, NULL), TN_OK);
    assert_int_equal(tn_output_check(path("m.onnx"), inputs, 2, &replace, NULL), TN_ERROR_USAGE);
    assert_int_equal(tn_output_check(path("q.onnx"), inputs, 2, NULL, NULL), TN_ERROR_USAGE);
    assert_int_equal(tn_output_check(path("q.onnx"), inputs, 2, &replace, NULL), TN_OK);
    assert_int_equal(tn_output_check(path("q.onnx"), data, 1, &replace, NULL), TN_ERROR_USAGE);
    assert_int_equal(tn_output_check(path("no/q.onnx"), NULL, 0, NULL, NULL), TN_ERROR_IO);
    assert_int_equal(tn_output_check("/dev/null", NULL, 0, &replace, NULL), TN_ERROR_USAGE);
}

static void names_are_escaped(void **state)
{
    (void)state;
    char text[64];
    assert_string_equal(tn_escape("plain name", text, sizeof text), "plain name");
    assert_string_equal(tn_escape("a\033[1m", text, sizeof text), "a\\x1b[1m");
    assert_true(strlen(tn_escape("a long enough name", text, 6)) < 6);
}

static void catalog_lists_everything_once(void **state)
{
    (void)state;
    tn_catalog_entry entry, other;
    for (int kind = TN_CATALOG_QUANTIZERS; kind <= TN_CATALOG_IMAGES; kind++) {
        size_t i = 0;
        for (; tn_catalog((tn_catalog_kind)kind, i, &entry); i++) {
            assert_non_null(entry.id);
            assert_non_null(entry.summary);
            for (size_t p = 0; p < entry.n_parameters; p++)
                assert_non_null(entry.parameters[p].help);
            for (size_t j = 0; j < i; j++) { /* operators: one in each domain */
                assert_true(tn_catalog((tn_catalog_kind)kind, j, &other));
                assert_true(strcmp(entry.id, other.id) != 0 ||
                            (kind == TN_CATALOG_OPERATORS && strcmp(entry.summary, other.summary)));
            }
        }
        assert_true(i > 3 || kind == TN_CATALOG_OPERATORS);
    }
}

static int enter(void **state)
{
    (void)state;
    return mkdtemp(folder) ? 0 : -1;
}

static int leave(void **state)
{
    (void)state;
    static const char *const names[] = {"m.onnx", "q.onnx", "f.onnx"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        unlink(path(names[i]));
    return rmdir(folder); /* fails when something else was left */
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(created_quantized_exported),
        cmocka_unit_test(failures_leave_outputs_alone),
        cmocka_unit_test(outputs_are_checked),
        cmocka_unit_test(names_are_escaped),
        cmocka_unit_test(catalog_lists_everything_once),
    };
    return cmocka_run_group_tests(tests, enter, leave);
}
