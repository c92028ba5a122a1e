#include "network/cpu/cpu.h"

#include "core/memory.h"
#include "network/cpu/cpu_bf16.h"

#include <math.h>
#include <string.h>

/* Broadcast axes merged: dims of dst, strides of a and b (0 where broadcast). */
typedef struct binary_kernel {
    tn_kernel base;
    int rank;
    int64_t dims[TN_MAX_RANK], a_stride[TN_MAX_RANK], b_stride[TN_MAX_RANK];
    int64_t count, a_count, b_count;
    int chunks; /* of the rows, for sums into a broadcast operand */
} binary_kernel;

/* clang-format off */
#define EACH(expression) \
    for (int64_t i = 0; i < n; i++) { float x = a[i * as], y = b[i * bs]; dst[i] = (expression); } \
    break
/* clang-format on */

static inline __attribute__((always_inline)) void apply(tn_binary_kind kind, const float *a,
                                                        int64_t as, const float *b, int64_t bs,
                                                        float *dst, int64_t n)
{
    switch (kind) {
    case TN_BINARY_ADD:
        EACH(x + y);
    case TN_BINARY_SUB:
        EACH(x - y);
    case TN_BINARY_MUL:
        EACH(x * y);
    case TN_BINARY_DIV:
        EACH(x / y);
    case TN_BINARY_MAX:
        EACH(x > y || x != x ? x : y);
    case TN_BINARY_MIN:
        EACH(x < y || x != x ? x : y);
    case TN_BINARY_POW:
        EACH(powf(x, y));
    default: /* PRELU */
        EACH(x < 0.0f ? x * y : x);
    }
}

TN_HOT static void row(tn_binary_kind kind, const float *a, int64_t as, const float *b, int64_t bs,
                       float *dst, int64_t n)
{
    if (as == 1 && bs == 1)
        apply(kind, a, 1, b, 1, dst, n);
    else if (as == 1)
        apply(kind, a, 1, b, 0, dst, n);
    else if (bs == 1)
        apply(kind, a, 0, b, 1, dst, n);
    else
        apply(kind, a, 0, b, 0, dst, n);
}

/* Offsets of a row: all axes but the last. */
static void offsets(const binary_kernel *k, int64_t index, int64_t *a, int64_t *b)
{
    *a = *b = 0;
    for (int i = k->rank - 2; i >= 0; i--) {
        int64_t at = index % k->dims[i];
        index /= k->dims[i];
        *a += at * k->a_stride[i];
        *b += at * k->b_stride[i];
    }
}

/* Sums of two operands stored as bf16. */
TN_HOT static void sum_piece(const void *a, const void *b, void *dst, int64_t n, bool relu)
{
    for (int64_t i = 0; i < n; i++) {
        float x = tn_load(a, i, true) + tn_load(b, i, true);
        tn_save(dst, i, relu && x < 0.0f ? 0.0f : x, true);
    }
}

static void sum_bf16(const binary_kernel *k, const tn_arguments *args)
{
    const bool relu = k->base.task.binary.function == TN_FUNCTION_RELU;
#pragma omp parallel for schedule(static) if (k->count > TN_CPU_GRAIN)
    for (int64_t at = 0; at < k->count; at += TN_CPU_GRAIN)
        sum_piece(tn_place(args->src[0], at, true), tn_place(args->src[1], at, true),
                  tn_place(args->dst, at, true), tn_cpu_piece(k->count, at), relu);
}

static tn_status binary_forward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const binary_kernel *k = (const binary_kernel *)kernel;
    const tn_binary_task *t = &k->base.task.binary;
    if (k->base.task.bf16_dst) {
        sum_bf16(k, args);
        return TN_OK;
    }
    int64_t inner = k->dims[k->rank - 1], a_last = k->a_stride[k->rank - 1];
    int64_t b_last = k->b_stride[k->rank - 1];
    int64_t piece = inner < TN_CPU_GRAIN ? inner : TN_CPU_GRAIN;
    int64_t rows = inner ? k->count / inner : 0,
            per_row = (inner + piece - 1) / (piece ? piece : 1);
#pragma omp parallel for schedule(static) if (k->count > TN_CPU_GRAIN)
    for (int64_t p = 0; p < rows * per_row; p++) {
        int64_t r = p / per_row, at = p % per_row * piece, a, b;
        int64_t n = inner - at < piece ? inner - at : piece;
        float *dst = args->dst + r * inner + at;
        offsets(k, r, &a, &b);
        row(t->kind, args->src[0] + a + at * a_last, a_last, args->src[1] + b + at * b_last, b_last,
            dst, n);
        if (t->function != TN_FUNCTION_NONE)
            tn_cpu_function(t->function, 0.0f, 0.0f, dst, dst, n);
    }
    return TN_OK;
}

/* Factors of dy for a and b. */
static void factors(tn_binary_kind kind, float x, float y, float *fa, float *fb)
{
    *fa = *fb = 1.0f;
    switch (kind) {
    case TN_BINARY_ADD:
        break;
    case TN_BINARY_SUB:
        *fb = -1.0f;
        break;
    case TN_BINARY_MUL:
        *fa = y;
        *fb = x;
        break;
    case TN_BINARY_DIV:
        *fa = 1.0f / y;
        *fb = -x / (y * y);
        break;
    case TN_BINARY_MAX:
        *fa = x > y ? 1.0f : x == y ? 0.5f : 0.0f;
        *fb = 1.0f - *fa;
        break;
    case TN_BINARY_MIN:
        *fa = x < y ? 1.0f : x == y ? 0.5f : 0.0f;
        *fb = 1.0f - *fa;
        break;
    case TN_BINARY_POW:
        *fa = y * powf(x, y - 1.0f);
        *fb = x > 0.0f ? powf(x, y) * logf(x) : 0.0f;
        break;
    default: /* PRELU */
        *fa = x < 0.0f ? y : 1.0f;
        *fb = x < 0.0f ? x : 0.0f;
    }
}

/* One operand of the shape of dst: elementwise. `which` 0: a. */
static void backward_full(const binary_kernel *k, const tn_arguments *args, int which)
{
    const tn_binary_task *t = &k->base.task.binary;
    int64_t inner = k->dims[k->rank - 1], rows = inner ? k->count / inner : 0;
    int64_t a_last = k->a_stride[k->rank - 1], b_last = k->b_stride[k->rank - 1];
    bool accumulate = args->accumulate[which];
    float *dx = args->dsrc[which];
    bool plain = t->kind == TN_BINARY_ADD || (t->kind == TN_BINARY_SUB && which == 0);
    bool relu = t->function == TN_FUNCTION_RELU;
#pragma omp parallel for schedule(static) if (k->count > TN_CPU_GRAIN)
    for (int64_t r = 0; r < rows; r++) {
        int64_t a, b;
        offsets(k, r, &a, &b);
        for (int64_t i = 0; i < inner; i++) {
            int64_t at = r * inner + i;
            float d = relu && !(args->dst[at] > 0.0f) ? 0.0f : args->ddst[at], f[2] = {1, 1};
            if (!plain)
                factors(t->kind, args->src[0][a + i * a_last], args->src[1][b + i * b_last], &f[0],
                        &f[1]);
            dx[at] = d * f[which] + (accumulate ? dx[at] : 0.0f);
        }
    }
}

/* One broadcast operand: sums in double over fixed chunks of rows, added in chunk order. */
static void backward_broadcast(const binary_kernel *k, const tn_arguments *args, int which)
{
    const tn_binary_task *t = &k->base.task.binary;
    int64_t inner = k->dims[k->rank - 1], rows = inner ? k->count / inner : 0;
    int64_t count = which ? k->b_count : k->a_count, last = k->rank - 1;
    bool relu = t->function == TN_FUNCTION_RELU;
    double *sums = args->workspace;
#pragma omp parallel for schedule(static) if (k->count > TN_CPU_GRAIN)
    for (int c = 0; c < k->chunks; c++) {
        double *sum = sums + c * count;
        memset(sum, 0, (size_t)count * sizeof(double));
        for (int64_t r = rows * c / k->chunks; r < rows * (c + 1) / k->chunks; r++) {
            int64_t a, b;
            offsets(k, r, &a, &b);
            for (int64_t i = 0; i < inner; i++) {
                int64_t at = r * inner + i, ai = a + i * k->a_stride[last];
                int64_t bi = b + i * k->b_stride[last];
                float d = relu && !(args->dst[at] > 0.0f) ? 0.0f : args->ddst[at], f[2];
                factors(t->kind, args->src[0][ai], args->src[1][bi], &f[0], &f[1]);
                sum[which ? bi : ai] += (double)d * (double)f[which];
            }
        }
    }
    for (int64_t i = 0; i < count; i++) {
        double total = 0.0;
        for (int c = 0; c < k->chunks; c++)
            total += sums[c * count + i];
        args->dsrc[which][i] =
            (float)total + (args->accumulate[which] ? args->dsrc[which][i] : 0.0f);
    }
}

/* The gradient of one. */
TN_HOT static void gate_piece(const void *y, const void *dy, void *dx, int64_t n, bool relu,
                              bool accumulate)
{
    for (int64_t i = 0; i < n; i++) {
        float d = relu && !(tn_load(y, i, true) > 0.0f) ? 0.0f : tn_load(dy, i, true);
        tn_save(dx, i, accumulate ? tn_load(dx, i, true) + d : d, true);
    }
}

static void sum_backward_bf16(const binary_kernel *k, const tn_arguments *args, int which)
{
    const bool relu = k->base.task.binary.function == TN_FUNCTION_RELU;
#pragma omp parallel for schedule(static) if (k->count > TN_CPU_GRAIN)
    for (int64_t at = 0; at < k->count; at += TN_CPU_GRAIN)
        gate_piece(tn_place(args->dst, at, true), tn_place(args->ddst, at, true),
                   tn_place(args->dsrc[which], at, true), tn_cpu_piece(k->count, at), relu,
                   args->accumulate[which]);
}

static tn_status binary_backward(tn_kernel *kernel, const tn_arguments *args, tn_error *error)
{
    (void)error;
    const binary_kernel *k = (const binary_kernel *)kernel;
    for (int i = 0; i < 2; i++) {
        if (!args->dsrc[i])
            continue;
        if (k->base.task.bf16_dst)
            sum_backward_bf16(k, args, i);
        else if ((i ? k->b_count : k->a_count) == k->count)
            backward_full(k, args, i);
        else
            backward_broadcast(k, args, i);
    }
    return TN_OK;
}

static const tn_kernel_class binary_class = {tn_kernel_free, NULL, binary_forward, binary_backward};

static void merge(binary_kernel *k)
{
    const tn_binary_task *t = &k->base.task.binary;
    int64_t a = 1, b = 1;
    bool a_was = false, b_was = false;
    k->count = tn_extent_count(&t->dst);
    k->a_count = tn_extent_count(&t->a);
    k->b_count = tn_extent_count(&t->b);
    int at = TN_MAX_RANK;
    for (int i = t->dst.rank - 1; i >= 0; i--) {
        int64_t dim = t->dst.dims[i];
        if (dim == 1)
            continue;
        bool a_full = t->a.dims[i] != 1, b_full = t->b.dims[i] != 1;
        if (at < TN_MAX_RANK && a_full == a_was && b_full == b_was) {
            k->dims[at] *= dim;
        } else {
            at--;
            k->dims[at] = dim;
            k->a_stride[at] = a_full ? a : 0;
            k->b_stride[at] = b_full ? b : 0;
        }
        a *= t->a.dims[i];
        b *= t->b.dims[i];
        a_was = a_full;
        b_was = b_full;
    }
    if (at == TN_MAX_RANK)
        k->dims[--at] = 1;
    k->rank = TN_MAX_RANK - at;
    memmove(k->dims, k->dims + at, (size_t)k->rank * sizeof(int64_t));
    memmove(k->a_stride, k->a_stride + at, (size_t)k->rank * sizeof(int64_t));
    memmove(k->b_stride, k->b_stride + at, (size_t)k->rank * sizeof(int64_t));
}

tn_status tn_cpu_binary_prepare(tn_device *device, const tn_task *task, tn_kernel **kernel,
                                tn_error *error)
{
    tn_kernel *created;
    tn_status status = tn_kernel_create(device, task, &binary_class, "omp", sizeof(binary_kernel),
                                        &created, error);
    if (status != TN_OK)
        return status;
    binary_kernel *k = (binary_kernel *)created;
    merge(k);
    int64_t summed = k->a_count != k->count ? k->a_count : 0;
    if (k->b_count != k->count && k->b_count > summed)
        summed = k->b_count;
    k->chunks = summed <= 65536 ? TN_CPU_CHUNKS : 1;
    if (task->backward && summed)
        created->workspace_bytes = (size_t)summed * (size_t)k->chunks * sizeof(double);
    created->reads_dst = task->binary.function != TN_FUNCTION_NONE;
    created->reads_src = task->binary.kind != TN_BINARY_ADD && task->binary.kind != TN_BINARY_SUB;
    *kernel = created;
    return TN_OK;
}

const char *tn_cpu_binary_refusal(const tn_binary_task *task)
{
    int64_t count = tn_extent_count(&task->dst);
    return task->kind == TN_BINARY_ADD && tn_extent_count(&task->a) == count &&
                   tn_extent_count(&task->b) == count
               ? NULL
               : "only the sum of two operands of one shape takes bf16";
}
