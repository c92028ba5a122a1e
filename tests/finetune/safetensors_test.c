#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "finetune/safetensors.h"

#include "core/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

static char folder[64], path[128];

static int setup(void **state)
{
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/ternion-safetensors-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(path, sizeof path, "%s/file.safetensors", folder);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    unlink(path);
    return rmdir(folder); /* fails when something was left behind */
}

static void write_sample(void)
{
    static float a[6] = {1, -2, 3.5f, 0, 1e-40f, 6};
    static int64_t b[1] = {-7};
    const tn_named_tensor tensors[2] = {
        {"a \"quoted\"/name",
         {.dtype = TN_FLOAT, .rank = 2, .dims = {2, 3}, .data = a, .bytes = 24}},
        {"b", {.dtype = TN_INT64, .rank = 0, .data = b, .bytes = 8}}};
    json_t *metadata = json_pack("{s:s}", "state", "step 12");
    assert_int_equal(tn_safetensors_write(path, tensors, 2, metadata, NULL), TN_OK);
    json_decref(metadata);
}

static void round_trip(void **state)
{
    (void)state;
    write_sample();
    tn_safetensors file;
    assert_int_equal(tn_safetensors_read(path, &file, NULL), TN_OK);
    assert_int_equal(file.count, 2);
    assert_string_equal(tn_safetensors_metadata(&file, "state"), "step 12");
    const tn_tensor *a = tn_safetensors_find(&file, "a \"quoted\"/name");
    assert_non_null(a);
    assert_int_equal(a->dims[1], 3);
    float values[6];
    assert_int_equal(tn_tensor_read_float(a, 0, 6, values, NULL), TN_OK);
    assert_true(values[1] == -2 && values[4] == 1e-40f);
    assert_null(tn_safetensors_find(&file, "c"));
    tn_safetensors_close(&file);
}

/* Every single damaged byte and every cut must be noticed: a checkpoint is either right or refused.
 */
static void damage_is_noticed(void **state)
{
    (void)state;
    write_sample();
    unsigned char *bytes;
    size_t size;
    assert_int_equal(tn_file_read(path, 1 << 20, &bytes, &size, NULL), TN_OK);
    for (size_t i = 0; i < 2 * size; i++) {
        FILE *f = fopen(path, "wb");
        assert_non_null(f);
        if (i < size)
            bytes[i] ^= 0x10;
        assert_int_equal(fwrite(bytes, 1, i < size ? size : i - size, f),
                         i < size ? size : i - size);
        fclose(f);
        if (i < size)
            bytes[i] ^= 0x10;
        tn_safetensors file;
        tn_error error = {0};
        if (tn_safetensors_read(path, &file, &error) == TN_OK) {
            if (file.verified)
                fail_msg("damage %zu of %zu was not noticed", i, 2 * size);
            tn_safetensors_close(&file);
        } else {
            assert_true(error.message[0]);
        }
    }
    tn_free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(damage_is_noticed),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
