/* The collective over NCCL: its calls, on one rank and a fake library. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "gpu/cuda_device.h"
#include "gpu/gpu.h"
#include "gpu/nccl.h"

#include <dlfcn.h>
#include <stdlib.h>
#include <string.h>

typedef struct fake_record { /* as in fake_nccl.c */
    int ids, begins, ends, groups, open, reduces, outside, ranks, rank, fail_at;
    size_t counts[8];
    const void *places[8];
    int in_place, type, operation;
    void *stream;
    char id[128];
} fake_record;

static tn_device *device;
static void *library;
static fake_record *fake;

static int set_up(void **state)
{
    (void)state;
    tn_error error = {0};
    library = dlopen("libnccl.so.2", RTLD_NOW);
    fake = library ? dlsym(library, "fake_nccl") : NULL;
    return fake && tn_device_create_cuda(0, &device, &error) == TN_OK ? 0 : -1;
}

static int tear_down(void **state)
{
    (void)state;
    tn_device_destroy(device);
    return dlclose(library);
}

static int forget(void **state)
{
    (void)state;
    memset(fake, 0, sizeof *fake);
    return 0;
}

static void sums_are_queued_in_one_group(void **state)
{
    (void)state;
    tn_error error = {0};
    tn_collective *nccl = NULL;
    assert_true(tn_nccl_found());
    assert_int_equal(tn_nccl_create(device, tn_collective_single(), &nccl, &error), TN_OK);
    assert_true(nccl->on_device);
    assert_int_equal(nccl->size, 1);
    assert_int_equal(fake->ids, 1);
    assert_int_equal(fake->begins, 1);
    assert_int_equal(fake->ranks, 1);
    assert_int_equal(fake->rank, 0);
    for (size_t i = 0; i < sizeof fake->id; i++)
        assert_int_equal(fake->id[i], 0x5a);
    float *memory = device->type->alloc(device, 4096);
    const tn_span spans[] = {{memory, 700}, {memory + 704, 16}, {memory + 720, 1}};
    /* by the class: tn_collective_sum leaves one rank as it is */
    assert_int_equal(nccl->type->sum(nccl, spans, 3, &error), TN_OK);
    assert_int_equal(fake->groups, 1);
    assert_int_equal(fake->open, 0);
    assert_int_equal(fake->outside, 0);
    assert_int_equal(fake->reduces, 3);
    assert_int_equal(fake->in_place, 3);
    assert_int_equal(fake->type, 7);      /* ncclFloat32 */
    assert_int_equal(fake->operation, 0); /* ncclSum */
    assert_ptr_equal(fake->stream, tn_gpu_stream(((tn_gpu_device *)device)->gpu));
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(fake->counts[i], spans[i].count);
        assert_ptr_equal(fake->places[i], spans[i].data);
    }
    device->type->release(device, memory);
    tn_collective_destroy(nccl);
    assert_int_equal(fake->ends, 1);
}

static void failures_are_errors(void **state)
{
    (void)state;
    tn_error error = {0};
    tn_collective *nccl = NULL;
    assert_int_equal(tn_nccl_create(device, tn_collective_single(), &nccl, &error), TN_OK);
    float *memory = device->type->alloc(device, 256);
    const tn_span spans[] = {{memory, 8}, {memory + 8, 8}, {memory + 16, 8}};
    fake->fail_at = 2;
    assert_int_equal(nccl->type->sum(nccl, spans, 3, &error), TN_ERROR_DEVICE);
    assert_non_null(strstr(error.message, "internal error"));
    assert_int_equal(fake->reduces, 2);
    assert_int_equal(fake->open, 0); /* the group is closed all the same */
    device->type->release(device, memory);
    tn_collective_destroy(nccl);
}

static void without_nccl_it_says_so(void **state)
{
    (void)state;
    tn_error error = {0};
    tn_collective *nccl = NULL;
    setenv("TERNION_NCCL", "off", 1);
    assert_false(tn_nccl_found());
    assert_int_equal(tn_nccl_create(device, tn_collective_single(), &nccl, &error),
                     TN_ERROR_DEVICE);
    assert_null(nccl);
    assert_non_null(strstr(error.message, "libnccl.so.2"));
    unsetenv("TERNION_NCCL");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(sums_are_queued_in_one_group, forget),
        cmocka_unit_test_setup(failures_are_errors, forget),
        cmocka_unit_test_setup(without_nccl_it_says_so, forget),
    };
    return cmocka_run_group_tests(tests, set_up, tear_down);
}
