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
    COUNT_BIT = 40,
    TILE = 512
};

/* What is searched. With levels an element stands for the elements w / (2 j - 1) of weight
 * h (2 j - 1), j = 1 to the levels of its sign. */
typedef struct source {
    const float *w, *h;
    int64_t n;
    int levels[2];
} source;

typedef struct sums {
    double mass[2], moment[2];
} sums;

typedef struct search {
    bool two_scales; /* else all is summed at [0] */
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

static int top_level(const source *from)
{
    return from->levels[0] > from->levels[1] ? from->levels[0] : from->levels[1];
}

static bool is_plain(const source *from)
{
    return from->levels[0] == 1 && from->levels[1] == 1;
}

/* Elements [first, first + count) of level j: in `tile`, or where they are. Those without that
 * level become 0. */
static const float *elements_of(const source *from, int64_t first, int64_t count, int j,
                                float *tile)
{
    if (is_plain(from))
        return from->w + first;
    float divisor = (float)(2 * j - 1);
    float positive = j <= from->levels[0] ? 1.0f : 0.0f;
    float negative = j <= from->levels[1] ? 1.0f : 0.0f;
    for (int64_t i = 0; i < count; i++) {
        float v = from->w[first + i] / divisor;
        tile[i] = v * (v < 0.0f ? negative : positive);
    }
    return tile;
}

static double objective(const search *find, const sums *s)
{
    double j = s->mass[0] > 0 ? s->moment[0] * (s->moment[0] / s->mass[0]) : 0;
    if (find->two_scales && s->mass[1] > 0)
        j += s->moment[1] * (s->moment[1] / s->mass[1]);
    return j;
}

static void offer(search *find, const sums *s, uint32_t key)
{
    if (!find->two_scales && s->moment[0] * s->moment[0] < find->best * s->mass[0] * (1 - 1e-14))
        return; /* without a division */
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

/* Whether a cut inside the bin can be better than the best so far, which is at least as good as the
 * cut before the bin. */
static bool may_beat(const search *find, const bins *b, int bin, const sums *above)
{
    const double rounding = 1 - 1e-14;
    double high = value_of(((b->base + bin) << b->shift) - 1), bound = 0;
    if (!find->two_scales) { /* the bound of side_bound, without division */
        double sum = above->moment[0] + b->moment[0][bin];
        return sum * sum * high >=
               find->best * rounding * (above->mass[0] * high + b->moment[0][bin]);
    }
    for (int side = 0; side < 2; side++)
        bound += side_bound(above->mass[side], above->moment[side], b->mass[side][bin],
                            b->moment[side][bin], high);
    return bound >= find->best * rounding;
}

static void add_bin(sums *s, const bins *b, int bin)
{
    for (int side = 0; side < 2; side++) {
        s->mass[side] += b->mass[side][bin];
        s->moment[side] += b->moment[side][bin];
    }
}

static inline int bin_of(uint32_t key, int shift, int base, int count)
{
    int t = (int)(key >> shift) - base + 1;
    t = t < 0 ? 0 : t;
    return t > count + 1 ? count + 1 : t;
}

typedef uint64_t packed_bins[2][MAX_BINS + 2];

/* Moves packed counters into the bins, weighted; exact. */
static void unpack(bins *b, const packed_bins packed, int sides, double weight)
{
    for (int side = 0; side < sides; side++) {
        for (int bin = 0; bin < b->count + 2; bin++) {
            uint64_t number = packed[side][bin] >> COUNT_BIT;
            if (number == 0)
                continue;
            uint64_t offset = packed[side][bin] & (((uint64_t)1 << COUNT_BIT) - 1);
            b->number[bin] += (int64_t)number;
            b->mass[side][bin] += weight * (double)number;
            if (bin == 0 || bin == b->count + 1)
                continue;
            int64_t low = (b->base + bin - 1) << b->shift;
            double unit = b->shift > 0 ? value_of(low + 1) - value_of(low) : 0;
            b->moment[side][bin] +=
                weight * ((double)number * value_of(low) + (double)offset * unit);
        }
    }
}

/* Unweighted: one packed addition (count, offset) an element. */
static void fill_packed(bins *b, const source *from, bool two_scales)
{
    packed_bins packed;
    float tile[TILE];
    int shift = b->shift, count = b->count;
    int base = (int)b->base;
    uint32_t mask = (1u << shift) - 1, sign = two_scales ? 1 : 0;
    for (int j = 1; j <= top_level(from); j++) {
        for (int64_t first = 0; first < from->n;) {
            int64_t end = from->n - first < FLUSH ? from->n : first + FLUSH;
            memset(packed[0], 0, (size_t)(count + 2) * sizeof packed[0][0]);
            memset(packed[1], 0, (size_t)(count + 2) * sizeof packed[0][0]);
            for (; first < end; first += TILE) {
                int64_t some = end - first < TILE ? end - first : TILE;
                const float *w = elements_of(from, first, some, j, tile);
                for (int64_t i = 0; i < some; i++) {
                    uint32_t bits;
                    memcpy(&bits, w + i, sizeof bits);
                    uint32_t key = bits & 0x7fffffffu;
                    packed[bits >> 31 & sign][bin_of(key, shift, base, count)] +=
                        ((uint64_t)1 << COUNT_BIT) + (key & mask);
                }
            }
            first = end;
            unpack(b, (const uint64_t(*)[MAX_BINS + 2]) packed, two_scales ? 2 : 1, 2 * j - 1);
        }
    }
}

static int side_of(float w, bool two_scales)
{
    return two_scales && signbit(w) != 0;
}

static void fill_weighted(bins *b, const source *from, bool two_scales)
{
    float tile[TILE];
    for (int j = 1; j <= top_level(from); j++) {
        for (int64_t first = 0; first < from->n; first += TILE) {
            int64_t some = from->n - first < TILE ? from->n - first : TILE;
            const float *w = elements_of(from, first, some, j, tile);
            for (int64_t i = 0; i < some; i++) {
                int bin = bin_of(key_of(w[i]), b->shift, (int)b->base, b->count);
                int side = side_of(w[i], two_scales);
                double weight = (double)from->h[first + i] * (2 * j - 1);
                b->number[bin]++;
                b->mass[side][bin] += weight;
                b->moment[side][bin] += weight * (double)fabsf(w[i]);
            }
        }
    }
}

/* Zeros are never kept: takes them out of the bin that begins at key 0. */
static void drop_zeros(bins *b, const source *from, bool two_scales)
{
    float tile[TILE];
    for (int j = 1; j <= top_level(from); j++) {
        for (int64_t first = 0; first < from->n; first += TILE) {
            int64_t some = from->n - first < TILE ? from->n - first : TILE;
            const float *w = elements_of(from, first, some, j, tile);
            for (int64_t i = 0; i < some; i++) {
                if (key_of(w[i]) != 0)
                    continue;
                double weight = from->h != NULL ? (double)from->h[first + i] : 1.0;
                b->mass[side_of(w[i], two_scales)][1] -= weight * (2 * j - 1);
                b->number[1]--;
            }
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

/* Sorts a few elements of [low, high], without levels, and offers every cut between magnitudes. */
static void search_sorted(search *find, const source *from, int64_t low, int64_t high, sums s)
{
    float sorted[SMALL], weight[SMALL];
    int m = 0;
    for (int64_t i = 0; i < from->n; i++) {
        float w = from->w[i];
        int64_t key = key_of(w);
        if (key < low || key > high || key == 0)
            continue;
        int at = m++;
        for (; at > 0 && fabsf(sorted[at - 1]) < fabsf(w); at--) {
            sorted[at] = sorted[at - 1];
            weight[at] = weight[at - 1];
        }
        sorted[at] = w;
        weight[at] = from->h != NULL ? from->h[i] : 1.0f;
    }
    for (int i = 0; i < m; i++) {
        int side = side_of(sorted[i], find->two_scales);
        s.mass[side] += (double)weight[i];
        s.moment[side] += (double)weight[i] * (double)fabsf(sorted[i]);
        if (i + 1 == m || key_of(sorted[i]) != key_of(sorted[i + 1]))
            offer(find, &s, key_of(sorted[i]));
    }
}

/* Copies the elements of [low, high], levels unfolded; there is room for one more than there are.
 */
static int64_t gather(const source *from, int64_t low, int64_t high, float *w_out, float *h_out)
{
    uint32_t lowest = (uint32_t)low, span = (uint32_t)(high - low);
    float tile[TILE];
    int64_t m = 0;
    for (int j = 1; j <= top_level(from); j++) {
        for (int64_t first = 0; first < from->n; first += TILE) {
            int64_t some = from->n - first < TILE ? from->n - first : TILE;
            const float *w = elements_of(from, first, some, j, tile);
            float weight = (float)(2 * j - 1);
            for (int64_t i = 0; i < some; i++) {
                w_out[m] = w[i];
                h_out[m] = from->h != NULL ? from->h[first + i] * weight : weight;
                m += key_of(w[i]) - lowest <= span;
            }
        }
    }
    return m;
}

static void search_range(search *find, const source *from, int64_t low, int64_t high, sums above);

/* Searches the `number` elements of [low, high], copied out when they are few. */
static void descend(search *find, const source *from, int64_t number, int64_t low, int64_t high,
                    const sums *above)
{
    float w_some[BUFFER + 1], h_some[BUFFER + 1];
    if (number > BUFFER || (number >= from->n && is_plain(from))) {
        search_range(find, from, low, high, *above);
        return;
    }
    source some = {w_some, h_some, gather(from, low, high, w_some, h_some), {1, 1}};
    if (from->h == NULL && top_level(from) == 1)
        some.h = NULL;
    search_range(find, &some, low, high, *above);
}

/* Looks into the bins whose bound reaches the best cut so far, neighbours together. */
static void search_survivors(search *find, const bins *b, const source *from, sums above)
{
    for (int bin = b->count; bin >= 1;) {
        if (b->number[bin] == 0 || !may_beat(find, b, bin, &above)) {
            add_bin(&above, b, bin--);
            continue;
        }
        sums start = above;
        int top = bin;
        int64_t number = 0;
        while (bin >= 1 && top - bin < RUN_BINS &&
               (b->number[bin] == 0 || may_beat(find, b, bin, &above))) {
            number += b->number[bin];
            add_bin(&above, b, bin--);
        }
        int64_t low = (b->base + bin) << b->shift, high = ((b->base + top) << b->shift) - 1;
        descend(find, from, number, low > 0 ? low : 1, high, &start);
    }
}

/* Looks below the bins when something there could be better; s sums all above it. */
static void search_rest(search *find, const bins *b, const source *from, int64_t low, sums s)
{
    int64_t rest = b->base << b->shift;
    if (rest <= low || rest <= 1 || b->number[0] == 0)
        return;
    double high = value_of(rest - 1), bound = 0;
    for (int side = 0; side < 1 + find->two_scales; side++)
        bound += side_bound(s.mass[side], s.moment[side], b->mass[side][0], b->mass[side][0] * high,
                            high);
    if (bound > find->best)
        search_range(find, from, low, rest - 1, s);
}

/* All elements with keys in [low, high]; `above` sums those with larger keys. */
static void search_range(search *find, const source *from, int64_t low, int64_t high, sums above)
{
    if (from->n <= SMALL && is_plain(from)) {
        search_sorted(find, from, low, high, above);
        return;
    }
    bins b;
    lay_bins(&b, from->n * top_level(from), low, high);
    if (from->h != NULL)
        fill_weighted(&b, from, find->two_scales);
    else
        fill_packed(&b, from, find->two_scales);
    if (b.base == 0)
        drop_zeros(&b, from, find->two_scales);
    sums s = above;
    for (int bin = b.count; bin >= 1; bin--) {
        if (b.number[bin] == 0)
            continue;
        add_bin(&s, &b, bin);
        int64_t key = (b.base + bin - 1) << b.shift;
        offer(find, &s, key > 0 ? (uint32_t)key : 1);
    }
    if (b.shift > 0)
        search_survivors(find, &b, from, above);
    search_rest(find, &b, from, low, s);
}

static void search_all(search *find, const source *from)
{
    sums none = {{0, 0}, {0, 0}};
    uint32_t top = key_of(tn_max_abs(from->w, from->n));
    if (top > 0)
        search_range(find, from, 1, top, none);
}

void tn_threshold_optimal(const float *w, const float *h, int64_t n, bool two_scales, tn_cut *cut)
{
    search find = {.two_scales = two_scales};
    source all = {w, h, n, {1, 1}};
    search_all(&find, &all);
    uint32_t below = find.best_key > 0 ? find.best_key - 1 : 0;
    memcpy(&cut->threshold, &below, sizeof below);
    memcpy(cut->mass, find.best_sums.mass, sizeof cut->mass);
    memcpy(cut->moment, find.best_sums.moment, sizeof cut->moment);
}

double tn_threshold_step(const float *w, const float *h, int64_t n, int low, int high)
{
    search find = {.two_scales = false};
    source all = {w, h, n, {high, -low}};
    search_all(&find, &all);
    return find.best > 0 ? find.best_sums.moment[0] / find.best_sums.mass[0] : 0;
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
