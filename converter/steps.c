#include "converter/steps.h"

#include "converter/lanes.h"
#include "converter/sums.h"
#include "converter/thresholds.h"

#include <float.h>
#include <math.h>
#include <stddef.h>

enum {
    EXACT_CODES = 16,
    WIDE_GRID = 100,
    PATIENCE = 20, /* steps of it that may be no better before the search ends */
    FINE_GRID = 8  /* steps between two of the wide grid */
};

typedef struct search {
    const float *w, *h;
    int64_t n;
    int low, high;
    double best; /* A^2 / B */
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
    if (find->n <= TN_PIECE) {
        sum_codes(find->w, find->n, step, (float)find->low, (float)find->high, a, b);
        return;
    }
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

typedef struct point { /* the codes at one step */
    double a, b;
} point;

static point evaluate(search *find, float step)
{
    point p = {0, 0};
    if (find->h != NULL)
        sum_weighted(find, step, &p.a, &p.b);
    else
        sum_pieces(find, step, &p.a, &p.b);
    double j = p.b > 0 && p.a > 0 ? p.a * (p.a / p.b) : 0;
    find->best = j > find->best ? j : find->best;
    return p;
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
    double over = find->high > 0 ? (double)high / find->high : 0;
    double whole = below > over ? below : over, cell = whole / WIDE_GRID;
    float best = tn_step_legal(whole, find->low, find->high);
    (void)evaluate(find, best);
    for (int i = WIDE_GRID - 1, missed = 0; i >= 1 && missed < PATIENCE; i--) {
        double before = find->best;
        float step = tn_step_legal(cell * i, find->low, find->high);
        (void)evaluate(find, step);
        missed = find->best > before ? 0 : missed + 1;
        best = missed == 0 ? step : best;
    }
    double middle = (double)best;
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
    if (widest <= EXACT_CODES)
        return tn_step_legal(tn_threshold_step(w, h, n, low, high), low, high);
    search find = {.w = w, .h = h, .n = n, .low = low, .high = high};
    return search_wide(&find);
}
