#include "cli/graph_chart.h"

#include "cli/run_journal.h"
#include "cli/svg_chart.h"

#include <math.h>

enum { WIDTH = 640, BOX = 210, BOX_WIDTH = 22, ROW = 18, TOP = 6, KEPT_BITS = 32, MOST = 4096 };

/* Red for the fewest bits, violet for 8 and more. */
static double hue_of(double bits)
{
    return fmin(fmax((bits - 1) / 7, 0), 1) * 270;
}

static bool is_kept(const json_t *layer)
{
    return !json_is_true(json_object_get(layer, "quantized"));
}

static double row_y(size_t row)
{
    return TOP + ROW * ((double)row + 0.5);
}

/* Straight where the layers are neighbours, else round the ones between. */
static void draw_edge(FILE *out, size_t from, size_t to)
{
    double span = (double)to - (double)from, reach = fmin(10 + 9 * sqrt(span), BOX - 8);
    if (from + 1 == to)
        fprintf(out, "<line class='edge' x1='%d' x2='%d' y1='%.1f' y2='%.1f'/>",
                BOX + BOX_WIDTH / 2, BOX + BOX_WIDTH / 2, row_y(from), row_y(to));
    else
        fprintf(out, "<path class='edge' d='M%d %.1fC%.1f %.1f %.1f %.1f %d %.1f'/>", BOX,
                row_y(from), BOX - reach, row_y(from), BOX - reach, row_y(to), BOX, row_y(to));
}

static void draw_edges(FILE *out, const json_t *edges, size_t n)
{
    const json_t *edge;
    size_t i;
    json_array_foreach(edges, i, edge)
    {
        json_int_t from = json_integer_value(json_object_get(edge, "from")),
                   to = json_integer_value(json_object_get(edge, "to"));
        if (from >= 0 && from < to && (size_t)to < n)
            draw_edge(out, (size_t)from, (size_t)to);
    }
}

static void draw_layer(FILE *out, const json_t *layer, size_t row)
{
    double bits = cli_figure(layer, "bits"), y = row_y(row);
    fprintf(out,
            "<g style='--hue:%.0f'><rect%s x='%d' y='%.1f' width='%d' height='%d' rx='3'/></g>",
            isfinite(bits) ? hue_of(bits) : 0, is_kept(layer) ? " class='kept'" : "", BOX, y - 6,
            BOX_WIDTH, 12);
    fprintf(out, "<text x='%d' y='%.1f'>%.4g bits &#160; ", BOX + BOX_WIDTH + 8, y + 4,
            isfinite(bits) ? bits : KEPT_BITS);
    cli_html_text(out, cli_figure_text(layer, "name"));
    if (*cli_figure_text(layer, "op")) {
        fputs(" (", out);
        cli_html_text(out, cli_figure_text(layer, "op"));
        fputs(")", out);
    }
    fputs("</text>\n", out);
}

void cli_graph_chart(FILE *out, const json_t *layers, const json_t *edges)
{
    const json_t *layer;
    size_t i, n = json_array_size(layers);
    if (n == 0 || n > MOST)
        return;
    fprintf(out,
            "<h2>Layers and what they read</h2>\n<p>From top to bottom, coloured by bits: red for "
            "the fewest, violet for 8 and more, hollow for those that stay as they were.</p>\n"
            "<figure><svg class='graph' viewBox='0 0 %d %zu' role='img'>\n",
            WIDTH, 2 * TOP + ROW * n);
    draw_edges(out, edges, n);
    fputc('\n', out);
    json_array_foreach(layers, i, layer) draw_layer(out, layer, i);
    fputs("</svg></figure>\n", out);
}
