/* Element conversions of tn_tensor: every type and value against what IEEE 754 and ONNX say. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "core/bf16.h"
#include "core/tensor.h"

#include <math.h>
#include <string.h>

static void half_round_trips_every_value(void **state)
{
    (void)state;
    for (uint32_t bits = 0; bits < 0x10000; bits++) {
        float value = tn_half_to_float((uint16_t)bits);
        if (value != value)
            assert_true((tn_float_to_half(value) & 0x7fff) > 0x7c00);
        else
            assert_int_equal(tn_float_to_half(value), bits);
    }
}

static void half_rounds_to_even(void **state)
{
    (void)state;
    assert_int_equal(tn_float_to_half(65519.0f), 0x7bff);
    assert_int_equal(tn_float_to_half(65520.0f), 0x7c00);
    assert_int_equal(tn_float_to_half(1.0f + 0x1p-11f), 0x3c00);
    assert_int_equal(tn_float_to_half(1.0f + 0x1.8p-10f), 0x3c02);
    assert_int_equal(tn_float_to_half(0x1p-25f), 0);
    assert_int_equal(tn_float_to_half(-0x1.8p-25f), 0x8001);
    assert_int_equal(tn_float_to_bfloat16(1.00390625f), 0x3f80);
}

static void sub_byte_types_pack_low_bits_first(void **state)
{
    (void)state;
    tn_tensor tensor;
    const int64_t dims[1] = {5}, codes[5] = {-1, 0, 1, -2, 1};
    assert_int_equal(tn_tensor_init(&tensor, TN_INT2, 1, dims, NULL), TN_OK);
    assert_int_equal(tensor.bytes, 2);
    assert_int_equal(tn_tensor_write_int64(&tensor, 0, 5, codes, NULL), TN_OK);
    assert_int_equal(((unsigned char *)tensor.data)[0], 0x93);
    assert_int_equal(((unsigned char *)tensor.data)[1], 0x01);
    int64_t back[5];
    assert_int_equal(tn_tensor_read_int64(&tensor, 0, 5, back, NULL), TN_OK);
    assert_memory_equal(back, codes, sizeof back);
    tn_tensor_done(&tensor);
}

static void integers_saturate_and_ranges_are_checked(void **state)
{
    (void)state;
    tn_tensor tensor;
    const int64_t dims[1] = {2}, wide[2] = {300, -300};
    assert_int_equal(tn_tensor_init(&tensor, TN_INT8, 1, dims, NULL), TN_OK);
    assert_int_equal(tn_tensor_write_int64(&tensor, 0, 2, wide, NULL), TN_OK);
    float back[2];
    assert_int_equal(tn_tensor_read_float(&tensor, 0, 2, back, NULL), TN_OK);
    assert_true(back[0] == 127.0f && back[1] == -128.0f);
    assert_int_equal(tn_tensor_read_float(&tensor, 1, 2, back, NULL), TN_ERROR_USAGE);
    tn_tensor_done(&tensor);
    const int64_t huge[2] = {(int64_t)1 << 32, (int64_t)1 << 32};
    tn_error error = {0};
    assert_int_equal(tn_tensor_init(&tensor, TN_FLOAT, 2, huge, &error), TN_ERROR_LIMIT);
    assert_non_null(strstr(error.message, "too large"));
    const int64_t empty[3] = {(int64_t)1 << 62, 4, 0};
    int64_t count = -1;
    assert_true(tn_dims_count(3, empty, &count));
    assert_int_equal(count, 0);
}

static void names_are_made_safe(void **state)
{
    (void)state;
    assert_string_equal(tn_quote("a\x1b[31m"), "'a\\x1b[31m'");
    assert_string_equal(tn_quote("r\xe2\x80\xaetl"), "'r\\u{202e}tl'");
    assert_string_equal(tn_quote("bad\xff"), "'bad\\xff'");
    assert_string_equal(tn_quote("gr\xc3\xbcn"), "'gr\xc3\xbcn'");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(half_round_trips_every_value),
        cmocka_unit_test(half_rounds_to_even),
        cmocka_unit_test(sub_byte_types_pack_low_bits_first),
        cmocka_unit_test(integers_saturate_and_ranges_are_checked),
        cmocka_unit_test(names_are_made_safe),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
