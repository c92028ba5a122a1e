/* The journal of a fine-tuning run (run.jsonl) as the figures of a report. */
#ifndef TERNION_CLI_RUN_JOURNAL_H
#define TERNION_CLI_RUN_JOURNAL_H

#include "cli/command.h"

#include <jansson.h>

/* Reads RUN/run.jsonl, or the file itself: {"run", "start", "epochs": [..], "marks": [{"event",
 * "step"}], "end", "result", "lines_unread"}. An epoch that was run again counts as it was last; a
 * line that is cut off or no JSON is counted and passed over. IO, or DATA when it tells of no run.
 */
tn_status cli_run_journal_read(const char *run, json_t **figures, tn_error *error);

#endif
