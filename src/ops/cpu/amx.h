// Products of bf16 matrices on the matrix tiles of the processor (AMX).
#ifndef MM_OPS_CPU_AMX_H
#define MM_OPS_CPU_AMX_H

#include "ops/cpu/product.h"

// Whether the processor has tiles and the kernel lets this process use them (it is asked).
bool mm_amx_available(void);

// f32 is rounded to bf16 on the way into the tiles.
// C (m, n) = A (m, k) B (k, n), added to C when `accumulate`; over the threads of be->pool.
// The order of every sum is fixed by k alone. k >= 1. Takes scratch c and d.
void mm_amx_product(struct mm_backend *be, float *c, int64_t ldc, int64_t m, int64_t n, int64_t k,
                    struct mm_side a, struct mm_side b, bool accumulate);

#endif
