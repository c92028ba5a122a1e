/* What a training step costs beyond its convolutions:
 *
 *   training_floor MODEL|ARCHITECTURE BATCH TURNS fp32|bf16 SCHEME[,GRANULARITY[,THRESHOLD]]
 *
 * In turns: the whole step, and bare oneDNN primitives for every convolution of it (forward, data
 * gradient, weight gradient, in the step's layouts; the first has no data gradient) with a
 * plain-loop BatchNormalization with ReLU, forward and backward, behind each. The weight gradient
 * is one primitive over the whole batch, which is how oneDNN is meant to be used; the step's own is
 * cut into chunks so that its bits do not depend on threads. No quantizer, update, shortcut,
 * pooling or conversion of types is among the bare work. In bf16 there are two kinds of it: with
 * results in fp32, and in bf16 as the step stores them. Best milliseconds of each and their ratio:
 * processor time with TERNION_CPU_TIME, else wall time. */
#include "core/memory.h"
#include "network/cpu/cpu.h"
#include "network/cpu/cpu_bf16.h"
#include "network/lowering.h"
#include "tests/bench/noise.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { MOST = 200, WARM = 1 };

typedef struct bare {
    tn_dnnl_conv *pass[3];
    int64_t rows, channels; /* of what it writes */
    bool first;
} bare;

typedef struct floor_work {
    bare layer[MOST];
    int n;
    tn_dnnl_types types;
    bool stored;                            /* results are bf16 */
    void *src, *dst, *weight, *scratch, *y; /* as large as the largest needs */
    float *statistics;                      /* [6, channels] */
    size_t src_bytes, weight_bytes, scratch_bytes, channels;
} floor_work;

static size_t larger(size_t a, size_t b)
{
    return a > b ? a : b;
}

static tn_status add_layer(floor_work *w, const noise *n, const tn_conv_task *t, tn_error *error)
{
    static const tn_dnnl_pass passes[] = {TN_DNNL_FORWARD, TN_DNNL_BACKWARD_DATA,
                                          TN_DNNL_BACKWARD_WEIGHTS};
    if (w->n == MOST)
        return tn_fail(error, TN_ERROR_LIMIT, "more than %d convolutions", MOST);
    bare *b = &w->layer[w->n];
    size_t src = (size_t)(t->batch * t->in_channels), dst = (size_t)t->batch;
    *b = (bare){.channels = t->out_channels, .first = w->n == 0};
    w->n++;
    for (int i = 0; i < t->spatial; i++) {
        src *= (size_t)t->in[i];
        dst *= (size_t)t->out[i];
    }
    b->rows = (int64_t)dst;
    w->src_bytes = larger(w->src_bytes, larger(src, dst * (size_t)t->out_channels) * sizeof(float));
    w->channels = larger(w->channels, (size_t)t->out_channels);
    for (int i = 0; i < 3; i++) {
        tn_status status = tn_dnnl_conv_create(((tn_cpu_device *)n->device)->dnnl, t, passes[i],
                                               t->batch, w->types, false, 1, &b->pass[i], error);
        if (status != TN_OK)
            return status;
        w->weight_bytes = larger(w->weight_bytes, tn_dnnl_conv_weight_bytes(b->pass[i]));
        w->scratch_bytes = larger(w->scratch_bytes, tn_dnnl_conv_scratch_bytes(b->pass[i]));
    }
    return TN_OK;
}

static tn_status prepare(floor_work *w, const noise *n, const tn_plan *plan, bool stored,
                         tn_error *error)
{
    w->stored = stored;
    w->types = n->precision != TN_PRECISION_BF16 ? TN_DNNL_FP32
               : stored                          ? TN_DNNL_BF16
                                                 : TN_DNNL_BF16_TO_FP32;
    for (size_t i = 0; i < plan->n_steps; i++) {
        tn_conv_task task = plan->steps[i].task.conv;
        if (plan->steps[i].task.verb != TN_VERB_CONV)
            continue;
        task.bias = task.residual = false;
        task.function = TN_FUNCTION_NONE;
        tn_status status = add_layer(w, n, &task, error);
        if (status != TN_OK)
            return status;
    }
    w->src = tn_alloc_zero(w->src_bytes, 1);
    w->dst = tn_alloc_zero(w->src_bytes, 1);
    w->y = tn_alloc_zero(w->src_bytes, 1);
    w->weight = tn_alloc_zero(w->weight_bytes + 1, 1);
    w->scratch = tn_alloc_zero(w->scratch_bytes + 1, 1);
    w->statistics = tn_alloc_zero(6 * w->channels, sizeof(float));
    if (!w->src || !w->dst || !w->y || !w->weight || !w->scratch || !w->statistics)
        return tn_fail(error, TN_ERROR_LIMIT, "out of memory");
    /* pages that were never written are all one page, which is fast to read */
    memset(w->src, 0x3c, w->src_bytes);
    memset(w->weight, 0x3c, w->weight_bytes);
    return TN_OK;
}

static void done(floor_work *w)
{
    for (int i = 0; i < w->n; i++)
        for (int pass = 0; pass < 3; pass++)
            tn_dnnl_conv_destroy(w->layer[i].pass[pass]);
    tn_free(w->src);
    tn_free(w->dst);
    tn_free(w->y);
    tn_free(w->weight);
    tn_free(w->scratch);
    tn_free(w->statistics);
}

/* Two passes over x: sums, then the result. */
TN_INLINE void forward_of(const void *restrict x, void *restrict y, float *restrict sums,
                          int64_t rows, int64_t channels, bool bf16)
{
    float *restrict sum = sums, *restrict square = sums + channels;
    memset(sums, 0, (size_t)(2 * channels) * sizeof(float));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels; c++) {
            float v = tn_load(x, r * channels + c, bf16);
            sum[c] += v;
            square[c] += v * v;
        }
    for (int64_t c = 0; c < channels; c++) {
        float mean = sum[c] / (float)rows, var = square[c] / (float)rows - mean * mean;
        square[c] = 1.0f / sqrtf((var > 0.0f ? var : 0.0f) + 1e-5f);
        sum[c] = -mean * square[c];
    }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels; c++) {
            float v = tn_load(x, r * channels + c, bf16) * square[c] + sum[c];
            tn_save(y, r * channels + c, v > 0.0f ? v : 0.0f, bf16);
        }
}

TN_HOT static void bn_forward(const void *x, void *y, float *sums, int64_t rows, int64_t channels,
                              bool bf16)
{
    if (bf16)
        forward_of(x, y, sums, rows, channels, true);
    else
        forward_of(x, y, sums, rows, channels, false);
}

/* Two passes over y, dy and x; dx replaces dy. */
TN_INLINE void backward_of(const void *restrict x, const void *restrict y, void *restrict dy,
                           float *restrict sums, int64_t rows, int64_t channels, bool bf16)
{
    float *restrict sum = sums + 2 * channels, *restrict product = sums + 3 * channels;
    const float *restrict shift = sums, *restrict scale = sums + channels;
    memset(sum, 0, (size_t)(2 * channels) * sizeof(float));
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels; c++) {
            int64_t i = r * channels + c;
            float g = tn_keep(tn_load(dy, i, bf16), tn_load(y, i, bf16) > 0.0f);
            sum[c] += g;
            product[c] += g * (tn_load(x, i, bf16) * scale[c] + shift[c]);
        }
    for (int64_t r = 0; r < rows; r++)
        for (int64_t c = 0; c < channels; c++) {
            int64_t i = r * channels + c;
            float g = tn_keep(tn_load(dy, i, bf16), tn_load(y, i, bf16) > 0.0f);
            float normal = tn_load(x, i, bf16) * scale[c] + shift[c];
            tn_save(dy, i, scale[c] * (g - (sum[c] + normal * product[c]) / (float)rows), bf16);
        }
}

TN_HOT static void bn_backward(const void *x, const void *y, void *dy, float *sums, int64_t rows,
                               int64_t channels, bool bf16)
{
    if (bf16)
        backward_of(x, y, dy, sums, rows, channels, true);
    else
        backward_of(x, y, dy, sums, rows, channels, false);
}

static bool run_pass(const floor_work *w, const bare *b, int pass)
{
    tn_dnnl_conv_args a = {w->src, w->weight, NULL, NULL, w->dst, w->scratch};
    return tn_dnnl_conv_run(b->pass[pass], 0, &a);
}

static bool run_bare(const floor_work *w)
{
    bool ok = true;
    for (int i = 0; i < w->n && ok; i++) {
        const bare *b = &w->layer[i];
        ok = run_pass(w, b, 0);
        bn_forward(w->dst, w->y, w->statistics, b->rows, b->channels, w->stored);
    }
    for (int i = w->n; i-- > 0 && ok;) {
        const bare *b = &w->layer[i];
        bn_backward(w->src, w->y, w->dst, w->statistics, b->rows, b->channels, w->stored);
        ok = (b->first || run_pass(w, b, 1)) && run_pass(w, b, 2);
    }
    return ok;
}

/* best: of the step, and of each kind of bare work */
static tn_status take_turns(const floor_work *w, int kinds, noise_student *s, const noise *n,
                            int turns, double best[3], tn_error *error)
{
    for (int turn = -WARM; turn < turns; turn++) {
        double start = noise_milliseconds();
        tn_status status = noise_student_step(s, n, error);
        if (status != TN_OK)
            return status;
        for (int i = 0; i <= kinds; i++) {
            double end = noise_milliseconds();
            if (turn >= 0)
                best[i] = fmin(best[i], end - start);
            start = end;
            if (i < kinds && !run_bare(&w[i]))
                return tn_fail(error, TN_ERROR_DEVICE, "a bare primitive failed");
        }
    }
    return TN_OK;
}

int main(int argc, char **argv)
{
    static const char *const names[] = {"", ", bf16 stored"};
    tn_error error = {0};
    noise network;
    static noise_student trained;
    static floor_work work[2];
    double best[3] = {INFINITY, INFINITY, INFINITY};
    if (argc != 6) {
        fprintf(stderr, "usage: training_floor MODEL|ARCHITECTURE BATCH TURNS fp32|bf16 SCHEME\n");
        return 2;
    }
    int turns = atoi(argv[3]) < 1 ? 1 : atoi(argv[3]), kinds = 1;
    tn_status status = noise_open(argv[1], atoi(argv[2]), argv[4], &network, &error);
    if (status == TN_OK)
        status = noise_student_create(&network, argv[5], &trained, &error);
    if (network.precision == TN_PRECISION_BF16)
        kinds = 2;
    for (int i = 0; i < kinds && status == TN_OK; i++)
        status = prepare(&work[i], &network, trained.student.plan, i == 1, &error);
    if (status == TN_OK)
        status = take_turns(work, kinds, &trained, &network, turns, best, &error);
    for (int i = 0; i < kinds && status == TN_OK; i++)
        printf(
            "step %.1f ms, bare%s %.1f ms (oneDNN %s): the step runs at %.2f of the bare speed\n",
            best[0], names[i], best[i + 1], tn_dnnl_version(), best[i + 1] / best[0]);
    if (status != TN_OK)
        fprintf(stderr, "training_floor: %s\n", error.message);
    for (int i = 0; i < kinds; i++)
        done(&work[i]);
    tn_student_done(&trained.student);
    noise_close(&network);
    return status != TN_OK;
}
