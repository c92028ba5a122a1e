/* Compares a device's kernels with the oracle on random tasks: for the tests of every device. */
#ifndef TERNION_TESTS_NETWORK_KERNEL_CHECK_H
#define TERNION_TESTS_NETWORK_KERNEL_CHECK_H

#include "oracle.h"

/* `count` tasks of every verb, values and gradients, with and without accumulation; precision FP32
 * or BF16, the latter with operands stored as bf16 where the device takes them. Returns the number
 * of tasks that differ, each described on stdout. */
int kernel_check(tn_device *device, tn_precision precision, uint64_t seed, int count);

/* Convolutions that some implementation of oneDNN 2.6 computes wrong, as they were found. */
int conv_check(tn_device *device, tn_precision precision);

/* The loss verb, with and without teacher. */
int loss_check(tn_device *device, uint64_t seed, int count);

/* The oracle's own gradients against its differences: number of tasks that differ. */
int oracle_check(uint64_t seed, int count);

#endif
