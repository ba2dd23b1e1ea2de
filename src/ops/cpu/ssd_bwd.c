// ssd_bwd: gradient of the chunked recurrence (see ssd.h), start states zero. For one head the
// states before each chunk are computed again, then the chunks are walked backwards with
// G = dL/dS of the state after the chunk. With E_ij = exp(L_i - L_j) for j <= i, e_i = exp(L_i),
// f_j = exp(L_last - L_j):
//   M_ij = (q_i k_j) E_ij dt_j          B_ij = (dy_i v_j) E_ij dt_j
//   dv_j = sum_i M_ij dy_i + f_j dt_j G k_j + d dy_j
//   dq_i = sum_j B_ij k_j + e_i S^T dy_i
//   dk_j = sum_i B_ij q_i + f_j dt_j G^T v_j
//   G before = exp(L_last) G + sum_i e_i dy_i q_i^T
// The exponents' gradients are sums of U_ij = (q_i k_j) (dy_i v_j) E_ij over j < i only: the
// diagonal would cancel, and is left out, so that strong decays lose no digits.
// A short sequence is work for one thread and group. Of a longer one the chunks are shared out:
// what each adds to the states and to their gradients, two scans, then the chunks. Which way a
// sequence goes depends on its length alone, and every sum has one order. Memory: a short sequence
// keeps the states of the chunks of one head a thread; of a long one the states and gradients of
// all chunks are kept, 8 N P T / 64 bytes a head, for as many groups at a time as fit in
// `kept_bytes` (one at least).
#include <math.h>
#include <string.h>
#include "ops/cpu/ssd.h"

// Buffers of one thread; Q the largest chunk, padded.
struct work {
    struct mm_decay *decay;
    struct mm_decay_sums *sums;
    float *kt, *vt;       // (N, Q), (P, Q)
    float *v, *dy;        // (Q, P)
    float *k, *q, *eq;    // (Q, N); eq rows scaled by e_i
    float *m, *b;         // (Q, Q)
    float *dv, *dk;       // (Q, P), (Q, N)
    float *dq;            // (Q, N)
    float *grad, *gradt;  // G (P, N) and (N, P)
    float *states;        // (chunks - 1, P, N): before chunks 1, 2, ... of a short sequence
};

struct bwd {
    struct mm_ssd e;
    struct mm_view dv, dk, dq, ddt, dy;
    struct mm_segs segs;
    unsigned char *pieces;
    size_t piece_bytes;
    int64_t max_chunk, max_states;
    double *sums;  // (S, H, 2): of da_log and dd, a sequence each
    // A long sequence: chunks of `chunk` tokens; of groups [group0, group0 + n_groups) the heads
    // that are number `nth` of theirs. For each (chunk, head): what it adds to the state, then the
    // state before it; what it adds to the state's gradient, then that of the state after it.
    int64_t seq, chunk, n_chunks, group0, n_groups, nth;
    float *states, *grads;  // (n_chunks, n_groups, P, N)
    float *carry;           // (n_groups, P, N)
    float *total;           // (n_chunks, n_groups)
    double *chunk_sums;     // (n_chunks, n_groups, 2)
};

enum { long_chunks = 4 };  // chunks a sequence has more of is long
static const int64_t kept_bytes = (int64_t)64 << 20;

static int64_t carve(const struct bwd *f, struct work *w, float *base) {
    const struct mm_ssd *e = &f->e;
    const int64_t n = f->max_chunk, np = n * e->ld_rows, nn = n * e->ld_cols;
    const struct {
        float **to;
        int64_t count;
    } parts[] = {{&w->kt, n * e->n_cols},
                 {&w->vt, n * e->n_rows},
                 {&w->v, np},
                 {&w->dy, np},
                 {&w->k, nn},
                 {&w->q, nn},
                 {&w->eq, nn},
                 {&w->m, n * n},
                 {&w->b, n * n},
                 {&w->dv, np},
                 {&w->dk, nn},
                 {&w->dq, nn},
                 {&w->grad, e->n_rows * e->ld_cols},
                 {&w->gradt, e->n_cols * e->ld_rows},
                 {&w->states, f->max_states * e->n_rows * e->ld_cols}};
    int64_t used = 0;
    for (size_t i = 0; i < sizeof parts / sizeof *parts; i++) {
        if (base) *parts[i].to = base + used;
        used += (parts[i].count + 15) / 16 * 16;
    }
    return used;
}

static const size_t head_bytes =
    (sizeof(struct mm_decay) + sizeof(struct mm_decay_sums) + 127) / 128 * 128;

static struct work work_of(const struct bwd *f, int thread) {
    unsigned char *at = f->pieces + (size_t)thread * f->piece_bytes;
    struct work w = {.decay = (struct mm_decay *)at,
                     .sums = (struct mm_decay_sums *)(at + sizeof(struct mm_decay))};
    carve(f, &w, (float *)(at + head_bytes));
    return w;
}

// ---- the states before the chunks ----

// state = alpha state + what tokens [t, t + n) add; their decays are loaded.
static void advance_state(const struct bwd *f, const struct work *w, float *state, float alpha,
                          int64_t h, int64_t t, int64_t n) {
    const struct mm_ssd *e = &f->e;
    e->kern->pack(w->k, e->ld_cols, mm_ssd_k(e, h, t), e->k.ld, w->decay->out, n, e->n_cols);
    e->kern->gemm(&(struct mm_gemm){.c = state,
                                    .ldc = e->ld_cols,
                                    .alpha = alpha,
                                    .a = mm_ssd_v(e, h, t),
                                    .a_row = 1,
                                    .a_col = e->v.ld,
                                    .b = w->k,
                                    .ldb = e->ld_cols,
                                    .m = e->n_rows,
                                    .n = e->ld_cols,
                                    .k = n});
}

static void recompute(const struct bwd *f, const struct work *w, int64_t h, int64_t begin,
                      int64_t n_chunks, int64_t chunk) {
    const struct mm_ssd *e = &f->e;
    const int64_t size = e->n_rows * e->ld_cols;
    for (int64_t c = 0; c + 1 < n_chunks; c++) {
        float *state = w->states + c * size;
        mm_ssd_decay(e, h, begin + c * chunk, chunk, w->decay);
        if (c > 0) memcpy(state, state - size, (size_t)size * sizeof *state);
        advance_state(f, w, state, c > 0 ? w->decay->total : 0.0f, h, begin + c * chunk, chunk);
    }
}

// ---- one chunk ----

struct place {
    int64_t h, t, n, ld;  // head, first token, tokens, padded
    const float *state;   // before the chunk, NULL: zeros
    const float *grad;    // G, NULL: zeros
};

static void load(const struct bwd *f, const struct work *w, const struct place *c) {
    const struct mm_ssd *e = &f->e;
    const float *dy = (const float *)f->dy.data + c->t * f->dy.ld + c->h * e->n_rows;
    const float *k = mm_ssd_k(e, c->h, c->t), *q = mm_ssd_q(e, c->h, c->t);
    const float *v = mm_ssd_v(e, c->h, c->t);
    mm_ssd_decay(e, c->h, c->t, c->n, w->decay);
    e->kern->transpose(w->kt, c->ld, k, e->k.ld, c->n, e->n_cols);
    e->kern->transpose(w->vt, c->ld, v, e->v.ld, c->n, e->n_rows);
    e->kern->pack(w->k, e->ld_cols, k, e->k.ld, NULL, c->n, e->n_cols);
    e->kern->pack(w->q, e->ld_cols, q, e->q.ld, NULL, c->n, e->n_cols);
    e->kern->pack(w->v, e->ld_rows, v, e->v.ld, NULL, c->n, e->n_rows);
    e->kern->pack(w->dy, e->ld_rows, dy, f->dy.ld, NULL, c->n, e->n_rows);
}

// c (n, cols) = alpha c + x y: x (n, k) by rows, y (k, cols).
static void product(const struct mm_ssd *e, float *c, float alpha, const float *x, int64_t ldx,
                    const float *y, int64_t cols, int64_t n, int64_t k, enum mm_part part) {
    e->kern->gemm(&(struct mm_gemm){.c = c,
                                    .ldc = cols,
                                    .alpha = alpha,
                                    .a = x,
                                    .a_row = ldx,
                                    .a_col = 1,
                                    .b = y,
                                    .ldb = cols,
                                    .m = n,
                                    .n = cols,
                                    .k = k,
                                    .part = part});
}

// c (n, cols) = alpha c + x^T y: x (k, n) by rows, y (k, cols).
static void product_t(const struct mm_ssd *e, float *c, float alpha, const float *x, int64_t ldx,
                      const float *y, int64_t cols, int64_t n, int64_t k, enum mm_part part) {
    e->kern->gemm(&(struct mm_gemm){.c = c,
                                    .ldc = cols,
                                    .alpha = alpha,
                                    .a = x,
                                    .a_row = 1,
                                    .a_col = ldx,
                                    .b = y,
                                    .ldb = cols,
                                    .m = n,
                                    .n = cols,
                                    .k = k,
                                    .part = part});
}

static void scale_rows(float *x, const float *scale, int64_t n, int64_t ld) {
    for (int64_t i = 0; i < n; i++) {
        for (int64_t j = 0; j < ld; j++) {
            x[i * ld + j] *= scale[i];
        }
    }
}

// Gradients that pass through the states at the chunk's two ends. d_l[i]: dL/dL_i of them;
// d_dt[j]: dL/d dt_j where it is a factor.
static void through_states(const struct mm_ssd *e, const struct work *w, const struct place *c,
                           double *d_l, double *d_dt) {
    const struct mm_decay *d = w->decay;
    if (c->state) {
        product(e, w->dq, 0.0f, w->dy, e->ld_rows, c->state, e->ld_cols, c->n, e->n_rows,
                mm_part_full);
        scale_rows(w->dq, d->in, c->n, e->ld_cols);
        for (int64_t i = 0; i < c->n; i++) {
            d_l[i] +=
                (double)e->kern->dot(w->q + i * e->ld_cols, w->dq + i * e->ld_cols, e->n_cols);
        }
    }
    if (!c->grad) return;
    double last = 0.0;
    e->kern->transpose(w->gradt, e->ld_rows, c->grad, e->ld_cols, e->n_rows, e->n_cols);
    product(e, w->dk, 0.0f, w->v, e->ld_rows, c->grad, e->ld_cols, c->n, e->n_rows, mm_part_full);
    product(e, w->dv, 0.0f, w->k, e->ld_cols, w->gradt, e->ld_rows, c->n, e->n_cols, mm_part_full);
    for (int64_t j = 0; j < c->n; j++) {
        const double vgk =
            (double)e->kern->dot(w->k + j * e->ld_cols, w->dk + j * e->ld_cols, e->n_cols) *
            (double)d->left[j];
        d_dt[j] += vgk;
        d_l[j] -= vgk * (double)d->dt[j];
        last += vgk * (double)d->dt[j];
    }
    scale_rows(w->dk, d->out, c->n, e->ld_cols);
    scale_rows(w->dv, d->out, c->n, e->ld_rows);
    if (c->state) {
        last += (double)d->total * (double)e->kern->dot(c->grad, c->state, e->n_rows * e->ld_cols);
    }
    d_l[c->n - 1] += last;
}

static void store(struct mm_view to, int64_t t, int64_t col, const float *from, int64_t ld,
                  int64_t n, int64_t cols, bool add) {
    float *x = (float *)to.data + t * to.ld + col;
    for (int64_t i = 0; i < n; i++, x += to.ld, from += ld) {
        if (!add) {
            memcpy(x, from, (size_t)cols * sizeof *x);
            continue;
        }
        for (int64_t j = 0; j < cols; j++) {
            x[j] += from[j];
        }
    }
}

// From the sums over a chunk to ddt, and the chunk's part of da_log.
static double decay_gradient(const struct bwd *f, const struct work *w, const struct place *c,
                             double *d_l, const double *d_dt) {
    const struct mm_decay *d = w->decay;
    const double rate = mm_ssd_rate(&f->e, c->h);
    double after = 0.0, da_log = 0.0;  // after: dL/dl_t, the sum of d_l from t on
    for (int64_t i = c->n - 1; i >= 0; i--) {
        const double dt = (double)d->dt[i];
        after += d_l[i] + (double)w->sums->row[i] - dt * (double)w->sums->col[i];
        const double direct = d_dt[i] + (double)w->sums->col[i] + (double)w->sums->diag[i];
        ((float *)f->ddt.data)[(c->t + i) * f->ddt.ld + c->h] = (float)(direct - rate * after);
        da_log -= after * rate * dt;
    }
    return da_log;
}

static void chunk_bwd(const struct bwd *f, const struct work *w, const struct place *c,
                      double *sums) {
    const struct mm_ssd *e = &f->e;
    const int64_t n = c->n, ld = c->ld;
    double d_l[mm_ssd_chunk_max] = {0}, d_dt[mm_ssd_chunk_max] = {0};
    load(f, w, c);
    through_states(e, w, c, d_l, d_dt);
    product(e, w->m, 0.0f, w->q, e->ld_cols, w->kt, ld, n, e->n_cols, mm_part_lower);
    product(e, w->b, 0.0f, w->dy, e->ld_rows, w->vt, ld, n, e->n_rows, mm_part_lower);
    for (int64_t i = 0; i < n; i++) {
        sums[1] += (double)w->b[i * ld + i];  // dy_i v_i
    }
    e->kern->mask_bwd(w->m, w->b, ld, w->decay, w->sums);
    const float skip = mm_ssd_skip(e, c->h);
    for (int64_t i = 0; skip != 0.0f && i < n; i++) {
        w->m[i * ld + i] += skip;
    }
    const float add = c->grad ? 1.0f : 0.0f;
    product_t(e, w->dv, add, w->m, ld, w->dy, e->ld_rows, n, n, mm_part_a_upper);
    product_t(e, w->dk, add, w->b, ld, w->q, e->ld_cols, n, n, mm_part_a_upper);
    product(e, w->dq, c->state ? 1.0f : 0.0f, w->b, ld, w->k, e->ld_cols, n, n, mm_part_a_lower);
    sums[0] += decay_gradient(f, w, c, d_l, d_dt);

    const bool others = c->h % e->per_group != 0;
    const int64_t g = c->h / e->per_group;
    store(f->dv, c->t, g * e->n_rows, w->dv, e->ld_rows, n, e->n_rows, others);
    store(f->dk, c->t, g * e->n_cols, w->dk, e->ld_cols, n, e->n_cols, others);
    store(f->dq, c->t, c->h * e->n_cols, w->dq, e->ld_cols, n, e->n_cols, false);
}

// G = alpha G + sum_i e_i dy_i q_i^T of the chunk whose decays are loaded.
static void advance_grad(const struct bwd *f, const struct work *w, const struct place *c, float *g,
                         float alpha) {
    const struct mm_ssd *e = &f->e;
    const float *dy = (const float *)f->dy.data + c->t * f->dy.ld + c->h * e->n_rows;
    e->kern->pack(w->eq, e->ld_cols, mm_ssd_q(e, c->h, c->t), e->q.ld, w->decay->in, c->n,
                  e->n_cols);
    product_t(e, g, alpha, dy, f->dy.ld, w->eq, e->ld_cols, e->n_rows, c->n, mm_part_full);
}

// ---- sequences and threads ----

static void sequence(const struct bwd *f, const struct work *w, int64_t s, int64_t h) {
    const int64_t begin = f->segs.start[s], end = f->segs.start[s + 1];
    double *sums = f->sums + (s * f->e.n_heads + h) * 2;
    sums[0] = sums[1] = 0.0;
    if (begin == end) return;
    const int64_t chunk = mm_ssd_chunk(f->e.kern, end - begin),
                  n_chunks = (end - begin + chunk - 1) / chunk;
    recompute(f, w, h, begin, n_chunks, chunk);
    for (int64_t i = n_chunks - 1; i >= 0; i--) {
        const bool last = i == n_chunks - 1;
        struct place c = {.h = h, .t = begin + i * chunk, .grad = last ? NULL : w->grad};
        c.n = end - c.t < chunk ? end - c.t : chunk;
        c.ld = mm_ssd_pad(&f->e, c.n);
        if (i > 0) c.state = w->states + (i - 1) * f->e.n_rows * f->e.ld_cols;
        chunk_bwd(f, w, &c, sums);
        if (i > 0) advance_grad(f, w, &c, w->grad, last ? 0.0f : w->decay->total);
    }
}

static bool is_long(const struct bwd *f, int64_t s) {
    const int64_t n = f->segs.start[s + 1] - f->segs.start[s];
    return n > long_chunks * mm_ssd_chunk(f->e.kern, n);
}

// Rows of all groups; a (group, sequence) belongs to the thread that has its first row. The heads
// of a group follow each other, so that dk and dv are sums in one order.
static void some_sequences(void *arg, int64_t begin, int64_t end, int thread) {
    const struct bwd *f = arg;
    const int64_t n_tokens = f->segs.start[f->segs.n];
    const struct work w = work_of(f, thread);
    for (int64_t g = begin / n_tokens; g * n_tokens < end; g++) {
        int64_t s = mm_ssd_first_seq(f->segs, begin - g * n_tokens);
        for (; s < f->segs.n && g * n_tokens + f->segs.start[s] < end; s++) {
            if (is_long(f, s)) continue;
            for (int64_t h = g * f->e.per_group; h < (g + 1) * f->e.per_group; h++) {
                sequence(f, &w, s, h);
            }
        }
    }
}

// ---- one long sequence over all threads ----

// Item i: a chunk and a group.
static struct place place_of(const struct bwd *f, int64_t i) {
    const int64_t chunk = i / f->n_groups, g = f->group0 + i % f->n_groups;
    struct place c = {.h = g * f->e.per_group + f->nth,
                      .t = f->segs.start[f->seq] + chunk * f->chunk};
    const int64_t left = f->segs.start[f->seq + 1] - c.t;
    c.n = left < f->chunk ? left : f->chunk;
    c.ld = mm_ssd_pad(&f->e, c.n);
    return c;
}

static void some_contributions(void *arg, int64_t begin, int64_t end, int thread) {
    const struct bwd *f = arg;
    const struct work w = work_of(f, thread);
    const int64_t size = f->e.n_rows * f->e.ld_cols;
    for (int64_t i = begin; i < end; i++) {
        const struct place c = place_of(f, i);
        mm_ssd_decay(&f->e, c.h, c.t, c.n, w.decay);
        f->total[i] = w.decay->total;
        advance_state(f, &w, f->states + i * size, 0.0f, c.h, c.t, c.n);
        advance_grad(f, &w, &c, f->grads + i * size, 0.0f);
    }
}

static void some_scans(void *arg, int64_t begin, int64_t end, int thread) {
    const struct bwd *f = arg;
    const int64_t ld = f->e.ld_cols, rows = f->n_groups * f->e.n_rows;
    (void)thread;
    for (int64_t r = begin; r < end; r++) {  // a group and a row of its (P, N)
        float *carry = f->carry + r * ld;
        const int64_t g = r / f->e.n_rows;
        memset(carry, 0, (size_t)ld * sizeof *carry);
        for (int64_t c = 0; c < f->n_chunks; c++) {
            f->e.kern->scan(carry, f->states + (c * rows + r) * ld, f->total[c * f->n_groups + g],
                            ld);
        }
        memset(carry, 0, (size_t)ld * sizeof *carry);
        for (int64_t c = f->n_chunks - 1; c >= 0; c--) {
            f->e.kern->scan(carry, f->grads + (c * rows + r) * ld, f->total[c * f->n_groups + g],
                            ld);
        }
    }
}

static void some_chunks(void *arg, int64_t begin, int64_t end, int thread) {
    const struct bwd *f = arg;
    const struct work w = work_of(f, thread);
    const int64_t size = f->e.n_rows * f->e.ld_cols;
    for (int64_t i = begin; i < end; i++) {
        struct place c = place_of(f, i);
        const int64_t chunk = i / f->n_groups;
        if (chunk > 0) c.state = f->states + i * size;
        if (chunk + 1 < f->n_chunks) c.grad = f->grads + i * size;
        double *sums = f->chunk_sums + 2 * i;
        sums[0] = sums[1] = 0.0;
        chunk_bwd(f, &w, &c, sums);
    }
}

static void long_sequence(struct mm_backend *be, struct bwd *f, int64_t s) {
    const struct mm_ssd *e = &f->e;
    const int64_t n = f->segs.start[s + 1] - f->segs.start[s], size = e->n_rows * e->ld_cols;
    const int64_t all_groups = e->n_heads / e->per_group;
    f->seq = s, f->chunk = mm_ssd_chunk(e->kern, n), f->n_chunks = (n + f->chunk - 1) / f->chunk;
    int64_t at_once = kept_bytes / (2 * f->n_chunks * size * (int64_t)sizeof(float));
    at_once = at_once < 1 ? 1 : at_once > all_groups ? all_groups : at_once;
    const int64_t items = f->n_chunks * at_once, kept = items * size;
    f->chunk_sums =
        mm_cpu_scratch(be, mm_scratch_c, (size_t)items * (2 * sizeof(double) + sizeof(float)));
    f->states =
        mm_cpu_scratch(be, mm_scratch_d, (size_t)(2 * kept + at_once * size) * sizeof(float));
    if (be->error.code) return;
    f->total = (float *)(f->chunk_sums + 2 * items);
    f->grads = f->states + kept, f->carry = f->grads + kept;
    for (int64_t g = 0; g < all_groups; g += at_once) {
        f->group0 = g, f->n_groups = all_groups - g < at_once ? all_groups - g : at_once;
        for (f->nth = 0; f->nth < e->per_group; f->nth++) {  // dk and dv add up in this order
            const int64_t m = f->n_chunks * f->n_groups;
            mm_parallel_for(be->pool, m, 1, some_contributions, f);
            mm_parallel_for(be->pool, f->n_groups * e->n_rows, 8, some_scans, f);
            mm_parallel_for(be->pool, m, 1, some_chunks, f);
            for (int64_t i = 0; i < m; i++) {
                const int64_t h = (g + i % f->n_groups) * e->per_group + f->nth;
                double *sums = f->sums + (s * e->n_heads + h) * 2;
                sums[0] += f->chunk_sums[2 * i], sums[1] += f->chunk_sums[2 * i + 1];
            }
        }
    }
}

void mm_ssd_bwd_cpu(struct mm_backend *be, struct mm_view dv, struct mm_view dk, struct mm_view dq,
                    struct mm_view ddt, struct mm_view da_log, struct mm_view dd, struct mm_view dy,
                    struct mm_view v, struct mm_view k, struct mm_view q, struct mm_view dt,
                    struct mm_view a_log, struct mm_view d, struct mm_segs segs) {
    const int64_t longest = mm_ssd_longest(segs), n_tokens = segs.start[segs.n];
    if (longest == 0) return;
    struct bwd f = {.e = mm_ssd_of(mm_mixer_kernels(be), v, k, q, dt, a_log, d),
                    .dv = dv,
                    .dk = dk,
                    .dq = dq,
                    .ddt = ddt,
                    .dy = dy,
                    .segs = segs};
    const int64_t n_heads = f.e.n_heads, n_groups = n_heads / f.e.per_group;
    f.max_chunk = mm_ssd_pad(&f.e, longest < mm_ssd_chunk_max ? longest : mm_ssd_chunk_max);
    for (int64_t s = 0; s < segs.n; s++) {
        const int64_t n = segs.start[s + 1] - segs.start[s];
        if (n == 0 || is_long(&f, s)) continue;
        const int64_t states = (n - 1) / mm_ssd_chunk(f.e.kern, n);
        if (states > f.max_states) f.max_states = states;
    }
    struct work unused;
    f.piece_bytes = mm_cpu_piece(head_bytes + (size_t)carve(&f, &unused, NULL) * sizeof(float));
    const int n_threads = mm_pool_size(be->pool);
    f.pieces = mm_cpu_scratch(be, mm_scratch_a, f.piece_bytes * (size_t)n_threads);
    const size_t n_sums = (size_t)(segs.n * n_heads * 2);
    f.sums = mm_cpu_scratch(be, mm_scratch_b, n_sums * sizeof *f.sums);
    if (!f.pieces || !f.sums) return;
    memset(f.sums, 0, n_sums * sizeof *f.sums);
    for (int64_t s = 0; s < segs.n; s++) {
        if (is_long(&f, s)) long_sequence(be, &f, s);
    }
    if (be->error.code) return;
    mm_parallel_for(be->pool, n_tokens * n_groups, 16, some_sequences, &f);
    for (int64_t h = 0; h < n_heads; h++) {
        double sums[2] = {0.0, 0.0};
        for (int64_t s = 0; s < segs.n; s++) {
            sums[0] += f.sums[(s * n_heads + h) * 2];
            sums[1] += f.sums[(s * n_heads + h) * 2 + 1];
        }
        if (da_log.data && a_log.data) ((float *)da_log.data)[h * da_log.ld] += (float)sums[0];
        if (dd.data) ((float *)dd.data)[h * dd.ld] += (float)sums[1];
    }
}
