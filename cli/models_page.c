#include "cli/models_page.h"

#include "cli/class_changes.h"
#include "cli/graph_chart.h"
#include "cli/models_chart.h"
#include "cli/report_page.h"
#include "cli/run_journal.h"
#include "cli/sensitivity_table.h"
#include "cli/svg_chart.h"
#include "cli/terminal.h"
#include "cli/weight_charts.h"

#include <math.h>

static void print_number(FILE *out, double value, const char *format)
{
    char text[64] = "";
    if (isfinite(value))
        snprintf(text, sizeof text, format, value); /* a literal of this file */
    fprintf(out, "<td class='n'>%s</td>", text);
}

/* One model: its bytes, and on data its accuracy. */
static void print_model(FILE *out, const char *name, double bytes, const json_t *accuracy)
{
    fputs("<tr><th>", out);
    cli_html_text(out, name);
    fprintf(out, "</th><td class='n'>%s</td>", cli_count((int64_t)bytes));
    print_number(out, 100 * cli_figure_share(accuracy, "top1"), "%.2f");
    print_number(out, 100 * cli_figure_share(accuracy, "top1_low"), "%.2f");
    print_number(out, 100 * cli_figure_share(accuracy, "top1_high"), "%.2f");
    print_number(out, cli_figure_share(accuracy, "loss"), "%.4f");
}

static void print_verdict(FILE *out, const json_t *comparisons)
{
    const json_t *first = json_array_get(comparisons, 0), *comparison;
    size_t i;
    fputs("<h2>Verdict</h2>\n<table><tr><th>model</th><th class='n'>bytes</th><th class='n'>top-1, "
          "%</th><th class='n'>from</th><th class='n'>to (95 %)</th><th class='n'>loss</th><th "
          "class='n'>relMSE</th><th class='n'>same class, %</th><th class='n'>KL</th></tr>\n",
          out);
    print_model(out, cli_figure_text(first, "a"), cli_figure(first, "bytes_a"),
                json_object_get(first, "on_a"));
    fputs("<td></td><td></td><td></td></tr>\n", out);
    json_array_foreach(comparisons, i, comparison)
    {
        print_model(out, cli_figure_text(comparison, "b"), cli_figure(comparison, "bytes_b"),
                    json_object_get(comparison, "on_b"));
        print_number(out, cli_figure_share(comparison, "relmse"), "%.6g");
        print_number(out, 100 * cli_figure_share(comparison, "agreement"), "%.2f");
        print_number(out, cli_figure_share(comparison, "kl"), "%.5f");
        fputs("</tr>\n", out);
    }
    fputs("</table>\n", out);
}

void cli_models_page(FILE *out, const json_t *figures)
{
    const json_t *comparisons = json_object_get(figures, "comparisons"), *comparison;
    size_t i;
    cli_report_head(out, "models");
    fputs("<h1>Models against ", out);
    cli_html_text(out, cli_figure_text(json_array_get(comparisons, 0), "a"));
    fputs("</h1>\n", out);
    print_verdict(out, comparisons);
    cli_models_chart(out, comparisons);
    json_array_foreach(comparisons, i, comparison)
    {
        fputs("<h1>", out);
        cli_html_text(out, cli_figure_text(comparison, "b"));
        fputs("</h1>\n", out);
        cli_class_changes(out, json_object_get(comparison, "on_a"),
                          json_object_get(comparison, "on_b"), cli_figure_text(comparison, "a"),
                          cli_figure_text(comparison, "b"));
        cli_sensitivity_table(out, json_object_get(comparison, "layers"));
        cli_graph_chart(out, json_object_get(comparison, "layers"),
                        json_object_get(comparison, "edges"));
        cli_weight_charts(out, json_object_get(comparison, "layers"));
    }
    fputs("</body></html>\n", out);
}
