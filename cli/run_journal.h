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

/* A figure of a line of it; NaN when there is none, or none that a run could have. */
double cli_figure(const json_t *object, const char *key);
/* The same of what is not negative: accuracy is -1 where nothing was validated. */
double cli_figure_share(const json_t *object, const char *key);
/* "" when there is none. */
const char *cli_figure_text(const json_t *object, const char *key);

#endif
