/* Philox streams: known answer, independence of position, fair permutations. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/random.h"

static void known_answer(void **state)
{
    (void)state;
    /* philox4x32-10 with zero key and counter: Random123's kat_vectors */
    tn_random random = {0};
    assert_int_equal(tn_random_u32(&random), 0x6627e8d5u);
    assert_int_equal(tn_random_u32(&random), 0xe169c58du);
    assert_int_equal(tn_random_u32(&random), 0xbc57ac4cu);
    assert_int_equal(tn_random_u32(&random), 0x9b00dbd8u);
}

static void streams_differ(void **state)
{
    (void)state;
    tn_random a = tn_random_make(1, TN_PURPOSE_AUGMENT, 0, 0);
    tn_random b = tn_random_make(1, TN_PURPOSE_MIX, 0, 0);
    tn_random c = tn_random_make(1, TN_PURPOSE_AUGMENT, 1, 0);
    tn_random d = tn_random_make(1, TN_PURPOSE_AUGMENT, 0, 0);
    uint32_t first = tn_random_u32(&a);
    assert_int_not_equal(first, tn_random_u32(&b));
    assert_int_not_equal(first, tn_random_u32(&c));
    assert_int_equal(first, tn_random_u32(&d));
}

static void permutation_holds_each_once(void **state)
{
    (void)state;
    enum { N = 1000 };
    uint32_t order[N];
    unsigned char seen[N] = {0};
    tn_random_permutation(7, TN_PURPOSE_SHUFFLE, 3, N, order);
    unsigned fixed = 0;
    for (uint32_t i = 0; i < N; i++) {
        assert_true(order[i] < N && !seen[order[i]]);
        seen[order[i]] = 1;
        fixed += order[i] == i;
    }
    assert_true(fixed < 10);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answer),
        cmocka_unit_test(streams_differ),
        cmocka_unit_test(permutation_holds_each_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
