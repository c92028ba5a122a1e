/* Every device verb in plain C and double, forward and backward: the oracle of all devices. Written
 * for the eye, index by index, sharing nothing with any device. */
#ifndef TERNION_TESTS_NETWORK_ORACLE_H
#define TERNION_TESTS_NETWORK_ORACLE_H

#include "network/device.h"

enum { ORACLE_OPERANDS = 6 };

typedef struct oracle {
    const tn_task *task;
    bool training; /* BATCH_NORM: statistics of the batch */
    int n_src, n_params;
    int64_t src_count[ORACLE_OPERANDS], param_count[ORACLE_OPERANDS], dst_count;
    double *src[ORACLE_OPERANDS], *params[ORACLE_OPERANDS], *dst;
    double *ddst, *dsrc[ORACLE_OPERANDS], *dparams[ORACLE_OPERANDS]; /* gradients overwritten */
    /* FAKE_QUANTIZE: the rounding errors and codes of a forward pass, which later ones then keep:
     * what its gradients are the gradients of. NULL: it rounds. */
    double *frozen; /* [2, count] */
} oracle;

void oracle_forward(oracle *o);
/* FAKE_QUANTIZE: fills `frozen` [2, count] from the operands as they are and sets o->frozen. */
void oracle_freeze(oracle *o, double *frozen);
/* After forward. All gradients of src and params (statistics of BN excepted). */
void oracle_backward(oracle *o);
/* By how much BN at most enlarges what is rounded, where few rows happen to be close together; at
 * least 1, and 1 for all others. */
double oracle_gain(const oracle *o);
/* Whether the verb with these parameters has a backward here. */
bool oracle_has_backward(const tn_task *task);

typedef struct oracle_targets {
    const int32_t *labels, *partners; /* partners: NULL without mixup */
    const double *mix;
    int64_t count;
    double smoothing, temperature, weight, scale;
} oracle_targets;

/* Loss of rows [0, count) and its gradient (times `scale`) into dsrc[0]; src[1] may be NULL. */
double oracle_loss(oracle *o, const oracle_targets *t);

#endif
