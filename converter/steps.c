#include "converter/steps.h"

#include "converter/lanes.h"
#include "converter/sums.h"
#include "converter/thresholds.h"

#include <float.h>
#include <math.h>
#include <stddef.h>

enum {
    EXACT_CODES = 8,
    GRID = 48, /* intervals the search begins with, and steps it tries first */
    WIDE_GRID = 100,
    FINE_GRID = 8, /* steps between two of the wide grid */
    CHANGES = 64,  /* at most so many codes change where each change is tried */
    DEPTH = 40
};

typedef struct point { /* the codes at one step */
    double step, a, b;
} point;

typedef struct search {
    const float *w, *h;
    int64_t n;
    int low, high;
    double best, best_step;
} search;

/* Adding and taking away 1.5 * 2^23 rounds half to even without SSE4.1; |x| < 2^22. */
static inline float round_even(float x)
{
    const float magic = 12582912.0f;
    return (x + magic) - magic;
}

static inline float code_of(float w, float step, float low, float high)
{
    float v = w / step;
    v = v < low ? low : v;
    v = v > high ? high : v;
    return round_even(v);
}

TN_MULTIVERSION
static void sum_codes(const float *w, int64_t n, float step, float low, float high, double *a,
                      double *b)
{
    const float magic = 12582912.0f;
    tn_lane_sums a_sums[2] = {{0}, {0}}, b_sums[2] = {{0}, {0}};
    tn_lanes lows = low - (tn_lanes){0}, highs = high - (tn_lanes){0};
    float last[TN_LANES] = {0};
    int64_t whole = n - n % TN_LANES;
    memcpy(last, w + whole, (size_t)(n - whole) * sizeof *w);
    for (int64_t i = 0; i <= whole; i += TN_LANES) {
        const float *from = i == whole ? last : w + i;
        for (int half = 0; half < 2; half++) {
            tn_lanes x = TN_LANES_LOAD(from + half * TN_HALF), q = x / step;
            q = TN_LANES_CHOOSE(q < lows, lows, q);
            q = TN_LANES_CHOOSE(q > highs, highs, q);
            q = (q + magic) - magic;
            tn_lane_sums code = TN_LANES_WIDEN(q);
            a_sums[half] += code * TN_LANES_WIDEN(x);
            b_sums[half] += code * code;
        }
    }
    *a += TN_LANES_TOTAL(a_sums);
    *b += TN_LANES_TOTAL(b_sums);
}

static void sum_weighted(const search *find, float step, double *a, double *b)
{
    for (int64_t i = 0; i < find->n; i++) {
        double q = (double)code_of(find->w[i], step, (float)find->low, (float)find->high);
        *a += (double)find->h[i] * q * (double)find->w[i];
        *b += (double)find->h[i] * q * q;
    }
}

/* Pieces in order, by all threads where there are many. */
static void sum_pieces(const search *find, float step, double *a, double *b)
{
    enum { BATCH = 128 };
    for (int64_t base = 0; base < find->n; base += (int64_t)BATCH * TN_PIECE) {
        double part[BATCH][2] = {{0}};
        int64_t rest = find->n - base, pieces = (rest + TN_PIECE - 1) / TN_PIECE;
        int64_t used = pieces < BATCH ? pieces : BATCH;
#pragma omp parallel for schedule(static) if (used > 1)
        for (int64_t p = 0; p < used; p++) {
            int64_t first = p * TN_PIECE, left = rest - first;
            sum_codes(find->w + base + first, left < TN_PIECE ? left : TN_PIECE, step,
                      (float)find->low, (float)find->high, &part[p][0], &part[p][1]);
        }
        for (int64_t p = 0; p < used; p++) {
            *a += part[p][0];
            *b += part[p][1];
        }
    }
}

static void offer(search *find, double a, double b)
{
    if (b > 0 && a > 0 && a * (a / b) > find->best) {
        find->best = a * (a / b);
        find->best_step = a / b;
    }
}

static point evaluate(search *find, float step)
{
    point p = {(double)step, 0, 0};
    if (find->h != NULL)
        sum_weighted(find, step, &p.a, &p.b);
    else
        sum_pieces(find, step, &p.a, &p.b);
    offer(find, p.a, p.b);
    return p;
}

typedef struct change { /* going down, |q| becomes `code` below `step` */
    double step, a, b;
} change;

/* Lists the changes of codes between the two steps; false when there are more than CHANGES. */
static int list_changes(const search *find, float lower, float upper, change *list)
{
    int m = 0;
    for (int64_t i = 0; i < find->n; i++) {
        float more = fabsf(code_of(find->w[i], lower, (float)find->low, (float)find->high));
        float less = fabsf(code_of(find->w[i], upper, (float)find->low, (float)find->high));
        for (int code = (int)less + 1; code <= (int)more; code++) {
            if (m == CHANGES)
                return -1;
            double h = find->h != NULL ? (double)find->h[i] : 1.0, w = fabs((double)find->w[i]);
            change next = {w / (code - 0.5), h * w, h * (2 * code - 1)};
            int at = m++;
            for (; at > 0 && list[at - 1].step < next.step; at--)
                list[at] = list[at - 1];
            list[at] = next;
        }
    }
    return m;
}

/* Tries all steps between two evaluated ones that can be better than the best. */
static void search_between(search *find, point lower, point upper, int depth)
{
    double bound = upper.b > 0 ? lower.a * (lower.a / upper.b) : (double)INFINITY;
    if (lower.b <= upper.b || bound <= find->best * (1 + 1e-12))
        return;
    change list[CHANGES];
    /* |q| grows by at least 1 a change, so B by at least 1 (unweighted): too many to list */
    bool many = find->h == NULL && upper.b + (double)CHANGES * 16 < lower.b;
    int m = many ? -1 : list_changes(find, (float)lower.step, (float)upper.step, list);
    double a = upper.a, b = upper.b;
    for (int i = 0; i < m; i++) {
        a += list[i].a;
        b += list[i].b;
        if (i + 1 == m || list[i + 1].step < list[i].step)
            offer(find, a, b);
    }
    float middle = (float)(0.5 * (lower.step + upper.step));
    if (m >= 0 || depth == 0 || (double)middle <= lower.step || (double)middle >= upper.step)
        return;
    point p = evaluate(find, middle);
    search_between(find, p, upper, depth - 1);
    search_between(find, lower, p, depth - 1);
}

/* All codes at the end of their range: the steps below the grid. */
static point saturated(const search *find)
{
    point p = {0, 0, 0};
    for (int64_t i = 0; i < find->n; i++) {
        double w = (double)find->w[i], h = find->h != NULL ? (double)find->h[i] : 1.0;
        double q = w > 0 ? find->high : w < 0 ? find->low : 0;
        p.a += h * q * w;
        p.b += h * q * q;
    }
    return p;
}

static void search_exact(search *find, float top, int widest)
{
    point grid[GRID + 1];
    double highest = 2.0 * (double)top, lowest = (double)top / widest / 16;
    highest = highest < (double)FLT_MAX ? highest : (double)FLT_MAX;
    lowest = lowest > (double)FLT_TRUE_MIN ? lowest : (double)FLT_TRUE_MIN;
    double ratio = pow(highest / lowest, 1.0 / GRID);
    for (int i = 0; i <= GRID; i++)
        grid[i] = evaluate(find, i == GRID ? (float)highest : (float)(lowest * pow(ratio, i)));
    for (int i = GRID; i > 0; i--)
        if (grid[i - 1].step < grid[i].step)
            search_between(find, grid[i - 1], grid[i], DEPTH);
    point bottom = saturated(find);
    offer(find, bottom.a, bottom.b);
    search_between(find, bottom, grid[0], DEPTH);
}

float tn_step_legal(double step, int low, int high)
{
    int widest = -low > high ? -low : high;
    double most = (double)FLT_MAX / widest;
    if (!(step > 0))
        return 1.0f;
    if (step >= most)
        return nextafterf((float)most, 0.0f);
    float narrow = (float)step;
    return narrow > 0.0f ? narrow : FLT_TRUE_MIN;
}

float tn_step_lloyd(const float *w, const float *h, int64_t n, int low, int high, float step)
{
    search find = {.w = w, .h = h, .n = n, .low = low, .high = high};
    point p = evaluate(&find, step);
    return p.b > 0 && p.a > 0 ? tn_step_legal(p.a / p.b, low, high) : step;
}

/* The least step that clamps nothing comes first: with many bits it is hard to beat. */
static float search_wide(search *find)
{
    float low, high;
    tn_range_with_zero(find->w, find->n, &low, &high);
    double below = find->low < 0 ? (double)low / find->low : 0;
    double over = find->high > 0 ? (double)high / find->high : 0,
           whole = below > over ? below : over;
    float best = tn_step_legal(whole, find->low, find->high);
    (void)evaluate(find, best);
    for (int i = 1; i <= WIDE_GRID; i++) {
        double before = find->best;
        float step = tn_step_legal(whole * 1.25 * i / WIDE_GRID, find->low, find->high);
        (void)evaluate(find, step);
        best = find->best > before ? step : best;
    }
    double cell = whole * 1.25 / WIDE_GRID, middle = (double)best;
    for (int i = -FINE_GRID; i <= FINE_GRID; i++) {
        double before = find->best;
        float step = tn_step_legal(middle + cell * i / FINE_GRID, find->low, find->high);
        (void)evaluate(find, step);
        best = find->best > before ? step : best;
    }
    for (int i = 0; i < 3; i++)
        best = tn_step_lloyd(find->w, find->h, find->n, find->low, find->high, best);
    return best;
}

float tn_step_optimal(const float *w, const float *h, int64_t n, int low, int high)
{
    float top = tn_max_abs(w, n);
    int widest = -low > high ? -low : high;
    if (!(top > 0))
        return 1.0f;
    if (low == -1 && high == 1) {
        tn_cut cut;
        tn_threshold_optimal(w, h, n, false, &cut);
        return tn_step_legal((cut.moment[0] + cut.moment[1]) / (cut.mass[0] + cut.mass[1]), low,
                             high);
    }
    search find = {.w = w, .h = h, .n = n, .low = low, .high = high};
    if (widest <= EXACT_CODES) {
        search_exact(&find, top, widest);
        return tn_step_legal(find.best_step, low, high);
    }
    return search_wide(&find);
}
