/* What a device is to the plan: memory, and kernels for verbs.
 *
 * A verb is one kind of work ("convolution", "batch norm"); a task is a verb with its shapes and
 * parameters; a kernel is a task prepared for one device. The plan asks `supports` first (that is
 * how fusion finds out what a device can fuse: a new device may support the unfused tasks alone),
 * prepares each task once, and then only runs kernels on buffers it placed in its arena.
 *
 * All tensors are dense, row-major in their *physical* order. Activations of rank >= 3 that come
 * from or go to a convolution or a pooling are channels-last: [N, spatial..., C]. Elements are
 * fp32, but for activations and their gradients that a bf16 plan stores as bf16 (tn_task.bf16_src,
 * bf16_dst: where all kernels that touch one can); every store rounds half to even. Integer values
 * (QuantizeLinear's output) are kept as fp32, exactly. What lies in fp32 kernels of a bf16 plan
 * round inside.
 *
 * Determinism: results must not depend on the number of threads. Whatever is summed over the batch
 * is summed in an order fixed by the shapes. */
#ifndef TERNION_NETWORK_DEVICE_H
#define TERNION_NETWORK_DEVICE_H

#include "core/portable.h"
#include "core/tensor.h"
#include "network/calibration.h"
#include "network/training.h"

typedef struct tn_device tn_device;
typedef struct tn_kernel tn_kernel;

/* Of the operands of convolutions and matrix products, and with BF16 of activations as they are
 * stored; sums and parameters are fp32. */
typedef enum tn_precision {
    TN_PRECISION_AUTO,
    TN_PRECISION_FP32,
    TN_PRECISION_BF16,
    TN_PRECISION_TF32 /* 10 bits behind the point, rounded by the GPU itself */
} tn_precision;

const char *tn_precision_name(tn_precision precision);

typedef enum tn_verb {
    TN_VERB_CONV,       /* src x[, residual]; params weight[, bias][, fold: gamma beta mean var] */
    TN_VERB_GEMM,       /* src a[, b][, c]; params: those of weight b, bias c that are constant */
    TN_VERB_BATCH_NORM, /* src x[, residual] or parts of x; params gamma beta mean var[ step] */
    TN_VERB_POOL,       /* src x */
    TN_VERB_UNARY,      /* src x */
    TN_VERB_BINARY,     /* src a, b; broadcast */
    TN_VERB_CONCAT,     /* src x0 ... */
    TN_VERB_SLICE,      /* src x */
    TN_VERB_PAD,        /* src x */
    TN_VERB_TRANSPOSE,  /* src x */
    TN_VERB_REDUCE,     /* src x */
    TN_VERB_SOFTMAX,    /* src x */
    TN_VERB_LRN,        /* src x */
    TN_VERB_QUANTIZE,   /* src x, scale[, zero] */
    TN_VERB_DEQUANTIZE, /* src x, scale[, zero] */
    TN_VERB_FAKE_QUANTIZE, /* src x; params step */
    TN_VERB_DROPOUT,       /* src x */
    TN_VERB_LOSS,          /* src logits[, teacher logits]; dst 4 floats, see tn_loss_task */
    /* Not part of a network's graph (training.h, calibration.h). The CPU device leaves them to
       finetune/, which works on its memory itself. */
    TN_VERB_QUANTIZER,
    TN_VERB_NORM,
    TN_VERB_OPTIMIZER,
    TN_VERB_AUGMENT, /* src the table of values, without augmentation */
    TN_VERB_TALLY,   /* src a batch's loss; see tn_step_state */
    TN_VERB_JUDGE,   /* src the sum of squares */
    TN_VERB_GRAM,    /* calibration.h */
    TN_N_VERBS
} tn_verb;

const char *tn_verb_name(tn_verb verb);

typedef struct tn_extent { /* physical */
    int rank;
    int64_t dims[TN_MAX_RANK];
} tn_extent;

int64_t tn_extent_count(const tn_extent *shape);
void tn_extent_strides(const tn_extent *shape, int64_t *strides); /* of a dense tensor */

/* Elementwise functions; a and b are the parameters named beside them. */
typedef enum tn_function {
    TN_FUNCTION_NONE, /* identity */
    TN_FUNCTION_RELU,
    TN_FUNCTION_CLIP,         /* min a, max b */
    TN_FUNCTION_LEAKY_RELU,   /* slope a */
    TN_FUNCTION_SIGMOID,      /* */
    TN_FUNCTION_HARD_SIGMOID, /* max(0, min(1, a x + b)) */
    TN_FUNCTION_HARD_SWISH,   /* x max(0, min(1, x / 6 + 1 / 2)) */
    TN_FUNCTION_TANH,
    TN_FUNCTION_ELU,      /* slope a */
    TN_FUNCTION_SOFTPLUS, /* */
    TN_FUNCTION_EXP,
    TN_FUNCTION_LOG,
    TN_FUNCTION_SQRT,
    TN_FUNCTION_ABS,
    TN_FUNCTION_NEG,
    TN_FUNCTION_RECIPROCAL,
    TN_FUNCTION_ERF,
    TN_FUNCTION_FLOOR,
    TN_FUNCTION_CEIL,
    TN_FUNCTION_ROUND,   /* half to even */
    TN_FUNCTION_INTEGER, /* truncate towards zero, saturate to [a, b]: Cast to an integer type */
    TN_FUNCTION_BOOLEAN, /* x != 0: Cast to BOOL */
    TN_N_FUNCTIONS
} tn_function;

/* Whether the derivative needs x; the others are had from y, which saves keeping x. */
bool tn_function_by_source(tn_function function);

typedef enum tn_binary_kind {
    TN_BINARY_ADD,
    TN_BINARY_SUB,
    TN_BINARY_MUL,
    TN_BINARY_DIV,
    TN_BINARY_MAX,
    TN_BINARY_MIN,
    TN_BINARY_POW,
    TN_BINARY_PRELU, /* a < 0 ? a * b : a */
    TN_N_BINARY_KINDS
} tn_binary_kind;

/* dst = f(conv(x, w) + bias [+ residual]). Channels-last, weights in ONNX order [O, I/g, k...].
 * With `fold` the four BN vectors are folded into weight and bias by `pack`: inference only. */
typedef struct tn_conv_task {
    int spatial; /* 1 to 3 */
    int64_t batch, in_channels, out_channels, group;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad_begin[3], pad_end[3];
    bool bias, residual, fold;
    float epsilon; /* of the folded BN */
    tn_function function;
    float a, b;
} tn_conv_task;

/* dst[m, n] = f(alpha op(a) op(b) + beta c), batched over `batch` matrices (MatMul of higher rank).
 * const_b, const_c: the operand is params[], not src[]. c: broadcast [n], [m, n], [m, 1] or [1]. */
typedef struct tn_gemm_task {
    int64_t batch, m, n, k;
    bool trans_a, trans_b;
    bool shared_b; /* one b for all batches */
    bool const_b, has_c, const_c;
    int64_t c_rows, c_cols; /* 1 or m, 1 or n */
    float alpha, beta;
    tn_function function;
    float a, b;
} tn_gemm_task;

/* QuantizeLinear and DequantizeLinear in one, with one step s > 0 (a smaller one than TN_LEAST_STEP
 * counts as that): clamp(round(x / s), low, high) * s,
 * where low and high are the legal codes less the zero point. Gradients are those of LSQ (Esser et
 * al. 2020): dx = dy where low <= x / s <= high, else 0; ds = step_factor * sum of dy times (low
 * below, high above, round(x / s) - x / s inside; with clip_only, PACT's clip (Choi et al. 2018), 0
 * inside). */
#define TN_LEAST_STEP 0x1p-100f
typedef struct tn_fake_quantize_task {
    int64_t count;
    float low, high;
    bool clip_only;
    float step_factor;
} tn_fake_quantize_task;

/* dst = f((x - mean) / sqrt(var + epsilon) * gamma + beta [+ residual]) over [rows, channels]; with
 * `codes` what fake quantize makes of that.
 * Run with args->training: batch statistics (biased variance), kept in `saved` as mean[C],
 * 1/sqrt(var + epsilon)[C], biased var[C]; without: the running ones. Backward follows the mode of
 * the last forward. */
typedef struct tn_batch_norm_task {
    int64_t rows, channels;
    float epsilon;
    bool residual;
    tn_function function; /* NONE, RELU or CLIP */
    float a, b;
    int n_parts;          /* x is that many sources side by side; 0: one */
    const int64_t *parts; /* channels of each; copied by prepare */
    bool codes;
    tn_fake_quantize_task quantize; /* with codes; its step is params[4] */
} tn_batch_norm_task;

typedef struct tn_pool_task {
    int spatial;
    bool max;               /* else average */
    bool count_include_pad; /* average: divide by the kernel's size, cells beyond the padded
                               extent (ceil_mode) excluded */
    int64_t batch, channels;
    int64_t in[3], out[3], kernel[3], stride[3], dilation[3], pad_begin[3], pad_end[3];
} tn_pool_task;

typedef struct tn_unary_task {
    int64_t count;
    tn_function function;
    float a, b;
} tn_unary_task;

typedef struct tn_binary_task {
    tn_binary_kind kind;
    tn_extent a, b, dst;  /* same rank; dims of a and b are 1 or dst's */
    tn_function function; /* applied to the result: NONE or RELU */
} tn_binary_task;

typedef struct tn_concat_task { /* [outer, sum of inner[i]] */
    int n;
    int64_t outer;
    const int64_t *inner; /* [n]; copied by prepare */
} tn_concat_task;

typedef struct tn_slice_task { /* dst[i] = x[start + i * step] per axis; step may be negative */
    tn_extent src, dst;
    int64_t start[TN_MAX_RANK], step[TN_MAX_RANK];
} tn_slice_task;

typedef enum tn_pad_mode { TN_PAD_CONSTANT, TN_PAD_REFLECT, TN_PAD_EDGE } tn_pad_mode;
typedef struct tn_pad_task { /* begin may be negative: crops */
    tn_extent src, dst;
    int64_t begin[TN_MAX_RANK];
    tn_pad_mode mode;
    float value;
} tn_pad_task;

/* The source index of an axis, by edge or reflection. */
TN_BODY int64_t tn_padded_index(bool edge, int64_t at, int64_t size)
{
    if (edge)
        return at < 0 ? 0 : at >= size ? size - 1 : at;
    int64_t period = size > 1 ? 2 * (size - 1) : 1;
    at %= period;
    if (at < 0)
        at += period;
    return at < size ? at : period - at;
}

typedef struct tn_transpose_task { /* dst axis i is src axis permutation[i] */
    tn_extent src;
    int permutation[TN_MAX_RANK];
} tn_transpose_task;

typedef enum tn_reduce_kind { TN_REDUCE_MEAN, TN_REDUCE_SUM, TN_REDUCE_MAX } tn_reduce_kind;
typedef struct tn_reduce_task { /* [outer, reduced, inner] -> [outer, inner] */
    tn_reduce_kind kind;
    int64_t outer, reduced, inner;
} tn_reduce_task;

typedef struct tn_softmax_task { /* over the middle of [outer, axis, inner] */
    int64_t outer, axis, inner;
    bool log;
} tn_softmax_task;

typedef struct tn_lrn_task { /* over channels of [rows, channels] */
    int64_t rows, channels, size;
    float alpha, beta, bias;
} tn_lrn_task;

/* Quantize: clamp(round(x / scale) + zero, low, high); dequantize: (x - zero) * scale. Per axis:
 * scale[axis] of [outer, axis, inner]; per tensor: axis = 1. */
typedef struct tn_quantize_task {
    int64_t outer, axis, inner;
    bool zero;
    float low, high;
} tn_quantize_task;

/* dst = x * keep / (1 - ratio) with args->drop, else x. Element j of row r is kept when word j of
 * the stream tn_random_make(seed + layer, TN_PURPOSE_DROPOUT, epoch, sample + r) of *args->draw
 * is at least ratio * 2^32. Backward uses the mask of the last forward. */
typedef struct tn_dropout_task {
    int64_t rows, inner;
    float ratio;
    uint64_t layer;
} tn_dropout_task;

/* Softmax cross-entropy with label smoothing, and distillation when src[1] is not NULL:
 *   loss = (1 - weight) CE(labels smoothed by `smoothing`) + weight T^2 KL(softmax(teacher / T) ||
 *   softmax(logits / T)); without a teacher weight counts as 0.
 * With args->partners (mixup) the target of row r is (1 - mix[r]) of its label and mix[r] of
 * partners[r], before smoothing; the ranks below are those of the label.
 * Over the first args->count rows. dst: sum of losses, rows whose label is the first maximum,
 * rows whose label is among the 5 largest (ties: lower index wins), sum of plain cross-entropies.
 * dsrc[0] (if not NULL): args->scale times the gradient of the sum, 0 in rows >= count. Rows with a
 * label < 0 count for the distillation term alone. */
typedef struct tn_loss_task {
    int64_t rows, classes;
} tn_loss_task;

typedef struct tn_task {
    tn_verb verb;
    tn_precision precision; /* not AUTO */
    bool backward;          /* backward will be called */
    uint64_t bf16_src;      /* bit i: src[i], and so dsrc[i], is stored as bf16; in bf16 plans */
    bool bf16_dst;          /* dst and ddst are */
    union {
        tn_conv_task conv;
        tn_gemm_task gemm;
        tn_batch_norm_task batch_norm;
        tn_pool_task pool;
        tn_unary_task unary;
        tn_binary_task binary;
        tn_concat_task concat;
        tn_slice_task slice;
        tn_pad_task pad;
        tn_transpose_task transpose;
        tn_reduce_task reduce;
        tn_softmax_task softmax;
        tn_lrn_task lrn;
        tn_quantize_task quantize;
        tn_fake_quantize_task fake_quantize;
        tn_dropout_task dropout;
        tn_loss_task loss;
        tn_quantizer_task quantizer;
        tn_optimizer_task optimizer; /* NORM too */
        tn_augment_task augment;
        tn_judge_task judge;
        tn_gram_task gram;
    };
} tn_task;

/* What Dropout draws; in device memory, so that a recorded step can be replayed with other numbers.
 */
typedef struct tn_draw {
    uint64_t seed, sample;
    uint32_t epoch;
} tn_draw;

/* Pointers into the device's memory. Arrays are in the order given beside the verb. Those of src,
 * dst, dsrc and ddst that the task says are stored as bf16 point to uint16_t. */
typedef struct tn_arguments {
    const float *const *src;
    float *dst; /* may be src[i] itself only for UNARY and for BINARY without broadcast of it */
    const float *const *params; /* fp32, in the model's layout; conv and gemm read the packed copy
                                   in `state` for what `pack` has seen */
    /* backward; src and dst then hold what the forward pass left */
    const float *ddst;
    float *const *dsrc;     /* NULL entries: not wanted */
    const bool *accumulate; /* per src: add to dsrc instead of overwriting it */
    float *const *dparams;  /* NULL entries: not wanted; in the model's layout */
    bool accumulate_params; /* add to dparams instead of overwriting */
    /* BATCH_NORM: batch statistics, and the running ones moved by them (the variance unbiased)
     * unless keep is 1: running = keep * running + (1 - keep) * batch. */
    bool training;
    float keep;
    float *running_mean, *running_var;
    /* DROPOUT */
    bool drop;
    const tn_draw *draw; /* device memory; as at forward until backward is done */
    void *saved;         /* kernel->saved_bytes, from forward to backward */
    void *state;         /* kernel->state_bytes, for the kernel's life; written by pack */
    void *workspace;     /* kernel->workspace_bytes, within one call */
    /* LOSS */
    const int32_t *labels;   /* device memory */
    const int32_t *partners; /* device memory; mixup's second labels, NULL: none */
    const float *mix;        /* device memory; with partners: their shares */
    int64_t count;
    float scale, smoothing, temperature, weight;
    const tn_update *update; /* OPTIMIZER's pack; host memory */
    tn_step_state *step;     /* OPTIMIZER, TALLY, JUDGE; device memory */
    /* AUGMENT, and places (count of them) GRAM; device memory */
    const unsigned char *pixels;
    const uint32_t *places;
    const tn_augmentation *augmentations;
} tn_arguments;

/* A prepared task. Implementations that need more than the task embed it first in their own struct.
 */
struct tn_kernel {
    tn_device *device; /* borrowed */
    tn_task task;
    size_t saved_bytes, state_bytes, workspace_bytes;
    bool reads_src;   /* backward reads src */
    bool reads_dst;   /* backward reads dst */
    const char *name; /* implementation, for reports; static or owned by the kernel */
    const struct tn_kernel_class *type;
};

typedef struct tn_kernel_class {
    void (*destroy)(tn_kernel *kernel);
    /* Brings params into the kernel's own layout in `state`; called before the first run and
     * whenever a parameter changed. NULL: nothing to do. */
    tn_status (*pack)(tn_kernel *kernel, const tn_arguments *args, tn_error *error);
    tn_status (*forward)(tn_kernel *kernel, const tn_arguments *args, tn_error *error);
    /* Everything wanted in dsrc and dparams. NULL: no backward (the plan says so by name). */
    tn_status (*backward)(tn_kernel *kernel, const tn_arguments *args, tn_error *error);
} tn_kernel_class;

typedef struct tn_recording tn_recording; /* the device's own */

typedef struct tn_device_class {
    void (*destroy)(tn_device *device);
    /* Memory of the device, 64-byte (CPU) or 256-byte (GPU) aligned; NULL when there is none. */
    void *(*alloc)(tn_device *device, size_t bytes);
    void (*release)(tn_device *device, void *memory); /* NULL is fine */
    /* Between host and device, ordered after the work queued before; complete on return. */
    tn_status (*upload)(tn_device *device, void *dst, const void *src, size_t bytes,
                        tn_error *error);
    tn_status (*download)(tn_device *device, void *dst, const void *src, size_t bytes,
                          tn_error *error);
    tn_status (*copy)(tn_device *device, void *dst, const void *src, size_t bytes, tn_error *error);
    tn_status (*zero)(tn_device *device, void *dst, size_t bytes, tn_error *error);
    /* dst += src, and dst = alpha * dst */
    tn_status (*add)(tn_device *device, float *dst, const float *src, int64_t count,
                     tn_error *error);
    tn_status (*scale)(tn_device *device, float *dst, float alpha, int64_t count, tn_error *error);
    /* Host [n, c, s] (ONNX) to device [n, s, c] and back. */
    tn_status (*import)(tn_device *device, float *dst, const float *src, int64_t n, int64_t c,
                        int64_t s, tn_error *error);
    tn_status (*export)(tn_device *device, float *dst, const float *src, int64_t n, int64_t c,
                        int64_t s, tn_error *error);
    tn_status (*synchronize)(tn_device *device, tn_error *error);
    /* Whether prepare would succeed, apart from memory; says why not in `why` (may be NULL). */
    bool (*supports)(tn_device *device, const tn_task *task, char *why, size_t why_size);
    /* USAGE when not supported. */
    tn_status (*prepare)(tn_device *device, const tn_task *task, tn_kernel **kernel,
                         tn_error *error);
    /* Records the work queued from record_begin to record_end instead of doing it: kernels, copies
     * within the device, zeroes, add and scale; all else fails meanwhile. Only on devices that
     * record. record_end with `recording` NULL drops it, without error. Replaying does the
     * work on the same memory, bit for bit as if it were queued again. */
    tn_status (*record_begin)(tn_device *device, tn_error *error);
    tn_status (*record_end)(tn_device *device, tn_recording **recording, tn_error *error);
    tn_status (*replay)(tn_device *device, const tn_recording *recording, tn_error *error);
    void (*forget)(tn_device *device, tn_recording *recording); /* NULL is fine */
    size_t (*available)(tn_device *device); /* bytes not in use; NULL: not known */
} tn_device_class;

/* Implementations embed it first in their own struct. */
struct tn_device {
    const tn_device_class *type;
    char id[32];          /* "cpu", "cuda:0" */
    char summary[160];    /* "AMD EPYC, oneDNN 2.6.3, 2 threads" */
    char arithmetic[128]; /* the part of it that the bits of results depend on: not the threads */
    bool host_memory;     /* its pointers can be read and written by the host */
    bool bf16;            /* bf16 pays here: AMX, or a GPU; `auto` chooses it */
    bool records;         /* its work can be recorded and replayed */
    bool tf32_runs;       /* tf32 can be asked for */
    bool bf16_runs;       /* bf16 can be asked for: AVX-512's, which is faster on some processors */
    uint32_t bf16_stores; /* bits 1 << tn_verb: verbs that may read and write what is stored as bf16
                             (`supports` says which of their operands) */
};

/* Why no device takes a task: fused functions and gradients that do not go together, a precision
 * the device lacks. NULL: no such reason. */
const char *tn_task_refusal(const tn_device *device, const tn_task *task);

/* What it is when a device has no memory left: LIMIT for the host's, DEVICE for a device's own. */
static inline tn_status tn_device_memory_status(const tn_device *device)
{
    return device->host_memory ? TN_ERROR_LIMIT : TN_ERROR_DEVICE;
}

/* The CPU device: oneDNN and OpenMP, with as many threads as tn_threads_get() says now. */
tn_status tn_device_create_cpu(tn_device **device, tn_error *error) TN_MUST_CHECK;
void tn_device_destroy(tn_device *device); /* NULL is fine; plans on it must be gone */

void tn_kernel_destroy(tn_kernel *kernel); /* NULL is fine */

/* For implementations: zeroed, of `bytes` >= sizeof(tn_kernel). tn_kernel_free is the class's
 * destroy where nothing else is owned. */
tn_status tn_kernel_create(tn_device *device, const tn_task *task, const tn_kernel_class *type,
                           const char *name, size_t bytes, tn_kernel **kernel,
                           tn_error *error) TN_MUST_CHECK;
void tn_kernel_free(tn_kernel *kernel);

#endif
