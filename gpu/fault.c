#include "gpu/fault.h"

#include "gpu/runtime.h"

#include <stdatomic.h>

static atomic_uint_fast64_t calls, failing;

void tn_gpu_fail_call(uint64_t n)
{
    calls = 0;
    failing = n;
}

uint64_t tn_gpu_calls(void)
{
    return calls;
}

bool tn_gpu_fault(void)
{
    return ++calls == failing;
}
