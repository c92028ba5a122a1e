#include "converter/weight_histogram.h"

#include "core/memory.h"

#include <math.h>

static bool is_drawn(const tn_qweight *weight)
{
    return weight && weight->codes && weight->high - weight->low < TN_HISTOGRAM_CODES;
}

static void find_range(const float *rows, int64_t count, tn_weight_histogram *h)
{
    bool any = false;
    for (int64_t i = 0; i < count; i++) {
        double w = (double)rows[i];
        if (!isfinite(w))
            continue;
        h->low = any ? fmin(h->low, w) : w;
        h->high = any ? fmax(h->high, w) : w;
        any = true;
    }
    if (!(h->high > h->low)) { /* one value: in the middle */
        double room = any && h->low != 0 ? 0.5 * fabs(h->low) : 0.5;
        h->low -= room;
        h->high += room;
    }
}

static void count_weights(const float *rows, const tn_layer *before, const tn_qweight *after,
                          tn_weight_histogram *h)
{
    for (int64_t i = 0; i < before->rows * before->cols; i++) {
        double place = ((double)rows[i] - h->low) / (h->high - h->low) * TN_HISTOGRAM_BINS;
        if (!isfinite(place))
            continue;
        int bin = place < TN_HISTOGRAM_BINS ? (int)place : TN_HISTOGRAM_BINS - 1;
        h->bin[bin]++;
        if (h->n_codes == 0)
            continue;
        tn_weight_code *code = &h->code[after->codes[i] - after->low];
        code->bin[bin]++;
        code->count++;
        code->level += (double)tn_qweight_value(after, i / before->cols, i % before->cols);
    }
    for (int c = 0; c < h->n_codes; c++)
        if (h->code[c].count > 0)
            h->code[c].level /= (double)h->code[c].count;
}

/* Between codes c and c + 1: wrong are those above below the edge, and the other way round. */
static double find_threshold(const tn_weight_histogram *h, int c)
{
    int64_t wrong = 0, least;
    int best = 0;
    for (int i = 0; i <= c; i++)
        wrong += h->code[i].count;
    least = wrong;
    for (int edge = 1; edge <= TN_HISTOGRAM_BINS; edge++) {
        for (int i = 0; i < h->n_codes; i++)
            wrong += i <= c ? -h->code[i].bin[edge - 1] : h->code[i].bin[edge - 1];
        if (wrong < least) {
            least = wrong;
            best = edge;
        }
    }
    return h->low + (h->high - h->low) * best / TN_HISTOGRAM_BINS;
}

tn_status tn_weight_histogram_take(const tn_layer *before, const tn_qweight *after,
                                   tn_weight_histogram *histogram, tn_error *error)
{
    tn_weight_histogram h = {0};
    int64_t count = before->rows * before->cols;
    float *rows = tn_alloc_array((size_t)count + 1, sizeof *rows);
    if (!rows)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory for a layer of %lld weights",
                       (long long)count);
    tn_status status = tn_layer_rows(before, rows, error);
    if (status == TN_OK) {
        if (is_drawn(after))
            h.n_codes = after->high - after->low + 1;
        for (int c = 0; c < h.n_codes; c++)
            h.code[c].code = after->low + c;
        find_range(rows, count, &h);
        count_weights(rows, before, after, &h);
        for (int c = 0; c + 1 < h.n_codes; c++)
            h.threshold[c] = find_threshold(&h, c);
        *histogram = h;
    }
    tn_free(rows);
    return status;
}
