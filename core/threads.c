#include "core/threads.h"

#include <omp.h>

void tn_threads_set(int n)
{
    omp_set_num_threads(n > 0 ? n : omp_get_num_procs());
}

int tn_threads_get(void)
{
    return omp_get_max_threads();
}
