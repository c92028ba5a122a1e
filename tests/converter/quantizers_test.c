/* Every scheme of the table: values are its codes', gradients are the closed forms and the finite
 * differences, extremes stay finite. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "converter/quantizer.h"
#include "core/random.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum { MOST = 4096 };

static uint64_t seed;

typedef struct fixture {
    tn_scheme scheme;
    tn_qweight weight;
    tn_quantizer_state state;
    float threshold[MOST];
} fixture;

static void build(fixture *f, const char *id, int bits, bool ternary, int64_t rows, int64_t cols,
                  tn_granularity granularity, int64_t group)
{
    memset(f, 0, sizeof *f);
    f->scheme = (tn_scheme){.quantizer = tn_quantizer_find(id),
                            .ternary = ternary,
                            .bits = bits,
                            .granularity = granularity,
                            .group = group};
    assert_non_null(f->scheme.quantizer);
    assert_int_equal(f->scheme.quantizer->resolve(&f->scheme, NULL), TN_OK);
    f->weight = (tn_qweight){.rank = 2, .dims = {rows, cols}, .axis = 0};
    tn_scheme_apply(&f->scheme, &f->weight);
    assert_int_equal(tn_qweight_init(&f->weight, f->scheme.quantizer->two_scales,
                                     f->scheme.quantizer->has_zero, NULL),
                     TN_OK);
    f->state = (tn_quantizer_state){.scale = f->weight.scale,
                                    .scale_neg = f->weight.scale_neg,
                                    .zero = f->weight.zero,
                                    .threshold = f->threshold};
}

static void fit(fixture *f, const float *w)
{
    f->scheme.quantizer->fit(&f->scheme, &f->weight, w, NULL, &f->state);
}

static void quantize(fixture *f, const float *w, float *values)
{
    f->scheme.quantizer->quantize(&f->scheme, &f->weight, w, &f->state, f->weight.codes, values);
}

static void assert_floats(const float *got, const float *wanted, int n)
{
    for (int i = 0; i < n; i++)
        if (got[i] != wanted[i])
            fail_msg("element %d is %.9g, expected %.9g", i, (double)got[i], (double)wanted[i]);
}

static void golden_ttq(void **state)
{
    (void)state;
    const float w[] = {-2, -.6f, -.1f, .1f, .6f, 2}, g[] = {1, 1, 1, 1, 1, 1};
    float values[6], dw[6], dp[1], dn[1];
    fixture f;
    build(&f, "ttq", 0, true, 1, 6, TN_PER_TENSOR, 0);
    f.threshold[0] = .5f;
    f.weight.scale[0] = 1.5f;
    f.weight.scale_neg[0] = .5f;
    quantize(&f, w, values);
    assert_floats(values, (const float[]){-.5f, -.5f, 0, 0, 1.5f, 1.5f}, 6);
    f.scheme.quantizer->backward(&f.scheme, &f.weight, w, &f.state, g, dw, dp, dn);
    assert_true(dp[0] == 2.0f && dn[0] == -2.0f);
    assert_floats(dw, (const float[]){.5f, .5f, 1, 1, 1.5f, 1.5f}, 6);
    tn_qweight_done(&f.weight);
}

static void golden_lsq(void **state)
{
    (void)state;
    const float w[] = {-2, -.6f, -.1f, .1f, .6f, 2};
    const double terms[] = {-1, -.4, .1, -.1, .4, 1};
    float values[6], dw[6], ds[1];
    fixture f;
    build(&f, "lsq", 0, true, 1, 6, TN_PER_TENSOR, 0);
    f.weight.scale[0] = 1.0f;
    quantize(&f, w, values);
    assert_floats(values, (const float[]){-1, -1, 0, 0, 1, 1}, 6);
    for (int i = 0; i < 6; i++) { /* one at a time: the terms of ds */
        float g[6] = {0};
        g[i] = 1;
        f.scheme.quantizer->backward(&f.scheme, &f.weight, w, &f.state, g, dw, ds, NULL);
        assert_true(fabs((double)ds[0] * sqrt(6.0) - terms[i]) < 1e-6);
        assert_true(dw[i] == (i == 0 || i == 5 ? 0.0f : 1.0f));
    }
    tn_qweight_done(&f.weight);
}

static void golden_twn(void **state)
{
    (void)state;
    const float w[] = {-2, -.6f, -.1f, .1f, .6f, 2};
    float values[6];
    fixture f;
    build(&f, "twn", 0, true, 1, 6, TN_PER_TENSOR, 0);
    f.scheme.threshold = TN_THRESHOLD_MEAN;
    f.scheme.threshold_value = 0.7f;
    fit(&f, w); /* mean 0.9, D 0.63: only the twos */
    quantize(&f, w, values);
    assert_floats(values, (const float[]){-2, 0, 0, 0, 0, 2}, 6);
    f.scheme.threshold = TN_THRESHOLD_MAX;
    f.scheme.threshold_value = 0.05f; /* D 0.1: 0.1 itself is 0 */
    fit(&f, w);
    quantize(&f, w, values);
    assert_floats(values, (const float[]){-1.3f, -1.3f, 0, 0, 1.3f, 1.3f}, 6);
    f.scheme.threshold = TN_THRESHOLD_SPARSITY;
    f.scheme.threshold_value = 0.5f; /* three zeros: of the two 0.6 the first is kept */
    fit(&f, w);
    quantize(&f, w, values);
    float mean = (float)((2.0 + 2.0 + (double).6f) / 3.0);
    assert_floats(values, (const float[]){-mean, -mean, 0, 0, 0, mean}, 6);
    tn_qweight_done(&f.weight);
}

static void golden_affine(void **state)
{
    (void)state;
    const float w[] = {-1, 0, 0.5f, 2};
    float values[4];
    fixture f;
    build(&f, "affine", 2, false, 1, 4, TN_PER_TENSOR, 0);
    fit(&f, w); /* s = 1, z = -2 + 1 */
    assert_true(f.weight.scale[0] == 1.0f && f.weight.zero[0] == -1.0f);
    quantize(&f, w, values);
    assert_floats(values, (const float[]){-1, 0, 0, 2}, 4);
    const float same[] = {3, 3, 3, 3};
    fit(&f, same);
    quantize(&f, same, values);
    assert_floats(values, same, 4);
    tn_qweight_done(&f.weight);
}

static void golden_dorefa(void **state)
{
    (void)state;
    const float w[] = {-3, -0.2f, 0.2f, 3};
    float values[4], third = 0.5f * (2.0f / 3.0f), one = 1.5f * (2.0f / 3.0f);
    fixture f;
    build(&f, "dorefa", 2, false, 1, 4, TN_PER_TENSOR, 0);
    fit(&f, w);
    quantize(&f, w, values);
    assert_floats(values, (const float[]){-one, -third, third, one}, 4);
    tn_qweight_done(&f.weight);
    build(&f, "dorefa", 1, false, 1, 4, TN_PER_TENSOR, 0);
    fit(&f, w);
    quantize(&f, w, values);
    assert_floats(values, (const float[]){-1.6f, -1.6f, 1.6f, 1.6f}, 4);
    tn_qweight_done(&f.weight);
}

static void parq_anneals(void **state)
{
    (void)state;
    const float w[] = {-1.7f, -0.8f, 0.3f, 0.45f, 0.9f, 1.2f};
    float values[6], hard[6];
    fixture f;
    build(&f, "parq", 0, true, 1, 6, TN_PER_TENSOR, 0);
    f.weight.scale[0] = 1.0f;
    f.state.rho_inv = 1.0f; /* the latents, clamped */
    quantize(&f, w, values);
    for (int i = 0; i < 6; i++)
        assert_true(fabsf(values[i] - fmaxf(-1, fminf(1, w[i]))) < 1e-6f);
    f.state.rho_inv = 0.5f; /* 0.45: 0.5 + (0.45 - 0.5) / 0.5 = 0.4 */
    quantize(&f, w, values);
    assert_true(fabsf(values[3] - 0.4f) < 1e-6f && values[4] == 1.0f);
    f.state.rho_inv = 1e-6f;
    quantize(&f, w, values);
    f.state.rho_inv = 0.0f;
    quantize(&f, w, hard);
    assert_floats(values, hard, 6);
    tn_qweight_done(&f.weight);
}

typedef struct variant {
    const char *id;
    int bits;
    bool ternary;
} variant;

static const variant variants[] = {
    {"twn", 0, true},     {"ttq", 0, true},    {"fixed", 0, true},   {"fixed", 2, false},
    {"fixed", 3, false},  {"fixed", 8, false}, {"fixed", 16, false}, {"affine", 4, false},
    {"affine", 8, false}, {"affine", 0, true}, {"dorefa", 1, false}, {"dorefa", 2, false},
    {"dorefa", 4, false}, {"lsq", 0, true},    {"lsq", 4, false},    {"parq", 0, true},
    {"parq", 2, false},
};
enum { VARIANTS = sizeof variants / sizeof variants[0] };

static void every_scheme_is_tested(void **state)
{
    (void)state;
    for (size_t i = 0; tn_quantizer_at(i) != NULL; i++) {
        bool found = tn_quantizer_at(i)->plain;
        for (int v = 0; v < VARIANTS; v++)
            found = found || strcmp(variants[v].id, tn_quantizer_at(i)->id) == 0;
        assert_true(found);
        assert_ptr_equal(tn_quantizer_find(tn_quantizer_at(i)->id), tn_quantizer_at(i));
    }
    assert_null(tn_quantizer_find("nonsense"));
}

/* Codes are legal, values are theirs bit for bit, and a part of the rows gives the same. */
static void check_codes(fixture *f, const float *w, const char *what)
{
    static float values[MOST], again[MOST];
    static int16_t codes[MOST];
    int64_t n = f->weight.rows * f->weight.cols;
    fit(f, w);
    quantize(f, w, values);
    tn_qweight_dequantize(&f->weight, again);
    for (int64_t s = 0; s < f->weight.n_scales; s++)
        if (!(f->weight.scale[s] > 0.0f) || !isfinite(f->weight.scale[s]))
            fail_msg("%s: scale %g", what, (double)f->weight.scale[s]);
    for (int64_t i = 0; i < n; i++) {
        int code = f->weight.codes[i];
        if (code < f->weight.low || code > f->weight.high || !isfinite(values[i]) ||
            memcmp(&values[i], &again[i], sizeof values[i]) != 0)
            fail_msg("%s: element %lld of value %g: code %d, value %.9g, from the code %.9g", what,
                     (long long)i, (double)w[i], code, (double)values[i], (double)again[i]);
        assert_true(values[i] ==
                    tn_qweight_value(&f->weight, i / f->weight.cols, i % f->weight.cols));
    }
    if (f->scheme.granularity == TN_PER_TENSOR)
        return;
    memcpy(codes, f->weight.codes, (size_t)n * sizeof codes[0]);
    tn_qweight part = tn_qweight_row_range(&f->weight, 1, f->weight.rows - 1);
    float threshold[MOST];
    tn_quantizer_state state = {part.scale, part.scale_neg, part.zero, threshold, 0};
    f->scheme.quantizer->fit(&f->scheme, &part, w + f->weight.cols, NULL, &state);
    f->scheme.quantizer->quantize(&f->scheme, &part, w + f->weight.cols, &state, part.codes, NULL);
    assert_memory_equal(codes, f->weight.codes, (size_t)n * sizeof codes[0]);
}

static void codes_give_values(void **state)
{
    (void)state;
    static const struct {
        tn_granularity granularity;
        int64_t group;
    } shapes[] = {{TN_PER_TENSOR, 0}, {TN_PER_CHANNEL, 0}, {TN_PER_GROUP, 7}, {TN_PER_GROUP, 1}};
    static float w[MOST];
    tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 0, 0);
    for (int v = 0; v < VARIANTS; v++) {
        for (int s = 0; s < 4; s++) {
            for (int kind = 0; kind < 7; kind++) {
                fixture f;
                char what[80];
                (void)snprintf(what, sizeof what, "%s %d bits shape %d kind %d", variants[v].id,
                               variants[v].bits, s, kind);
                build(&f, variants[v].id, variants[v].bits, variants[v].ternary, 5, 45,
                      shapes[s].granularity, shapes[s].group);
                f.scheme.threshold = (tn_threshold_kind)(kind % 4);
                f.scheme.threshold_value = kind % 4 == 2 ? 0.05f : 0.5f;
                for (int i = 0; i < 225; i++) {
                    float x = tn_random_normal(&random);
                    w[i] = kind == 1   ? 0.0f
                           : kind == 2 ? x * 1e-41f
                           : kind == 3 ? (x > 0 ? FLT_MAX : -FLT_MAX)
                           : kind == 4 ? rintf(x)
                           : kind == 5 ? (i < 45 ? 0.0f : x)
                                       : x;
                }
                check_codes(&f, w, what);
                tn_qweight_done(&f.weight);
            }
        }
    }
}

/* Sparsity: exactly the asked fraction is 0, also with ties. */
static void sparsity_is_exact(void **state)
{
    (void)state;
    float w[400];
    tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 1, 0);
    for (int trial = 0; trial < 200; trial++) {
        fixture f;
        build(&f, trial % 2 ? "ttq" : "twn", 0, true, 4, 100, TN_PER_CHANNEL, 0);
        f.scheme.threshold = TN_THRESHOLD_SPARSITY;
        f.scheme.threshold_value = (float)(trial % 21) * 0.05f;
        for (int i = 0; i < 400; i++) {
            float x = tn_random_normal(&random);
            w[i] = trial % 3 == 0 ? copysignf(0.25f, x) : trial % 3 == 1 ? x : rintf(x * 2) + 0.1f;
        }
        fit(&f, w);
        quantize(&f, w, NULL);
        for (int row = 0; row < 4; row++) {
            int zeros = 0;
            for (int i = 0; i < 100; i++)
                zeros += f.weight.codes[row * 100 + i] == 0;
            assert_int_equal(zeros, (int)floor((double)f.scheme.threshold_value * 100 + 1e-9));
        }
        tn_qweight_done(&f.weight);
    }
}

static void ternary_weights_are_exact(void **state)
{
    (void)state;
    float w[300], values[300];
    tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 2, 0);
    for (int trial = 0; trial < 400; trial++) {
        bool two = trial % 2;
        float a = expf(tn_random_normal(&random)),
              b = two ? expf(2 * tn_random_normal(&random)) : a;
        fixture f;
        build(&f, two ? "ttq" : "twn", 0, true, 3, 100,
              trial % 4 < 2 ? TN_PER_TENSOR : TN_PER_CHANNEL, 0);
        static const tn_threshold_kind kinds[] = {TN_THRESHOLD_OPTIMAL, TN_THRESHOLD_MEAN,
                                                  TN_THRESHOLD_MAX};
        f.scheme.threshold = kinds[trial % 3];
        f.scheme.threshold_value = 0.7f;
        for (int i = 0; i < 300; i++) {
            uint32_t r = tn_random_below(&random, 3);
            w[i] = r == 0 ? 0.0f : r == 1 ? a : -b;
        }
        fit(&f, w);
        quantize(&f, w, values);
        assert_floats(values, w, 300);
        tn_qweight_done(&f.weight);
    }
}

/* Scales by finite differences of the values with frozen codes, in double. */
/* LSQ's step, of lsq and fixed: differences of w + e s inside, e = round(w / s) - w / s frozen, and
 * of code s outside, times 1 / sqrt(N high), N the weights of one scale. */
static void steps_by_differences(void **state)
{
    (void)state;
    enum { ROWS = 3, COLS = 40 };
    static const struct {
        const char *id;
        int bits;
        bool ternary;
        tn_granularity granularity;
    } cases[] = {{"lsq", 0, true, TN_PER_CHANNEL},  {"lsq", 3, false, TN_PER_CHANNEL},
                 {"lsq", 4, false, TN_PER_TENSOR},  {"fixed", 2, false, TN_PER_CHANNEL},
                 {"fixed", 0, true, TN_PER_TENSOR}, {"fixed", 8, false, TN_PER_CHANNEL}};
    for (size_t k = 0; k < sizeof cases / sizeof *cases; k++) {
        float w[ROWS * COLS], g[ROWS * COLS], dw[ROWS * COLS], ds[ROWS];
        tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 5, k);
        fixture f;
        build(&f, cases[k].id, cases[k].bits, cases[k].ternary, ROWS, COLS, cases[k].granularity,
              0);
        for (int i = 0; i < ROWS * COLS; i++) {
            w[i] = tn_random_normal(&random);
            g[i] = tn_random_normal(&random);
        }
        fit(&f, w);
        for (int64_t i = 0; i < f.weight.n_scales; i++)
            f.weight.scale[i] *= 0.7f; /* so that some lie outside */
        f.scheme.quantizer->backward(&f.scheme, &f.weight, w, &f.state, g, dw, ds, NULL);
        int64_t n = ROWS * COLS / f.weight.n_scales;
        double most = f.weight.high > 1 ? f.weight.high : 1, h = 1e-6;
        for (int64_t c = 0; c < f.weight.n_scales; c++) {
            double loss[2] = {0, 0}, step = (double)f.weight.scale[c];
            for (int64_t i = c * n; i < (c + 1) * n; i++) {
                double v = (double)(w[i] / f.weight.scale[c]), low = f.weight.low;
                bool inside = v >= low && v <= (double)f.weight.high;
                double e = rint(v) - v, edge = v < 0 ? low : (double)f.weight.high;
                for (int sign = 0; sign < 2; sign++) {
                    double s = step + (sign ? h : -h);
                    loss[sign] += (double)g[i] * (inside ? (double)w[i] + e * s : edge * s);
                }
                float through = inside ? g[i] : 0.0f;
                assert_memory_equal(&dw[i], &through, sizeof through);
            }
            double want = (loss[1] - loss[0]) / (2 * h) / sqrt((double)n * most);
            if (!(fabs((double)ds[c] - want) < 1e-6 * (1 + fabs(want))))
                fail_msg("%s: ds %g, differences say %g", cases[k].id, (double)ds[c], want);
        }
        tn_qweight_done(&f.weight);
    }
}

/* TWN and PARQ pass the gradient through, bit for bit. */
static void straight_through_is_bitwise(void **state)
{
    (void)state;
    static const char *const ids[] = {"twn", "parq"};
    for (size_t k = 0; k < 2; k++) {
        float w[120], g[120], dw[120], ds[3], dn[3];
        tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 6, k);
        fixture f;
        build(&f, ids[k], 0, true, 3, 40, TN_PER_CHANNEL, 0);
        for (int i = 0; i < 120; i++) {
            w[i] = tn_random_normal(&random);
            g[i] = tn_random_normal(&random);
        }
        fit(&f, w);
        f.state.rho_inv = k ? 0.5f : 0.0f;
        f.scheme.quantizer->backward(&f.scheme, &f.weight, w, &f.state, g, dw, ds, dn);
        assert_memory_equal(dw, g, sizeof g);
        tn_qweight_done(&f.weight);
    }
}

/* On thresholds and half steps, in channels of zeros, of one weight, and as steps vanish: gradients
 * are finite, states stay legal. */
static void edges_have_finite_gradients(void **state)
{
    (void)state;
    for (int v = 0; v < VARIANTS; v++) {
        for (int64_t cols = 1; cols <= 12; cols += 11) {
            float w[36] = {0}, g[36], dw[36], values[36], ds[3], dn[3];
            fixture f;
            build(&f, variants[v].id, variants[v].bits, variants[v].ternary, 3, cols,
                  TN_PER_CHANNEL, 0);
            for (int64_t i = 0; i < cols; i++) { /* the first channel stays 0 */
                w[cols + i] = i % 2 ? -0.5f : 0.5f;
                w[2 * cols + i] = (float)(i - 4) * 0.5f;
            }
            for (int i = 0; i < 36; i++)
                g[i] = i % 3 ? 1.0f : -2.0f;
            fit(&f, w);
            for (int vanish = 0; vanish < 2; vanish++) {
                for (int64_t i = 0; i < 3; i++) {
                    f.weight.scale[i] = vanish ? 0.0f : 1.0f; /* w / s = +-1/2 */
                    if (f.weight.scale_neg)
                        f.weight.scale_neg[i] = vanish ? -1.0f : 1.0f;
                    f.threshold[i] = 0.5f; /* w = +-D */
                }
                f.scheme.quantizer->constrain(&f.scheme, &f.weight, &f.state);
                quantize(&f, w, values);
                f.scheme.quantizer->backward(&f.scheme, &f.weight, w, &f.state, g, dw, ds, dn);
                for (int64_t i = 0; i < 3 * cols; i++)
                    if (!isfinite(values[i]) || !isfinite(dw[i]))
                        fail_msg("%s: value %g, gradient %g of %g", variants[v].id,
                                 (double)values[i], (double)dw[i], (double)w[i]);
                for (int i = 0; i < 3; i++)
                    assert_true(
                        f.weight.scale[i] > 0 && isfinite(ds[i]) &&
                        (!f.weight.scale_neg || (f.weight.scale_neg[i] > 0 && isfinite(dn[i]))));
            }
            tn_qweight_done(&f.weight);
        }
    }
}

static void ttq_scales_by_differences(void **state)
{
    (void)state;
    float w[120], g[120], dw[120], dp[3], dn[3];
    tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 3, 0);
    fixture f;
    build(&f, "ttq", 0, true, 3, 40, TN_PER_CHANNEL, 0);
    for (int i = 0; i < 120; i++) {
        w[i] = i < 40 ? 0.0f : tn_random_normal(&random);
        g[i] = tn_random_normal(&random);
    }
    fit(&f, w);
    quantize(&f, w, NULL);
    f.scheme.quantizer->backward(&f.scheme, &f.weight, w, &f.state, g, dw, dp, dn);
    for (int row = 0; row < 3; row++) {
        double loss[2][2] = {{0, 0}, {0, 0}}, h = 1e-6;
        for (int side = 0; side < 2; side++) {
            for (int sign = 0; sign < 2; sign++) {
                double p = (double)f.weight.scale[row], n = (double)f.weight.scale_neg[row];
                *(side == 0 ? &p : &n) += sign == 0 ? -h : h;
                for (int i = row * 40; i < row * 40 + 40; i++) {
                    int code = f.weight.codes[i];
                    loss[side][sign] += (double)g[i] * (code > 0 ? p : code < 0 ? -n : 0);
                }
            }
        }
        double wanted_p = (loss[0][1] - loss[0][0]) / (2 * h);
        double wanted_n = (loss[1][1] - loss[1][0]) / (2 * h);
        assert_true(fabs((double)dp[row] - wanted_p) < 1e-6 * (1 + fabs(wanted_p)));
        assert_true(fabs((double)dn[row] - wanted_n) < 1e-6 * (1 + fabs(wanted_n)));
        for (int i = row * 40; i < row * 40 + 40; i++) {
            int code = f.weight.codes[i];
            float factor = code > 0 ? f.weight.scale[row] : code < 0 ? f.weight.scale_neg[row] : 1;
            assert_true(dw[i] == g[i] * factor);
        }
    }
    tn_qweight_done(&f.weight);
}

/* Behind BatchNorm the loss does not change with the weights' scale: Wp dWp + Wn dWn = 0. */
static void ttq_scales_behind_batchnorm(void **state)
{
    (void)state;
    enum { N = 60, IMAGES = 16 };
    float w[N], values[N], g[N], dw[N], dp[1], dn[1];
    double x[IMAGES][N], y[IMAGES], r[IMAGES], mean = 0, var = 0, dot = 0, sum = 0;
    tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 4, 0);
    fixture f;
    build(&f, "ttq", 0, true, 1, N, TN_PER_TENSOR, 0);
    for (int i = 0; i < N; i++)
        w[i] = tn_random_normal(&random);
    fit(&f, w);
    f.weight.scale[0] *= 1.3f; /* away from the start values */
    quantize(&f, w, values);
    for (int m = 0; m < IMAGES; m++) {
        y[m] = 0;
        r[m] = (double)tn_random_normal(&random); /* loss = sum r * batchnorm(y) */
        for (int i = 0; i < N; i++) {
            x[m][i] = (double)tn_random_normal(&random);
            y[m] += x[m][i] * (double)values[i];
        }
        mean += y[m] / IMAGES;
    }
    for (int m = 0; m < IMAGES; m++)
        var += (y[m] - mean) * (y[m] - mean) / IMAGES;
    for (int m = 0; m < IMAGES; m++) {
        dot += r[m] * (y[m] - mean) / IMAGES;
        sum += r[m] / IMAGES;
    }
    for (int i = 0; i < N; i++) {
        double total = 0;
        for (int m = 0; m < IMAGES; m++)
            total += x[m][i] * (r[m] - sum - (y[m] - mean) * dot / var) / sqrt(var);
        g[i] = (float)total;
    }
    f.scheme.quantizer->backward(&f.scheme, &f.weight, w, &f.state, g, dw, dp, dn);
    double p = (double)f.weight.scale[0] * (double)dp[0];
    double n = (double)f.weight.scale_neg[0] * (double)dn[0];
    assert_true(fabs(p) > 1e-3); /* else the test says nothing */
    assert_true(fabs(p + n) < 1e-4 * (fabs(p) + fabs(n)));
    tn_qweight_done(&f.weight);
}

/* The step of lsq and fixed: q = w + e s with e frozen inside, Q s outside; N of one run. */
static void lsq_step_by_differences(void **state)
{
    (void)state;
    float w[120], g[120], dw[120], ds[3];
    tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 5, 0);
    for (int trial = 0; trial < 40; trial++) {
        fixture f;
        bool ternary = trial % 4 == 0;
        build(&f, trial % 2 ? "fixed" : "lsq", ternary ? 0 : 2 + trial % 4, ternary, 3, 40,
              TN_PER_CHANNEL, 0);
        for (int i = 0; i < 120; i++) {
            w[i] = tn_random_normal(&random);
            g[i] = tn_random_normal(&random);
        }
        fit(&f, w);
        f.scheme.quantizer->backward(&f.scheme, &f.weight, w, &f.state, g, dw, ds, NULL);
        for (int row = 0; row < 3; row++) {
            double s = (double)f.weight.scale[row], h = 1e-6, loss[2] = {0, 0};
            int high = f.weight.high, low = f.weight.low;
            for (int i = row * 40; i < row * 40 + 40; i++) {
                double v = (double)w[i] / s, e = nearbyint(v) - v;
                bool inside = v >= low && v <= high;
                assert_true(dw[i] == (inside ? g[i] : 0.0f));
                for (int sign = 0; sign < 2; sign++) {
                    double step = s + (sign == 0 ? -h : h);
                    double q = inside ? (double)w[i] + e * step : (v < low ? low : high) * step;
                    loss[sign] += (double)g[i] * q;
                }
            }
            double wanted = (loss[1] - loss[0]) / (2 * h) / sqrt(40.0 * high);
            assert_true(fabs((double)ds[row] - wanted) < 1e-5 * (1 + fabs(wanted)));
        }
        tn_qweight_done(&f.weight);
    }
}

static void straight_through(void **state)
{
    (void)state;
    float w[60], g[60], dw[60], ds[2], dn[2];
    tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 6, 0);
    for (int i = 0; i < 60; i++) {
        w[i] = tn_random_normal(&random);
        g[i] = tn_random_normal(&random);
    }
    const variant passing[] = {{"twn", 0, true}, {"parq", 3, false}, {"dorefa", 1, false}};
    for (size_t v = 0; v < sizeof passing / sizeof passing[0]; v++) {
        fixture f;
        build(&f, passing[v].id, passing[v].bits, passing[v].ternary, 2, 30, TN_PER_CHANNEL, 0);
        fit(&f, w);
        f.scheme.quantizer->backward(&f.scheme, &f.weight, w, &f.state, g, dw, ds, dn);
        assert_floats(dw, g, 60);
        assert_true(ds[0] == 0.0f && ds[1] == 0.0f);
        tn_qweight_done(&f.weight);
    }
    fixture f; /* dorefa: the derivative of 2 (tanh w / 2 m + 1/2) - 1 */
    build(&f, "dorefa", 3, false, 2, 30, TN_PER_CHANNEL, 0);
    fit(&f, w);
    f.scheme.quantizer->backward(&f.scheme, &f.weight, w, &f.state, g, dw, ds, NULL);
    for (int i = 0; i < 60; i++) {
        double m = (double)f.threshold[i / 30], h = 1e-6, x = (double)w[i];
        double slope = (tanh(x + h) - tanh(x - h)) / (2 * h) / m;
        assert_true(fabs((double)dw[i] - (double)g[i] * slope) < 1e-5);
    }
    tn_qweight_done(&f.weight);
}

/* Quantizing values again gives them back, and scales stay legal after a bad update. */
static void idempotent_and_constrained(void **state)
{
    (void)state;
    static float w[225], values[225], again[225];
    tn_random random = tn_random_make(seed, TN_PURPOSE_TEST, 7, 0);
    for (int i = 0; i < 225; i++)
        w[i] = tn_random_normal(&random);
    for (int v = 0; v < VARIANTS; v++) {
        fixture f;
        build(&f, variants[v].id, variants[v].bits, variants[v].ternary, 5, 45, TN_PER_CHANNEL, 0);
        fit(&f, w);
        quantize(&f, w, values);
        if (strcmp(variants[v].id, "dorefa") != 0) {
            quantize(&f, values, again);
            assert_floats(again, values, 225);
        }
        f.weight.scale[2] = -1.0f;
        if (f.weight.scale_neg != NULL)
            f.weight.scale_neg[1] = 0.0f;
        f.scheme.quantizer->constrain(&f.scheme, &f.weight, &f.state);
        for (int s = 0; s < 5; s++)
            assert_true(f.weight.scale[s] > 0.0f &&
                        (f.weight.scale_neg == NULL || f.weight.scale_neg[s] > 0.0f));
        tn_qweight_done(&f.weight);
    }
}

int main(void)
{
    seed = getenv("TERNION_SEED") != NULL ? strtoull(getenv("TERNION_SEED"), NULL, 10)
                                          : (uint64_t)time(NULL);
    printf("seed %llu\n", (unsigned long long)seed);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(golden_ttq),
        cmocka_unit_test(golden_lsq),
        cmocka_unit_test(golden_twn),
        cmocka_unit_test(golden_affine),
        cmocka_unit_test(golden_dorefa),
        cmocka_unit_test(parq_anneals),
        cmocka_unit_test(every_scheme_is_tested),
        cmocka_unit_test(codes_give_values),
        cmocka_unit_test(sparsity_is_exact),
        cmocka_unit_test(ternary_weights_are_exact),
        cmocka_unit_test(steps_by_differences),
        cmocka_unit_test(straight_through_is_bitwise),
        cmocka_unit_test(edges_have_finite_gradients),
        cmocka_unit_test(ttq_scales_by_differences),
        cmocka_unit_test(ttq_scales_behind_batchnorm),
        cmocka_unit_test(lsq_step_by_differences),
        cmocka_unit_test(straight_through),
        cmocka_unit_test(idempotent_and_constrained),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
