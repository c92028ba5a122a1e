#include "finetune/recorder.h"

/* The device had no room for a graph of the work: nothing of it ran. */
static void give_up(tn_recorder *recorder, const tn_error *why)
{
    recorder->eager = true;
    tn_log(recorder->reporter, TN_LOG_WARNING,
           "steps are not recorded from here on, which is slower: %s", why->message);
}

/* Leaves recordings[part] NULL where the device can run the work, but not keep it. */
static tn_status record(tn_recorder *recorder, int part, tn_recorded_work *work, void *context,
                        tn_error *error)
{
    tn_error why = {0};
    const tn_device_class *type = recorder->device->type;
    tn_status status = type->record_begin(recorder->device, error);
    if (status != TN_OK)
        return status;
    tn_params_touch_all(recorder->params); /* what is recorded must pack them all */
    status = work(context, error);
    if (status != TN_OK) {
        (void)type->record_end(recorder->device, NULL, NULL);
        return status;
    }
    if (type->record_end(recorder->device, &recorder->recordings[part], &why) != TN_OK)
        give_up(recorder, &why);
    tn_error_clear(&why);
    return TN_OK;
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
    if (status == TN_OK && !recorder->recordings[part]) {
        tn_params_touch_all(recorder->params); /* packed in the recording alone */
        return work(context, error);
    }
    if (status == TN_OK)
        status = type->replay(recorder->device, recorder->recordings[part], error);
    tn_params_touch_all(recorder->params); /* replays change them behind the store's back */
    return status;
}

void tn_recorder_done(tn_recorder *recorder)
{
    for (int i = 0; i < TN_RECORDER_PARTS; i++)
        if (recorder->recordings[i])
            recorder->device->type->forget(recorder->device, recorder->recordings[i]);
    *recorder = (tn_recorder){0};
}
