#include "cli/sensitivity_table.h"

#include "cli/run_journal.h"
#include "cli/svg_chart.h"
#include "cli/terminal.h"

#include <math.h>
#include <stdlib.h>

enum { WIDTH = 200, HEIGHT = 14 };

typedef struct row {
    const json_t *layer;
    double kl;
    size_t number;
} row;

static int compare(const void *a, const void *b)
{
    const row *x = a, *y = b;
    return x->kl > y->kl   ? -1
           : x->kl < y->kl ? 1
                           : (x->number > y->number) - (x->number < y->number);
}

static void print_row(FILE *out, const row *r, double most)
{
    double length = most > 0 ? r->kl / most * WIDTH : 0;
    fputs("<tr><td>", out);
    cli_html_text(out, cli_figure_text(r->layer, "name"));
    fprintf(out, "</td><td class='n'>%.4g</td><td class='n'>%.6f</td><td>",
            cli_figure(r->layer, "bits"), r->kl);
    fprintf(out,
            "<svg class='bar' viewBox='0 0 %d %d' role='img'><g style='--hue:0'><rect x='0' y='2' "
            "width='%.1f' height='%d'/></g></svg></td></tr>\n",
            WIDTH, HEIGHT, length, HEIGHT - 4);
}

void cli_sensitivity_table(FILE *out, const json_t *layers)
{
    const json_t *layer;
    size_t i, n = 0;
    row *rows = cli_alloc((json_array_size(layers) + 1) * sizeof *rows);
    json_array_foreach(layers, i, layer)
    {
        double kl = cli_figure(layer, "kl");
        if (json_is_true(json_object_get(layer, "quantized")) && isfinite(kl))
            rows[n++] = (row){layer, kl, i};
    }
    if (n == 0)
        return;
    qsort(rows, n, sizeof *rows, compare);
    fputs("<h2>Sensitivity, those that cost most first</h2>\n<p>KL divergence from the first model "
          "with this layer's weights alone in it: more bits help most at the top.</p>\n<table>"
          "<tr><th>layer</th><th class='n'>bits</th><th class='n'>KL</th><th></th></tr>\n",
          out);
    for (i = 0; i < n; i++)
        print_row(out, &rows[i], rows[0].kl);
    fputs("</table>\n", out);
}
