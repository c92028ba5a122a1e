/* The journal of a run: run.jsonl in the run's folder, one JSON object a line. */
#ifndef TERNION_FINETUNE_RUNLOG_H
#define TERNION_FINETUNE_RUNLOG_H

#include "core/reporter.h"

#include <jansson.h>

typedef struct tn_runlog {
    int descriptor;              /* -1: no journal is kept */
    const tn_reporter *reporter; /* hears every line too; NULL: nobody does */
} tn_runlog;

/* Opens FOLDER/run.jsonl for appending; folder NULL: a journal that keeps nothing. */
tn_status tn_runlog_open(const char *folder, tn_runlog *log, tn_error *error) TN_MUST_CHECK;
/* Adds "schema", "command", "ternion", "event" and "time" to `fields` (taken) and writes the line.
 */
tn_status tn_runlog_write(tn_runlog *log, const char *event, json_t *fields,
                          tn_error *error) TN_MUST_CHECK;
void tn_runlog_close(tn_runlog *log);

/* A number, null when it is not finite: JSON has no such numbers. */
json_t *tn_runlog_real(double value);

#endif
