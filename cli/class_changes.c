#include "cli/class_changes.h"

#include "cli/run_journal.h"
#include "cli/svg_chart.h"
#include "cli/terminal.h"

#include <math.h>
#include <stdlib.h>

enum { WIDTH = 200, HEIGHT = 14 };

typedef struct change {
    const char *name;
    double images, before, after; /* images, and how many of them right */
    size_t number;
} change;

static double gain(const change *c)
{
    return (c->after - c->before) / c->images;
}

static int compare_gains(const void *a, const void *b)
{
    const change *x = a, *y = b;
    double difference = gain(x) - gain(y);
    return difference < 0   ? -1
           : difference > 0 ? 1
                            : (x->number > y->number) - (x->number < y->number);
}

/* Classes that have images in both. */
static size_t read_changes(const json_t *before, const json_t *after, change *changes)
{
    const json_t *a = json_object_get(before, "classes"), *b = json_object_get(after, "classes");
    size_t n = 0;
    for (size_t i = 0; i < json_array_size(a) && i < json_array_size(b); i++) {
        const json_t *x = json_array_get(a, i), *y = json_array_get(b, i);
        change c = {cli_figure_text(x, "name"), cli_figure(x, "images"), cli_figure(x, "correct"),
                    cli_figure(y, "correct"), i};
        if (c.images > 0 && !(c.images < cli_figure(y, "images")) &&
            !(c.images > cli_figure(y, "images")) && c.before >= 0 && c.after >= 0 &&
            c.before <= c.images && c.after <= c.images)
            changes[n++] = c;
    }
    qsort(changes, n, sizeof *changes, compare_gains);
    return n;
}

/* A bar from the middle, to the left what was lost; a share of the largest change. */
static void print_bar(FILE *out, double share)
{
    double length = fabs(share) * WIDTH / 2;
    fprintf(out,
            "<svg class='bar' viewBox='0 0 %d %d' role='img'><line class='grid' x1='%d' x2='%d' "
            "y1='0' y2='%d'/><g style='--hue:%d'><rect x='%.1f' y='2' width='%.1f' "
            "height='%d'/></g></svg>",
            WIDTH, HEIGHT, WIDTH / 2, WIDTH / 2, HEIGHT, share < 0 ? 0 : 120,
            share < 0 ? WIDTH / 2 - length : WIDTH / 2, length, HEIGHT - 4);
}

static void print_head(FILE *out, const char *name)
{
    fputs("<th class='n'>", out);
    cli_html_text(out, name);
    fputs("</th>", out);
}

void cli_class_changes(FILE *out, const json_t *before, const json_t *after, const char *a,
                       const char *b)
{
    size_t room = json_array_size(json_object_get(before, "classes"));
    change *changes = cli_alloc((room + 1) * sizeof *changes);
    size_t n = read_changes(before, after, changes);
    if (n == 0)
        return;
    fputs("<h2>Classes, those that lost most first</h2>\n<table class='classes'><tr><th>class</th>"
          "<th class='n'>images</th>",
          out);
    print_head(out, a);
    print_head(out, b);
    fputs("<th class='n'>points</th><th>change</th></tr>\n", out);
    double largest = fmax(fabs(gain(&changes[0])), fabs(gain(&changes[n - 1])));
    for (size_t i = 0; i < n; i++) {
        const change *c = &changes[i];
        fputs("<tr><td>", out);
        cli_html_text(out, c->name);
        fprintf(out,
                "</td><td class='n'>%.0f</td><td class='n'>%.0f</td><td class='n'>%.0f</td><td "
                "class='n'>%+.2f</td><td>",
                c->images, c->before, c->after, 100 * gain(c));
        print_bar(out, largest > 0 ? gain(c) / largest : 0);
        fputs("</td></tr>\n", out);
    }
    fputs("</table>\n", out);
}
