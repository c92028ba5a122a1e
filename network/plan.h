/* A network prepared to run on a device for one batch size: steps in order, fused where the device
 * can, every buffer placed in one arena. After creation no step allocates.
 *
 * Use: build a tn_graph with options.batch = the plan's batch; create the plan; then per batch
 * tn_plan_write_input, tn_plan_forward, tn_plan_read. To train: options.training, tn_plan_loss,
 * tn_plan_backward, gradients in the parameter store. Calibration walks steps: forward over
 * [first, last), taps for what a layer sees, tn_plan_write_value to start from saved values.
 *
 * Values are named as in the graph. Values travel in ONNX's layout (NCHW) unless a function says
 * nhwc. Every call is from one thread at a time per plan. */
#ifndef TERNION_NETWORK_PLAN_H
#define TERNION_NETWORK_PLAN_H

#include "network/device.h"
#include "network/params.h"
#include "onnx_io/graph.h"

typedef struct tn_plan tn_plan;

typedef struct tn_plan_options {
    bool training;           /* backward is possible; BN steps stay steps */
    bool separate_bn;        /* BN steps are not folded into convolutions (implied by training) */
    bool no_fusion;          /* every node its own step, every value visible */
    bool keep_all;           /* no value shares memory: everything can be read, written, injected */
    bool input_gradient;     /* training: the gradient of the input is wanted */
    bool loss;               /* a loss head on tn_plan_logits (rank 2, [batch, classes]) */
    const char *output;      /* the graph's output that the logits are; NULL: the first */
    tn_precision precision;  /* AUTO: bf16 only where tn_device.bf16; explicit BF16 elsewhere is an
                                error that says so */
    const char *const *taps; /* values that stay readable after forward (never fused away) */
    size_t n_taps;
    const char *const *injections; /* values at which gradients will be injected, besides logits */
    size_t n_injections;
    const char *const *gradients; /* values whose gradient stays readable after backward */
    size_t n_gradients;
    bool clip_steps;   /* training: quantized activations learn their step as PACT's clip, not as
                          LSQ's   step (tn_fake_quantize_task) */
    float bn_momentum; /* running = m * running + (1 - m) * batch; < 0 or 0: the node's (0.9) */
    tn_params *params; /* shared store, borrowed; NULL: the plan has its own */
} tn_plan_options;

typedef enum tn_run_mode {
    TN_RUN_INFERENCE, /* running statistics */
    TN_RUN_TRAINING,  /* batch statistics; running ones are updated (variance unbiased, as PyTorch
                         does; ONNX's training mode uses the biased one) */
    TN_RUN_BATCH_STATISTICS, /* batch statistics, running ones left alone */
    TN_RUN_FROZEN_STATISTICS /* running statistics, as while training with BN frozen */
} tn_run_mode;

/* options may be NULL: inference in fp32 with all fusion. Borrows graph and device until destroyed.
 * MODEL with all unsupported operators at once ("node 'x': Foo is not supported; ..."), or when a
 * shape is unknown; USAGE for an unknown tap; LIMIT when the arena does not fit. */
tn_status tn_plan_create(const tn_graph *graph, tn_device *device, const tn_plan_options *options,
                         tn_plan **plan, tn_error *error) TN_MUST_CHECK;
void tn_plan_destroy(tn_plan *plan); /* NULL is fine */

tn_params *tn_plan_params(const tn_plan *plan);
int64_t tn_plan_batch(const tn_plan *plan);
tn_precision tn_plan_precision(const tn_plan *plan);

/* Inputs and outputs of the graph, by position; NULL past the end. */
const char *tn_plan_input(const tn_plan *plan, size_t i);
const char *tn_plan_output(const tn_plan *plan, size_t i);
/* The first output, or what its Softmax / LogSoftmax reads (Reshape, Identity between skipped). */
const char *tn_plan_logits(const tn_plan *plan);

/* A value's shape in the model (batch included). USAGE when the plan has no such value (unknown, or
 * fused away: name it as a tap). */
tn_status tn_plan_shape(const tn_plan *plan, const char *value, tn_extent *shape,
                        tn_error *error) TN_MUST_CHECK;

/* --- running ------------------------------------------------------------------------------- */

/* The first `count` (<= batch) samples of an input, the rest set to 0. src: in the
 * order of the model's dimensions. */
tn_status tn_plan_write_input(tn_plan *plan, size_t input, const float *src, int64_t count,
                              tn_error *error) TN_MUST_CHECK;
/* The same of images [count, H, W, C], whether the model reads [N, C, H, W] or [N, H, W, C]. */
tn_status tn_plan_write_images(tn_plan *plan, size_t input, const float *nhwc, int64_t count,
                               tn_error *error) TN_MUST_CHECK;
/* The input's own buffer [batch, H, W, C] in device memory, to be filled in place. */
float *tn_plan_input_buffer(tn_plan *plan, size_t input);

/* Which random numbers Dropout draws in TN_RUN_TRAINING from now on: those of samples `sample`,
 * sample + 1, ... of an epoch, whatever ranks and batches they are divided into. The same goes for
 * TN_RUN_FROZEN_STATISTICS; in the other modes and in plans that do not train Dropout is the
 * identity. Never between a forward and its backward. */
tn_status tn_plan_set_dropout(tn_plan *plan, uint64_t seed, uint32_t epoch, uint64_t sample,
                              tn_error *error) TN_MUST_CHECK;

/* Steps [first, last); last is cut to the number of steps: (0, SIZE_MAX) is the network. The values
 * a sub-range reads must be there: from a forward before it, or by tn_plan_write_value. */
tn_status tn_plan_forward(tn_plan *plan, tn_run_mode mode, size_t first, size_t last,
                          tn_error *error) TN_MUST_CHECK;

/* Any value that is an output, a tap, an input, or (with keep_all) any; right after a forward over
 * [0, last) also those a step >= last reads. */
tn_status tn_plan_read(tn_plan *plan, const char *value, float *nchw,
                       tn_error *error) TN_MUST_CHECK;
/* Device pointer to a value as it lies: [N, spatial..., C] when *channels_last, else the model's
 * order. Valid until the plan is destroyed; contents as for tn_plan_read. USAGE when a bf16 plan
 * stores it as bf16, which it never does to inputs, outputs, taps and the logits. */
tn_status tn_plan_raw(tn_plan *plan, const char *value, const float **data, bool *channels_last,
                      tn_error *error) TN_MUST_CHECK;
tn_status tn_plan_write_value(tn_plan *plan, const char *value, const float *nchw,
                              tn_error *error) TN_MUST_CHECK;

/* Memory of one value, or of several that share it. The ids are the same in every plan of the same
 * graph with the same options. */
typedef struct tn_plan_buffer {
    size_t id;
    float *data; /* device memory, as it lies */
    int64_t count;
    size_t bytes; /* half as many where a bf16 plan stores it so: data then points to uint16_t */
    bool channels_last;
} tn_plan_buffer;

/* Ids are below this. */
size_t tn_plan_buffer_count(const tn_plan *plan);
/* The buffers that hold, before `step`, what it and later steps read and what stays readable: saved
 * and put back, a run resumes there. buffers has room for tn_plan_buffer_count; how many. */
size_t tn_plan_live(const tn_plan *plan, size_t step, tn_plan_buffer *buffers);
/* A value's buffer as tn_plan_raw sees it; false when it has none (unknown, folded, a constant). */
bool tn_plan_value_buffer(const tn_plan *plan, const char *value, tn_plan_buffer *buffer);
/* What a step reads (source 0, 1, ...) or writes (-1); false past the end and for constants. */
bool tn_plan_step_buffer(const tn_plan *plan, size_t step, int source, tn_plan_buffer *buffer);
/* Whether a step reads a buffer whose id is marked [tn_plan_buffer_count]. */
bool tn_plan_step_reads(const tn_plan *plan, size_t step, const bool *marked);

/* --- training ------------------------------------------------------------------------------ */

typedef struct tn_loss_options {
    const int32_t *labels;     /* host, [count]; < 0: unlabelled */
    const int32_t *partners;   /* host, [count]: mixup's second labels; NULL: none */
    const float *mix;          /* host, [count], with partners: their shares, 0 .. 1 */
    const float *teacher;      /* host, [count, classes] logits; NULL: no distillation */
    const float *teacher_data; /* the same in the device's memory, instead */
    int64_t count;             /* samples that count, <= batch */
    float smoothing;           /* label smoothing, 0 .. 1 */
    float temperature;         /* of the distillation; 0 means 1 */
    float weight;              /* of the distillation term, 0 .. 1 */
    float scale;               /* gradient's factor; 0 means 1 / count */
} tn_loss_options;

typedef struct tn_loss_result { /* sums over the count samples */
    double loss, cross_entropy;
    int64_t top1, top5;
} tn_loss_result;

/* The loss of the logits of the last forward (formula at tn_loss_task); in a training plan also its
 * gradient at the logits, where the next backward starts. Replaces what was injected before. */
tn_status tn_plan_loss(tn_plan *plan, const tn_loss_options *options, tn_loss_result *result,
                       tn_error *error) TN_MUST_CHECK;

/* tn_plan_loss in three parts, the second of which only queues work on the device: with forward and
 * backward it can be recorded, and replayed for other images and targets of the same kind. */
tn_status tn_plan_set_targets(tn_plan *plan, const tn_loss_options *options,
                              tn_error *error) TN_MUST_CHECK;
tn_status tn_plan_compute_loss(tn_plan *plan, const tn_loss_options *options,
                               tn_error *error) TN_MUST_CHECK;
/* The four sums it leaves in device memory. */
const float *tn_plan_loss_sums(const tn_plan *plan);
tn_status tn_plan_read_loss(tn_plan *plan, tn_loss_result *result, tn_error *error) TN_MUST_CHECK;

/* Adds a gradient at a value (an injection, an output, or any with keep_all) for the next backward;
 * to be called after the forward. Several add up, and add to the loss's. */
tn_status tn_plan_inject(tn_plan *plan, const char *value, const float *nchw,
                         tn_error *error) TN_MUST_CHECK;
/* The same in the order that tn_plan_raw says. */
tn_status tn_plan_inject_raw(tn_plan *plan, const char *value, const float *gradient,
                             tn_error *error) TN_MUST_CHECK;

/* Backward through steps last-1 ... first from what loss and inject left. Gradients of trainable,
 * unfrozen parameters of those steps are overwritten in the store, or added to with `accumulate`.
 * Consumes the injected gradients. Values without any gradient are skipped with all that only they
 * need (their parameters' gradients are set to 0 unless accumulating). */
tn_status tn_plan_backward(tn_plan *plan, size_t first, size_t last, bool accumulate,
                           tn_error *error) TN_MUST_CHECK;

/* The gradient of a value after backward: the input (input_gradient), or those in
 * options.gradients, or any with keep_all. */
tn_status tn_plan_read_gradient(tn_plan *plan, const char *value, float *nchw,
                                tn_error *error) TN_MUST_CHECK;

/* Statistics of the last forward with batch statistics of a BN step: mean and biased variance [C].
 * USAGE when the step is no BN. */
tn_status tn_plan_batch_statistics(tn_plan *plan, size_t step, float *mean, float *variance,
                                   tn_error *error) TN_MUST_CHECK;

/* --- looking at it ------------------------------------------------------------------------- */

typedef struct tn_plan_step {
    const tn_node *node; /* the first node it computes */
    const char *label;   /* tn_node_label of it */
    const char *type;    /* its operator */
    tn_verb verb;
    const char *fused;  /* "BatchNormalization+Relu": what else it computes; "" */
    const char *kernel; /* implementation */
    int64_t flops;      /* forward, multiply-adds x 2; 0 when not counted */
    const char *input;  /* value names: first source, and what it writes */
    const char *output;
    size_t weight, bias; /* positions in the store; SIZE_MAX: none */
} tn_plan_step;

size_t tn_plan_step_count(const tn_plan *plan);
tn_status tn_plan_step_at(const tn_plan *plan, size_t i, tn_plan_step *step,
                          tn_error *error) TN_MUST_CHECK;
/* The step that computes a node (by tn_node_label), fused or not; SIZE_MAX when none does (folded,
 * or only a view: Reshape, Identity). */
size_t tn_plan_step_of_node(const tn_plan *plan, const char *label);
/* The step whose output a value is; SIZE_MAX for inputs and unknown values. */
size_t tn_plan_step_of_value(const tn_plan *plan, const char *value);

typedef struct tn_plan_memory { /* bytes of device memory */
    size_t values;              /* arena: activations, gradients, what backward needs */
    size_t workspace;           /* arena: shared scratch */
    size_t packed;              /* arena: packed weights */
    size_t arena;               /* the sum, as allocated */
    size_t parameters;          /* masters and gradients in the store */
    size_t without_reuse;       /* what `values` would be if nothing shared memory */
} tn_plan_memory;

tn_plan_memory tn_plan_memory_get(const tn_plan *plan);

#endif
