#include "cli/weight_charts.h"

#include "cli/run_journal.h"
#include "cli/svg_chart.h"
#include "cli/terminal.h"

#include <math.h>

enum { WIDTH = 420, HEIGHT = 170, SIDE = 8, TOP = 14, BOTTOM = 22, BINS = 256 };

typedef struct picture {
    const json_t *histogram;
    double low, high, most; /* most: weights of the fullest bin */
    size_t n;
} picture;

static double at_x(const picture *p, double w)
{
    return SIDE + (w - p->low) / (p->high - p->low) * (WIDTH - 2 * SIDE);
}

static double count_at(const json_t *bins, size_t i)
{
    const json_t *value = json_array_get(bins, i);
    return json_is_integer(value) && json_integer_value(value) > 0 ? json_number_value(value) : 0;
}

static bool look(const json_t *histogram, picture *p)
{
    const json_t *bins = json_object_get(histogram, "bins");
    *p = (picture){histogram, cli_figure(histogram, "low"), cli_figure(histogram, "high"), 0,
                   json_array_size(bins)};
    for (size_t i = 0; i < p->n; i++)
        p->most = fmax(p->most, count_at(bins, i));
    return p->most > 0 && p->n <= BINS && p->high > p->low;
}

/* Bars on top of those drawn before, whose counts `under` holds. */
static void draw_bars(FILE *out, const picture *p, const json_t *bins, double *under)
{
    const double width = (WIDTH - 2.0 * SIDE) / (double)p->n,
                 scale = (HEIGHT - TOP - BOTTOM) / p->most;
    for (size_t i = 0; i < p->n; i++) {
        double count = count_at(bins, i);
        if (!(count > 0))
            continue;
        fprintf(out, "<rect x='%.2f' y='%.2f' width='%.2f' height='%.2f'/>",
                SIDE + width * (double)i, HEIGHT - BOTTOM - (under[i] + count) * scale, width,
                count * scale);
        under[i] += count;
    }
}

static void draw_line(FILE *out, const picture *p, const char *class, double w, const char *what)
{
    char shown[80];
    if (!(w >= p->low && w <= p->high)) /* levels may lie beyond all weights */
        return;
    snprintf(shown, sizeof shown, "%s %.6g", what, w);
    fprintf(out, "<line class='%s' x1='%.1f' x2='%.1f' y1='%d' y2='%d'><title>", class, at_x(p, w),
            at_x(p, w), TOP - 6, HEIGHT - BOTTOM);
    cli_html_text(out, shown);
    fputs("</title></line>", out);
}

/* Bars in one colour a code. */
static void draw_codes(FILE *out, const picture *p)
{
    double under[BINS] = {0};
    const json_t *codes = json_object_get(p->histogram, "codes"), *code;
    size_t c, n = json_array_size(codes);
    if (n == 0) {
        fputs("<g style='--hue:210'>", out);
        draw_bars(out, p, json_object_get(p->histogram, "bins"), under);
        fputs("</g>", out);
    }
    json_array_foreach(codes, c, code)
    {
        fprintf(out, "<g style='--hue:%.0f'><title>code %.0f: %.0f weights become %.6g</title>",
                300.0 * (double)c / (double)n, cli_figure(code, "code"), cli_figure(code, "count"),
                cli_figure(code, "level"));
        draw_bars(out, p, json_object_get(code, "bins"), under);
        fputs("</g>", out);
    }
}

static void draw_lines(FILE *out, const picture *p)
{
    const json_t *thresholds = json_object_get(p->histogram, "thresholds"), *code, *threshold;
    size_t i;
    json_array_foreach(thresholds, i, threshold) draw_line(
        out, p, "mark", json_is_number(threshold) ? json_number_value(threshold) : (double)NAN,
        "threshold");
    json_array_foreach(json_object_get(p->histogram, "codes"), i,
                       code) if (cli_figure(code, "count") > 0)
        draw_line(out, p, "level", cli_figure(code, "level"), "level");
}

static void draw_axis(FILE *out, const picture *p)
{
    fprintf(out, "<line class='grid' x1='%d' x2='%d' y1='%d' y2='%d'/>", SIDE, WIDTH - SIDE,
            HEIGHT - BOTTOM, HEIGHT - BOTTOM);
    fprintf(out, "<text x='%d' y='%d'>%.3g</text><text x='%d' y='%d' text-anchor='end'>%.3g</text>",
            SIDE, HEIGHT - 6, p->low, WIDTH - SIDE, HEIGHT - 6, p->high);
    if (p->low < 0 && p->high > 0)
        fprintf(out, "<text x='%.1f' y='%d' text-anchor='middle'>0</text>", at_x(p, 0), HEIGHT - 6);
}

static void draw_layer(FILE *out, const json_t *layer, const picture *p)
{
    fputs("<figure><figcaption>", out);
    cli_html_text(out, cli_figure_text(layer, "name"));
    fprintf(out, "</figcaption>\n<p>%.4g bits, zeros %.1f %%, relMSE %.3g</p>\n",
            cli_figure(layer, "bits"), 100 * cli_figure_share(layer, "zeros"),
            cli_figure_share(layer, "relmse"));
    fprintf(out, "<svg viewBox='0 0 %d %d' role='img'>\n", WIDTH, HEIGHT);
    draw_codes(out, p);
    draw_lines(out, p);
    draw_axis(out, p);
    fputs("</svg></figure>\n", out);
}

void cli_weight_charts(FILE *out, const json_t *layers)
{
    const json_t *layer;
    size_t i, drawn = 0;
    picture p;
    json_array_foreach(layers, i, layer)
    {
        if (!json_is_true(json_object_get(layer, "quantized")) ||
            !look(json_object_get(layer, "histogram"), &p))
            continue;
        if (drawn++ == 0)
            fputs(
                "<h2>Weights before, by the code they became</h2>\n<p>Dashed: thresholds, where "
                "fewest weights of all channels lie on the wrong side. Solid: levels, the mean of "
                "what weights of a code became. Layers of more than 16 codes are drawn without."
                "</p>\n<div class='charts'>\n",
                out);
        draw_layer(out, layer, &p);
    }
    if (drawn > 0)
        fputs("</div>\n", out);
}
