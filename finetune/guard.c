#include "finetune/guard.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>

static int compare_floats(const void *a, const void *b)
{
    float x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return (x > y) - (x < y);
}

static double median(const tn_guard *guard)
{
    float sorted[TN_GUARD_WINDOW];
    uint32_t count = guard->seen < TN_GUARD_WINDOW ? guard->seen : TN_GUARD_WINDOW;
    memcpy(sorted, guard->window, count * sizeof *sorted);
    qsort(sorted, count, sizeof *sorted, compare_floats);
    return (double)sorted[count / 2];
}

tn_verdict tn_guard_judge(tn_guard *guard, double loss, double gradient_norm, double guessing)
{
    const bool finite = isfinite(loss) && isfinite(gradient_norm);
    const bool jumped =
        finite && loss > guessing && guard->seen >= TN_GUARD_WINDOW && loss > 10 * median(guard);
    guard->dropped += !finite;
    guard->bad = finite && !jumped ? 0 : guard->bad + 1;
    if (guard->bad >= TN_GUARD_BAD_STEPS)
        return TN_STEP_ROLL_BACK;
    if (!finite)
        return TN_STEP_DROP;
    if (!jumped)
        guard->window[guard->seen++ % TN_GUARD_WINDOW] = (float)loss;
    return TN_STEP_GOOD;
}
