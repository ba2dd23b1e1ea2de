// Products of matrices in device memory, by cuBLASLt.
#ifndef MM_OPS_CUDA_PRODUCT_CUH
#define MM_OPS_CUDA_PRODUCT_CUH

#include "ops/cuda/cuda.h"

struct mm_cuda_operand {
    const void *p;  // NULL: it could not be made; be->error is set
    int64_t ld;
};

// y = a b + add, where y (rows, cols), seen column by column, is (cols, rows): a is (cols, k) or
// with `ta` its transpose, b (k, rows) or with `tb` its transpose, both column-major and of `type`,
// f32 or bf16. Sums in f32. y and `add` (y's shape; may be y; NULL data: nothing is added) are f32
// or bf16.
void mm_cuda_product(struct mm_backend *be, cublasOperation_t ta, cublasOperation_t tb, int64_t k,
                     struct mm_cuda_operand a, struct mm_cuda_operand b, enum mm_dtype type,
                     struct mm_view add, struct mm_view y);

#endif
