/* finetune over several processes: who this one is, and that all do the same. */
#ifndef TERNION_API_PROCESSES_H
#define TERNION_API_PROCESSES_H

#include "api/ternion.h"
#include "network/collective.h"
#include "network/device.h"

typedef struct tn_processes {
    tn_collective *collective; /* NULL before opening */
    tn_collective *sums;       /* what training adds with: NCCL's between GPUs, else the same */
    const tn_reporter *asked;  /* borrowed */
    tn_reporter quiet;
} tn_processes;

/* The processes of this run: those that a launcher started where `distributed`, else this one. */
tn_status tn_processes_open(bool distributed, tn_processes *processes,
                            tn_error *error) TN_MUST_CHECK;

/* Whether this one speaks and writes. */
bool tn_processes_is_first(const tn_processes *processes);

/* What work reports to: `reporter`, of which the others only ask whether to stop. */
const tn_reporter *tn_processes_reporter(tn_processes *processes, const tn_reporter *reporter);

/* Training will be on this device (borrowed until closing). USAGE where another process has another
 * kind of device. */
tn_status tn_processes_use(tn_processes *processes, tn_device *device, const tn_reporter *reporter,
                           tn_error *error) TN_MUST_CHECK;

/* Before the device is closed. */
void tn_processes_leave(tn_processes *processes);

/* The common end: waits for all where this one succeeded, else makes the others fail too. Gives the
 * status of the whole. */
tn_status tn_processes_close(tn_processes *processes, tn_status status, tn_error *error);

#endif
