/* What is read and not edited is written back byte for byte. */
#include "onnx_io/graph.h"
#include "onnx_io/model.h"
#include "small_model.h"
#include "temp_folder.h"

#include <dirent.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* `path` written to out.onnx, directly and from a copy, is the same file. */
static void check(const char *path)
{
    tn_model *model = NULL, *copy = NULL;
    tn_graph *graph = NULL;
    tn_error error = {0};
    tn_file_map map;
    tn_write_options options = {.replace = true};
    uint64_t bytes;
    size_t size;
    if (tn_model_read(path, NULL, &model, &error) != TN_OK)
        fail_msg("%s", error.message);
    if (tn_graph_create(model, NULL, &graph, &error) != TN_OK)
        fail_msg("%s: %s", path, error.message);
    assert_int_equal(tn_model_copy(model, &copy, &error), TN_OK);
    assert_int_equal(tn_file_map_open(path, &map, &error), TN_OK);
    for (int round = 0; round < 2; round++) {
        assert_int_equal(
            tn_model_write(round ? copy : model, temp_path("out.onnx"), &options, &bytes, &error),
            TN_OK);
        unsigned char *written = temp_read("out.onnx", &size);
        assert_non_null(written);
        assert_int_equal(size, map.size);
        assert_int_equal(bytes, size);
        assert_true(memcmp(written, map.data, size) == 0);
        free(written);
    }
    tn_file_map_close(&map);
    tn_graph_destroy(graph);
    tn_model_destroy(copy);
    tn_model_destroy(model);
}

static void small_models(void **state)
{
    (void)state;
    const int large[5] = {1, 31, 32, 33, 5000};
    for (int i = 0; i < 5; i++) {
        wire file = small_model(large[i]);
        temp_write("in.onnx", file.bytes, file.size);
        wire_free(&file);
        check(temp_path("in.onnx"));
    }
}

static void shared_models(void **state)
{
    (void)state;
    const char *shared = getenv("TERNION_SHARED");
    char folder[512], path[1024];
    int seen = 0;
    if (!shared)
        return;
    snprintf(folder, sizeof folder, "%s/models", shared);
    DIR *entries = opendir(folder);
    for (struct dirent *entry; entries && (entry = readdir(entries));) {
        if (!strstr(entry->d_name, ".onnx"))
            continue;
        snprintf(path, sizeof path, "%s/%.400s", folder, entry->d_name);
        check(path);
        seen++;
    }
    if (entries)
        closedir(entries);
    assert_true(seen > 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(small_models, temp_make, temp_remove),
        cmocka_unit_test_setup_teardown(shared_models, temp_make, temp_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
