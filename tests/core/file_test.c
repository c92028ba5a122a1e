/* Atomic writes: whole or not at all, whatever goes wrong. */
#include "core/file.h"
#include "core/memory.h"
#include "seccomp.h"
#include "temp_folder.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

static tn_status write_text(const char *name, const char *text, bool replace)
{
    tn_file_writer *writer = NULL;
    tn_status status = tn_file_writer_open(temp_path(name), replace, &writer, NULL);
    if (status != TN_OK)
        return status;
    status = tn_file_writer_write(writer, text, strlen(text), NULL);
    if (status != TN_OK) {
        tn_file_writer_discard(writer);
        return status;
    }
    return tn_file_writer_commit(writer, NULL);
}

static void assert_content(const char *name, const char *text)
{
    size_t size;
    unsigned char *bytes = temp_read(name, &size);
    assert_non_null(bytes);
    assert_int_equal(size, strlen(text));
    assert_memory_equal(bytes, text, size);
    free(bytes);
}

static void writes_and_replaces(void **state)
{
    (void)state;
    assert_int_equal(write_text("a", "one", false), TN_OK);
    assert_content("a", "one");
    assert_int_equal(write_text("a", "two", false), TN_ERROR_USAGE);
    assert_content("a", "one");
    assert_int_equal(chmod(temp_path("a"), 0640), 0);
    assert_int_equal(write_text("a", "three", true), TN_OK);
    assert_content("a", "three");
    struct stat info;
    assert_int_equal(stat(temp_path("a"), &info), 0);
    assert_int_equal(info.st_mode & 0777, 0640);
    assert_int_equal(write_text("a", "", true), TN_OK);
    assert_content("a", "");
    assert_int_equal(temp_count(), 1);
}

static void nothing_before_commit(void **state)
{
    (void)state;
    tn_file_writer *writer = NULL;
    assert_int_equal(tn_file_writer_open(temp_path("a"), false, &writer, NULL), TN_OK);
    assert_int_equal(tn_file_writer_write(writer, "abc", 3, NULL), TN_OK);
    assert_int_equal(tn_file_writer_position(writer), 3);
    assert_int_equal(tn_file_writer_finish(writer, NULL), TN_OK);
    assert_int_not_equal(access(temp_path("a"), F_OK), 0);
    tn_file_writer_discard(writer);
    assert_int_equal(temp_count(), 0);
}

static void large_and_small_blocks(void **state)
{
    (void)state;
    enum { SIZE = 3000000 };
    unsigned char *data = malloc(SIZE);
    assert_non_null(data);
    for (size_t i = 0; i < SIZE; i++)
        data[i] = (unsigned char)(i * 2654435761u >> 13);
    tn_file_writer *writer = NULL;
    assert_int_equal(tn_file_writer_open(temp_path("a"), false, &writer, NULL), TN_OK);
    size_t at = 0;
    for (size_t step = 1; at < SIZE; step = step * 7 % 500009 + 1) {
        size_t bytes = step < SIZE - at ? step : SIZE - at;
        assert_int_equal(tn_file_writer_write(writer, data + at, bytes, NULL), TN_OK);
        at += bytes;
        assert_int_equal(tn_file_writer_position(writer), at);
    }
    assert_int_equal(tn_file_writer_commit(writer, NULL), TN_OK);
    size_t size;
    unsigned char *back = temp_read("a", &size);
    assert_int_equal(size, SIZE);
    assert_memory_equal(back, data, SIZE);
    free(back);
    free(data);
}

static void two_writers(void **state)
{
    (void)state;
    tn_file_writer *one = NULL, *two = NULL;
    for (int replace = 0; replace < 2; replace++) {
        assert_int_equal(tn_file_writer_open(temp_path("a"), replace, &one, NULL), TN_OK);
        assert_int_equal(tn_file_writer_open(temp_path("a"), replace, &two, NULL), TN_OK);
        assert_int_equal(tn_file_writer_write(one, "one", 3, NULL), TN_OK);
        assert_int_equal(tn_file_writer_write(two, "two", 3, NULL), TN_OK);
        assert_int_equal(tn_file_writer_commit(two, NULL), TN_OK);
        assert_content("a", "two");
        assert_int_equal(tn_file_writer_commit(one, NULL), replace ? TN_OK : TN_ERROR_USAGE);
        assert_content("a", replace ? "one" : "two");
        assert_int_equal(temp_count(), 1);
    }
}

static void places_that_are_no_files(void **state)
{
    (void)state;
    assert_int_equal(write_text("no/such/folder", "x", false), TN_ERROR_IO);
    assert_int_equal(mkdir(temp_path("d"), 0777), 0);
    assert_int_equal(write_text("d", "x", true), TN_ERROR_USAGE);
    assert_int_equal(write_text("d/", "x", true), TN_ERROR_USAGE);
    assert_int_equal(mkfifo(temp_path("fifo"), 0666), 0);
    assert_int_equal(write_text("fifo", "x", true), TN_ERROR_USAGE);
    tn_file_writer *writer = NULL;
    assert_int_equal(tn_file_writer_open("/dev/null", true, &writer, NULL), TN_ERROR_USAGE);
    assert_int_equal(tn_file_writer_open("", true, &writer, NULL), TN_ERROR_USAGE);
    /* a link is followed, not replaced */
    assert_int_equal(write_text("a", "one", false), TN_OK);
    assert_int_equal(symlink("a", temp_path("link")), 0);
    assert_int_equal(write_text("link", "two", false), TN_ERROR_USAGE);
    assert_int_equal(write_text("link", "two", true), TN_OK);
    assert_content("a", "two");
    struct stat info;
    assert_int_equal(lstat(temp_path("link"), &info), 0);
    assert_true(S_ISLNK(info.st_mode));
    assert_int_equal(symlink("nowhere", temp_path("dangling")), 0);
    assert_int_equal(write_text("dangling", "x", true), TN_ERROR_IO);
    assert_int_equal(temp_count(), 5);
}

static void reading(void **state)
{
    (void)state;
    unsigned char *data = NULL;
    size_t size;
    tn_file_map map;
    assert_int_equal(tn_file_map_open(temp_path("none"), &map, NULL), TN_ERROR_IO);
    assert_int_equal(mkfifo(temp_path("fifo"), 0666), 0);
    assert_int_equal(tn_file_map_open(temp_path("fifo"), &map, NULL), TN_ERROR_IO);
    assert_int_equal(tn_file_map_open(temp_path(""), &map, NULL), TN_ERROR_IO);
    assert_int_equal(tn_file_read(temp_path("fifo"), 10, &data, &size, NULL), TN_ERROR_IO);
    assert_int_equal(write_text("a", "hello", false), TN_OK);
    assert_int_equal(tn_file_read(temp_path("a"), 4, &data, &size, NULL), TN_ERROR_LIMIT);
    assert_int_equal(tn_file_read(temp_path("a"), 5, &data, &size, NULL), TN_OK);
    assert_int_equal(size, 5);
    assert_string_equal((char *)data, "hello");
    tn_free(data);
    assert_int_equal(tn_file_map_open(temp_path("a"), &map, NULL), TN_OK);
    assert_int_equal(map.size, 5);
    assert_memory_equal(map.data, "hello", 5);
    tn_file_map_close(&map);
    temp_write("empty", "", 0);
    assert_int_equal(tn_file_map_open(temp_path("empty"), &map, NULL), TN_OK);
    assert_int_equal(map.size, 0);
    tn_file_map_close(&map);
    assert_true(tn_file_is_same(temp_path("a"), temp_path("a")));
    assert_false(tn_file_is_same(temp_path("a"), temp_path("empty")));
    assert_false(tn_file_is_same(temp_path("a"), temp_path("none")));
}

/* In a child: no space after `limit` bytes. */
static int child_without_space(rlim_t limit)
{
    struct rlimit most = {limit, limit};
    static unsigned char block[400000];
    signal(SIGXFSZ, SIG_IGN);
    if (setrlimit(RLIMIT_FSIZE, &most) != 0)
        return 9;
    tn_file_writer *writer = NULL;
    tn_error error = {0};
    if (tn_file_writer_open(temp_path("a"), true, &writer, &error) != TN_OK)
        return 8;
    tn_status status = TN_OK;
    for (int i = 0; i < 4 && status == TN_OK; i++)
        status = tn_file_writer_write(writer, block, i % 2 ? 1000 : sizeof block, &error);
    if (status == TN_OK)
        return (int)tn_file_writer_commit(writer, &error);
    if (tn_file_writer_write(writer, block, 1, NULL) != status)
        return 10;
    return (int)tn_file_writer_commit(writer, NULL);
}

static int run_child(int (*body)(rlim_t), rlim_t argument)
{
    int result = -1;
    pid_t child = fork();
    if (child == 0)
        _exit(body(argument));
    assert_int_equal(waitpid(child, &result, 0), child);
    return result;
}

static void no_space(void **state)
{
    (void)state;
    assert_int_equal(write_text("a", "old", false), TN_OK);
    for (rlim_t limit = 0; limit < 802000; limit += 50000) {
        int result = run_child(child_without_space, limit);
        assert_true(WIFEXITED(result));
        assert_int_equal(WEXITSTATUS(result), TN_ERROR_IO);
        assert_content("a", "old");
        assert_int_equal(temp_count(), 1);
    }
}

static int child_killed(rlim_t unused)
{
    (void)unused;
    tn_file_writer *writer = NULL;
    static unsigned char block[400000];
    if (tn_file_writer_open(temp_path("a"), false, &writer, NULL) != TN_OK ||
        tn_file_writer_write(writer, block, sizeof block, NULL) != TN_OK ||
        tn_file_writer_finish(writer, NULL) != TN_OK)
        return 9;
    raise(SIGKILL);
    return 8;
}

static void killed(void **state)
{
    (void)state;
    int result = run_child(child_killed, 0);
    assert_true(WIFSIGNALED(result) && WTERMSIG(result) == SIGKILL);
    assert_int_equal(temp_count(), 0);
}

/* In a child: file systems without O_TMPFILE get a named temporary. */
static int child_without_tmpfile(rlim_t unused)
{
    (void)unused;
    tn_file_writer *writer = NULL;
    if (!seccomp_fail(SYS_openat, 2, O_TMPFILE & ~O_DIRECTORY, EOPNOTSUPP))
        return 77;
    if (write_text("a", "one", false) != TN_OK || temp_count() != 1)
        return 1;
    if (write_text("a", "two", false) != TN_ERROR_USAGE || write_text("a", "two", true) != TN_OK)
        return 2;
    if (tn_file_writer_open(temp_path("b"), false, &writer, NULL) != TN_OK || temp_count() != 2)
        return 3;
    if (write_text("b", "other", false) != TN_OK ||
        tn_file_writer_commit(writer, NULL) != TN_ERROR_USAGE || temp_count() != 2)
        return 4;
    if (tn_file_writer_open(temp_path("c"), false, &writer, NULL) != TN_OK)
        return 5;
    tn_file_writer_discard(writer);
    return temp_count() == 2 ? 0 : 6;
}

static void named_temporaries(void **state)
{
    (void)state;
    int result = run_child(child_without_tmpfile, 0);
    assert_true(WIFEXITED(result));
    if (WEXITSTATUS(result) == 77)
        return; /* no seccomp here */
    assert_int_equal(WEXITSTATUS(result), 0);
    assert_content("a", "two");
    assert_content("b", "other");
}

static void allocations_fail(void **state)
{
    (void)state;
    uint64_t live = tn_memory_stats_get().live;
    bool done = false;
    for (uint64_t n = 1; !done; n++) {
        tn_memory_fail_call(n, 0);
        tn_status status = write_text("a", "x", true);
        tn_memory_fail_call(0, 0);
        assert_true(status == TN_OK || status == TN_ERROR_LIMIT);
        done = status == TN_OK;
        assert_int_equal(temp_count(), done);
        assert_true(tn_memory_stats_get().live == live);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(writes_and_replaces, temp_make, temp_remove),
        cmocka_unit_test_setup_teardown(nothing_before_commit, temp_make, temp_remove),
        cmocka_unit_test_setup_teardown(large_and_small_blocks, temp_make, temp_remove),
        cmocka_unit_test_setup_teardown(two_writers, temp_make, temp_remove),
        cmocka_unit_test_setup_teardown(places_that_are_no_files, temp_make, temp_remove),
        cmocka_unit_test_setup_teardown(reading, temp_make, temp_remove),
        cmocka_unit_test_setup_teardown(no_space, temp_make, temp_remove),
        cmocka_unit_test_setup_teardown(killed, temp_make, temp_remove),
        cmocka_unit_test_setup_teardown(named_temporaries, temp_make, temp_remove),
        cmocka_unit_test_setup_teardown(allocations_fail, temp_make, temp_remove),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
