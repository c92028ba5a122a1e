/* Activations come back as they were, from memory and from the file, in whatever order they are
 * put, replaced and dropped; a folder that cannot be written and a full disk are errors. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/random.h"
#include "finetune/activation_store.h"

#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

enum { KEYS = 24, MOST = 3000, ROUNDS = 2000 };

static float expected[KEYS][MOST];
static size_t counts[KEYS];

static void fill(size_t key, size_t count, tn_random *random)
{
    counts[key] = count;
    for (size_t i = 0; i < count; i++)
        expected[key][i] = tn_random_normal(random);
}

static void check_all(tn_activation_store *store)
{
    static float back[MOST];
    for (size_t k = 0; k < KEYS; k++) {
        assert_int_equal(tn_activation_store_get(store, k, back, counts[k], NULL), TN_OK);
        assert_memory_equal(back, expected[k], counts[k] * sizeof *back);
        assert_int_equal(tn_activation_store_get(store, k, back, counts[k] + 1, NULL),
                         TN_ERROR_USAGE);
    }
}

static void what_is_put_comes_back(void **state)
{
    (void)state;
    static const uint64_t limits[] = {0, 20000, UINT64_MAX};
    for (size_t l = 0; l < sizeof limits / sizeof limits[0]; l++) {
        tn_activation_store *store = NULL;
        tn_random random = tn_random_make(11, TN_PURPOSE_TEST, 3, l);
        memset(counts, 0, sizeof counts);
        assert_int_equal(tn_activation_store_create(NULL, KEYS, limits[l], &store, NULL), TN_OK);
        for (int round = 0; round < ROUNDS; round++) {
            size_t key = tn_random_u32(&random) % KEYS;
            if (tn_random_u32(&random) % 3 == 0) {
                tn_activation_store_drop(store, key);
                counts[key] = 0;
            } else { /* a size of its own, as values of a network have */
                fill(key, 100 + key / 4 * 500, &random);
                assert_int_equal(
                    tn_activation_store_put(store, key, expected[key], counts[key], NULL), TN_OK);
            }
            if (round % 100 == 99)
                check_all(store);
        }
        assert_true((tn_activation_store_spilled(store) > 0) == (limits[l] < UINT64_MAX));
        tn_activation_store_destroy(store);
    }
}

static void no_room_is_an_error(void **state)
{
    (void)state;
    tn_activation_store *store = NULL;
    tn_error error = {0};
    struct rlimit before, small;
    tn_random random = tn_random_make(12, TN_PURPOSE_TEST, 3, 0);
    fill(0, MOST, &random);
    assert_int_equal(tn_activation_store_create(NULL, KEYS, 0, &store, NULL), TN_OK);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = (struct rlimit){.rlim_cur = 4096, .rlim_max = before.rlim_max};
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    tn_status status = tn_activation_store_put(store, 0, expected[0], MOST, &error);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_int_equal(status, TN_ERROR_IO);
    assert_non_null(strstr(error.message, "TMPDIR"));
    tn_error_clear(&error);
    tn_activation_store_destroy(store);

    char *kept = getenv("TMPDIR") ? strdup(getenv("TMPDIR")) : NULL;
    assert_int_equal(tn_activation_store_create(NULL, KEYS, 0, &store, NULL), TN_OK);
    setenv("TMPDIR", "/proc/nowhere", 1);
    assert_int_equal(tn_activation_store_put(store, 0, expected[0], MOST, &error), TN_ERROR_IO);
    assert_non_null(strstr(error.message, "/proc/nowhere"));
    tn_error_clear(&error);
    if (kept)
        setenv("TMPDIR", kept, 1);
    else
        unsetenv("TMPDIR");
    free(kept);
    tn_activation_store_destroy(store);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_put_comes_back),
        cmocka_unit_test(no_room_is_an_error),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
