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

tn_verdict tn_guard_judge(tn_guard *guard, double loss, double gradient_norm)
{
    if (!isfinite(loss) || !isfinite(gradient_norm)) {
        guard->dropped++;
        return ++guard->bad >= TN_GUARD_BAD_STEPS ? TN_STEP_ROLL_BACK : TN_STEP_DROP;
    }
    guard->bad = 0;
    if (guard->seen >= TN_GUARD_WINDOW && loss > 10 * median(guard))
        return TN_STEP_ROLL_BACK;
    guard->window[guard->seen++ % TN_GUARD_WINDOW] = (float)loss;
    return TN_STEP_GOOD;
}
