#include "cli/runs_page.h"

#include "cli/report_page.h"
#include "cli/run_journal.h"
#include "cli/svg_chart.h"
#include "cli/terminal.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const json_t *run_at(const json_t *runs, size_t i)
{
    return json_array_get(runs, i);
}

/* --- table: a column a run ----------------------------------------------------------------------
 */

typedef void cell_writer(const json_t *run, const char *key, char *text, size_t size);

static void write_number(double value, double factor, const char *unit, char *text, size_t size)
{
    if (isfinite(value))
        snprintf(text, size, "%.2f%s", factor * value, unit);
}

static void cell_state(const json_t *run, const char *key, char *text, size_t size)
{
    const json_t *end = json_object_get(run, key);
    snprintf(text, size, "%s",
             !end                                            ? "not finished"
             : json_is_true(json_object_get(end, "stopped")) ? "stopped before its end"
                                                             : "finished");
}

/* Of the written file where there is one, with its interval. */
static void cell_accuracy(const json_t *run, const char *key, char *text, size_t size)
{
    const json_t *accuracy = json_object_get(json_object_get(run, "result"), key);
    double top1 = cli_figure_share(accuracy, "top1");
    if (isfinite(top1))
        snprintf(text, size, "%.2f %% (%.2f to %.2f)", 100 * top1,
                 100 * cli_figure(accuracy, "top1_low"), 100 * cli_figure(accuracy, "top1_high"));
}

static void cell_bytes(const json_t *run, const char *key, char *text, size_t size)
{
    double bytes = cli_figure_share(json_object_get(run, "result"), key);
    if (isfinite(bytes))
        snprintf(text, size, "%s", cli_count((int64_t)bytes));
}

static void cell_result(const json_t *run, const char *key, char *text, size_t size)
{
    write_number(cli_figure(json_object_get(run, "result"), key), 1, "", text, size);
}

static void cell_zeros(const json_t *run, const char *key, char *text, size_t size)
{
    write_number(cli_figure(json_object_get(run, "result"), key), 100, " %", text, size);
}

static const json_t *last_epoch(const json_t *run)
{
    const json_t *epochs = json_object_get(run, "epochs");
    size_t n = json_array_size(epochs);
    return n ? json_array_get(epochs, n - 1) : NULL;
}

static void cell_last_share(const json_t *run, const char *key, char *text, size_t size)
{
    write_number(cli_figure_share(last_epoch(run), key), 100, " %", text, size);
}

static void cell_last(const json_t *run, const char *key, char *text, size_t size)
{
    double value = cli_figure_share(last_epoch(run), key);
    if (isfinite(value))
        snprintf(text, size, "%.4g", value);
}

static void cell_recipe(const json_t *run, const char *key, char *text, size_t size)
{
    const json_t *value =
        json_object_get(json_object_get(json_object_get(run, "start"), "recipe"), key);
    char *dumped = value && !json_is_string(value)
                       ? json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT | JSON_REAL_PRECISION(9))
                       : NULL;
    snprintf(text, size, "%s", dumped ? dumped : value ? json_string_value(value) : "");
    free(dumped);
}

static void print_row(FILE *out, const json_t *runs, const char *name, cell_writer *write,
                      const char *key)
{
    char text[512];
    fputs("<tr><th>", out);
    cli_html_text(out, name);
    fputs("</th>", out);
    for (size_t i = 0; i < json_array_size(runs); i++) {
        *text = '\0';
        write(run_at(runs, i), key, text, sizeof text);
        fputs("<td class='n'>", out);
        cli_html_text(out, text);
        fputs("</td>", out);
    }
    fputs("</tr>\n", out);
}

static void print_heads(FILE *out, const json_t *runs, const char *corner)
{
    fprintf(out, "<table><tr><th>%s</th>", corner);
    for (size_t i = 0; i < json_array_size(runs); i++) {
        fputs("<th class='n'>", out);
        cli_html_text(out, cli_figure_text(run_at(runs, i), "run"));
        fputs("</th>", out);
    }
    fputs("</tr>\n", out);
}

static void print_figures(FILE *out, const json_t *runs)
{
    static const struct {
        const char *name;
        cell_writer *write;
        const char *key;
    } rows[] = {{"state", cell_state, "end"},
                {"float top-1 (95 %)", cell_accuracy, "float"},
                {"quantized top-1 (95 %)", cell_accuracy, "quantized"},
                {"bytes before", cell_bytes, "bytes_in"},
                {"bytes after", cell_bytes, "bytes_out"},
                {"bits per weight", cell_result, "bits_per_weight"},
                {"zeros", cell_zeros, "sparsity"},
                {"last epoch", cell_last, "epoch"},
                {"its validation top-1", cell_last_share, "val_top1"},
                {"its validation loss", cell_last, "val_loss"},
                {"its training loss", cell_last, "train_loss"},
                {"its images a second", cell_last, "images_per_s"}};
    fputs("<h2>Figures</h2>\n", out);
    print_heads(out, runs, "figure");
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++)
        print_row(out, runs, rows[i].name, rows[i].write, rows[i].key);
    fputs("</table>\n", out);
}

/* Whether some run's recipe has another value, or none. */
static bool differs(const json_t *runs, const char *key)
{
    const json_t *first = NULL;
    for (size_t i = 0; i < json_array_size(runs); i++) {
        const json_t *start = json_object_get(run_at(runs, i), "start");
        const json_t *value = json_object_get(json_object_get(start, "recipe"), key);
        if (i == 0)
            first = value;
        else if (!value != !first || (value && !json_equal(value, first)))
            return true;
    }
    return false;
}

/* What the runs differ in, of the resolved recipes and seeds. */
static void print_differences(FILE *out, const json_t *runs)
{
    json_t *keys = json_object();
    const char *key;
    json_t *value;
    for (size_t i = 0; i < json_array_size(runs); i++) {
        const json_t *start = json_object_get(run_at(runs, i), "start");
        json_t *recipe = json_object_get(start, "recipe");
        json_object_foreach(recipe, key, value) if (differs(runs, key))
            json_object_set_new(keys, key, json_true());
    }
    fputs("<h2>What their recipes differ in</h2>\n", out);
    if (json_object_size(keys) > 0) {
        print_heads(out, runs, "option");
        json_object_foreach(keys, key, value) print_row(out, runs, key, cell_recipe, key);
        fputs("</table>\n", out);
    } else {
        fputs("<p>In nothing.</p>\n", out);
    }
    json_decref(keys);
}

/* --- curves: a line a run -----------------------------------------------------------------------
 */

static int compare_numbers(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

/* All epochs of all runs, each once, rising. */
static size_t merge_epochs(const json_t *runs, double **x)
{
    size_t all = 0, n = 0, kept = 0;
    for (size_t i = 0; i < json_array_size(runs); i++)
        all += json_array_size(json_object_get(run_at(runs, i), "epochs"));
    *x = cli_alloc((all + 1) * sizeof **x);
    for (size_t i = 0; i < json_array_size(runs); i++) {
        const json_t *epochs = json_object_get(run_at(runs, i), "epochs");
        for (size_t k = 0; k < json_array_size(epochs); k++) {
            double epoch = cli_figure(json_array_get(epochs, k), "epoch");
            if (isfinite(epoch))
                (*x)[n++] = epoch;
        }
    }
    qsort(*x, n, sizeof **x, compare_numbers);
    for (size_t i = 0; i < n; i++)
        if (kept == 0 || (*x)[i] > (*x)[kept - 1])
            (*x)[kept++] = (*x)[i];
    return kept;
}

static double *values_at(const json_t *run, const char *key, const double *x, size_t n)
{
    const json_t *epochs = json_object_get(run, "epochs");
    double *y = cli_alloc((n + 1) * sizeof *y);
    size_t k = 0;
    for (size_t i = 0; i < n; i++) {
        const json_t *epoch;
        while ((epoch = json_array_get(epochs, k)) && cli_figure(epoch, "epoch") < x[i])
            k++;
        bool there = epoch && !(cli_figure(epoch, "epoch") > x[i]);
        y[i] = there ? cli_figure_share(epoch, key) : (double)NAN;
    }
    return y;
}

static void print_curves(FILE *out, const json_t *runs)
{
    static const struct {
        const char *title, *key;
        bool percent;
    } charts[] = {{"Validation top-1", "val_top1", true},
                  {"Validation loss", "val_loss", false},
                  {"Training loss", "train_loss", false},
                  {"Learning rate", "lr", false},
                  {"Zeros", "sparsity", true},
                  {"Codes that changed in an epoch", "flips", true}};
    size_t count = json_array_size(runs);
    double *x;
    size_t n = merge_epochs(runs, &x);
    cli_series *series = cli_alloc((count + 1) * sizeof *series);
    fputs("<h2>Curves over epochs</h2>\n<div class='charts'>\n", out);
    for (size_t c = 0; c < sizeof charts / sizeof *charts; c++) {
        for (size_t i = 0; i < count; i++)
            series[i] = (cli_series){cli_figure_text(run_at(runs, i), "run"),
                                     values_at(run_at(runs, i), charts[c].key, x, n),
                                     360.0 * (double)i / (double)count};
        const cli_chart chart = {.title = charts[c].title,
                                 .percent = charts[c].percent,
                                 .legend = true,
                                 .x = x,
                                 .n = n,
                                 .series = series,
                                 .n_series = count};
        cli_svg_chart(out, &chart);
    }
    fputs("</div>\n", out);
}

void cli_runs_page(FILE *out, const json_t *figures)
{
    const json_t *runs = json_object_get(figures, "runs");
    cli_report_head(out, "fine-tuning runs");
    fprintf(out, "<h1>%zu fine-tuning runs</h1>\n", json_array_size(runs));
    print_figures(out, runs);
    print_differences(out, runs);
    print_curves(out, runs);
    fputs("</body></html>\n", out);
}
