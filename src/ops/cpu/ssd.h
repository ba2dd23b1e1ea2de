// What the forward and the backward of the chunked recurrence share. A sequence is cut into chunks
// of tokens; with l_t = -exp(a_log) dt_t, L_i = l_0 + ... + l_i inside a chunk and S the state
// before it,
//   y_i    = sum_{j<=i} exp(L_i - L_j) dt_j (q_i k_j) v_j + exp(L_i) S q_i + d v_i
//   S_next = exp(L_last) S + sum_j exp(L_last - L_j) dt_j v_j k_j^T
// All exponents are <= 0. How a sequence is cut depends on its length alone, and every sum runs in
// an order of its own: the numbers do not depend on the threads.
#ifndef MM_OPS_CPU_SSD_H
#define MM_OPS_CPU_SSD_H

#include "ops/cpu/mixer.h"

struct mm_ssd {
    const struct mm_mixer_kernels *kern;
    struct mm_view v, k, q, dt, a_log, d;
    int64_t n_heads, per_group;  // H, H / G
    int64_t n_rows, n_cols;      // P, N
    int64_t ld_rows, ld_cols;    // of buffers, padded to whole vectors
};

struct mm_ssd mm_ssd_of(const struct mm_mixer_kernels *kern, struct mm_view v, struct mm_view k,
                        struct mm_view q, struct mm_view dt, struct mm_view a_log,
                        struct mm_view d);

static inline int64_t mm_ssd_pad(const struct mm_ssd *e, int64_t n) {
    return (n + e->kern->lanes - 1) / e->kern->lanes * e->kern->lanes;
}
static inline const float *mm_ssd_v(const struct mm_ssd *e, int64_t h, int64_t t) {
    return (const float *)e->v.data + t * e->v.ld + h / e->per_group * e->n_rows;
}
static inline const float *mm_ssd_k(const struct mm_ssd *e, int64_t h, int64_t t) {
    return (const float *)e->k.data + t * e->k.ld + h / e->per_group * e->n_cols;
}
static inline const float *mm_ssd_q(const struct mm_ssd *e, int64_t h, int64_t t) {
    return (const float *)e->q.data + t * e->q.ld + h * e->n_cols;
}
static inline float mm_ssd_dt(const struct mm_ssd *e, int64_t h, int64_t t) {
    return ((const float *)e->dt.data)[t * e->dt.ld + h];
}
double mm_ssd_rate(const struct mm_ssd *e, int64_t h);  // exp(a_log), 0 without decay
float mm_ssd_skip(const struct mm_ssd *e, int64_t h);   // d, 0 when absent

// Tokens of a chunk of a sequence of n tokens.
int64_t mm_ssd_chunk(const struct mm_mixer_kernels *kern, int64_t n);

// The decays of tokens [t, t + n) of head h.
void mm_ssd_decay(const struct mm_ssd *e, int64_t h, int64_t t, int64_t n, struct mm_decay *decay);

// Tokens [begin, end) of head h, one at a time on its state (P, N).
void mm_ssd_tokens(const struct mm_ssd *e, struct mm_view y, float *state, int64_t h, int64_t begin,
                   int64_t end);

// ssd_fwd where the kernels have struct mm_chunks.
void mm_ssd_fwd_groups(struct mm_backend *be, const struct mm_ssd *e, struct mm_view y,
                       struct mm_view state, struct mm_segs segs);

// The first sequence that begins at row `row` or later.
int64_t mm_ssd_first_seq(struct mm_segs segs, int64_t row);
int64_t mm_ssd_longest(struct mm_segs segs);

#endif
