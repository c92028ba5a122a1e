/* Fault injection for the calls of runtime.h; its implementations ask before each. In any program
 * the environment variable TERNION_GPU_FAULT=N lets the N-th call fail. */
#ifndef TERNION_GPU_FAULT_H
#define TERNION_GPU_FAULT_H

#include <stdbool.h>

bool tn_gpu_fault(void); /* counts a call; true when it is the one to fail */

void tn_gpu_waited(void); /* counts a wait of the host for the device */

#endif
