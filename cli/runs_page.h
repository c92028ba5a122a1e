/* The page of several runs side by side. */
#ifndef TERNION_CLI_RUNS_PAGE_H
#define TERNION_CLI_RUNS_PAGE_H

#include <jansson.h>
#include <stdio.h>

/* figures: {"runs": [..]}, each of cli_run_journal_read. */
void cli_runs_page(FILE *out, const json_t *figures);

#endif
