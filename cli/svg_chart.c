#include "cli/svg_chart.h"

#include "api/ternion.h"

#include <math.h>

enum { WIDTH = 640, HEIGHT = 240, LEFT = 56, RIGHT = 12, TOP = 12, BOTTOM = 28, TICKS = 4 };

typedef struct frame {
    double x0, x1, y0, y1;
} frame;

void cli_html_text(FILE *out, const char *text)
{
    char safe[1024];
    for (const char *c = tn_escape(text, safe, sizeof safe); *c; c++)
        switch (*c) {
        case '<':
            fputs("&lt;", out);
            break;
        case '>':
            fputs("&gt;", out);
            break;
        case '&':
            fputs("&amp;", out);
            break;
        case '"':
            fputs("&quot;", out);
            break;
        case '\'':
            fputs("&#39;", out);
            break;
        default:
            fputc(*c, out);
        }
}

static bool find_frame(const cli_chart *chart, frame *f)
{
    bool any = false;
    for (size_t s = 0; s < chart->n_series; s++)
        for (size_t i = 0; i < chart->n; i++) {
            double y = chart->series[s].y[i];
            if (!isfinite(y) || !isfinite(chart->x[i]))
                continue;
            f->y0 = any ? fmin(f->y0, y) : y;
            f->y1 = any ? fmax(f->y1, y) : y;
            any = true;
        }
    if (!any)
        return false;
    f->x0 = chart->x[0];
    f->x1 = chart->x[chart->n - 1] > f->x0 ? chart->x[chart->n - 1] : f->x0 + 1;
    double room = f->y1 > f->y0 ? 0.05 * (f->y1 - f->y0) : fabs(f->y1) > 0 ? 0.1 * fabs(f->y1) : 1;
    f->y0 = f->y0 >= 0 && f->y0 < room ? 0 : f->y0 - room;
    f->y1 += room;
    return true;
}

static double at_x(const frame *f, double x)
{
    return LEFT + (x - f->x0) / (f->x1 - f->x0) * (WIDTH - LEFT - RIGHT);
}

static double at_y(const frame *f, double y)
{
    return HEIGHT - BOTTOM - (y - f->y0) / (f->y1 - f->y0) * (HEIGHT - TOP - BOTTOM);
}

static void draw_axes(FILE *out, const cli_chart *chart, const frame *f)
{
    for (int i = 0; i <= TICKS; i++) {
        double y = f->y0 + (f->y1 - f->y0) * i / TICKS, x = f->x0 + (f->x1 - f->x0) * i / TICKS;
        fprintf(out, "<line class='grid' x1='%d' x2='%d' y1='%.1f' y2='%.1f'/>", LEFT,
                WIDTH - RIGHT, at_y(f, y), at_y(f, y));
        fprintf(out, "<text x='%d' y='%.1f' text-anchor='end'>%.3g%s</text>", LEFT - 6,
                at_y(f, y) + 4, chart->percent ? 100 * y : y, chart->percent ? " %" : "");
        fprintf(out, "<text x='%.1f' y='%d' text-anchor='middle'>%.4g</text>", at_x(f, x),
                HEIGHT - 8, x);
    }
    for (size_t i = 0; i < chart->n_marks; i++) {
        double x = chart->marks[i].x;
        if (!(x >= f->x0 && x <= f->x1))
            continue;
        fprintf(out, "<line class='mark' x1='%.1f' x2='%.1f' y1='%d' y2='%d'><title>", at_x(f, x),
                at_x(f, x), TOP, HEIGHT - BOTTOM);
        cli_html_text(out, chart->marks[i].what);
        fputs("</title></line>", out);
    }
}

/* A line through the finite points; a point alone is a dot. */
static void draw_series(FILE *out, const cli_chart *chart, const cli_series *s, const frame *f)
{
    fprintf(out, "<g style='--hue:%.0f'><title>", s->hue);
    cli_html_text(out, s->name);
    fputs("</title>", out);
    for (size_t i = 0; i < chart->n;) {
        size_t n = 0;
        while (i + n < chart->n && isfinite(s->y[i + n]))
            n++;
        if (n == 1)
            fprintf(out, "<circle cx='%.1f' cy='%.1f' r='2.5'/>", at_x(f, chart->x[i]),
                    at_y(f, s->y[i]));
        if (n > 1) {
            fputs("<polyline points='", out);
            for (size_t k = i; k < i + n; k++)
                fprintf(out, "%.1f,%.1f ", at_x(f, chart->x[k]), at_y(f, s->y[k]));
            fputs("'/>", out);
        }
        i += n + 1;
    }
    fputs("</g>\n", out);
}

void cli_svg_chart(FILE *out, const cli_chart *chart)
{
    frame f = {0};
    if (chart->n == 0 || !find_frame(chart, &f))
        return;
    fputs("<figure><figcaption>", out);
    cli_html_text(out, chart->title);
    for (size_t s = 0; s < chart->n_series && chart->legend; s++) {
        fprintf(out, " <span class='key' style='--hue:%.0f'>", chart->series[s].hue);
        cli_html_text(out, chart->series[s].name);
        fputs("</span>", out);
    }
    fprintf(out, "</figcaption>\n<svg viewBox='0 0 %d %d' role='img'>\n", WIDTH, HEIGHT);
    draw_axes(out, chart, &f);
    for (size_t s = 0; s < chart->n_series; s++)
        draw_series(out, chart, &chart->series[s], &f);
    fputs("</svg></figure>\n", out);
}
