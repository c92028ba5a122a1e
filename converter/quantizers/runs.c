#include "converter/quantizers/runs.h"

#include "converter/sums.h"

void tn_runs_each_piece(const tn_qweight *shape, tn_piece_work work, const void *context)
{
    tn_run longest = tn_run_at(shape, 0);
    int64_t pieces = (longest.count + TN_PIECE - 1) / TN_PIECE, total = shape->n_scales * pieces;
    bool large = total > 1 && shape->rows * shape->cols > TN_PIECE;
#pragma omp parallel for schedule(static) if (large)
    for (int64_t p = 0; p < total; p++) {
        tn_run run = tn_run_at(shape, p / pieces);
        int64_t first = p % pieces * TN_PIECE, left = run.count - first;
        if (left <= 0)
            continue;
        work(context, p / pieces,
             (tn_run){run.first + first, left < TN_PIECE ? left : (int64_t)TN_PIECE});
    }
}

void tn_runs_each(const tn_qweight *shape, tn_piece_work work, const void *context)
{
    if (shape->n_scales == 1) { /* the threads work inside it */
        work(context, 0, tn_run_at(shape, 0));
        return;
    }
    bool large = shape->rows * shape->cols > TN_PIECE;
#pragma omp parallel for schedule(static) if (large)
    for (int64_t i = 0; i < shape->n_scales; i++)
        work(context, i, tn_run_at(shape, i));
}
