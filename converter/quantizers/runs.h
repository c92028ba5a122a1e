/* The runs of a weight: run i is the consecutive elements that share scale i. */
#ifndef TERNION_CONVERTER_QUANTIZERS_RUNS_H
#define TERNION_CONVERTER_QUANTIZERS_RUNS_H

#include "converter/weight.h"

typedef struct tn_run {
    int64_t first, count;
} tn_run;

static inline tn_run tn_run_at(const tn_qweight *shape, int64_t i)
{
    if (shape->granularity == TN_PER_TENSOR)
        return (tn_run){0, shape->rows * shape->cols};
    if (shape->granularity == TN_PER_CHANNEL)
        return (tn_run){i * shape->cols, shape->cols};
    int64_t row = i / shape->groups_per_row, col = i % shape->groups_per_row * shape->group;
    int64_t left = shape->cols - col;
    return (tn_run){row * shape->cols + col, left < shape->group ? left : shape->group};
}

/* Calls work(context, i, piece) for all pieces (at most TN_PIECE elements) of all runs, on all
 * threads in any order: for elementwise work. */
typedef void (*tn_piece_work)(const void *context, int64_t i, tn_run piece);
void tn_runs_each_piece(const tn_qweight *shape, tn_piece_work work, const void *context);

/* Calls work(context, i, run) once for every run, on all threads: for reductions. */
void tn_runs_each(const tn_qweight *shape, tn_piece_work work, const void *context);

#endif
