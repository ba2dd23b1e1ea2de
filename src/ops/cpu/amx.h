// Products of bf16 matrices on the matrix tiles of the processor (AMX).
#ifndef MM_OPS_CPU_AMX_H
#define MM_OPS_CPU_AMX_H

#include "ops/cpu/cpu.h"

// Whether the processor has tiles and the kernel lets this process use them (it is asked).
bool mm_amx_available(void);

// One side of a product, as it lies in memory. f32 is rounded to bf16 on the way into the tiles.
struct mm_amx_side {
    const void *data;
    enum mm_dtype dtype;  // f32 or bf16
    int64_t ld;
    bool by_k;  // a row of memory is one k; else the k of one row (of A) or column (of B)
};

// C (m, n) = A (m, k) B (k, n), added to C when `accumulate`; over the threads of be->pool.
// The order of every sum is fixed by k alone. k >= 1. Takes scratch c and d.
void mm_amx_product(struct mm_backend *be, float *c, int64_t ldc, int64_t m, int64_t n, int64_t k,
                    struct mm_amx_side a, struct mm_amx_side b, bool accumulate);

#endif
