/* What a person sees: messages and progress on standard error, numbers with separators. */
#ifndef TERNION_CLI_TERMINAL_H
#define TERNION_CLI_TERMINAL_H

#include "cli/command.h"

/* Fills the context's reporter from its arguments (quiet, verbose, color, no-progress). */
void cli_terminal_open(cli_context *context);
/* Ends a progress bar that is on the screen. */
void cli_terminal_close(void);

void cli_message(tn_log_level level, const char *fmt, ...) __attribute__((format(printf, 2, 3)));
void cli_error(const char *message);

/* Catches SIGINT and SIGTERM: the first asks the library to stop, the second ends at once. */
void cli_signals_catch(void);
int cli_signal_caught(void); /* its number, or 0 */

/* "1,234,567" in one of a few static buffers. */
const char *cli_count(int64_t value);

/* Writes everything to standard output; IO when that fails (a full disk, a closed pipe). */
tn_status cli_output_flush(tn_error *error);

#endif
