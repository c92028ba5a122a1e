#include "cli/run_journal.h"

#include "cli/json_report.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The epochs up to number `epoch` - 1, and then this one: what a rollback or a kill undid is gone.
 */
static void add_epoch(json_t *epochs, json_t *line)
{
    json_int_t number = json_integer_value(json_object_get(line, "epoch"));
    for (size_t n = json_array_size(epochs); n > 0; n--) {
        json_t *last = json_array_get(epochs, n - 1);
        if (json_integer_value(json_object_get(last, "epoch")) < number)
            break;
        json_array_remove(epochs, n - 1);
    }
    json_array_append(epochs, line);
}

static void add_line(json_t *figures, json_t *line, size_t *unread)
{
    const char *event = json_string_value(json_object_get(line, "event"));
    if (!event) {
        ++*unread;
    } else if (strcmp(event, "epoch") == 0) {
        if (json_is_integer(json_object_get(line, "epoch")))
            add_epoch(json_object_get(figures, "epochs"), line);
    } else if (strcmp(event, "start") == 0 || strcmp(event, "end") == 0 ||
               strcmp(event, "result") == 0) {
        if (strcmp(event, "start") == 0) /* another run in the same folder */
            json_array_clear(json_object_get(figures, "epochs"));
        json_object_set(figures, event, line);
    }
    if (event && (strcmp(event, "resume") == 0 || strcmp(event, "rollback") == 0))
        json_array_append(json_object_get(figures, "marks"), line);
    /* a run whose start is in no journal */
    if (event && strcmp(event, "resume") == 0 && !json_object_get(figures, "start"))
        json_object_set(figures, "start", line);
}

static FILE *open_journal(const char *run, char *path, size_t size)
{
    struct stat info;
    const char *tail = stat(run, &info) == 0 && S_ISDIR(info.st_mode) ? "/run.jsonl" : "";
    if (snprintf(path, size, "%s%s", run, tail) >= (int)size) {
        errno = ENAMETOOLONG;
        return NULL;
    }
    return fopen(path, "r");
}

tn_status cli_run_journal_read(const char *run, json_t **figures, tn_error *error)
{
    char path[4096], shown[512], *text = NULL;
    size_t room = 0, unread = 0;
    ssize_t length;
    FILE *file = open_journal(run, path, sizeof path);
    if (!file)
        return cli_fail(error, TN_ERROR_IO, "cannot open the journal %s: %s",
                        tn_escape(path, shown, sizeof shown), strerror(errno));
    json_t *read = json_pack("{s:o, s:[], s:[]}", "run", cli_json_text(run), "epochs", "marks");
    while ((length = getline(&text, &room, file)) >= 0) {
        json_t *line = json_loadb(text, (size_t)length, JSON_REJECT_DUPLICATES, NULL);
        if (json_is_object(line))
            add_line(read, line, &unread);
        else
            unread++;
        json_decref(line);
    }
    bool broken = ferror(file) != 0;
    free(text);
    fclose(file);
    json_object_set_new(read, "lines_unread", json_integer((json_int_t)unread));
    if (broken || !json_object_get(read, "start")) {
        json_decref(read);
        return cli_fail(error, broken ? TN_ERROR_IO : TN_ERROR_DATA,
                        "%s tells of no fine-tuning run: give the folder of `ternion finetune "
                        "--checkpoint`",
                        tn_escape(path, shown, sizeof shown));
    }
    *figures = read;
    return TN_OK;
}

double cli_figure(const json_t *object, const char *key)
{
    const json_t *value = json_object_get(object, key);
    double read = json_is_number(value) ? json_number_value(value) : (double)NAN;
    return fabs(read) < 1e15 ? read : (double)NAN; /* more is no figure of a run */
}

double cli_figure_share(const json_t *object, const char *key)
{
    double value = cli_figure(object, key);
    return value >= 0 ? value : (double)NAN;
}

const char *cli_figure_text(const json_t *object, const char *key)
{
    const char *value = json_string_value(json_object_get(object, key));
    return value ? value : "";
}
