#include "gpu/fault.h"

#include "gpu/runtime.h"

#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>

static atomic_uint_fast64_t calls, failing, waits;
static pthread_once_t once = PTHREAD_ONCE_INIT;

static void ask_environment(void)
{
    const char *n = getenv("TERNION_GPU_FAULT");
    if (n)
        failing = strtoull(n, NULL, 10);
}

void tn_gpu_fail_call(uint64_t n)
{
    (void)pthread_once(&once, ask_environment);
    calls = 0;
    failing = n;
}

uint64_t tn_gpu_calls(void)
{
    return calls;
}

bool tn_gpu_fault(void)
{
    (void)pthread_once(&once, ask_environment);
    return ++calls == failing;
}

void tn_gpu_waited(void)
{
    waits++;
}

uint64_t tn_gpu_waits(void)
{
    return waits;
}
