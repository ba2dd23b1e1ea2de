// One dense product on one thread: oneDNN does the work, we split it over our own pool.
#ifndef MM_OPS_CPU_DNNL_H
#define MM_OPS_CPU_DNNL_H

#include "ops/cpu/cpu.h"

struct mm_dnnl;

// `isa` limits what oneDNN may use; oneDNN keeps the first limit for the whole process.
enum mm_code mm_dnnl_new(struct mm_dnnl **out, enum mm_isa isa, bool limit, int n_threads,
                         struct mm_error *err);
void mm_dnnl_free(struct mm_dnnl *g);

// C (m, n) = A (m, k) B (k, n), added to C when `accumulate`. Row-major; a transposed operand is
// stored the other way round: A as (k, m), B as (n, k). To be called by pool thread `thread`.
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
bool mm_dnnl_bf16(struct mm_dnnl *g, const struct mm_product *p, int thread);  // a, b bf16

#endif
