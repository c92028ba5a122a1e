/* Curves over epochs as inline SVG: no scripts, no styles but the page's classes. */
#ifndef TERNION_CLI_SVG_CHART_H
#define TERNION_CLI_SVG_CHART_H

#include <stdbool.h>
#include <stddef.h>
#include <stdio.h>

typedef struct cli_series {
    const char *name; /* printed escaped */
    const double *y;  /* [n]; not finite: a gap */
    double hue;       /* 0 .. 360 */
} cli_series;

typedef struct cli_mark { /* a vertical line */
    double x;
    const char *what;
} cli_mark;

typedef struct cli_chart {
    const char *title;
    bool percent; /* y is 0 .. 1, printed as per cent */
    bool legend;
    const double *x; /* [n], rising */
    size_t n;
    const cli_series *series;
    size_t n_series;
    const cli_mark *marks;
    size_t n_marks;
} cli_chart;

/* Nothing when no series has a finite point. */
void cli_svg_chart(FILE *out, const cli_chart *chart);

/* Text for HTML content and attributes: markup, control and bidirectional characters escaped. */
void cli_html_text(FILE *out, const char *text);

#endif
