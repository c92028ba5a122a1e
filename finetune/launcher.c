#include "finetune/launcher.h"

#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#ifdef __linux__
#include <sched.h>
#endif

/* Variables by which launchers tell a process its place. */
static const struct {
    const char *name, *size, *rank, *local_size, *local_rank;
} launchers[] = {
    {"Open MPI's mpirun", "OMPI_COMM_WORLD_SIZE", "OMPI_COMM_WORLD_RANK",
     "OMPI_COMM_WORLD_LOCAL_SIZE", "OMPI_COMM_WORLD_LOCAL_RANK"},
    {"mpiexec", "PMI_SIZE", "PMI_RANK", "MPI_LOCALNRANKS", "MPI_LOCALRANKID"},
};

static int number(const char *variable, int fallback)
{
    const char *text = getenv(variable);
    char *end;
    long value = text ? strtol(text, &end, 10) : 0;
    return !text || end == text || *end || value < 0 || value > 1 << 24 ? fallback : (int)value;
}

tn_launch tn_launcher_read(void)
{
    for (size_t i = 0; i < sizeof launchers / sizeof *launchers; i++) {
        int size = number(launchers[i].size, 0);
        if (size < 1)
            continue;
        tn_launch launch = {.name = launchers[i].name,
                            .size = size,
                            .rank = number(launchers[i].rank, 0),
                            .local_size = number(launchers[i].local_size, 1),
                            .local_rank = number(launchers[i].local_rank, 0)};
        return launch;
    }
    return (tn_launch){.size = 1, .local_size = 1};
}

int tn_launcher_threads(const tn_launch *launch)
{
    long processors = sysconf(_SC_NPROCESSORS_ONLN);
    if (launch->local_size < 2 || processors < 1)
        return 0;
#ifdef __linux__
    cpu_set_t mine;
    if (sched_getaffinity(0, sizeof mine, &mine) == 0 && CPU_COUNT(&mine) < processors)
        return 0; /* bound */
#endif
    long part = processors / launch->local_size;
    return part < 1 ? 1 : (int)part;
}
