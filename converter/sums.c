#include "converter/sums.h"

#include "converter/lanes.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

/* Every loop below takes eight elements a turn and the last few once more, padded with zeros. */
TN_MULTIVERSION
static double piece_abs(const float *w, int64_t n)
{
    tn_lane_sums sums[2] = {{0}, {0}};
    float last[TN_LANES] = {0};
    int64_t whole = n - n % TN_LANES;
    memcpy(last, w + whole, (size_t)(n - whole) * sizeof *w);
    for (int64_t i = 0; i <= whole; i += TN_LANES) {
        const float *from = i == whole ? last : w + i;
        for (int half = 0; half < 2; half++)
            sums[half] += TN_LANES_WIDEN(TN_LANES_ABS(TN_LANES_LOAD(from + half * TN_HALF)));
    }
    return TN_LANES_TOTAL(sums);
}

double tn_sum_abs(const float *w, int64_t n)
{
    enum { BATCH = 256 };
    if (n <= TN_PIECE)
        return piece_abs(w, n);
    double total = 0;
    for (int64_t base = 0; base < n; base += (int64_t)BATCH * TN_PIECE) {
        double part[BATCH] = {0};
        int64_t rest = n - base, pieces = (rest + TN_PIECE - 1) / TN_PIECE;
        int64_t used = pieces < BATCH ? pieces : BATCH;
#pragma omp parallel for schedule(static) if (used > 1)
        for (int64_t p = 0; p < used; p++) {
            int64_t first = p * TN_PIECE;
            part[p] =
                piece_abs(w + base + first, rest - first < TN_PIECE ? rest - first : TN_PIECE);
        }
        for (int64_t p = 0; p < used; p++)
            total += part[p];
    }
    return total;
}

/* Magnitudes of finite floats are ordered as their bits are. */
TN_MULTIVERSION
static uint32_t piece_max(const float *w, int64_t n)
{
    uint32_t top = 0;
    for (int64_t i = 0; i < n; i++) {
        uint32_t bits;
        memcpy(&bits, w + i, sizeof bits);
        bits &= 0x7fffffffu;
        top = bits > top ? bits : top;
    }
    return top;
}

static uint32_t max_of_pieces(const float *w, int64_t n)
{
    uint32_t top = 0;
#pragma omp parallel for schedule(static) reduction(max : top)
    for (int64_t first = 0; first < n; first += TN_PIECE) {
        uint32_t piece = piece_max(w + first, n - first < TN_PIECE ? n - first : TN_PIECE);
        top = piece > top ? piece : top;
    }
    return top;
}

float tn_max_abs(const float *w, int64_t n)
{
    uint32_t top = n > TN_PIECE ? max_of_pieces(w, n) : piece_max(w, n);
    float value;
    memcpy(&value, &top, sizeof value);
    return value;
}

int64_t tn_find_nonfinite(const float *w, int64_t n)
{
    const uint32_t infinity = 0x7f800000u;
    if (piece_max(w, n) < infinity)
        return 0;
    for (int64_t i = 0; i < n; i++)
        if (!isfinite(w[i]))
            return i + 1;
    return 0;
}

TN_MULTIVERSION
void tn_range_with_zero(const float *w, int64_t n, float *low, float *high)
{
    float lo = 0, hi = 0;
    for (int64_t i = 0; i < n; i++) {
        lo = w[i] < lo ? w[i] : lo;
        hi = w[i] > hi ? w[i] : hi;
    }
    *low = lo;
    *high = hi;
}

TN_MULTIVERSION
static void piece_errors(const float *w, const float *v, int64_t n, tn_errors *total)
{
    tn_lane_sums energy[2] = {{0}, {0}}, error[2] = {{0}, {0}};
    tn_lane_mask zeros = {0};
    float last_w[TN_LANES] = {0}, last_v[TN_LANES] = {0};
    int64_t whole = n - n % TN_LANES, count = n - whole - TN_LANES; /* the padding is 0 too */
    memcpy(last_w, w + whole, (size_t)(n - whole) * sizeof *w);
    memcpy(last_v, v + whole, (size_t)(n - whole) * sizeof *v);
    for (int64_t i = 0; i <= whole; i += TN_LANES) {
        const float *from_w = i == whole ? last_w : w + i, *from_v = i == whole ? last_v : v + i;
        for (int half = 0; half < 2; half++) {
            tn_lanes x = TN_LANES_LOAD(from_w + half * TN_HALF);
            tn_lanes y = TN_LANES_LOAD(from_v + half * TN_HALF);
            tn_lane_sums wide = TN_LANES_WIDEN(x), apart = wide - TN_LANES_WIDEN(y);
            energy[half] += wide * wide;
            error[half] += apart * apart;
            zeros -= y == 0.0f; /* a true lane is -1 */
        }
    }
    total->energy += TN_LANES_TOTAL(energy);
    total->error += TN_LANES_TOTAL(error);
    for (int l = 0; l < TN_HALF; l++)
        count += zeros[l];
    total->zeros += count;
}

void tn_sum_errors(const float *w, const float *v, int64_t n, tn_errors *sums)
{
    for (int64_t first = 0; first < n; first += TN_PIECE)
        piece_errors(w + first, v + first, n - first < TN_PIECE ? n - first : TN_PIECE, sums);
}

/* Elements of one sign (mask -1, sign_bits 0 or INT32_MIN), or of both (mask INT32_MAX). */
TN_MULTIVERSION
static void piece_above(const float *w, int64_t n, int32_t mask, int32_t sign_bits, float threshold,
                        double *mass, double *moment)
{
    tn_lane_sums sums[2] = {{0}, {0}};
    tn_lane_mask counts = {0};
    float last[TN_LANES] = {0};
    int64_t whole = n - n % TN_LANES, count = 0;
    memcpy(last, w + whole, (size_t)(n - whole) * sizeof *w);
    for (int64_t i = 0; i <= whole; i += TN_LANES) {
        const float *from = i == whole ? last : w + i;
        for (int half = 0; half < 2; half++) {
            tn_lanes x = TN_LANES_LOAD(from + half * TN_HALF);
            x = (tn_lanes)(((tn_lane_mask)x & mask) ^ sign_bits);
            tn_lane_mask above = x > threshold;
            sums[half] += TN_LANES_WIDEN(TN_LANES_WHERE(above, x));
            counts -= above;
        }
    }
    for (int l = 0; l < TN_HALF; l++)
        count += counts[l];
    *mass += (double)count;
    *moment += TN_LANES_TOTAL(sums);
}

static void weighted_above(const float *w, const float *h, int64_t n, float threshold,
                           double mass[2], double moment[2])
{
    for (int64_t i = 0; i < n; i++) {
        int side = w[i] < 0.0f;
        if (fabsf(w[i]) > threshold) {
            mass[side] += (double)h[i];
            moment[side] += (double)h[i] * (double)fabsf(w[i]);
        }
    }
}

void tn_sum_above(const float *w, const float *h, int64_t n, bool two_sides, float threshold,
                  double mass[2], double moment[2])
{
    double k[2] = {0, 0}, s[2] = {0, 0};
    if (h != NULL)
        weighted_above(w, h, n, threshold, k, s);
    for (int64_t first = 0; h == NULL && first < n; first += TN_PIECE) {
        int64_t count = n - first < TN_PIECE ? n - first : TN_PIECE;
        int32_t mask = two_sides ? -1 : INT32_MAX;
        piece_above(w + first, count, mask, 0, threshold, &k[0], &s[0]);
        if (two_sides)
            piece_above(w + first, count, mask, INT32_MIN, threshold, &k[1], &s[1]);
    }
    mass[0] = k[0];
    mass[1] = k[1];
    moment[0] = s[0];
    moment[1] = s[1];
}

TN_MULTIVERSION
int64_t tn_count_above(const float *w, int64_t n, float threshold)
{
    int64_t count = 0;
    for (int64_t i = 0; i < n; i++)
        count += fabsf(w[i]) > threshold;
    return count;
}
