#include "converter/quantizers/runs.h"

#include "converter/sums.h"

/* Even an inactive parallel region costs as much as a short row: small work is done without one. */
static bool is_small(const tn_qweight *shape)
{
    return shape->rows * shape->cols <= TN_PIECE;
}

static void do_piece(const tn_qweight *shape, int64_t pieces, int64_t p, tn_piece_work work,
                     const void *context)
{
    tn_run run = tn_run_at(shape, p / pieces);
    int64_t first = p % pieces * TN_PIECE, left = run.count - first;
    if (left > 0)
        work(context, p / pieces,
             (tn_run){run.first + first, left < TN_PIECE ? left : (int64_t)TN_PIECE});
}

void tn_runs_each_piece(const tn_qweight *shape, tn_piece_work work, const void *context)
{
    tn_run longest = tn_run_at(shape, 0);
    int64_t pieces = (longest.count + TN_PIECE - 1) / TN_PIECE, total = shape->n_scales * pieces;
    if (is_small(shape)) {
        for (int64_t p = 0; p < total; p++)
            do_piece(shape, pieces, p, work, context);
        return;
    }
#pragma omp parallel for schedule(static)
    for (int64_t p = 0; p < total; p++)
        do_piece(shape, pieces, p, work, context);
}

void tn_runs_each(const tn_qweight *shape, tn_piece_work work, const void *context)
{
    if (shape->n_scales == 1 || is_small(shape)) { /* of one run the threads work inside */
        for (int64_t i = 0; i < shape->n_scales; i++)
            work(context, i, tn_run_at(shape, i));
        return;
    }
#pragma omp parallel for schedule(static)
    for (int64_t i = 0; i < shape->n_scales; i++)
        work(context, i, tn_run_at(shape, i));
}
