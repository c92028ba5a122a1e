#include "api/processes.h"

#include "core/reporter.h"
#include "finetune/launcher.h"
#include "finetune/ranks.h"
#include "gpu/nccl.h"

#include <stdio.h>
#include <string.h>

int tn_process_rank(void)
{
    return tn_launcher_read().rank;
}

int tn_process_count(void)
{
    return tn_launcher_read().size;
}

tn_status tn_processes_open(bool distributed, tn_processes *processes, tn_error *error)
{
    tn_collective *collective = tn_collective_single();
    tn_status status = distributed ? tn_ranks_open(&collective, error) : TN_OK;
    if (status == TN_OK)
        processes->collective = processes->sums = collective;
    return status;
}

bool tn_processes_is_first(const tn_processes *processes)
{
    return processes->collective->rank == 0;
}

const tn_reporter *tn_processes_reporter(tn_processes *processes, const tn_reporter *reporter)
{
    processes->asked = reporter;
    if (tn_processes_is_first(processes) || !reporter)
        return reporter;
    processes->quiet =
        (tn_reporter){.context = reporter->context, .cancelled = reporter->cancelled};
    return &processes->quiet;
}

/* All processes must work on one kind of device. */
static tn_status compare_devices(const tn_processes *processes, const tn_device *device,
                                 tn_error *error)
{
    char first[sizeof device->id];
    memcpy(first, device->id, sizeof first);
    tn_status status =
        tn_collective_broadcast(processes->collective, first, sizeof first, 0, error);
    size_t kind = strcspn(first, ":");
    if (status == TN_OK && (strcspn(device->id, ":") != kind || strncmp(first, device->id, kind)))
        status = tn_fail(error, TN_ERROR_USAGE,
                         "it would train on %s, process 0 on %s: start no more processes on a "
                         "machine than it has GPUs, or give --device cpu",
                         device->id, first);
    return status;
}

tn_status tn_processes_use(tn_processes *processes, tn_device *device, const tn_reporter *reporter,
                           tn_error *error)
{
    tn_collective *all = processes->collective;
    processes->sums = all;
    if (all->size == 1)
        return TN_OK;
    double found = tn_nccl_found();
    tn_status status = compare_devices(processes, device, error);
    if (status == TN_OK)
        status = tn_collective_sum_double(all, &found, 1, error);
    if (status != TN_OK || device->host_memory)
        return status;
    if (found == all->size)
        return tn_nccl_create(device, all, &processes->sums, error);
    tn_log(
        reporter, TN_LOG_WARNING,
        "%.0f of %d processes find NCCL (libnccl.so.2): gradients go by way of the host's memory",
        found, all->size);
    return TN_OK;
}

void tn_processes_leave(tn_processes *processes)
{
    if (processes->sums != processes->collective)
        tn_collective_destroy(processes->sums);
    processes->sums = processes->collective;
}

tn_status tn_processes_close(tn_processes *processes, tn_status status, tn_error *error)
{
    if (!processes->collective)
        return status;
    if (status == TN_OK)
        status = tn_collective_barrier(processes->collective, error);
    if (status != TN_OK)
        tn_collective_fail(processes->collective, error);
    if (processes->collective->broken && !tn_processes_is_first(processes))
        tn_log(processes->asked, TN_LOG_WARNING, "process %d ends, and with it all: %s",
               processes->collective->rank, error->message);
    tn_collective_destroy(processes->collective);
    processes->collective = NULL;
    return status;
}
