#include "finetune/runlog.h"

#include <errno.h>
#include <fcntl.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

tn_status tn_runlog_open(const char *folder, tn_runlog *log, tn_error *error)
{
    log->descriptor = -1;
    if (!folder)
        return TN_OK;
    char path[4096];
    if (snprintf(path, sizeof path, "%s/run.jsonl", folder) >= (int)sizeof path)
        return tn_fail(error, TN_ERROR_IO, "%s: the path is too long", tn_quote(folder));
    log->descriptor = open(path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0666);
    if (log->descriptor < 0)
        return tn_fail(error, TN_ERROR_IO, "%s: cannot open the run's journal: %s", path,
                       strerror(errno));
    return TN_OK;
}

tn_status tn_runlog_write(tn_runlog *log, const char *event, json_t *fields, tn_error *error)
{
    tn_status status = TN_OK;
    char *text = NULL;
    const bool is_heard = log->reporter && log->reporter->event;
    if (log->descriptor < 0 && !is_heard)
        goto done;
    json_t *head =
        json_pack("{s:i, s:s, s:s, s:s, s:I}", "schema", 1, "command", "finetune", "ternion",
                  TERNION_VERSION, "event", event, "time", (json_int_t)time(NULL));
    if (head && json_object_update_missing(head, fields) == 0)
        text = json_dumps(head, JSON_COMPACT);
    json_decref(head);
    size_t length = text ? strlen(text) : 0;
    if (!text) {
        status = tn_fail(error, TN_ERROR_LIMIT, "out of memory for the run's journal");
        goto done;
    }
    if (is_heard)
        log->reporter->event(log->reporter->context, text);
    if (log->descriptor < 0)
        goto done;
    text[length] = '\n'; /* one write, so that a line is whole or absent */
    ssize_t written = write(log->descriptor, text, length + 1);
    if (written != (ssize_t)(length + 1))
        status = tn_fail(error, TN_ERROR_IO, "run.jsonl: %s",
                         written < 0 ? strerror(errno) : "the disk is full");
done:
    free(text);
    json_decref(fields);
    return status;
}

void tn_runlog_close(tn_runlog *log)
{
    if (log->descriptor >= 0)
        close(log->descriptor);
    log->descriptor = -1;
}

json_t *tn_runlog_real(double value)
{
    return isfinite(value) ? json_real(value) : json_null();
}
