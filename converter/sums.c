#include "converter/sums.h"

#include <math.h>
#include <stddef.h>
#include <string.h>

enum { LANES = 8 };

static double lane_total(const double *lane)
{
    return ((lane[0] + lane[1]) + (lane[2] + lane[3])) +
           ((lane[4] + lane[5]) + (lane[6] + lane[7]));
}

TN_MULTIVERSION
static double piece_abs(const float *w, int64_t n)
{
    double lane[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES)
        for (int l = 0; l < LANES; l++)
            lane[l] += (double)fabsf(w[i + l]);
    for (int l = 0; i < n; i++, l++)
        lane[l] += (double)fabsf(w[i]);
    return lane_total(lane);
}

double tn_sum_abs(const float *w, int64_t n)
{
    enum { BATCH = 256 };
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

float tn_max_abs(const float *w, int64_t n)
{
    uint32_t top = 0;
#pragma omp parallel for schedule(static) reduction(max : top) if (n > TN_PIECE)
    for (int64_t first = 0; first < n; first += TN_PIECE) {
        uint32_t piece = piece_max(w + first, n - first < TN_PIECE ? n - first : TN_PIECE);
        top = piece > top ? piece : top;
    }
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
static void piece_errors(const float *w, const float *v, int64_t n, tn_errors *sums)
{
    double e[LANES] = {0}, d[LANES] = {0};
    int32_t zeros[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            double x = (double)w[i + l], y = x - (double)v[i + l];
            e[l] += x * x;
            d[l] += y * y;
            zeros[l] += v[i + l] == 0.0f;
        }
    }
    for (int l = 0; i < n; i++, l++) {
        double x = (double)w[i], y = x - (double)v[i];
        e[l] += x * x;
        d[l] += y * y;
        zeros[l] += v[i] == 0.0f;
    }
    sums->energy += lane_total(e);
    sums->error += lane_total(d);
    for (int l = 0; l < LANES; l++)
        sums->zeros += zeros[l];
}

void tn_sum_errors(const float *w, const float *v, int64_t n, tn_errors *sums)
{
    for (int64_t first = 0; first < n; first += TN_PIECE)
        piece_errors(w + first, v + first, n - first < TN_PIECE ? n - first : TN_PIECE, sums);
}

/* One side at a time keeps the loop free of branches. */
TN_MULTIVERSION
static void side_above(const float *w, int64_t n, float sign, float threshold, double *mass,
                       double *moment)
{
    double sum[LANES] = {0};
    int32_t count[LANES] = {0};
    int64_t i = 0;
    for (; i + LANES <= n; i += LANES) {
        for (int l = 0; l < LANES; l++) {
            float x = sign * w[i + l];
            sum[l] += (double)(x > threshold ? x : 0.0f);
            count[l] += x > threshold;
        }
    }
    for (int l = 0; i < n; i++, l++) {
        float x = sign * w[i];
        sum[l] += (double)(x > threshold ? x : 0.0f);
        count[l] += x > threshold;
    }
    int64_t total = 0;
    for (int l = 0; l < LANES; l++)
        total += count[l];
    *mass += (double)total;
    *moment += lane_total(sum);
}

void tn_sum_above(const float *w, const float *h, int64_t n, float threshold, double mass[2],
                  double moment[2])
{
    double k[2] = {0, 0}, s[2] = {0, 0};
    if (h != NULL) {
        for (int64_t i = 0; i < n; i++) {
            int side = w[i] < 0.0f;
            if (fabsf(w[i]) > threshold) {
                k[side] += (double)h[i];
                s[side] += (double)h[i] * (double)fabsf(w[i]);
            }
        }
    } else {
        for (int64_t first = 0; first < n; first += TN_PIECE) {
            int64_t count = n - first < TN_PIECE ? n - first : TN_PIECE;
            side_above(w + first, count, 1.0f, threshold, &k[0], &s[0]);
            side_above(w + first, count, -1.0f, threshold, &k[1], &s[1]);
        }
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
