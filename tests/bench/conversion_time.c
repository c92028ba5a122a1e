/* Times quantization alone: the model is read and linked, then its weights are quantized REPEAT
 * times.
 *
 *     conversion_time MODEL SCHEME THRESHOLD GRANULARITY BITS REPEAT    ("" is the default)
 *
 * Prints one line: the median in ms, million weights, ms of processor time, peak heap in MB. */
#include "converter/convert.h"
#include "core/memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static double seconds(clockid_t clock)
{
    struct timespec t;
    (void)clock_gettime(clock, &t);
    return (double)t.tv_sec + 1e-9 * (double)t.tv_nsec;
}

static int ascending(const void *a, const void *b)
{
    double x = *(const double *)a, y = *(const double *)b;
    return (x > y) - (x < y);
}

static tn_status time_conversion(const tn_layers *layers, int repeat, double *wall, double *cpu,
                                 double *weights, tn_error *error)
{
    for (int r = 0; r < repeat; r++) {
        tn_conversion made;
        double wall_start = seconds(CLOCK_MONOTONIC);
        double cpu_start = seconds(CLOCK_PROCESS_CPUTIME_ID);
        tn_status status = tn_convert(layers, NULL, &made, error);
        if (status != TN_OK)
            return status;
        wall[r] = seconds(CLOCK_MONOTONIC) - wall_start;
        cpu[r] = seconds(CLOCK_PROCESS_CPUTIME_ID) - cpu_start;
        *weights = 0;
        for (size_t i = 0; i < made.count; i++)
            *weights += (double)made.item[i].layer->rows * (double)made.item[i].layer->cols;
        tn_conversion_done(&made);
    }
    qsort(wall, (size_t)repeat, sizeof *wall, ascending);
    qsort(cpu, (size_t)repeat, sizeof *cpu, ascending);
    return TN_OK;
}

static const char *given(const char *text)
{
    return text[0] != '\0' ? text : NULL;
}

int main(int argc, char **argv)
{
    enum { MOST = 100 };
    double wall[MOST], cpu[MOST], weights = 0;
    tn_error error = {0};
    tn_model *model = NULL;
    tn_graph *graph = NULL;
    tn_layers layers;
    int repeat = argc == 7 ? atoi(argv[6]) : 0;
    if (repeat < 1 || repeat > MOST)
        return 2;
    tn_policy policy = {.scheme = given(argv[2]),
                        .threshold = given(argv[3]),
                        .granularity = given(argv[4]),
                        .bits = given(argv[5])};
    tn_status status = tn_model_read(argv[1], NULL, &model, &error);
    if (status == TN_OK)
        status = tn_graph_create(model, NULL, &graph, &error);
    if (status == TN_OK)
        status = tn_layers_select(graph, &policy, &layers, &error);
    if (status == TN_OK)
        status = time_conversion(&layers, repeat, wall, cpu, &weights, &error);
    if (status != TN_OK)
        (void)fprintf(stderr, "%s\n", error.message);
    else
        printf("%.2f %.3f %.2f %.1f\n", 1e3 * wall[repeat / 2], 1e-6 * weights,
               1e3 * cpu[repeat / 2], 1e-6 * (double)tn_memory_stats_get().highwater);
    tn_graph_destroy(graph);
    tn_model_destroy(model);
    return (int)status;
}
