/* External data: only files in the model's own folder are read, and only the bytes the shape
 * needs; what is written is found again. */
#include "onnx_io/model.h"
#include "seccomp.h"
#include "temp_folder.h"
#include "wire.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

enum { COUNT = 2048, BYTES = 4 * COUNT };

static float values[COUNT];

static int setup(void **state)
{
    temp_make(state);
    for (int i = 0; i < COUNT; i++)
        values[i] = (float)i * 0.25f;
    if (mkdir(temp_path("m"), 0777) != 0 || mkdir(temp_path("m/sub"), 0777) != 0)
        return 1;
    temp_write("m/w.bin", values, BYTES);
    temp_write("m/sub/w.bin", values, BYTES);
    temp_write("secret", values, BYTES);
    return 0;
}

/* m/model.onnx with one external initializer; `entries` are key, value, ..., NULL. */
static void write_model(const char *const *entries)
{
    const int64_t count = COUNT;
    wire graph = wire_graph(), tensor = wire_tensor("w", 1, &count, 1, NULL, 0);
    for (; entries[0]; entries += 2) {
        wire entry = {0};
        wire_text(&entry, 1, entries[0]);
        wire_text(&entry, 2, entries[1]);
        wire_message(&tensor, 13, &entry);
    }
    wire_int(&tensor, 14, 1);
    wire_message(&graph, 5, &tensor);
    wire file = wire_model(&graph);
    temp_write("m/model.onnx", file.bytes, file.size);
    wire_free(&file);
}

/* Reads m/model.onnx: TN_OK needs the right values, anything else a message with `text`. */
static tn_status read_model(bool allow_symlinks, const char *text)
{
    tn_model *model = NULL;
    tn_error error = {0};
    tn_read_options options = {.allow_symlinks = allow_symlinks};
    tn_status status = tn_model_read(temp_path("m/model.onnx"), &options, &model, &error);
    if (status != TN_OK) {
        if (text && !strstr(error.message, text))
            fail_msg("says: %s\nwanted: %s", error.message, text);
        assert_non_null(strstr(error.message, "model.onnx"));
        return status;
    }
    tn_tensor tensor;
    assert_int_equal(tn_model_tensor(model, model->proto->graph->initializer[0], &tensor, &error),
                     TN_OK);
    assert_int_equal(tensor.bytes, BYTES);
    assert_memory_equal(tensor.data, values, BYTES);
    tn_tensor_done(&tensor);
    tn_model_destroy(model);
    return status;
}

static tn_status try_location(const char *location, const char *text)
{
    const char *entries[] = {"location", location, NULL};
    write_model(entries);
    return read_model(false, text);
}

static void good_references(void **state)
{
    (void)state;
    const char *full[] = {"location", "w.bin",    "offset", "0", "length",
                          "8192",     "checksum", "x",      NULL};
    write_model(full);
    assert_int_equal(read_model(false, NULL), TN_OK);
    assert_int_equal(try_location("w.bin", NULL), TN_OK);
    assert_int_equal(try_location("sub/w.bin", NULL), TN_OK);
    unsigned char *shifted = calloc(1, BYTES + 7);
    assert_non_null(shifted);
    memcpy(shifted + 7, values, BYTES);
    temp_write("m/odd.bin", shifted, BYTES + 7);
    free(shifted);
    const char *odd[] = {"location", "odd.bin", "offset", "7", NULL};
    write_model(odd);
    assert_int_equal(read_model(false, NULL), TN_OK);
}

static void escaping_locations(void **state)
{
    (void)state;
    const char *plain[] = {"../secret", "a/../../secret", "sub/../w.bin", ".",          "..",
                           "./w.bin",   "sub//w.bin",     "sub/",         "/etc/passwd"};
    for (size_t i = 0; i < sizeof plain / sizeof *plain; i++)
        assert_int_equal(try_location(plain[i], "not a plain path"), TN_ERROR_MODEL);
    assert_int_equal(try_location(temp_path("secret"), "not a plain path"), TN_ERROR_MODEL);
    assert_int_equal(try_location("", "no location"), TN_ERROR_MODEL);
    assert_int_equal(try_location("none.bin", "No such file"), TN_ERROR_IO);
    char name[400];
    memset(name, 'n', sizeof name);
    name[sizeof name - 1] = '\0';
    assert_int_equal(try_location(name, "cannot open"), TN_ERROR_IO);
}

static void make_links(void)
{
    assert_int_equal(symlink("../secret", temp_path("m/link")), 0);
    assert_int_equal(symlink("w.bin", temp_path("m/inside")), 0);
    assert_int_equal(symlink("sub", temp_path("m/folder")), 0);
    assert_int_equal(link(temp_path("secret"), temp_path("m/hard")), 0);
}

static void links(void **state)
{
    (void)state;
    make_links();
    const char *names[] = {"link", "inside", "folder/w.bin", "hard"};
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(try_location(names[i], "--allow-symlinks"), TN_ERROR_IO);
        assert_int_equal(read_model(true, NULL), TN_OK);
    }
}

static void not_files(void **state)
{
    (void)state;
    assert_int_equal(mkfifo(temp_path("m/fifo"), 0666), 0);
    assert_int_equal(try_location("fifo", "not a regular file"), TN_ERROR_IO);
    assert_int_equal(try_location("sub", "not a regular file"), TN_ERROR_IO);
}

static void ranges(void **state)
{
    (void)state;
    static const struct {
        const char *key, *value, *text;
    } bad[] = {{"length", "-1", "not a number"},
               {"length", "8191", "length is 8191"},
               {"length", "8193", "length is 8193"},
               {"length", "", "not a number"},
               {"length", "0x2000", "not a number"},
               {"offset", "18446744073709551615", "not a number"},
               {"offset", "999999999999999999", "are wanted"},
               {"offset", "1", "are wanted"},
               {"offset", "8193", "are wanted"},
               {"offset", " 0", "not a number"},
               {"offset", "+0", "not a number"},
               {"location", "w.bin", "twice"},
               {"colour", "red", "unknown key"}};
    for (size_t i = 0; i < sizeof bad / sizeof *bad; i++) {
        const char *entries[] = {"location", "w.bin", bad[i].key, bad[i].value, NULL};
        write_model(entries);
        assert_int_not_equal(read_model(false, bad[i].text), TN_OK);
    }
    const char *twice[] = {"location", "w.bin", "offset", "0", "offset", "0", NULL};
    write_model(twice);
    assert_int_equal(read_model(false, "twice"), TN_ERROR_MODEL);
    temp_write("m/short.bin", values, BYTES - 1);
    assert_int_equal(try_location("short.bin", "are wanted"), TN_ERROR_IO);
    temp_write("m/empty.bin", values, 0);
    assert_int_equal(try_location("empty.bin", "are wanted"), TN_ERROR_IO);
}

static void no_file_of_its_own(void **state)
{
    (void)state;
    const char *entries[] = {"location", "w.bin", NULL};
    size_t size;
    tn_model *model = NULL;
    tn_error error = {0};
    write_model(entries);
    unsigned char *bytes = temp_read("m/model.onnx", &size);
    assert_int_equal(tn_model_read_bytes(bytes, size, NULL, &model, &error), TN_ERROR_MODEL);
    free(bytes);
}

/* The same rules where the kernel has no openat2. */
static void old_kernel(void **state)
{
    (void)state;
    int result = -1;
    make_links();
    fflush(NULL);
    pid_t child = fork();
    if (child == 0) {
        if (!seccomp_fail(SYS_openat2, 0, 0, ENOSYS))
            _exit(77);
        _exit(try_location("w.bin", NULL) != TN_OK || try_location("sub/w.bin", NULL) != TN_OK ||
              try_location("link", NULL) == TN_OK || try_location("inside", NULL) == TN_OK ||
              try_location("folder/w.bin", NULL) == TN_OK || try_location("hard", NULL) == TN_OK ||
              try_location("none/w.bin", NULL) == TN_OK ||
              try_location("../secret", NULL) == TN_OK);
    }
    assert_int_equal(waitpid(child, &result, 0), child);
    assert_true(WIFEXITED(result));
    assert_true(WEXITSTATUS(result) == 0 || WEXITSTATUS(result) == 77);
}

static tn_model *read_good(void)
{
    const char *entries[] = {"location", "w.bin", NULL};
    tn_model *model = NULL;
    write_model(entries);
    assert_int_equal(tn_model_read(temp_path("m/model.onnx"), NULL, &model, NULL), TN_OK);
    return model;
}

static void writes_beside(void **state)
{
    (void)state;
    tn_model *model = read_good(), *back = NULL;
    tn_error error = {0};
    uint64_t bytes = 0;
    size_t size, data_size;
    tn_write_options always = {.external = TN_EXTERNAL_ALWAYS},
                     never = {.external = TN_EXTERNAL_NEVER};
    assert_int_equal(tn_model_write(model, temp_path("out.onnx"), &always, &bytes, &error), TN_OK);
    unsigned char *file = temp_read("out.onnx", &size),
                  *data = temp_read("out.onnx.data", &data_size);
    assert_int_equal(bytes, size + data_size);
    assert_true(size < 1000);
    assert_memory_equal(data, values, BYTES);
    free(file);
    free(data);
    /* existing files stay */
    assert_int_equal(tn_model_write(model, temp_path("out.onnx"), &always, &bytes, NULL),
                     TN_ERROR_USAGE);
    assert_int_equal(unlink(temp_path("out.onnx")), 0);
    assert_int_equal(tn_model_write(model, temp_path("out.onnx"), &always, &bytes, NULL),
                     TN_ERROR_USAGE);
    assert_int_not_equal(access(temp_path("out.onnx"), F_OK), 0);
    always.replace = true;
    assert_int_equal(tn_model_write(model, temp_path("out.onnx"), &always, &bytes, NULL), TN_OK);
    /* and back into one file */
    assert_int_equal(tn_model_read(temp_path("out.onnx"), NULL, &back, &error), TN_OK);
    assert_int_equal(tn_model_write(back, temp_path("one.onnx"), &never, &bytes, &error), TN_OK);
    assert_true(bytes > BYTES);
    tn_model_destroy(back);
    assert_int_equal(tn_model_write(model, temp_path("two.onnx"), NULL, &bytes, &error), TN_OK);
    unsigned char *one = temp_read("one.onnx", &size), *two = temp_read("two.onnx", &data_size);
    assert_int_equal(size, data_size);
    assert_memory_equal(one, two, size);
    free(one);
    free(two);
    tn_model_destroy(model);
}

static void inputs_are_kept(void **state)
{
    (void)state;
    tn_model *model = read_good(), *copy = NULL;
    tn_write_options options = {.replace = true};
    assert_int_equal(tn_model_copy(model, &copy, NULL), TN_OK);
    assert_int_equal(symlink("m/model.onnx", temp_path("alias")), 0);
    const char *names[] = {"m/model.onnx", "m/w.bin", "alias"};
    for (size_t i = 0; i < 3; i++) {
        tn_error error = {0};
        assert_int_equal(tn_model_write(model, temp_path(names[i]), &options, NULL, &error),
                         TN_ERROR_USAGE);
        assert_non_null(strstr(error.message, "input"));
        assert_int_equal(tn_model_write(copy, temp_path(names[i]), &options, NULL, NULL),
                         TN_ERROR_USAGE);
    }
    tn_model_destroy(copy);
    tn_model_destroy(model);
    assert_int_equal(read_model(false, NULL), TN_OK);
    /* OUT.data must not be an input either */
    assert_int_equal(rename(temp_path("m/w.bin"), temp_path("m/o.data")), 0);
    assert_int_equal(try_location("o.data", NULL), TN_OK);
    assert_int_equal(tn_model_read(temp_path("m/model.onnx"), NULL, &model, NULL), TN_OK);
    options.external = TN_EXTERNAL_ALWAYS;
    assert_int_equal(tn_model_write(model, temp_path("m/o"), &options, NULL, NULL), TN_ERROR_USAGE);
    assert_int_not_equal(access(temp_path("m/o"), F_OK), 0);
    tn_model_destroy(model);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(good_references, setup, temp_remove),
        cmocka_unit_test_setup_teardown(escaping_locations, setup, temp_remove),
        cmocka_unit_test_setup_teardown(links, setup, temp_remove),
        cmocka_unit_test_setup_teardown(not_files, setup, temp_remove),
        cmocka_unit_test_setup_teardown(ranges, setup, temp_remove),
        cmocka_unit_test_setup_teardown(no_file_of_its_own, setup, temp_remove),
        cmocka_unit_test_setup_teardown(old_kernel, setup, temp_remove),
        cmocka_unit_test_setup_teardown(writes_beside, setup, temp_remove),
        cmocka_unit_test_setup_teardown(inputs_are_kept, setup, temp_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
