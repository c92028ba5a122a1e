/* Parts of a training step recorded on a device and replayed: one launch each instead of hundreds.
 * A part runs as it is the first time, is recorded the second, and replayed from then on. Where the
 * device cannot keep a recording, as for want of memory, all run as they are from then on. */
#ifndef TERNION_FINETUNE_RECORDER_H
#define TERNION_FINETUNE_RECORDER_H

#include "core/reporter.h"
#include "network/params.h"

enum { TN_RECORDER_PARTS = 8 };

typedef struct tn_recorder {
    tn_device *device;
    tn_params *params; /* what parts change: versions move with every replay */
    const tn_reporter *reporter;
    bool eager; /* nothing is recorded; also on devices that cannot */
    tn_recording *recordings[TN_RECORDER_PARTS];
    bool warm[TN_RECORDER_PARTS];
} tn_recorder;

/* Queues work on the device; nothing else: no memory, no copies from or to the host. It must be the
 * same work, on the same memory, every time. */
typedef tn_status tn_recorded_work(void *context, tn_error *error);

tn_status tn_recorder_run(tn_recorder *recorder, int part, tn_recorded_work *work, void *context,
                          tn_error *error) TN_MUST_CHECK;
void tn_recorder_done(tn_recorder *recorder);

#endif
