/* What launchers say in the environment, and what a build without MPI makes of it. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "finetune/launcher.h"
#include "finetune/ranks.h"

#include <stdlib.h>
#include <string.h>

static const char *const variables[] = {
    "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK", "OMPI_COMM_WORLD_LOCAL_SIZE",
    "OMPI_COMM_WORLD_LOCAL_RANK", "PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS", "MPI_LOCALRANKID"};

static int clear(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof variables / sizeof *variables; i++)
        unsetenv(variables[i]);
    return 0;
}

static void no_launcher_is_one_process(void **state)
{
    (void)state;
    tn_launch launch = tn_launcher_read();
    assert_null(launch.name);
    assert_int_equal(launch.rank, 0);
    assert_int_equal(launch.size, 1);
    assert_int_equal(launch.local_rank, 0);
    assert_int_equal(tn_launcher_threads(&launch), 0);
}

static void launchers_are_read(void **state)
{
    (void)state;
    setenv("OMPI_COMM_WORLD_SIZE", "8", 1);
    setenv("OMPI_COMM_WORLD_RANK", "5", 1);
    setenv("OMPI_COMM_WORLD_LOCAL_SIZE", "4", 1);
    setenv("OMPI_COMM_WORLD_LOCAL_RANK", "1", 1);
    tn_launch launch = tn_launcher_read();
    assert_non_null(launch.name);
    assert_int_equal(launch.size, 8);
    assert_int_equal(launch.rank, 5);
    assert_int_equal(launch.local_size, 4);
    assert_int_equal(launch.local_rank, 1);
    clear(NULL);
    setenv("PMI_SIZE", "3", 1);
    setenv("PMI_RANK", "2", 1);
    launch = tn_launcher_read();
    assert_int_equal(launch.size, 3);
    assert_int_equal(launch.rank, 2);
}

static void nonsense_is_no_launcher(void **state)
{
    (void)state;
    static const char *const texts[] = {"", "x", "-3", "0", "4x", "99999999999999999999"};
    for (size_t i = 0; i < sizeof texts / sizeof *texts; i++) {
        setenv("OMPI_COMM_WORLD_SIZE", texts[i], 1);
        assert_int_equal(tn_launcher_read().size, 1);
    }
}

/* finetune/ranks_absent.c is linked in here, whether this build has MPI or not. */
static void several_processes_need_mpi(void **state)
{
    (void)state;
    tn_collective *collective = NULL;
    tn_error error = {0};
    setenv("OMPI_COMM_WORLD_SIZE", "2", 1);
    assert_int_equal(tn_ranks_open(&collective, &error), TN_ERROR_USAGE);
    assert_null(collective);
    assert_non_null(strstr(error.message, "without MPI"));
    setenv("OMPI_COMM_WORLD_SIZE", "1", 1);
    assert_int_equal(tn_ranks_open(&collective, NULL), TN_OK);
    assert_int_equal(collective->size, 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(no_launcher_is_one_process, clear),
        cmocka_unit_test_setup(launchers_are_read, clear),
        cmocka_unit_test_setup(nonsense_is_no_launcher, clear),
        cmocka_unit_test_setup(several_processes_need_mpi, clear),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
