#include "cli/report_page.h"

#include "cli/class_changes.h"
#include "cli/graph_chart.h"
#include "cli/run_journal.h"
#include "cli/svg_chart.h"
#include "cli/terminal.h"
#include "cli/weight_charts.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static const char head[] =
    "<!DOCTYPE html>\n<html lang='en'><head><meta charset='utf-8'>\n"
    "<meta http-equiv='Content-Security-Policy' content=\"default-src 'none'; style-src "
    "'unsafe-inline'\">\n"
    "<meta name='viewport' content='width=device-width'><meta name='color-scheme' "
    "content='light dark'>\n<style>\n"
    ":root{color-scheme:light dark;--ink:#222;--paper:#fff;--line:#ddd;--light:40%}\n"
    "@media(prefers-color-scheme:dark){:root{--ink:#ddd;--paper:#181818;--line:#444;--light:65%}}\n"
    "body{font:15px/1.5 sans-serif;color:var(--ink);background:var(--paper);max-width:70em;"
    "margin:2em auto;padding:0 1em}\n"
    "h1{font-size:1.4em}h2{font-size:1.1em;margin-top:2em}\n"
    "table{border-collapse:collapse}td,th{padding:.15em .8em .15em 0;border-bottom:1px solid "
    "var(--line);text-align:left;vertical-align:top}td.n,th.n{text-align:right}\n"
    ".charts{display:grid;grid-template-columns:repeat(auto-fit,minmax(24em,1fr));gap:1em}\n"
    "figure{margin:0}figcaption{font-weight:bold}.key{font-weight:normal;"
    "color:hsl(var(--hue) 70% var(--light))}\n"
    "svg{width:100%;font-size:11px}svg text{fill:var(--ink)}.grid{stroke:var(--line)}"
    ".mark{stroke:var(--ink);stroke-dasharray:3 3}\n"
    "polyline{fill:none;stroke-width:1.5;stroke:hsl(var(--hue) 70% var(--light))}"
    "circle{fill:hsl(var(--hue) 70% var(--light))}\n"
    "rect{fill:hsl(var(--hue) 70% var(--light))}.level{stroke:var(--ink);stroke-width:1.5}"
    ".bar{width:12em;height:1em}figure p{margin:0}\n"
    ".graph{max-width:46em}.edge{fill:none;stroke:var(--ink);opacity:.4}"
    ".kept{fill:var(--paper);stroke:var(--ink)}\n"
    "code{white-space:pre-wrap}\n</style>\n";

static void row(FILE *out, const char *name, const char *value)
{
    if (!*value)
        return;
    fputs("<tr><th>", out);
    cli_html_text(out, name);
    fputs("</th><td>", out);
    cli_html_text(out, value);
    fputs("</td></tr>\n", out);
}

static void number_row(FILE *out, const char *name, double value, const char *format)
{
    char shown[80];
    if (!isfinite(value))
        return;
    snprintf(shown, sizeof shown, format, value); /* a literal of this file */
    row(out, name, shown);
}

static void accuracy_row(FILE *out, const char *name, const json_t *accuracy)
{
    char shown[160];
    double low = cli_figure(accuracy, "top1_low"), high = cli_figure(accuracy, "top1_high");
    if (!isfinite(cli_figure(accuracy, "top1")))
        return;
    snprintf(shown, sizeof shown, "top-1 %.2f %% (%.2f to %.2f at 95 %%), loss %.4f, %.0f images",
             100 * cli_figure(accuracy, "top1"), 100 * low, 100 * high,
             cli_figure(accuracy, "loss"), cli_figure(accuracy, "images"));
    row(out, name, shown);
}

static void print_verdict(FILE *out, const json_t *figures)
{
    const json_t *result = json_object_get(figures, "result"),
                 *end = json_object_get(figures, "end");
    char shown[160];
    fputs("<h2>Verdict</h2>\n<table>\n", out);
    if (!end)
        row(out, "state", "not finished: the journal has no end");
    else if (json_is_true(json_object_get(end, "stopped")))
        row(out, "state", "stopped before its end");
    accuracy_row(out, "float", json_object_get(result, "float"));
    accuracy_row(out, "quantized", json_object_get(result, "quantized"));
    double before = cli_figure(result, "bytes_in"), after = cli_figure(result, "bytes_out");
    if (isfinite(before) && isfinite(after)) {
        snprintf(shown, sizeof shown, "%s before, %s after (%.1f %%)", cli_count((int64_t)before),
                 cli_count((int64_t)after), before > 0 ? 100 * after / before : 0.0);
        row(out, "bytes", shown);
    }
    number_row(out, "bits per weight", cli_figure(result, "bits_per_weight"), "%.2f");
    number_row(out, "zeros, %", 100 * cli_figure(result, "sparsity"), "%.1f");
    row(out, "needs", cli_figure_text(result, "needs"));
    number_row(out, "epochs", cli_figure(end, "epoch"), "%.0f");
    if (!result) {
        number_row(out, "last validation top-1, %", 100 * cli_figure_share(end, "val_top1"),
                   "%.2f");
        number_row(out, "last validation loss", cli_figure_share(end, "val_loss"), "%.4f");
    }
    fputs("</table>\n", out);
}

/* --- curves ------------------------------------------------------------------------------------
 */

typedef struct curves {
    FILE *out;
    const json_t *epochs;
    size_t n;
    double *x;
    cli_mark *marks;
    size_t n_marks;
} curves;

static double *column(const curves *c, const char *key)
{
    double *y = cli_alloc((c->n + 1) * sizeof *y);
    for (size_t i = 0; i < c->n; i++)
        y[i] = cli_figure_share(json_array_get(c->epochs, i), key);
    return y;
}

static void draw(const curves *c, const char *title, bool percent, bool legend,
                 const cli_series *series, size_t count)
{
    const cli_chart drawn = {.title = title,
                             .percent = percent,
                             .legend = legend,
                             .x = c->x,
                             .n = c->n,
                             .series = series,
                             .n_series = count,
                             .marks = c->marks,
                             .n_marks = c->n_marks};
    cli_svg_chart(c->out, &drawn);
}

static void chart(const curves *c, const char *title, bool percent, const char *const keys[2],
                  const char *const names[2])
{
    cli_series series[2];
    size_t count = 0;
    for (int i = 0; i < 2 && keys[i]; i++, count++)
        series[i] = (cli_series){names[i], column(c, keys[i]), 210 + 150 * i};
    draw(c, title, percent, count > 1, series, count);
}

/* One line a layer; layers are those of the last epoch, found by name in the others. */
static void layer_chart(const curves *c, const char *title, const char *key)
{
    const json_t *layers = json_object_get(json_array_get(c->epochs, c->n - 1), "layers");
    size_t count = json_array_size(layers);
    cli_series *series = cli_alloc((count + 1) * sizeof *series);
    for (size_t l = 0; l < count; l++) {
        const char *name = cli_figure_text(json_array_get(layers, l), "name");
        double *y = cli_alloc((c->n + 1) * sizeof *y);
        for (size_t i = 0; i < c->n; i++) {
            const json_t *then = json_object_get(json_array_get(c->epochs, i), "layers");
            const json_t *layer = json_array_get(then, l);
            y[i] = strcmp(cli_figure_text(layer, "name"), name) == 0 ? cli_figure(layer, key)
                                                                     : (double)NAN;
        }
        series[l] = (cli_series){name, y, count > 1 ? 300.0 * (double)l / (double)count : 210};
    }
    draw(c, title, true, count <= 8, series, count);
}

static void print_curves(FILE *out, const json_t *figures)
{
    const json_t *marks = json_object_get(figures, "marks");
    curves c = {.out = out, .epochs = json_object_get(figures, "epochs")};
    c.n = json_array_size(c.epochs);
    if (c.n == 0) {
        fputs("<p>No epoch was finished.</p>\n", out);
        return;
    }
    c.x = cli_alloc(c.n * sizeof *c.x);
    for (size_t i = 0; i < c.n; i++)
        c.x[i] = cli_figure(json_array_get(c.epochs, i), "epoch");
    double per_epoch = cli_figure(json_array_get(c.epochs, c.n - 1), "step") / c.x[c.n - 1];
    c.n_marks = json_array_size(marks);
    c.marks = cli_alloc((c.n_marks + 1) * sizeof *c.marks);
    for (size_t i = 0; i < c.n_marks; i++) {
        const json_t *mark = json_array_get(marks, i);
        c.marks[i] =
            (cli_mark){cli_figure(mark, "step") / per_epoch, cli_figure_text(mark, "event")};
    }
    fputs("<h2>Curves over epochs</h2>\n<p>Dashed lines: where the run was resumed or rolled "
          "back.</p>\n<div class='charts'>\n",
          out);
    static const char *const names[2] = {"training", "validation"};
    chart(&c, "Loss", false, (const char *const[2]){"train_loss", "val_loss"}, names);
    chart(&c, "Top-1 accuracy", true, (const char *const[2]){"train_top1", "val_top1"}, names);
    chart(&c, "Learning rate", false, (const char *const[2]){"lr", NULL}, names);
    chart(&c, "Images a second", false, (const char *const[2]){"images_per_s", NULL}, names);
    layer_chart(&c, "Codes that changed in an epoch, by layer", "flips");
    layer_chart(&c, "Zeros, by layer", "sparsity");
    fputs("</div>\n", out);
}

/* --- tables ------------------------------------------------------------------------------------
 */

static void print_layers(FILE *out, const json_t *figures)
{
    const json_t *epochs = json_object_get(figures, "epochs");
    const json_t *last = json_array_get(epochs, json_array_size(epochs) - 1), *layer;
    const json_t *layers = json_object_get(last, "layers");
    size_t i;
    if (json_array_size(epochs) == 0 || json_array_size(layers) == 0)
        return;
    fputs("<h2>Layers at the last epoch</h2>\n<table><tr><th>weight</th><th class='n'>zeros</th>"
          "<th class='n'>codes changed</th></tr>\n",
          out);
    json_array_foreach(layers, i, layer)
    {
        fputs("<tr><td>", out);
        cli_html_text(out, cli_figure_text(layer, "name"));
        fprintf(out, "</td><td class='n'>%.1f %%</td><td class='n'>%.3f %%</td></tr>\n",
                100 * cli_figure(layer, "sparsity"), 100 * cli_figure(layer, "flips"));
    }
    fputs("</table>\n", out);
}

static void print_object(FILE *out, const json_t *object)
{
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)object, key, value)
    {
        char *dumped =
            json_is_string(value) ? NULL : json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        row(out, key, dumped ? dumped : cli_figure_text(object, key));
        free(dumped);
    }
}

static void print_origin(FILE *out, const json_t *figures)
{
    const json_t *start = json_object_get(figures, "start");
    const json_t *result = json_object_get(figures, "result");
    fputs("<h2>How to reproduce it</h2>\n<table>\n", out);
    row(out, "input", cli_figure_text(result, "input"));
    row(out, "output", cli_figure_text(result, "output"));
    number_row(out, "seed", cli_figure(start, "seed"), "%.0f");
    static const char *const keys[] = {"recipe_hash", "model_hash", "data_hash", "machine",
                                       "ternion"};
    for (size_t i = 0; i < sizeof keys / sizeof *keys; i++)
        row(out, keys[i], cli_figure_text(start, keys[i]));
    const json_t *epochs = json_object_get(figures, "epochs");
    if (json_array_size(epochs) > 0)
        row(out, "state_hash",
            cli_figure_text(json_array_get(epochs, json_array_size(epochs) - 1), "state_hash"));
    fputs("</table>\n", out);
    if (json_object_size(json_object_get(result, "options")) > 0) {
        fputs("<h2>Options given</h2>\n<table>\n", out);
        print_object(out, json_object_get(result, "options"));
        fputs("</table>\n", out);
    }
    if (json_object_size(json_object_get(start, "recipe")) > 0) {
        fputs("<h2>Recipe, every default filled in</h2>\n<table>\n", out);
        print_object(out, json_object_get(start, "recipe"));
        fputs("</table>\n", out);
    }
}

void cli_report_head(FILE *out, const char *title)
{
    fputs(head, out);
    fputs("<title>ternion: ", out);
    cli_html_text(out, title);
    fputs("</title></head>\n<body>\n", out);
}

void cli_report_page(FILE *out, const json_t *figures)
{
    cli_report_head(out, cli_figure_text(figures, "run"));
    fputs("<h1>Fine-tuning run ", out);
    cli_html_text(out, cli_figure_text(figures, "run"));
    fputs("</h1>\n", out);
    if (cli_figure(figures, "lines_unread") > 0)
        fprintf(out, "<p>%.0f lines of the journal could not be read.</p>\n",
                cli_figure(figures, "lines_unread"));
    print_verdict(out, figures);
    print_curves(out, figures);
    print_layers(out, figures);
    const json_t *result = json_object_get(figures, "result");
    cli_class_changes(out, json_object_get(result, "float"), json_object_get(result, "quantized"),
                      "float", "quantized");
    cli_graph_chart(out, json_object_get(figures, "layers"), json_object_get(figures, "edges"));
    cli_weight_charts(out, json_object_get(figures, "layers"));
    print_origin(out, figures);
    fputs("</body></html>\n", out);
}
