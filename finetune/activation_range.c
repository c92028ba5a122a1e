#include "finetune/activation_range.h"

#include <math.h>
#include <string.h>

enum { BINS = TN_HISTOGRAM_BINS, CANDIDATES = 64, ENTROPY_BITS = 11 };
static const double TAIL = 5e-5; /* of percentile, at each end */

void tn_histogram_add(tn_histogram *histogram, const float *values, int64_t count)
{
    double width = (histogram->high - histogram->low) / BINS;
    for (int64_t i = 0; i < count; i++) {
        double at = width > 0 ? ((double)values[i] - histogram->low) / width : 0;
        int bin = !(at > 0) ? 0 : at >= BINS ? BINS - 1 : (int)at; /* NaN is below */
        histogram->bin[bin]++;
    }
}

static double centre(const tn_histogram *histogram, int bin)
{
    return histogram->low + (histogram->high - histogram->low) * (bin + 0.5) / BINS;
}

static void percentile(const tn_histogram *histogram, double *low, double *high)
{
    uint64_t total = 0, below = 0, above = 0;
    for (int i = 0; i < BINS; i++)
        total += histogram->bin[i];
    double cut = TAIL * (double)total, width = (histogram->high - histogram->low) / BINS;
    int first = 0, last = BINS - 1;
    while (first < last && (double)(below + histogram->bin[first]) <= cut)
        below += histogram->bin[first++];
    while (last > first && (double)(above + histogram->bin[last]) <= cut)
        above += histogram->bin[last--];
    *low = histogram->low + width * first;
    *high = histogram->low + width * (last + 1);
}

/* Squared error of the codes of a range, over bin centres. */
static double squared_error(const tn_histogram *histogram, const tn_activation_range *range)
{
    double sum = 0, top = ldexp(1, range->bits) - 1;
    for (int i = 0; i < BINS; i++) {
        if (histogram->bin[i] == 0)
            continue;
        double x = centre(histogram, i), code = rint(x / (double)range->scale) + range->zero;
        code = code < 0 ? 0 : code > top ? top : code;
        double left = x - (code - range->zero) * (double)range->scale;
        sum += (double)histogram->bin[i] * left * left;
    }
    return sum;
}

/* KL of the histogram from its quantized form, as Migacz (GTC 2017) has it: what is cut off counts
 * in the outermost bins that are kept, while the quantized form is made of the kept bins alone,
 * each code's mass spread over those of its bins that are not empty. */
static double divergence(const tn_histogram *histogram, const tn_activation_range *range)
{
    int codes = 1 << range->bits, code_of[BINS], first = BINS, last = -1;
    double mass[1 << ENTROPY_BITS] = {0}, filled[1 << ENTROPY_BITS] = {0};
    double below = 0, above = 0, kept = 0, sum = 0;
    for (int i = 0; i < BINS; i++) {
        double count = (double)histogram->bin[i];
        double code = rint(centre(histogram, i) / (double)range->scale) + range->zero;
        code_of[i] = code < 0 ? -1 : code > codes - 1 ? codes : (int)code;
        below += code < 0 ? count : 0;
        above += code > codes - 1 ? count : 0;
        if (code < 0 || code > codes - 1 || count == 0)
            continue;
        mass[code_of[i]] += count;
        filled[code_of[i]]++;
        kept += count;
        first = first < i ? first : i;
        last = i;
    }
    if (last < 0)
        return (double)INFINITY;
    for (int i = first; i <= last; i++) {
        if (histogram->bin[i] == 0 || code_of[i] < 0 || code_of[i] >= codes)
            continue;
        double p = (double)histogram->bin[i] + (i == first ? below : 0) + (i == last ? above : 0);
        double q = mass[code_of[i]] / filled[code_of[i]] / kept;
        p /= kept + below + above;
        sum += p * log(p / q);
    }
    return sum;
}

/* The divergence compares shapes as fine as a 16th of a code: bins finer than that would make every
 * loss of resolution look worse than cutting, and ranges of few codes shrink to a point. */
static int merged_bins(tn_range_method method, int bits)
{
    return method == TN_RANGE_ENTROPY && bits < 7 ? BINS >> (bits + 4) : 1;
}

/* Exact zeros, most of what a ReLU gives, lose nothing in any range: entropy takes them for as
 * frequent as the values beside them. */
static int bin_of_zero(const tn_histogram *histogram)
{
    double at = -histogram->low / (histogram->high - histogram->low) * BINS;
    return at < 0 || at >= BINS ? -1 : (int)at;
}

/* Shrinks both ends together in equal steps and keeps the best. */
static void search(const tn_histogram *histogram, tn_range_method method, int bits, double *low,
                   double *high)
{
    double best = (double)INFINITY, all_low = histogram->low, all_high = histogram->high;
    static const tn_histogram empty;
    tn_histogram merged = empty;
    const int zero = bin_of_zero(histogram);
    for (int i = 0, merge = merged_bins(method, bits); i < BINS; i++)
        merged.bin[i / merge * merge + merge / 2] += histogram->bin[i != zero      ? i
                                                                    : i + 1 < BINS ? i + 1
                                                                                   : i - 1];
    merged.low = all_low;
    merged.high = all_high;
    for (int i = CANDIDATES; i > 0; i--) {
        tn_activation_range range = {0};
        double share = (double)i / CANDIDATES;
        tn_activation_fit(all_low * share, all_high * share, bits, &range);
        double error =
            method == TN_RANGE_MSE ? squared_error(histogram, &range) : divergence(&merged, &range);
        if (error < best) {
            best = error;
            *low = all_low * share;
            *high = all_high * share;
        }
    }
}

void tn_histogram_range(const tn_histogram *histogram, tn_range_method method, int bits,
                        double *low, double *high)
{
    *low = histogram->low;
    *high = histogram->high;
    if (!(histogram->high > histogram->low) || method == TN_RANGE_MINMAX)
        return;
    if (method == TN_RANGE_ENTROPY && bits > ENTROPY_BITS)
        method = TN_RANGE_MSE; /* codes finer than bins: the shapes do not differ */
    if (method == TN_RANGE_PERCENTILE)
        percentile(histogram, low, high);
    else
        search(histogram, method, bits, low, high);
}
