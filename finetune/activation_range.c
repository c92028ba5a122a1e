#include "finetune/activation_range.h"

#include <math.h>
#include <string.h>

enum { BINS = TN_HISTOGRAM_BINS, CANDIDATES = 64 };
static const double TAIL = 5e-5; /* of percentile, at each end */

void tn_histogram_add(tn_histogram *histogram, const float *values, int64_t count)
{
    double width = (histogram->high - histogram->low) / BINS;
    for (int64_t i = 0; i < count; i++) {
        double at = width > 0 ? ((double)values[i] - histogram->low) / width : 0;
        int bin = at < 0 ? 0 : at >= BINS ? BINS - 1 : (int)at;
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

/* KL of the histogram from its quantized form: what falls on one code is spread over its bins that
 * are not empty; what is cut off counts in the last code. */
static double divergence(const tn_histogram *histogram, const tn_activation_range *range)
{
    int codes = range->bits > 11 ? 2048 : 1 << range->bits, code_of[BINS];
    double mass[2048] = {0}, filled[2048] = {0}, total = 0, sum = 0;
    for (int i = 0; i < BINS; i++) {
        double code = rint(centre(histogram, i) / (double)range->scale) + range->zero;
        code_of[i] = code < 0 ? 0 : code > codes - 1 ? codes - 1 : (int)code;
        bool inside = code >= 0 && code <= codes - 1;
        mass[code_of[i]] += (double)histogram->bin[i];
        filled[code_of[i]] += inside && histogram->bin[i] > 0;
        total += (double)histogram->bin[i];
    }
    for (int i = 0; i < BINS; i++) {
        double p = (double)histogram->bin[i] / total;
        if (p == 0)
            continue;
        double spread = filled[code_of[i]] > 0 ? filled[code_of[i]] : 1;
        double q = mass[code_of[i]] / spread / total;
        sum += p * log(p / q);
    }
    return sum;
}

/* Shrinks both ends together in equal steps and keeps the best. */
static void search(const tn_histogram *histogram, tn_range_method method, int bits, double *low,
                   double *high)
{
    double best = (double)INFINITY, all_low = histogram->low, all_high = histogram->high;
    for (int i = CANDIDATES; i > 0; i--) {
        tn_activation_range range = {0};
        double share = (double)i / CANDIDATES;
        tn_activation_fit(all_low * share, all_high * share, bits, &range);
        double error = method == TN_RANGE_MSE ? squared_error(histogram, &range)
                                              : divergence(histogram, &range);
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
    if (method == TN_RANGE_PERCENTILE)
        percentile(histogram, low, high);
    else
        search(histogram, method, bits, low, high);
}
