// One dense product of f32 on one thread: oneDNN does the work, we split it over our own pool.
#ifndef MM_OPS_CPU_DNNL_H
#define MM_OPS_CPU_DNNL_H

#include "ops/cpu/cpu.h"

// Limits what oneDNN may use; it keeps the first limit for the whole process.
void mm_dnnl_limit(enum mm_isa isa);

// C (m, n) = A (m, k) B (k, n), added to C when `accumulate`. Row-major; a transposed operand is
// stored the other way round: A as (k, m), B as (n, k).
struct mm_product {
    int64_t m, n, k;
    const void *a, *b;
    float *c;
    int64_t lda, ldb, ldc;
    bool trans_a, trans_b;  // not both
    bool accumulate;
};
// False when oneDNN refuses (out of memory).
bool mm_dnnl_f32(const struct mm_product *p);

#endif
