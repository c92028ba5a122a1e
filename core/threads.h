/* The number of OpenMP threads of the library's parallel regions. */
#ifndef TERNION_CORE_THREADS_H
#define TERNION_CORE_THREADS_H

/* n <= 0: the number of processors this process may run on. */
void tn_threads_set(int n);
int tn_threads_get(void);

#endif
