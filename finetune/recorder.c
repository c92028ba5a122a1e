#include "finetune/recorder.h"

/* Replays change parameters behind the store's back; and what is recorded must pack them all. */
static void touch_all(tn_recorder *recorder)
{
    for (size_t i = 0; i < tn_params_count(recorder->params); i++)
        tn_params_touch(recorder->params, i);
}

static tn_status record(tn_recorder *recorder, int part, tn_recorded_work *work, void *context,
                        tn_error *error)
{
    const tn_device_class *type = recorder->device->type;
    tn_status status = type->record_begin(recorder->device, error);
    if (status != TN_OK)
        return status;
    touch_all(recorder);
    status = work(context, error);
    if (status == TN_OK)
        return type->record_end(recorder->device, &recorder->recordings[part], error);
    (void)type->record_end(recorder->device, NULL, NULL);
    return status;
}

tn_status tn_recorder_run(tn_recorder *recorder, int part, tn_recorded_work *work, void *context,
                          tn_error *error)
{
    const tn_device_class *type = recorder->device->type;
    tn_status status = TN_OK;
    if (recorder->eager || !recorder->device->records || !recorder->warm[part]) {
        recorder->warm[part] = true;
        return work(context, error);
    }
    if (!recorder->recordings[part])
        status = record(recorder, part, work, context, error);
    if (status == TN_OK)
        status = type->replay(recorder->device, recorder->recordings[part], error);
    touch_all(recorder);
    return status;
}

void tn_recorder_done(tn_recorder *recorder)
{
    for (int i = 0; i < TN_RECORDER_PARTS; i++)
        if (recorder->recordings[i])
            recorder->device->type->forget(recorder->device, recorder->recordings[i]);
    *recorder = (tn_recorder){0};
}
