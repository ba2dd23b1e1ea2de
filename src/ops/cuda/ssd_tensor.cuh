// What the two directions of the recurrence on the tensor cores share: the spans that blocks walk,
// decays, and states at the beginnings of spans.
#ifndef MM_OPS_CUDA_SSD_TENSOR_CUH
#define MM_OPS_CUDA_SSD_TENSOR_CUH

#include "ops/cuda/ssd_walk.cuh"

struct mm_ssd_plan {
    const struct mm_span *spans;
    const int32_t *first_span;  // (S + 1)
    int n_spans, n_seqs, heads, rows, cols;
    int most_chunks;  // of a span
    bool many;        // some sequence has several spans
    int64_t n_tokens;
    float *cum, *dt;  // (H, T)
    float *states;    // (spans, H, P, N): before each span
    float *totals;    // (spans, H)
    const float *a_log, *d;
};

// Whether the operand is bf16 that these kernels can read: 16 bytes at a time, heads of at most
// 128.
static inline bool mm_ssd_tensor_takes(struct mm_view v) {
    return v.dtype == mm_dtype_bf16 && v.shape[2] % 8 == 0 && v.shape[2] <= 128 && v.ld % 8 == 0 &&
           (uintptr_t)v.data % 16 == 0;
}
static inline struct mm_walk_rows mm_walk_rows_of(struct mm_view v, int64_t heads) {
    return mm_walk_rows{(const __nv_bfloat16 *)v.data, v.ld, (int)(heads / v.shape[1]),
                        (int)v.shape[2]};
}

// Spans of at most `longest` tokens, decays; room for states. False when memory failed.
bool mm_ssd_plan_of(struct mm_backend *be, struct mm_ssd_plan *p, struct mm_view v,
                    struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,
                    struct mm_segs segs, int64_t longest);
// Launches a walk over all spans.
void mm_ssd_walk(struct mm_backend *be, const struct mm_ssd_plan *p, const struct mm_walk *w,
                 bool back, enum mm_walk_kind kind);
// From what spans add (of a walk of states) to the states before them, or, backwards,
// to the gradients after them; `begin` (S,H,P,N) or NULL: zeros.
void mm_ssd_pass(struct mm_backend *be, const struct mm_ssd_plan *p, float *states,
                 const float *totals, const float *begin, bool back);
struct mm_walk mm_ssd_walk_of(const struct mm_ssd_plan *p);

// False: not for operands like these.
bool mm_ssd_fwd_tensor(struct mm_backend *be, struct mm_view y, struct mm_view v, struct mm_view k,
                       struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,
                       struct mm_view state, struct mm_segs segs);
bool mm_ssd_bwd_tensor(struct mm_backend *be, struct mm_view dv, struct mm_view dk,
                       struct mm_view dq, struct mm_view ddt, struct mm_view da_log,
                       struct mm_view dd, struct mm_view dy, struct mm_view v, struct mm_view k,
                       struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,
                       struct mm_segs segs);

#endif
