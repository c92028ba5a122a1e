/* The parameters of a network on a device: every float constant its steps read (weights, biases,
 * BN vectors, slopes), as fp32 masters in the model's layout, with a version that tells plans when
 * to pack them anew, and gradients. Plans of several batch sizes can share one store. */
#ifndef TERNION_NETWORK_PARAMS_H
#define TERNION_NETWORK_PARAMS_H

#include "network/device.h"
#include "onnx_io/graph.h"

typedef enum tn_param_role {
    TN_PARAM_WEIGHT, /* of Conv, Gemm, MatMul */
    TN_PARAM_BIAS,   /* of Conv, Gemm, or an Add behind a MatMul */
    TN_PARAM_GAMMA,
    TN_PARAM_BETA,
    TN_PARAM_MEAN, /* running: never trainable, updated by training-mode forward */
    TN_PARAM_VAR,
    TN_PARAM_STEP, /* the scale of QuantizeLinear, of one element */
    TN_PARAM_OTHER /* slopes and other constant operands */
} tn_param_role;

typedef struct tn_param {
    const char *name; /* of the graph's value: an initializer's, or what its decode chain yields */
    tn_param_role role;
    const tn_node *node; /* its first user, of the graph the store was created from; may be NULL */
    int rank;
    int64_t dims[TN_MAX_RANK]; /* in the model */
    int channel_axis;          /* WEIGHT: SPEC's channel axis; else 0 */
    int64_t count;
    float *data;     /* device memory */
    float *gradient; /* device memory, inside tn_params_gradients; NULL unless trainable */
    /* Where the host works on them: data and gradient themselves where the device's memory is the
     * host's, else copies that tn_params_mirror makes and push and pull move. */
    float *host, *host_gradient;
    bool trainable;   /* initially WEIGHT, BIAS, GAMMA, BETA, STEP, PRelu slopes */
    bool frozen;      /* gradient not computed for now; may change between steps */
    uint64_t version; /* grows with every change of data */
} tn_param;

typedef struct tn_params tn_params;

/* Uploads every float constant of the graph that a node reads and that is not itself folded away.
 * Borrows device and graph (the graph until the store is destroyed). */
tn_status tn_params_create(const tn_graph *graph, tn_device *device, tn_params **params,
                           tn_error *error) TN_MUST_CHECK;
void tn_params_destroy(tn_params *params); /* NULL is fine; plans that share it must be gone */

size_t tn_params_count(const tn_params *params);
/* For reading and for setting `trainable` (before the first training plan) and `frozen`. */
tn_param *tn_params_at(const tn_params *params, size_t i);
/* The position of a name, or SIZE_MAX. */
size_t tn_params_find(const tn_params *params, const char *name);

/* Between host and master, `count` floats in the model's layout, or as rows (converter/weight.h:
 * [channels, I/g * k...] whatever the channel axis). set costs a copy; plans pack at their next
 * run. */
tn_status tn_params_set(tn_params *params, size_t i, const float *layout,
                        tn_error *error) TN_MUST_CHECK;
tn_status tn_params_get(const tn_params *params, size_t i, float *layout,
                        tn_error *error) TN_MUST_CHECK;
tn_status tn_params_set_rows(tn_params *params, size_t i, const float *rows,
                             tn_error *error) TN_MUST_CHECK;
tn_status tn_params_get_rows(const tn_params *params, size_t i, float *rows,
                             tn_error *error) TN_MUST_CHECK;
/* The same where they are, without a copy: NULL when memory is not the host's or does not lie as
 * rows. Who writes calls tn_params_touch. */
float *tn_params_rows(const tn_params *params, size_t i);
const float *tn_params_gradient_rows(const tn_params *params, size_t i);
/* After writing tn_param.data directly (an optimizer kernel). */
void tn_params_touch(tn_params *params, size_t i);
void tn_params_touch_all(tn_params *params);

/* All masters of another store with the same names and shapes (another device, a snapshot). */
tn_status tn_params_copy(tn_params *params, const tn_params *from, tn_error *error) TN_MUST_CHECK;

/* Gives every trainable parameter its gradient buffer, once; training plans call it. */
tn_status tn_params_place_gradients(tn_params *params, tn_error *error) TN_MUST_CHECK;

/* One contiguous device buffer with all gradients, in the store's order of trainable parameters,
 * for one all-reduce. Each begins at a multiple of 256 bytes; what lies between them is 0 and
 * counted. *count is 0 before the first training plan. */
float *tn_params_gradients(const tn_params *params, int64_t *count);
tn_status tn_params_get_gradient(const tn_params *params, size_t i, float *layout,
                                 tn_error *error) TN_MUST_CHECK;
tn_status tn_params_get_gradient_rows(const tn_params *params, size_t i, float *rows,
                                      tn_error *error) TN_MUST_CHECK;
/* For training by the host: gives every parameter its `host` (now equal to data), trainable ones
 * their `host_gradient`. After tn_params_place_gradients. */
tn_status tn_params_mirror(tn_params *params, tn_error *error) TN_MUST_CHECK;
/* Trainable parameters to the device; gradients, running statistics from it. Nothing to do where
 * the memory is the same. */
tn_status tn_params_push(tn_params *params, tn_error *error) TN_MUST_CHECK;
/* One parameter, trainable or not, after the host changed it. */
tn_status tn_params_send(tn_params *params, size_t i, tn_error *error) TN_MUST_CHECK;
tn_status tn_params_pull_gradients(tn_params *params, tn_error *error) TN_MUST_CHECK;
tn_status tn_params_pull_statistics(tn_params *params, tn_error *error) TN_MUST_CHECK;

tn_status tn_params_zero_gradients(tn_params *params, tn_error *error) TN_MUST_CHECK;

#endif
