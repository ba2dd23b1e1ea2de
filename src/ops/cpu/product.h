// Dense products of float matrices over all threads: what linear.c asks of an architecture.
// product_x86.c and product_neon.c answer.
#ifndef MM_OPS_CPU_PRODUCT_H
#define MM_OPS_CPU_PRODUCT_H

#include "ops/cpu/cpu.h"

// One operand as it lies in memory.
struct mm_side {
    const void *data;
    enum mm_dtype dtype;  // f32, bf16, f16
    int64_t ld;
    bool by_k;  // a row of memory is one k; else the k of one row (of A) or column (of B)
};

// C (m, n) = A (m, k) B (k, n), added to C when `accumulate`. A is f32. Every element is one sum in
// one order, whatever the number of threads.
//
// Where the processor multiplies bf16, f32 is rounded to it when the other operand is bf16, or when
// `round` asks for it; elsewhere bf16 is widened, and `round` rounds without the multiplying.
struct mm_dense {
    float *c;
    int64_t ldc, m, n, k;
    struct mm_side a, b;
    bool round, accumulate;
};
// Takes scratch a to f (not b where `round` is not set). be->error when there is no memory.
void mm_dense_product(struct mm_backend *be, const struct mm_dense *p);

// ffn_fwd of more than a few rows as two products, the first of which leaves its result as the
// second one reads it. False: not for such weights at this level; nothing was done.
bool mm_ffn_product(struct mm_backend *be, struct mm_view y, struct mm_view x, struct mm_view h,
                    struct mm_view w1, struct mm_view w3, struct mm_view w2);

// What the products of an architecture keep as long as a backend lives.
enum mm_code mm_products_open(struct mm_cpu *cpu, int n_threads, struct mm_error *err);
void mm_products_close(struct mm_cpu *cpu);

#endif
