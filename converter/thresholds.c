#include "converter/thresholds.h"

#include "converter/sums.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* A magnitude is handled by its key, the bits of |w|: ordered as the magnitudes are, and within one
 * bin of at most 2^18 keys aligned to its size also linear in them (one exponent), so that a bin's
 * sum is count * base + sum of offsets * ulp in exact integers. */
enum {
    MAX_BINS = 512,
    MAX_SHIFT = 18,  /* 32 bins an octave */
    SMALL = 48,      /* at most so many are sorted */
    BUFFER = 1024,   /* survivors copied out, to be searched on their own */
    RUN_BINS = 16,   /* neighbouring survivors searched together */
    FLUSH = 1 << 20, /* elements until packed counters are emptied */
    COUNT_BIT = 40
};

typedef struct sums {
    double mass[2], moment[2];
} sums;

typedef struct search {
    bool two_scales;
    double best;
    uint32_t best_key; /* keys from here on are kept; 0: none */
    sums best_sums;
} search;

typedef struct bins {
    int count, shift;
    int64_t base;                 /* key >> shift of bin 0 */
    double mass[2][MAX_BINS + 2]; /* [0]: keys below, [count + 1]: keys above */
    double moment[2][MAX_BINS + 2];
    int64_t number[MAX_BINS + 2]; /* elements of both signs */
} bins;

static uint32_t key_of(float w)
{
    uint32_t bits;
    memcpy(&bits, &w, sizeof bits);
    return bits & 0x7fffffffu;
}

static double value_of(int64_t key)
{
    uint32_t bits = (uint32_t)key;
    float value;
    memcpy(&value, &bits, sizeof value);
    return (double)value;
}

static double objective(const search *find, const sums *s)
{
    double j = 0;
    if (!find->two_scales) {
        double mass = s->mass[0] + s->mass[1], moment = s->moment[0] + s->moment[1];
        return mass > 0 ? moment * (moment / mass) : 0;
    }
    for (int side = 0; side < 2; side++)
        if (s->mass[side] > 0)
            j += s->moment[side] * (s->moment[side] / s->mass[side]);
    return j;
}

static void offer(search *find, const sums *s, uint32_t key)
{
    double j = objective(find, s);
    if (j > find->best) {
        find->best = j;
        find->best_key = key;
        find->best_sums = *s;
    }
}

/* The most J can be after some of a bin's elements, all <= high, were added to the sums: j of them
 * add at most min(j * high, moment), and J is convex in j up to moment / high, then falls. */
static double side_bound(double mass, double moment, double bin_mass, double bin_moment,
                         double high)
{
    double before = mass > 0 ? moment * (moment / mass) : 0;
    if (!(bin_mass > 0) || !(high > 0))
        return before;
    double sum = moment + bin_moment, after = sum * (sum / (mass + bin_moment / high));
    return before > after ? before : after;
}

static double bound_of(const search *find, const bins *b, int bin, const sums *above)
{
    double high = value_of(((b->base + bin) << b->shift) - 1);
    if (!find->two_scales)
        return side_bound(above->mass[0] + above->mass[1], above->moment[0] + above->moment[1],
                          b->mass[0][bin] + b->mass[1][bin], b->moment[0][bin] + b->moment[1][bin],
                          high);
    return side_bound(above->mass[0], above->moment[0], b->mass[0][bin], b->moment[0][bin], high) +
           side_bound(above->mass[1], above->moment[1], b->mass[1][bin], b->moment[1][bin], high);
}

static void add_bin(sums *s, const bins *b, int bin)
{
    for (int side = 0; side < 2; side++) {
        s->mass[side] += b->mass[side][bin];
        s->moment[side] += b->moment[side][bin];
    }
}

static inline int bin_of(uint32_t key, int shift, int64_t base, int count)
{
    int64_t t = (int64_t)(key >> shift) - base + 1;
    t = t < 0 ? 0 : t;
    return (int)(t > count + 1 ? count + 1 : t);
}

/* Unweighted: one packed addition (count, offset) an element, unpacked exactly. */
static void fill_packed(bins *b, const float *w, int64_t n)
{
    uint64_t packed[2][MAX_BINS + 2];
    int shift = b->shift, count = b->count;
    int64_t base = b->base;
    uint32_t mask = (1u << shift) - 1;
    for (int64_t first = 0; first < n; first += FLUSH) {
        int64_t end = n - first < FLUSH ? n : first + FLUSH;
        for (int side = 0; side < 2; side++)
            memset(packed[side], 0, (size_t)(count + 2) * sizeof packed[0][0]);
        for (int64_t i = first; i < end; i++) {
            uint32_t bits;
            memcpy(&bits, w + i, sizeof bits);
            uint32_t key = bits & 0x7fffffffu;
            packed[bits >> 31][bin_of(key, shift, base, count)] +=
                ((uint64_t)1 << COUNT_BIT) + (key & mask);
        }
        for (int side = 0; side < 2; side++) {
            for (int bin = 0; bin < count + 2; bin++) {
                uint64_t number = packed[side][bin] >> COUNT_BIT;
                if (number == 0)
                    continue;
                uint64_t offset = packed[side][bin] & (((uint64_t)1 << COUNT_BIT) - 1);
                b->number[bin] += (int64_t)number;
                b->mass[side][bin] += (double)number;
                if (bin == 0 || bin == count + 1)
                    continue;
                int64_t low = (base + bin - 1) << shift;
                double unit = shift > 0 ? value_of(low + 1) - value_of(low) : 0;
                b->moment[side][bin] += (double)number * value_of(low) + (double)offset * unit;
            }
        }
    }
}

static void fill_weighted(bins *b, const float *w, const float *h, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        int bin = bin_of(key_of(w[i]), b->shift, b->base, b->count), side = signbit(w[i]) != 0;
        b->number[bin]++;
        b->mass[side][bin] += (double)h[i];
        b->moment[side][bin] += (double)h[i] * (double)fabsf(w[i]);
    }
}

/* Zeros are never kept: takes them out of the bin that begins at key 0. */
static void drop_zeros(bins *b, const float *w, const float *h, int64_t n)
{
    for (int64_t i = 0; i < n; i++) {
        if (key_of(w[i]) == 0) {
            b->mass[signbit(w[i]) != 0][1] -= h != NULL ? (double)h[i] : 1.0;
            b->number[1]--;
        }
    }
}

/* Bins for the keys [low, high], or for the upper part of them when they are many octaves. */
static void lay_bins(bins *b, int64_t n, int64_t low, int64_t high)
{
    int limit = n < 1024 ? MAX_BINS / 4 : n < 4096 ? MAX_BINS / 2 : MAX_BINS;
    b->shift = 0;
    while (b->shift < MAX_SHIFT && (high >> b->shift) - (low >> b->shift) + 1 > limit)
        b->shift++;
    int64_t needed = (high >> b->shift) - (low >> b->shift) + 1;
    b->count = needed < limit ? (int)needed : limit;
    b->base = (high >> b->shift) - b->count + 1;
    size_t used = (size_t)b->count + 2;
    for (int side = 0; side < 2; side++) {
        memset(b->mass[side], 0, used * sizeof b->mass[0][0]);
        memset(b->moment[side], 0, used * sizeof b->moment[0][0]);
    }
    memset(b->number, 0, used * sizeof b->number[0]);
}

/* Sorts a few elements of [low, high] and offers every cut between different magnitudes. */
static void search_sorted(search *find, const float *w, const float *h, int64_t n, int64_t low,
                          int64_t high, sums s)
{
    float sorted[SMALL], weight[SMALL];
    int m = 0;
    for (int64_t i = 0; i < n; i++) {
        int64_t key = key_of(w[i]);
        if (key < low || key > high || key == 0)
            continue;
        int at = m++;
        for (; at > 0 && fabsf(sorted[at - 1]) < fabsf(w[i]); at--) {
            sorted[at] = sorted[at - 1];
            weight[at] = weight[at - 1];
        }
        sorted[at] = w[i];
        weight[at] = h != NULL ? h[i] : 1.0f;
    }
    for (int i = 0; i < m; i++) {
        int side = signbit(sorted[i]) != 0;
        s.mass[side] += (double)weight[i];
        s.moment[side] += (double)weight[i] * (double)fabsf(sorted[i]);
        if (i + 1 == m || key_of(sorted[i]) != key_of(sorted[i + 1]))
            offer(find, &s, key_of(sorted[i]));
    }
}

static int64_t gather(const float *w, const float *h, int64_t n, int64_t low, int64_t high,
                      float *w_out, float *h_out)
{
    uint32_t first = (uint32_t)low, span = (uint32_t)(high - low);
    int64_t m = 0;
    if (h == NULL) { /* w_out has room for one more than there are */
        for (int64_t i = 0; i < n; i++) {
            w_out[m] = w[i];
            m += key_of(w[i]) - first <= span;
        }
        return m;
    }
    for (int64_t i = 0; i < n; i++) {
        w_out[m] = w[i];
        h_out[m] = h[i];
        m += key_of(w[i]) - first <= span;
    }
    return m;
}

static void search_range(search *find, const float *w, const float *h, int64_t n, int64_t low,
                         int64_t high, sums above);

/* Searches the `number` elements of [low, high] among the n, copied out when they are few. */
static void descend(search *find, const float *w, const float *h, int64_t n, int64_t number,
                    int64_t low, int64_t high, const sums *above)
{
    float w_some[BUFFER + 1], h_some[BUFFER + 1];
    if (number >= n || number > BUFFER) {
        search_range(find, w, h, n, low, high, *above);
        return;
    }
    int64_t m = gather(w, h, n, low, high, w_some, h_some);
    search_range(find, w_some, h != NULL ? h_some : NULL, m, low, high, *above);
}

/* Looks into the bins whose bound reaches the best cut so far, neighbours together. */
static void search_survivors(search *find, const bins *b, const float *w, const float *h, int64_t n,
                             sums above)
{
    for (int bin = b->count; bin >= 1;) {
        if (b->number[bin] == 0 || bound_of(find, b, bin, &above) < find->best * (1 - 1e-14)) {
            add_bin(&above, b, bin--);
            continue;
        }
        sums start = above;
        int top = bin;
        int64_t number = 0;
        while (
            bin >= 1 && top - bin < RUN_BINS &&
            (b->number[bin] == 0 || bound_of(find, b, bin, &above) >= find->best * (1 - 1e-14))) {
            number += b->number[bin];
            add_bin(&above, b, bin--);
        }
        int64_t low = (b->base + bin) << b->shift, high = ((b->base + top) << b->shift) - 1;
        descend(find, w, h, n, number, low > 0 ? low : 1, high, &start);
    }
}

/* All elements with keys in [low, high]; `above` sums those with larger keys. */
static void search_range(search *find, const float *w, const float *h, int64_t n, int64_t low,
                         int64_t high, sums above)
{
    if (n <= SMALL) {
        search_sorted(find, w, h, n, low, high, above);
        return;
    }
    bins b;
    lay_bins(&b, n, low, high);
    if (h != NULL)
        fill_weighted(&b, w, h, n);
    else
        fill_packed(&b, w, n);
    if (b.base == 0)
        drop_zeros(&b, w, h, n);
    sums s = above;
    for (int bin = b.count; bin >= 1; bin--) {
        if (b.number[bin] == 0)
            continue;
        add_bin(&s, &b, bin);
        int64_t key = (b.base + bin - 1) << b.shift;
        offer(find, &s, key > 0 ? (uint32_t)key : 1);
    }
    if (b.shift > 0)
        search_survivors(find, &b, w, h, n, above);
    int64_t rest = b.base << b.shift; /* keys below the bins */
    if (rest <= low || rest <= 1 || b.number[0] == 0)
        return;
    double high_rest = value_of(rest - 1), bound = 0;
    if (find->two_scales)
        for (int side = 0; side < 2; side++)
            bound += side_bound(s.mass[side], s.moment[side], b.mass[side][0],
                                b.mass[side][0] * high_rest, high_rest);
    else
        bound = side_bound(s.mass[0] + s.mass[1], s.moment[0] + s.moment[1],
                           b.mass[0][0] + b.mass[1][0], (b.mass[0][0] + b.mass[1][0]) * high_rest,
                           high_rest);
    if (bound > find->best)
        search_range(find, w, h, n, low, rest - 1, s);
}

void tn_threshold_optimal(const float *w, const float *h, int64_t n, bool two_scales, tn_cut *cut)
{
    search find = {.two_scales = two_scales};
    sums none = {{0, 0}, {0, 0}};
    uint32_t top = key_of(tn_max_abs(w, n));
    if (top > 0)
        search_range(&find, w, h, n, 1, top, none);
    uint32_t below = find.best_key > 0 ? find.best_key - 1 : 0;
    memcpy(&cut->threshold, &below, sizeof below);
    memcpy(cut->mass, find.best_sums.mass, sizeof cut->mass);
    memcpy(cut->moment, find.best_sums.moment, sizeof cut->moment);
}

float tn_threshold_rank(const float *w, int64_t n, int64_t rank)
{
    uint32_t prefix = 0; /* the key's bits found so far, from the top */
    for (int shift = 24; shift >= 0; shift -= 8) {
        int64_t number[256] = {0};
        for (int64_t i = 0; i < n; i++) {
            uint32_t key = key_of(w[i]);
            if (shift == 24 || key >> (shift + 8) == prefix >> (shift + 8))
                number[key >> shift & 255]++;
        }
        uint32_t digit = 0;
        while (rank >= number[digit])
            rank -= number[digit++];
        prefix |= digit << shift;
    }
    float value;
    memcpy(&value, &prefix, sizeof value);
    return value;
}
