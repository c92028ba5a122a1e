#include "cli/terminal.h"

#include <errno.h>
#include <signal.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static struct {
    bool quiet, verbose, colors, progress, is_terminal;
    bool bar; /* a bar is on the screen */
    const char *what;
    double started, shown; /* of this phase */
} state;

static volatile sig_atomic_t caught;

static double now(void)
{
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

void cli_terminal_close(void)
{
    if (state.bar)
        fputs("\r\033[K", stderr);
    state.bar = false;
}

static void put_prefix(const char *word, const char *color)
{
    cli_terminal_close();
    if (state.colors)
        fprintf(stderr, "ternion: \033[%sm%s:\033[0m ", color, word);
    else
        fprintf(stderr, "ternion: %s: ", word);
}

void cli_error(const char *message)
{
    put_prefix("error", "1;31");
    fprintf(stderr, "%s\n", message);
}

void cli_message(tn_log_level level, const char *fmt, ...)
{
    if ((state.quiet && level < TN_LOG_WARNING) || (!state.verbose && level < TN_LOG_INFO))
        return;
    va_list args;
    va_start(args, fmt);
    if (level >= TN_LOG_WARNING)
        put_prefix("warning", "1;33");
    else
        cli_terminal_close();
    vfprintf(stderr, fmt, args);
    fputc('\n', stderr);
    va_end(args);
}

static void on_log(void *context, tn_log_level level, const char *message)
{
    (void)context;
    cli_message(level, "%s", message);
}

/* A bar ten times a second on a terminal, a line every 30 seconds elsewhere. */
static void on_progress(void *context, const char *what, uint64_t done, uint64_t total)
{
    (void)context;
    double time = now();
    if (!state.what || strcmp(state.what, what) != 0) {
        cli_terminal_close();
        state.what = what;
        state.started = state.shown = time;
        return;
    }
    if (total == 0 || time - state.shown < (state.is_terminal ? 0.1 : 30.0))
        return;
    state.shown = time;
    double fraction = (double)done / (double)total;
    double left = fraction > 0 ? (time - state.started) * (1 - fraction) / fraction : 0;
    if (state.is_terminal)
        fprintf(stderr, "\r\033[K%s %3.0f %% [%-30.*s] %.0f s left", what, 100 * fraction,
                (int)(30 * fraction), "##############################", left);
    else
        fprintf(stderr, "%s: %.0f %%, %.0f s left\n", what, 100 * fraction, left);
    state.bar = state.is_terminal;
    fflush(stderr);
}

/* Lines for programs, while the run goes on. */
static void on_event(void *context, const char *json)
{
    (void)context;
    puts(json);
    fflush(stdout);
}

static bool on_cancelled(void *context)
{
    (void)context;
    return caught != 0;
}

void cli_terminal_open(cli_context *context)
{
    const cli_arguments *arguments = context->arguments;
    const char *term = getenv("TERM"), *no_color = getenv("NO_COLOR");
    const char *color = arguments->color ? arguments->color : "auto";
    const bool dumb = !term || strcmp(term, "dumb") == 0;
    state.is_terminal = isatty(STDERR_FILENO) && !dumb;
    state.quiet = arguments->quiet;
    state.verbose = arguments->verbose;
    state.progress = !arguments->quiet && !arguments->no_progress;
    state.colors = strcmp(color, "always") == 0 ||
                   (strcmp(color, "auto") == 0 && state.is_terminal && !(no_color && *no_color));
    context->reporter = (tn_reporter){.log = on_log,
                                      .progress = state.progress ? on_progress : NULL,
                                      .cancelled = on_cancelled,
                                      .event = arguments->json ? on_event : NULL};
}

static void on_signal(int number)
{
    if (caught) {
        signal(number, SIG_DFL);
        raise(number);
    }
    caught = number;
}

/* A mapped file that is cut while it is read: the rest of it is gone, and nothing was written yet
 * that a reader could see. */
static void on_lost_file(int number)
{
    static const char text[] =
        "ternion: error: an input file was cut or became unreadable while it was read\n";
    (void)number;
    ssize_t written = write(STDERR_FILENO, text, sizeof text - 1);
    (void)written;
    _exit(TN_ERROR_IO);
}

void cli_signals_catch(void)
{
    struct sigaction action;
    memset(&action, 0, sizeof action);
    action.sa_handler = on_signal;
    sigaction(SIGINT, &action, NULL);
    sigaction(SIGTERM, &action, NULL);
    action.sa_handler = on_lost_file;
    sigaction(SIGBUS, &action, NULL);
}

int cli_signal_caught(void)
{
    return caught;
}

const char *cli_count(int64_t value)
{
    enum { COUNT = 16, SIZE = 32 };
    static char ring[COUNT][SIZE];
    static int next;
    char digits[SIZE], *text = ring[next];
    next = (next + 1) % COUNT;
    int length = snprintf(digits, sizeof digits, "%lld", (long long)value), used = 0;
    for (int i = 0; i < length; i++) {
        if (i > 0 && digits[i - 1] != '-' && (length - i) % 3 == 0)
            text[used++] = ',';
        text[used++] = digits[i];
    }
    text[used] = '\0';
    return text;
}

tn_status cli_output_flush(tn_error *error)
{
    if (fflush(stdout) == 0 && !ferror(stdout))
        return TN_OK;
    return cli_fail(error, TN_ERROR_IO, "cannot write to standard output: %s", strerror(errno));
}
