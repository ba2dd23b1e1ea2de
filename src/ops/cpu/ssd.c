// ssd_fwd and ssd_step: the recurrence of MODEL.md section 2 in chunks (see ssd.h) and one token
// at a time. A short sequence is work for one thread and head; of a sequence that is long for the
// number of threads the chunks are shared out as well: first the chunks' own contributions to the
// state, then a scan over them, then the outputs. Both ways give the same bits.
#include "ops/cpu/ssd.h"
#include <math.h>
#include <string.h>

// ---- shared with ssd_bwd.c ----

struct mm_ssd mm_ssd_of(const struct mm_mixer_kernels *kern, struct mm_view v, struct mm_view k,
                        struct mm_view q, struct mm_view dt, struct mm_view a_log,
                        struct mm_view d) {
    struct mm_ssd e = {.kern = kern,
                       .v = v,
                       .k = k,
                       .q = q,
                       .dt = dt,
                       .a_log = a_log,
                       .d = d,
                       .n_heads = q.shape[1],
                       .per_group = q.shape[1] / v.shape[1],
                       .n_rows = v.shape[2],
                       .n_cols = k.shape[2]};
    e.ld_rows = mm_ssd_pad(&e, e.n_rows), e.ld_cols = mm_ssd_pad(&e, e.n_cols);
    return e;
}

static float vector_at(struct mm_view v, int64_t i) {
    float f;
    mm_to_f32(&f, mm_view_at(v, i, 0), v.dtype, 1);
    return f;
}

double mm_ssd_rate(const struct mm_ssd *e, int64_t h) {
    return e->a_log.data ? exp((double)vector_at(e->a_log, h)) : 0.0;
}

float mm_ssd_skip(const struct mm_ssd *e, int64_t h) {
    return e->d.data ? vector_at(e->d, h) : 0.0f;
}

// Up to 128 tokens the products inside one chunk cost less than passing a state on.
int64_t mm_ssd_chunk(const struct mm_mixer_kernels *kern, int64_t n) {
    return n <= mm_ssd_chunk_max ? n : kern->long_chunk;
}

void mm_ssd_decay(const struct mm_ssd *e, int64_t h, int64_t t, int64_t n, struct mm_decay *decay) {
    const double rate = mm_ssd_rate(e, h);
    double sum = 0.0;
    for (int64_t i = 0; i < n; i++) {
        const float dt = mm_ssd_dt(e, h, t + i);
        // exp(-1e4) is 0 already; the bound keeps sums of absurd steps finite.
        sum -= fmin(rate * (double)dt, 1e4);
        decay->dt[i] = dt;
        decay->hi[i] = (float)sum;
        decay->lo[i] = (float)(sum - (double)decay->hi[i]);
    }
    decay->n = n;
    e->kern->decay(decay);
}

int64_t mm_ssd_first_seq(struct mm_segs segs, int64_t row) {
    int64_t lo = 0, hi = segs.n;
    while (lo < hi) {
        const int64_t mid = (lo + hi) / 2;
        if (segs.start[mid] < row) {
            lo = mid + 1;
        } else {
            hi = mid;
        }
    }
    return lo;
}

int64_t mm_ssd_longest(struct mm_segs segs) {
    int64_t longest = 0;
    for (int64_t s = 0; s < segs.n; s++) {
        const int64_t n = segs.start[s + 1] - segs.start[s];
        longest = n > longest ? n : longest;
    }
    return longest;
}

// ---- one chunk ----

// Buffers of one thread. Q is the largest chunk, padded.
struct work {
    float *kt;      // (N, Q)   keys, transposed
    float *v;       // (Q, P)   values
    float *q;       // (Q, N)   queries, scaled
    float *scores;  // (Q, Q)
    float *y;       // (Q, P)
    float *state;   // (N, P)   transposed: products with queries then run along P
    struct mm_decay *decay;
};

struct fwd {
    struct mm_ssd e;
    struct mm_view y, state;
    struct mm_segs segs;
    unsigned char *pieces;  // one struct work's memory a thread
    size_t piece_bytes;
    int64_t max_chunk;  // Q
    int64_t long_from;  // sequences of this length or more are not for `some_sequences`
    // A long sequence: chunks [chunk0, chunk0 + n_chunks) of `chunk` tokens of sequence `seq`,
    // and for each (chunk, head) its contribution to the state, then the state before it.
    int64_t seq, chunk, chunk0, n_chunks;
    float *kept;   // (n_chunks, H, N, P)
    float *carry;  // (H, N, P) the state after the chunks done
    float *total;  // (n_chunks, H)
};

static size_t work_floats(const struct fwd *f) {
    const struct mm_ssd *e = &f->e;
    const int64_t n = f->max_chunk;
    return (size_t)(n * (e->n_cols + 2 * e->ld_rows + e->ld_cols + n) + e->n_cols * e->ld_rows);
}

static struct work work_of(const struct fwd *f, int thread) {
    const struct mm_ssd *e = &f->e;
    const int64_t n = f->max_chunk;
    unsigned char *at = f->pieces + (size_t)thread * f->piece_bytes;
    struct work w = {.decay = (struct mm_decay *)at};
    w.kt = (float *)(at + (sizeof *w.decay + 63) / 64 * 64);
    w.v = w.kt + n * e->n_cols;
    w.q = w.v + n * e->ld_rows;
    w.scores = w.q + n * e->ld_cols;
    w.y = w.scores + n * n;
    w.state = w.y + n * e->ld_rows;
    return w;
}

// Keys and decays of tokens [t, t + n) of head h.
static void load(const struct fwd *f, const struct work *w, int64_t h, int64_t t, int64_t n) {
    const struct mm_ssd *e = &f->e;
    mm_ssd_decay(e, h, t, n, w->decay);
    e->kern->transpose(w->kt, mm_ssd_pad(e, n), mm_ssd_k(e, h, t), e->k.ld, n, e->n_cols);
}

// Values scaled by rows, as B.
static void with_values(const struct fwd *f, const struct work *w, struct mm_gemm *g,
                        const float *scale, int64_t h, int64_t t) {
    const struct mm_ssd *e = &f->e;
    e->kern->pack(w->v, e->ld_rows, mm_ssd_v(e, h, t), e->v.ld, scale, w->decay->n, e->n_rows);
    g->b = w->v, g->ldb = e->ld_rows;
}

// Rows of y from the loaded chunk and the state before it; NULL stands for zeros.
static void outputs(const struct fwd *f, const struct work *w, const float *state, int64_t h,
                    int64_t t) {
    const struct mm_ssd *e = &f->e;
    const int64_t n = w->decay->n, ld = mm_ssd_pad(e, n), n_rows = e->n_rows;
    struct mm_gemm scores = {.c = w->scores,
                             .ldc = ld,
                             .a = mm_ssd_q(e, h, t),
                             .a_row = e->q.ld,
                             .a_col = 1,
                             .m = n,
                             .b = w->kt,
                             .ldb = ld,
                             .n = ld,
                             .k = e->n_cols,
                             .part = mm_part_lower};
    e->kern->gemm(&scores);
    e->kern->mask(w->scores, ld, w->decay);
    const float skip = mm_ssd_skip(e, h);
    for (int64_t i = 0; skip != 0.0f && i < n; i++) {
        w->scores[i * ld + i] += skip;
    }
    struct mm_gemm inner = {.c = w->y,
                            .ldc = e->ld_rows,
                            .a = w->scores,
                            .a_row = ld,
                            .a_col = 1,
                            .m = n,
                            .n = e->ld_rows,
                            .k = n,
                            .part = mm_part_a_lower};
    with_values(f, w, &inner, NULL, h, t);
    e->kern->gemm(&inner);
    if (state) {
        e->kern->pack(w->q, e->ld_cols, mm_ssd_q(e, h, t), e->q.ld, w->decay->in, n, e->n_cols);
        struct mm_gemm outer = {.c = w->y,
                                .ldc = e->ld_rows,
                                .alpha = 1.0f,
                                .a = w->q,
                                .a_row = e->ld_cols,
                                .a_col = 1,
                                .b = state,
                                .ldb = e->ld_rows,
                                .m = n,
                                .n = e->ld_rows,
                                .k = e->n_cols};
        e->kern->gemm(&outer);
    }
    float *y = (float *)f->y.data + t * f->y.ld + h * n_rows;
    for (int64_t i = 0; i < n; i++) {
        memcpy(y + i * f->y.ld, w->y + i * e->ld_rows, (size_t)n_rows * sizeof *y);
    }
}

// state = alpha state + the loaded chunk's contribution.
static void advance(const struct fwd *f, const struct work *w, float *state, float alpha, int64_t h,
                    int64_t t) {
    const struct mm_ssd *e = &f->e;
    struct mm_gemm g = {.c = state,
                        .ldc = e->ld_rows,
                        .alpha = alpha,
                        .a = w->kt,
                        .a_row = mm_ssd_pad(e, w->decay->n),
                        .a_col = 1,
                        .m = e->n_cols,
                        .n = e->ld_rows,
                        .k = w->decay->n};
    with_values(f, w, &g, w->decay->out, h, t);
    e->kern->gemm(&g);
}

static float *session_state(const struct fwd *f, int64_t s, int64_t h) {
    return (float *)f->state.data + s * f->state.ld + h * f->e.n_rows * f->e.n_cols;
}

// (P, N) of a session to (N, P) of a buffer and back.
static void state_in(const struct fwd *f, float *state, int64_t s, int64_t h) {
    const struct mm_ssd *e = &f->e;
    e->kern->transpose(state, e->ld_rows, session_state(f, s, h), e->n_cols, e->n_rows, e->n_cols);
}
static void state_out(const struct fwd *f, const float *state, int64_t s, int64_t h) {
    float *to = session_state(f, s, h);
    const struct mm_ssd *e = &f->e;
    for (int64_t i = 0; i < e->n_rows; i++) {
        for (int64_t j = 0; j < e->n_cols; j++) {
            to[i * e->n_cols + j] = state[j * e->ld_rows + i];
        }
    }
}

// ---- a sequence of one head ----

void mm_ssd_tokens(const struct mm_ssd *e, struct mm_view y, float *state, int64_t h, int64_t begin,
                   int64_t end) {
    const double rate = mm_ssd_rate(e, h);
    for (int64_t t = begin; t < end; t++) {
        const float dt = mm_ssd_dt(e, h, t);
        const double l = -rate * (double)dt;
        const float a = l > -80.0 ? (float)exp(l) : 0.0f;  // as mm_v_decay: no denormals
        e->kern->step((float *)y.data + t * y.ld + h * e->n_rows, state, mm_ssd_v(e, h, t),
                      mm_ssd_k(e, h, t), mm_ssd_q(e, h, t), a, dt, mm_ssd_skip(e, h), e->n_rows,
                      e->n_cols);
    }
}

enum { few_tokens = 8 };  // with a state to continue: the recurrence itself is cheaper

static void sequence(const struct fwd *f, const struct work *w, int64_t s, int64_t h) {
    const int64_t begin = f->segs.start[s], end = f->segs.start[s + 1];
    const int64_t chunk = mm_ssd_chunk(f->e.kern, end - begin);
    if (f->state.data && end - begin <= few_tokens) {
        mm_ssd_tokens(&f->e, f->y, session_state(f, s, h), h, begin, end);
        return;
    }
    bool have_state = f->state.data;
    if (have_state) state_in(f, w->state, s, h);
    for (int64_t t = begin; t < end; t += chunk) {
        load(f, w, h, t, end - t < chunk ? end - t : chunk);
        outputs(f, w, have_state ? w->state : NULL, h, t);
        if (t + chunk >= end && !f->state.data) break;
        advance(f, w, w->state, have_state ? w->decay->total : 0.0f, h, t);
        have_state = true;
    }
    if (f->state.data && end > begin) state_out(f, w->state, s, h);
}

// The loop runs over rows of all heads; a (head, sequence) belongs to the thread that has its
// first row. So threads get equal numbers of tokens, not of sequences.
static void some_sequences(void *arg, int64_t begin, int64_t end, int thread) {
    const struct fwd *f = arg;
    const int64_t n_tokens = f->segs.start[f->segs.n];
    const struct work w = work_of(f, thread);
    for (int64_t h = begin / n_tokens; h * n_tokens < end; h++) {
        int64_t s = mm_ssd_first_seq(f->segs, begin - h * n_tokens);
        for (; s < f->segs.n && h * n_tokens + f->segs.start[s] < end; s++) {
            if (f->segs.start[s + 1] - f->segs.start[s] < f->long_from) sequence(f, &w, s, h);
        }
    }
}

// ---- one long sequence over all threads ----

static int64_t chunk_tokens(const struct fwd *f, int64_t c, int64_t *t) {
    *t = f->segs.start[f->seq] + (f->chunk0 + c) * f->chunk;
    const int64_t left = f->segs.start[f->seq + 1] - *t;
    return left < f->chunk ? left : f->chunk;
}

static void some_contributions(void *arg, int64_t begin, int64_t end, int thread) {
    const struct fwd *f = arg;
    const struct work w = work_of(f, thread);
    const int64_t size = f->e.n_cols * f->e.ld_rows;
    for (int64_t i = begin; i < end; i++) {
        int64_t t;
        const int64_t h = i % f->e.n_heads, n = chunk_tokens(f, i / f->e.n_heads, &t);
        load(f, &w, h, t, n);
        advance(f, &w, f->kept + i * size, 0.0f, h, t);
        f->total[i] = w.decay->total;
    }
}

static void some_scans(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const struct fwd *f = arg;
    const struct mm_ssd *e = &f->e;
    for (int64_t i = begin; i < end; i++) {  // a head and a row of its (N, P)
        const int64_t h = i / e->n_cols, at = i * e->ld_rows;
        for (int64_t c = 0; c < f->n_chunks; c++) {
            e->kern->scan(f->carry + at, f->kept + c * e->n_heads * e->n_cols * e->ld_rows + at,
                          f->total[c * e->n_heads + h], e->ld_rows);
        }
    }
}

static void some_outputs(void *arg, int64_t begin, int64_t end, int thread) {
    const struct fwd *f = arg;
    const struct work w = work_of(f, thread);
    const int64_t size = f->e.n_cols * f->e.ld_rows;
    for (int64_t i = begin; i < end; i++) {
        int64_t t;
        const int64_t h = i % f->e.n_heads, n = chunk_tokens(f, i / f->e.n_heads, &t);
        const bool zero = !f->state.data && f->chunk0 + i / f->e.n_heads == 0;
        load(f, &w, h, t, n);
        outputs(f, &w, zero ? NULL : f->kept + i * size, h, t);
    }
}

// Memory: at most `kept_bytes` of states at a time, or one chunk's.
static const int64_t kept_bytes = (int64_t)64 << 20;

static void long_sequence(struct mm_backend *be, struct fwd *f, int64_t s) {
    const struct mm_ssd *e = &f->e;
    const int64_t n = f->segs.start[s + 1] - f->segs.start[s];
    const int64_t of_heads = e->n_heads * e->n_cols * e->ld_rows;
    f->seq = s, f->chunk = mm_ssd_chunk(e->kern, n);
    const int64_t n_chunks = (n + f->chunk - 1) / f->chunk;
    int64_t at_once = kept_bytes / (of_heads * (int64_t)sizeof(float));
    at_once = at_once < 1 ? 1 : at_once > n_chunks ? n_chunks : at_once;
    f->kept =
        mm_cpu_scratch(be, mm_scratch_b,
                       (size_t)((at_once + 1) * of_heads + at_once * e->n_heads) * sizeof(float));
    if (!f->kept) return;
    f->carry = f->kept + at_once * of_heads, f->total = f->carry + of_heads;
    memset(f->carry, 0, (size_t)of_heads * sizeof(float));
    for (int64_t h = 0; f->state.data && h < e->n_heads; h++) {
        state_in(f, f->carry + h * e->n_cols * e->ld_rows, s, h);
    }
    for (f->chunk0 = 0; f->chunk0 < n_chunks; f->chunk0 += at_once) {
        f->n_chunks = n_chunks - f->chunk0 < at_once ? n_chunks - f->chunk0 : at_once;
        mm_parallel_for(be->pool, f->n_chunks * e->n_heads, 1, some_contributions, f);
        mm_parallel_for(be->pool, e->n_heads * e->n_cols, 8, some_scans, f);
        mm_parallel_for(be->pool, f->n_chunks * e->n_heads, 1, some_outputs, f);
    }
    for (int64_t h = 0; f->state.data && h < e->n_heads; h++) {
        state_out(f, f->carry + h * e->n_cols * e->ld_rows, s, h);
    }
}

// ---- the operations ----

void mm_ssd_fwd_cpu(struct mm_backend *be, struct mm_view y, struct mm_view v, struct mm_view k,
                    struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,
                    struct mm_view state, struct mm_segs segs) {
    const int64_t longest = mm_ssd_longest(segs), n_tokens = segs.start[segs.n];
    if (longest == 0) return;
    struct fwd f = {.e = mm_ssd_of(mm_mixer_kernels(be), v, k, q, dt, a_log, d),
                    .y = y,
                    .state = state,
                    .segs = segs};
    if (f.e.kern->chunks) {
        mm_ssd_fwd_groups(be, &f.e, y, state, segs);
        return;
    }
    const int n_threads = mm_pool_size(be->pool);
    f.max_chunk = mm_ssd_pad(&f.e, longest < mm_ssd_chunk_max ? longest : mm_ssd_chunk_max);
    f.piece_bytes = mm_cpu_piece(work_floats(&f) * sizeof(float) + sizeof(struct mm_decay) + 64);
    f.pieces = mm_cpu_scratch(be, mm_scratch_a, f.piece_bytes * (size_t)n_threads);
    if (!f.pieces) return;
    // Long: more than half of what a thread would have in an even share, and worth cutting.
    f.long_from = n_tokens * f.e.n_heads / (2 * n_threads) + 1;
    if (f.long_from < 4 * mm_ssd_chunk_max) f.long_from = 4 * mm_ssd_chunk_max;
    if (n_threads == 1) f.long_from = INT64_MAX;
    for (int64_t s = 0; longest >= f.long_from && s < segs.n; s++) {
        if (segs.start[s + 1] - segs.start[s] >= f.long_from) long_sequence(be, &f, s);
    }
    mm_parallel_for(be->pool, n_tokens * f.e.n_heads, 16, some_sequences, &f);
}

struct step {
    struct mm_ssd e;
    struct mm_view y, state;
};

static void some_steps(void *arg, int64_t begin, int64_t end, int thread) {
    (void)thread;
    const struct step *w = arg;
    const struct mm_ssd *e = &w->e;
    for (int64_t i = begin; i < end; i++) {
        const int64_t s = i / e->n_heads, h = i % e->n_heads;
        float *state = (float *)w->state.data + s * w->state.ld + h * e->n_rows * e->n_cols;
        mm_ssd_tokens(e, w->y, state, h, s, s + 1);
    }
}

void mm_ssd_step_cpu(struct mm_backend *be, struct mm_view y, struct mm_view v, struct mm_view k,
                     struct mm_view q, struct mm_view dt, struct mm_view a_log, struct mm_view d,
                     struct mm_view state) {
    struct step w = {mm_ssd_of(mm_mixer_kernels(be), v, k, q, dt, a_log, d), y, state};
    mm_parallel_for(be->pool, q.shape[0] * w.e.n_heads, 4, some_steps, &w);
}
