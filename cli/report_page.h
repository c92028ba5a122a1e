/* The page of a run: one HTML file that needs nothing else. */
#ifndef TERNION_CLI_REPORT_PAGE_H
#define TERNION_CLI_REPORT_PAGE_H

#include <jansson.h>
#include <stdio.h>

/* The page up to its heading; title is printed escaped. */
void cli_report_head(FILE *out, const char *title);

/* figures: of cli_run_journal_read. */
void cli_report_page(FILE *out, const json_t *figures);

#endif
