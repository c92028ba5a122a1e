#include "cli/models_chart.h"

#include "cli/run_journal.h"
#include "cli/svg_chart.h"
#include "cli/terminal.h"

#include <math.h>
#include <string.h>

enum { WIDTH = 640, HEIGHT = 300, LEFT = 56, RIGHT = 110, TOP = 14, BOTTOM = 30, TICKS = 4 };

typedef struct point {
    const char *name;
    double x, y, low, high; /* size; shares of images */
    double hue;
} point;

typedef struct frame {
    double x0, x1, y0, y1; /* x: logarithms */
} frame;

typedef double size_of(const json_t *comparison, bool first);

static double bytes_of(const json_t *comparison, bool first)
{
    return cli_figure(comparison, first ? "bytes_a" : "bytes_b");
}

static double bits_of(const json_t *comparison, bool first)
{
    return cli_figure(comparison, first ? "bits_a" : "bits_b");
}

static size_t add_point(const json_t *comparison, bool first, size_of *size, point *points,
                        size_t n)
{
    const json_t *on = json_object_get(comparison, first ? "on_a" : "on_b");
    point p = {cli_figure_text(comparison, first ? "a" : "b"),
               size(comparison, first),
               cli_figure_share(on, "top1"),
               cli_figure_share(on, "top1_low"),
               cli_figure_share(on, "top1_high"),
               0};
    if (!(p.x > 0) || !isfinite(p.x) || !isfinite(p.y) || !isfinite(p.low) || !isfinite(p.high))
        return n;
    points[n] = p;
    return n + 1;
}

/* The frame is at least twice as wide as its smallest size, and has some room. */
static frame find_frame(point *points, size_t n)
{
    frame f = {INFINITY, -INFINITY, INFINITY, -INFINITY};
    for (size_t i = 0; i < n; i++) {
        f.x0 = fmin(f.x0, log(points[i].x));
        f.x1 = fmax(f.x1, log(points[i].x));
        f.y0 = fmin(f.y0, points[i].low);
        f.y1 = fmax(f.y1, points[i].high);
        points[i].hue = 300.0 * (double)i / (double)n;
    }
    double width = fmax(f.x1 - f.x0, log(2)), height = fmax(f.y1 - f.y0, 0.001);
    f.x0 -= 0.06 * width;
    f.x1 = f.x0 + 1.12 * width;
    f.y0 = fmax(f.y0 - 0.05 * height, 0);
    f.y1 += 0.05 * height;
    return f;
}

static double at_x(const frame *f, double x)
{
    return LEFT + (log(x) - f->x0) / (f->x1 - f->x0) * (WIDTH - LEFT - RIGHT);
}

static double at_y(const frame *f, double y)
{
    return HEIGHT - BOTTOM - (y - f->y0) / (f->y1 - f->y0) * (HEIGHT - TOP - BOTTOM);
}

/* 1, 2, 5, 10, 20, ... */
static void draw_sizes(FILE *out, const frame *f)
{
    static const double digits[] = {1, 2, 5};
    double last = -INFINITY;
    for (double decade = pow(10, floor(f->x0 / log(10))); log(decade) <= f->x1; decade *= 10)
        for (int d = 0; d < 3; d++) {
            double size = decade * digits[d], x = log(size);
            if (x < f->x0 || x > f->x1 || at_x(f, size) < last + 60)
                continue;
            last = at_x(f, size);
            fprintf(out,
                    "<line class='grid' x1='%.1f' x2='%.1f' y1='%d' y2='%d'/><text x='%.1f' "
                    "y='%d' text-anchor='middle'>%.15g</text>",
                    last, last, TOP, HEIGHT - BOTTOM, last, HEIGHT - 10, size);
        }
}

static void draw_accuracies(FILE *out, const frame *f)
{
    for (int i = 0; i <= TICKS; i++) {
        double y = f->y0 + (f->y1 - f->y0) * i / TICKS;
        fprintf(out,
                "<line class='grid' x1='%d' x2='%d' y1='%.1f' y2='%.1f'/><text x='%d' y='%.1f' "
                "text-anchor='end'>%.1f %%</text>",
                LEFT, WIDTH - RIGHT, at_y(f, y), at_y(f, y), LEFT - 6, at_y(f, y) + 4, 100 * y);
    }
}

static void draw_point(FILE *out, const frame *f, const point *p)
{
    const char *slash = strrchr(p->name, '/');
    double x = at_x(f, p->x);
    fprintf(out, "<g style='--hue:%.0f'><title>", p->hue);
    cli_html_text(out, p->name);
    fprintf(out, ": %.6g, top-1 %.2f %% (%.2f to %.2f)</title>", p->x, 100 * p->y, 100 * p->low,
            100 * p->high);
    fprintf(out, "<polyline points='%.1f,%.1f %.1f,%.1f'/><circle cx='%.1f' cy='%.1f' r='4'/>", x,
            at_y(f, p->low), x, at_y(f, p->high), x, at_y(f, p->y));
    fprintf(out, "<text x='%.1f' y='%.1f'>", x + 8, at_y(f, p->y) + 4);
    cli_html_text(out, slash ? slash + 1 : p->name);
    fputs("</text></g>\n", out);
}

static void draw(FILE *out, const json_t *comparisons, const char *title, size_of *size)
{
    const json_t *comparison;
    size_t i, n = 0;
    point *points = cli_alloc((json_array_size(comparisons) + 1) * sizeof *points);
    n = add_point(json_array_get(comparisons, 0), true, size, points, n);
    json_array_foreach(comparisons, i, comparison) n =
        add_point(comparison, false, size, points, n);
    if (n == 0)
        return;
    frame f = find_frame(points, n);
    fprintf(out, "<figure><figcaption>%s</figcaption>\n<svg viewBox='0 0 %d %d' role='img'>\n",
            title, WIDTH, HEIGHT);
    draw_accuracies(out, &f);
    draw_sizes(out, &f);
    for (i = 0; i < n; i++)
        draw_point(out, &f, &points[i]);
    fputs("</svg></figure>\n", out);
}

void cli_models_chart(FILE *out, const json_t *comparisons)
{
    const json_t *on = json_object_get(json_array_get(comparisons, 0), "on_a");
    if (!isfinite(cli_figure_share(on, "top1"))) /* no data, or none with labels */
        return;
    fputs("<h2>Accuracy against size</h2>\n<p>Lines: 95 % intervals. Sizes grow by factors.</p>\n"
          "<div class='charts'>\n",
          out);
    draw(out, comparisons, "Top-1 against bytes of the file", bytes_of);
    draw(out, comparisons, "Top-1 against bits per weight", bits_of);
    fputs("</div>\n", out);
}
