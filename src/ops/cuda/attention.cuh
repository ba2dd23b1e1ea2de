// What the kernels of softmax attention on bf16 operands share.
#ifndef MM_OPS_CUDA_ATTENTION_CUH
#define MM_OPS_CUDA_ATTENTION_CUH

#include "ops/cuda/cuda.h"
#include "ops/cuda/tensor.cuh"

struct mm_bf16_rows {
    __nv_bfloat16 *p;
    int64_t ld;
};
struct mm_attention {
    struct mm_bf16_rows q, k, v, y, dy, dq, dk, dv;
    const int32_t *start;  // packed sequences; NULL: one, query i at position past + i
    int n_seqs, dim, n_heads, ratio;
    int64_t past, n_q, n_k;
    float scale, scale_log2;  // 1 / sqrt(P); by log2 e
    float *lse;               // (T, H) or NULL
    int64_t ld_lse;
    int splits;   // blocks that share a row's keys
    float *part;  // (splits, n_q, H, P + 2): sums, largest score, sum of exponentials
};

// For the backward: lse by log2 e, and delta = dy . y; a head's rows in a row, (H, ld). Rows past
// the last, up to a whole tile, can be read.
struct mm_attention_sums {
    float *lse, *delta;
    int64_t ld;
};
bool mm_attention_prepare(struct mm_backend *be, const struct mm_attention *o,
                          struct mm_attention_sums *s);

__device__ inline int64_t mm_first_key(const struct mm_attention &o, int64_t row) {
    return o.start ? o.start[mm_seq_of(o.start, o.n_seqs, row)] : 0;
}

// Whether an operand (T, heads, P) is bf16 that can be read 16 bytes at a time.
static inline bool mm_attention_takes(struct mm_view v) {
    return v.dtype == mm_dtype_bf16 && v.shape[2] % 8 == 0 && v.shape[2] <= 128 && v.ld % 8 == 0 &&
           (uintptr_t)v.data % 16 == 0;
}
static inline struct mm_bf16_rows mm_bf16_rows_of(struct mm_view v) {
    return mm_bf16_rows{(__nv_bfloat16 *)v.data, v.ld};
}

void mm_attention_fwd_tensor(struct mm_backend *be, const struct mm_attention *o);
void mm_attention_bwd_tensor(struct mm_backend *be, const struct mm_attention *o);
// False: not for this card or these operands.
bool mm_attention_fwd_hopper(struct mm_backend *be, const struct mm_attention *o, struct mm_view q,
                             struct mm_view k, struct mm_view v);
bool mm_attention_bwd_hopper(struct mm_backend *be, const struct mm_attention *o, struct mm_view dy,
                             struct mm_view q, struct mm_view k, struct mm_view v);

#endif
