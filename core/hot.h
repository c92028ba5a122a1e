/* Hot loops are compiled for several instruction sets and chosen when the program starts. Bits do
 * not differ: nothing is contracted or reordered. Not by clang 14, whose resolvers of static
 * functions clash; sanitizers do not like resolvers. */
#ifndef TERNION_CORE_HOT_H
#define TERNION_CORE_HOT_H

#if defined(__x86_64__) && defined(__gnu_linux__) && !defined(__clang__) &&                        \
    !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#if __GNUC__ >= 12 /* with AVX-512 BW, without which 16-bit elements are taken in half vectors */
#define TN_HOT __attribute__((target_clones("arch=x86-64-v4", "avx2", "default"), noinline))
#else
#define TN_HOT __attribute__((target_clones("avx512f", "avx2", "default"), noinline))
#endif
#else
#define TN_HOT __attribute__((noinline))
#endif

#endif
