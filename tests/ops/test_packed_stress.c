// Random packings through every operation that training gives them to, forward and backward,
// against the CPU's reference: sequences that begin and end anywhere, of no token, of one, as long
// as a tile of 64 or 128 rows or one off, a last tile partly filled; ids that come often or that
// are none, rows without a target, of weight 0, or with none at all. What can be is computed twice,
// and must come out the same to the bit. Under MMAMBA_TEST_BACKEND=cuda activations are mostly of
// bf16.
//   test_packed_stress [ROUNDS [SEED]]
#include "ops_test.h"

enum { seqs_max = 400, rows_max = 400 };

struct packing {
    int32_t start[seqs_max + 1];
    int64_t n, rows;
    struct mm_segs segs;
};

static int64_t below(struct world *w, int64_t n) {
    return (int64_t)mm_rng_below(&w->rng, (uint32_t)n);
}
static int64_t one_of(struct world *w, const int64_t *x, size_t n) {
    return x[below(w, (int64_t)n)];
}
#define ONE_OF(w, x) one_of(w, x, sizeof(x) / sizeof *(x))

// How long the sequence at row `at` is to be.
static int64_t length_at(struct world *w, int64_t at) {
    static const int64_t edges[] = {63, 64, 65, 127, 128, 129};
    switch (below(w, 8)) {
        case 0:
            return 0;
        case 1:
        case 2:
            return 1;
        case 3:
            return 64 - at % 64;  // ends where a tile does
        case 4:
            return 128 - at % 128;
        case 5:
            return ONE_OF(w, edges);
        case 6:
            return 1 + below(w, 200);
        default:
            return 70 + below(w, 31);
    }
}

static struct packing now;  // of the round

static struct packing *pack(struct world *w) {
    static const int64_t edges[] = {1, 2, 63, 64, 65, 127, 128, 129, 191, 192, 255, 256, 257, 321};
    const bool edge = below(w, 2), all_short = below(w, 8) == 0;
    now.rows = edge ? ONE_OF(w, edges) : 1 + below(w, below(w, 4) ? 200 : rows_max);
    now.n = 0;
    int64_t at = now.start[0] = 0;
    while (at < now.rows || (now.n < seqs_max && below(w, 4) == 0)) {
        const int64_t left = now.rows - at;
        int64_t len = all_short ? below(w, 3) : length_at(w, at);
        if (len > left || now.n == seqs_max - 1) len = left;
        at += len;
        now.start[++now.n] = (int32_t)at;
        if (now.n == seqs_max) break;
    }
    now.segs = segs_from(now.start, now.n);
    return &now;
}

// As a batch of short samples is packed.
static struct packing *pack_samples(struct world *w, int64_t n) {
    now.n = n;
    now.start[0] = 0;
    for (int64_t i = 0; i < n; i++)
        now.start[i + 1] = now.start[i] + 70 + (int32_t)below(w, 31);
    now.rows = now.start[n];
    now.segs = segs_from(now.start, n);
    return &now;
}

// ---- operands -----------------------------------------------------------------------------------

// The fast side's type of activations, once a test.
static enum mm_dtype lot(struct world *w) {
    return testing_cuda() && below(w, 6) ? mm_dtype_bf16 : mm_dtype_f32;
}
static struct out empty(struct world *w, enum mm_dtype t, int64_t rows, int64_t cols) {
    const int64_t pad = t == mm_dtype_bf16 ? (8 - cols % 8) % 8 + 8 * below(w, 2) : below(w, 2) * 3;
    return (struct out){{make(w, t, rows, cols, pad), make(w, mm_dtype_f32, rows, cols, 0)}};
}
static struct out filled(struct world *w, enum mm_dtype t, int64_t rows, int64_t cols,
                         double scale) {
    const struct out o = empty(w, t, rows, cols);
    randomize(w, o.v[1], scale, true);
    copy_view(o.v[0], o.v[1]);
    return o;
}
static struct out by_heads(struct out o, int64_t n) {
    for (int b = 0; b < 2; b++)
        o.v[b] = heads_view(o.v[b], n);
    return o;
}
// A second result of the same backend.
static struct mm_view like(struct world *w, struct mm_view v) {
    const struct mm_view o = make(w, v.dtype, v.shape[0], mm_view_cols(v), v.ld - mm_view_cols(v));
    return v.n_axes == 3 ? mm_view_split(o, v.shape[1], v.shape[2]) : o;
}
static void same(const char *what, struct mm_view again, struct mm_view v) {
    expect_close(what, (struct out){{again, v}}, tol_exact);
}
static double rounded(struct out o, double tolerance) {
    return o.v[0].dtype == mm_dtype_bf16 ? tol_halves + tolerance : tolerance;
}
#define CLOSE(what, o, tolerance, least) expect_close_over(what, o, rounded(o, tolerance), least)

// ---- what looks at sequences
// ----------------------------------------------------------------------

// H, G and P of the bundled models and of others; 128 and 64 take other ways than the rest.
struct shape {
    int64_t h, g, p;
};
static const struct shape shapes[] = {{4, 2, 64}, {4, 2, 64}, {2, 1, 128}, {2, 2, 32}, {2, 1, 24}};

static double attention_bound(const struct world *w, enum mm_dtype t) {
    const bool halves = strstr(w->be[0]->device, ", amx,") != NULL;
    return t == mm_dtype_bf16 ? tol_halves_mixer : halves ? tol_attention_halves : tol_attention;
}

static void attention(struct world *w, const struct packing *p) {
    const struct shape s = shapes[below(w, 5)];
    const int64_t T = p->rows;
    const enum mm_dtype t = lot(w);
    const double bound = attention_bound(w, t);
    const struct out q = by_heads(filled(w, t, T, s.h * s.p, 1.0), s.h);
    const struct out k = by_heads(filled(w, t, T, s.g * s.p, 1.0), s.g);
    const struct out v = by_heads(filled(w, t, T, s.g * s.p, 1.0), s.g);
    const struct out dy = by_heads(filled(w, t, T, s.h * s.p, 1.0), s.h);
    const struct out y = by_heads(empty(w, t, T, s.h * s.p), s.h), lse = poisoned(w, T, s.h, 0);
    const struct out dq = by_heads(empty(w, t, T, s.h * s.p), s.h);
    const struct out dk = by_heads(empty(w, t, T, s.g * s.p), s.g);
    const struct out dv = by_heads(empty(w, t, T, s.g * s.p), s.g);
    const struct mm_view y2 = like(w, y.v[0]), dq2 = like(w, dq.v[0]), dk2 = like(w, dk.v[0]);
    const struct mm_view dv2 = like(w, dv.v[0]);
    for (int b = 0; b < 2; b++) {
        mm_attention_fwd(w->be[b], y.v[b], lse.v[b], q.v[b], k.v[b], v.v[b], p->segs);
        mm_attention_bwd(w->be[b], dq.v[b], dk.v[b], dv.v[b], dy.v[b], y.v[b], lse.v[b], q.v[b],
                         k.v[b], v.v[b], p->segs);
    }
    mm_attention_fwd(w->be[0], y2, MM_NONE, q.v[0], k.v[0], v.v[0], p->segs);
    mm_attention_bwd(w->be[0], dq2, dk2, dv2, dy.v[0], y2, lse.v[0], q.v[0], k.v[0], v.v[0],
                     p->segs);
    same("attention_fwd again", y2, y.v[0]);
    same("attention_bwd dq again", dq2, dq.v[0]);
    same("attention_bwd dk again", dk2, dk.v[0]);
    same("attention_bwd dv again", dv2, dv.v[0]);
    expect_close("attention_fwd", y, bound);
    // a sum of few terms may be small by chance
    expect_close_over("attention_fwd lse", lse, t == mm_dtype_bf16 ? tol_sum : bound, 1.0);
    expect_close("attention_bwd dv", dv, bound);
    // Of few keys all weight may lie on one: what is left of dS = P (dy v - dy y) is then the
    // rounding of y, 2^-9 / sqrt(3) of P terms of size 1, by sqrt(P) and times a number of size 1:
    // 0.001.
    expect_close_over("attention_bwd dq", dq, bound, 1.0);
    expect_close_over("attention_bwd dk", dk, bound, 1.0);
}

static struct mm_view heads_from(struct mm_view all, int64_t from, int64_t n, int64_t p) {
    return mm_view_split(mm_view_cut(all, from, n * p), n, p);
}

static void recurrence(struct world *w, const struct packing *p) {
    const struct shape s = shapes[below(w, 5)];
    const int64_t T = p->rows, gp = s.g * s.p, cols = 2 * gp + s.h * s.p;
    const enum mm_dtype t = lot(w);
    const bool half = t == mm_dtype_bf16, state = below(w, 4) == 0 && p->n < 40;
    const struct out x = filled(w, t, T, cols, 1.0 / sqrt((double)s.p)), dx = empty(w, t, T, cols);
    const struct out dy = by_heads(filled(w, t, T, s.h * s.p, 1.0), s.h);
    const struct out y = by_heads(empty(w, t, T, s.h * s.p), s.h), ddt = poisoned(w, T, s.h, 1);
    const struct mm_view y2 = like(w, y.v[0]), dx2 = like(w, dx.v[0]), ddt2 = like(w, ddt.v[0]);
    const struct mm_view dt = make(w, mm_dtype_f32, T, s.h, 1);
    double steps = 0.0;
    for (int64_t i = 0; i < T * s.h; i++) {
        const double step = exp(mm_rng_uniform(&w->rng, log(1e-3), log(0.3)));
        put(dt, i / s.h, i % s.h, (float)step);
        steps += step;
    }
    const struct mm_view a_log = random_vector(w, mm_dtype_f32, s.h, 0.7);
    const struct mm_view d = random_vector(w, mm_dtype_f32, s.h, 1.0);
    const struct out da = accumulating_vector(w, s.h), dd = accumulating_vector(w, s.h);
    const int64_t n_states = state ? p->n : 1;
    const struct out ends = accumulating(w, n_states, s.h * s.p * s.p, 0);
    for (int b = 0; b < 3; b++) {  // at last the fast one again
        const int i = b % 2;
        const struct mm_view all = x.v[i], grad = b < 2 ? dx.v[b] : dx2;
        const struct mm_view v = heads_from(all, 0, s.g, s.p), k = heads_from(all, gp, s.g, s.p);
        const struct mm_view q = heads_from(all, 2 * gp, s.h, s.p);
        const struct mm_view end = mm_view4(ends.v[i].data, mm_dtype_f32, n_states, s.h, s.p, s.p);
        mm_ssd_fwd(w->be[i], b < 2 ? y.v[b] : y2, v, k, q, dt, a_log, d,
                   state && b < 2 ? end : MM_NONE, p->segs);
        mm_ssd_bwd(w->be[i], heads_from(grad, 0, s.g, s.p), heads_from(grad, gp, s.g, s.p),
                   heads_from(grad, 2 * gp, s.h, s.p), b < 2 ? ddt.v[b] : ddt2,
                   b < 2 ? da.v[b] : MM_NONE, b < 2 ? dd.v[b] : MM_NONE, dy.v[i], v, k, q, dt,
                   a_log, d, p->segs);
    }
    if (!state) same("ssd_fwd again", y2, y.v[0]);
    same("ssd_bwd again", dx2, dx.v[0]);
    same("ssd_bwd ddt again", ddt2, ddt.v[0]);
    const double bound = half ? tol_halves_mixer : tol_scan;
    expect_close("ssd_fwd", y, bound);
    expect_close("ssd_fwd state", ends, bound);
    expect_close("ssd_bwd dv, dk, dq", dx, bound);
    expect_close_over("ssd_bwd ddt", ddt, tol_halves_dt, 0.1);
    expect_close_over("ssd_bwd da_log", da, tol_halves_dt, 1.0 + steps);
    expect_close_over("ssd_bwd dd", dd, tol_sum, 1.0);
}

static void convolution(struct world *w, const struct packing *p) {
    static const int64_t channels[] = {40, 96, 256, 33}, widths[] = {2, 4, 4, 3, 7};
    const int64_t T = p->rows, C = ONE_OF(w, channels), K = ONE_OF(w, widths);
    const enum mm_dtype t = lot(w);
    const struct out x = filled(w, t, T, C, 1.0), dy = filled(w, t, T, C, 1.0);
    const struct out y = empty(w, t, T, C), dx = empty(w, t, T, C);
    const struct mm_view y2 = like(w, y.v[0]), dx2 = like(w, dx.v[0]);
    const struct mm_view weight = random_view(w, mm_dtype_f32, C, K, 0, 1.0);
    const struct mm_view bias = random_vector(w, mm_dtype_f32, C, 1.0);
    const struct out dw = accumulating(w, C, K, 0), db = accumulating_vector(w, C);
    for (int b = 0; b < 3; b++) {
        const int i = b % 2;
        mm_conv_silu_fwd(w->be[i], b < 2 ? y.v[b] : y2, x.v[i], weight, bias, MM_NONE, p->segs);
        mm_conv_silu_bwd(w->be[i], b < 2 ? dx.v[b] : dx2, b < 2 ? dw.v[b] : MM_NONE,
                         b < 2 ? db.v[b] : MM_NONE, dy.v[i], x.v[i], weight, bias, p->segs);
    }
    same("conv_silu_fwd again", y2, y.v[0]);
    same("conv_silu_bwd again", dx2, dx.v[0]);
    CLOSE("conv_silu_fwd", y, tol_pointwise, 1.0);
    CLOSE("conv_silu_bwd dx", dx, tol_pointwise, 1.0);
    expect_close("conv_silu_bwd dw", dw, tol_sum);
    expect_close("conv_silu_bwd dbias", db, tol_sum);
}

static void rotation(struct world *w, const struct packing *p) {
    const struct shape s = shapes[below(w, 5)];
    const int64_t T = p->rows, all = (s.h + 2 * s.g) * s.p;
    const enum mm_dtype t = lot(w);
    const struct out qkv = filled(w, t, T, all, 1.0), back = empty(w, t, T, all);
    const struct out q = by_heads(empty(w, t, T, s.h * s.p), s.h);
    const struct out k = by_heads(empty(w, t, T, s.g * s.p), s.g);
    const struct out v = by_heads(empty(w, t, T, s.g * s.p), s.g);
    const struct mm_view pos = vector_of(make(w, mm_dtype_i32, T, 1, 0));
    for (int64_t i = 0; i < p->n; i++)
        for (int32_t r = p->start[i]; r < p->start[i + 1]; r++)
            ((int32_t *)pos.data)[r] = r - p->start[i];
    for (int b = 0; b < 2; b++)
        mm_qkv_rope_fwd(w->be[b], q.v[b], k.v[b], v.v[b], qkv.v[b], pos, 10000.0f, 1.0f);
    CLOSE("qkv_rope_fwd q", q, tol_pointwise, 1.0);
    CLOSE("qkv_rope_fwd k", k, tol_pointwise, 1.0);
    CLOSE("qkv_rope_fwd v", v, tol_exact, 1.0);
    for (int o = 0; o < 3; o++)  // the same operands
        copy_view((o == 0 ? q : o == 1 ? k : v).v[1], (o == 0 ? q : o == 1 ? k : v).v[0]);
    for (int b = 0; b < 2; b++)
        mm_qkv_rope_bwd(w->be[b], back.v[b], q.v[b], k.v[b], v.v[b], pos, 10000.0f, 1.0f);
    CLOSE("qkv_rope_bwd", back, tol_pointwise, 1.0);
}

// ---- what looks at rows
// ---------------------------------------------------------------------------

static void norms(struct world *w, const struct packing *p) {
    static const int64_t sizes[] = {256, 256, 40, 33, 1032};
    const struct shape s = shapes[below(w, 5)];
    const int64_t T = p->rows, D = ONE_OF(w, sizes);
    const enum mm_dtype t = lot(w);
    const struct out x = filled(w, t, T, D, 1.0), dy = filled(w, t, T, D, 1.0);
    const struct out y = empty(w, t, T, D), dx = empty(w, t, T, D);
    const struct out rinv = poisoned_vector(w, T), dw = accumulating_vector(w, D);
    const struct mm_view scale = random_vector(w, mm_dtype_f32, D, 1.0);
    const struct out h = by_heads(filled(w, t, T, s.h * s.p, 1.0), s.h);
    const struct out dh = by_heads(filled(w, t, T, s.h * s.p, 1.0), s.h);
    const struct out g = filled(w, t, T, s.h * s.p, 1.0), dg = empty(w, t, T, s.h * s.p);
    const struct out o = by_heads(empty(w, t, T, s.h * s.p), s.h);
    const struct out dhy = by_heads(empty(w, t, T, s.h * s.p), s.h);
    const struct out hinv = poisoned(w, T, s.h, 0), dgw = accumulating_vector(w, s.p);
    const struct mm_view gate = random_vector(w, mm_dtype_f32, s.p, 1.0);
    for (int b = 0; b < 2; b++) {
        mm_rmsnorm_fwd(w->be[b], y.v[b], rinv.v[b], x.v[b], scale, 1e-6f);
        mm_rmsnorm_bwd(w->be[b], dx.v[b], dw.v[b], dy.v[b], x.v[b], scale, rinv.v[b]);
        mm_gated_norm_fwd(w->be[b], o.v[b], hinv.v[b], h.v[b], g.v[b], gate, 1e-5f);
        mm_gated_norm_bwd(w->be[b], dhy.v[b], dg.v[b], dgw.v[b], mm_view_flat(dh.v[b]), h.v[b],
                          g.v[b], gate, hinv.v[b]);
    }
    CLOSE("rmsnorm_fwd", y, tol_sum, 1.0);
    CLOSE("rmsnorm_bwd", dx, tol_sum, 1.0);
    expect_close("rmsnorm_fwd rinv", rinv, tol_sum);
    expect_close("rmsnorm_bwd dw", dw, tol_sum);
    CLOSE("gated_norm_fwd", o, tol_sum, 1.0);
    CLOSE("gated_norm_bwd dy", dhy, tol_sum, 1.0);
    CLOSE("gated_norm_bwd dg", dg, tol_sum, 1.0);
    expect_close("gated_norm_bwd dw", dgw, tol_sum);
}

// Rows of logits begin at multiples of eight elements, as in training.
static void losses(struct world *w, const struct packing *p) {
    static const int64_t vocabularies[] = {1000, 333, 2051, 8, 5};
    const int64_t V = ONE_OF(w, vocabularies), T = p->rows > 150 ? 150 : p->rows;
    const int64_t pad = (8 - V % 8) % 8;
    const bool none = below(w, 8) == 0;  // no row counts
    const enum mm_dtype t = lot(w);
    const struct mm_view student = random_view(w, mm_dtype_f32, T, V, pad, 3.0);
    const struct mm_view teacher = random_view(w, mm_dtype_f32, T, V, pad, 3.0);
    const struct mm_view weight = random_vector(w, mm_dtype_f32, T, 1.0);
    const struct mm_view target = random_ids(w, T, 0, (int32_t)V);
    for (int64_t r = 0; r < T; r++) {
        if (!none && below(w, 3)) continue;
        put(weight, r, 0, 0.0f), put(student, r, 0, NAN);
        ((int32_t *)target.data)[r] = -100;
    }
    const struct out kl = poisoned_vector(w, T), ce = poisoned_vector(w, T);
    const struct out dk = {{make(w, t, T, V, pad), make(w, mm_dtype_f32, T, V, 0)}};
    const struct out dc = {{make(w, t, T, V, pad), make(w, mm_dtype_f32, T, V, 0)}};
    for (int b = 0; b < 2; b++) {
        mm_kl(w->be[b], kl.v[b], dk.v[b], student, teacher, weight);
        mm_cross_entropy(w->be[b], ce.v[b], dc.v[b], student, target, weight);
    }
    expect_close("kl", kl, tol_sum);
    expect_close("cross_entropy", ce, tol_sum);
    CLOSE("kl gradient", dk, tol_sum, 0.0);
    CLOSE("cross_entropy gradient", dc, tol_sum, 0.0);
}

static void tokens(struct world *w, const struct packing *p) {
    const int64_t T = p->rows, D = below(w, 2) ? 256 : 33, V = below(w, 2) ? 300 : 3;
    const enum mm_dtype t = lot(w);
    const struct mm_view ids = random_ids(w, T, -1, (int32_t)V);
    if (below(w, 4) == 0) memset(ids.data, 0xff, (size_t)T * sizeof(int32_t));  // no text at all
    const struct mm_view table = random_view(w, mm_dtype_f32, V, D, 0, 1.0);
    const struct out y = empty(w, t, T, D), dy = filled(w, t, T, D, 1.0);
    const struct out dtable = accumulating(w, V, D, 0), to = empty(w, t, T, D);
    int64_t n = 0;  // some rows, in order; none are some, too
    const struct mm_view at = vector_of(make(w, mm_dtype_i32, T, 1, 0));
    const int64_t often = below(w, 4);
    for (int64_t r = 0; r < T; r++)
        if (below(w, 3) < often) ((int32_t *)at.data)[n++] = (int32_t)r;
    const struct mm_view idx = mm_view1(at.data, mm_dtype_i32, n);
    const struct out some = empty(w, t, n, D);
    for (int b = 0; b < 2; b++) {
        mm_embed_fwd(w->be[b], y.v[b], table, ids);
        mm_embed_bwd(w->be[b], dtable.v[b], dy.v[b], ids);
        mm_fill(w->be[b], to.v[b], 0.0f);
        mm_gather_rows(w->be[b], some.v[b], dy.v[b], idx);
        mm_scatter_rows(w->be[b], to.v[b], some.v[b], idx);
    }
    CLOSE("embed_fwd", y, tol_exact, 1.0);
    expect_close("embed_bwd", dtable, tol_exact);
    expect_close("gather_rows", some, tol_exact);
    expect_close("scatter_rows", to, tol_exact);
}

// Products over all rows; of more than 1024 the last seven at most go another way.
static void products(struct world *w, const struct packing *p) {
    const int64_t T = below(w, 4) ? p->rows : 1024 + p->rows % 64, D = 40, N = 24;
    const enum mm_dtype t = lot(w);
    const struct out x = filled(w, t, T, D, 1.0), dy = filled(w, t, T, N, 1.0);
    const struct out y = empty(w, t, T, N), dx = empty(w, t, T, D);
    const struct mm_view weight = random_view(w, mm_dtype_bf16, N, D, 0, 1.0);
    const struct out dw = accumulating(w, N, D, 0), db = accumulating_vector(w, N);
    for (int b = 0; b < 2; b++) {
        mm_linear_fwd(w->be[b], y.v[b], x.v[b], weight, MM_NONE);
        mm_linear_bwd_x(w->be[b], dx.v[b], dy.v[b], weight, false);
        mm_linear_bwd_w(w->be[b], dw.v[b], db.v[b], dy.v[b], x.v[b], mm_dtype_bf16);
    }
    CLOSE("linear_fwd", y, tol_bf16_exact, 1.0);
    CLOSE("linear_bwd_x", dx, tol_bf16_exact, 1.0);
    expect_close("linear_bwd_w", dw, tol_bf16_exact);
    expect_close("linear_bwd_w dbias", db, tol_sum);
}

// ---- rounds
// ---------------------------------------------------------------------------------------

static int64_t rounds, seed, at_round;

typedef void part_fn(struct world *w, const struct packing *p);
static part_fn *const parts[] = {attention, recurrence, convolution, rotation,
                                 norms,     losses,     tokens,      products};

static void packings(void **state) {
    (void)state;
    struct world w;
    world_open(&w, mm_isa_best(), 2);
    w.rng = mm_rng_make((uint64_t)seed, 0);
    if (testing_cuda()) w.be[0]->activations = mm_dtype_bf16;
    for (at_round = 0; at_round < rounds; at_round++) {
        const struct packing *these = pack(&w);
        for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
            parts[k](&w, these);
            world_clear(&w);
        }
    }
    world_close(&w);
}

static void samples(void **state) {
    (void)state;
    struct world w;
    world_open(&w, mm_isa_best(), 2);
    w.rng = mm_rng_make((uint64_t)seed, 1);
    if (testing_cuda()) w.be[0]->activations = mm_dtype_bf16;
    const struct packing *these = pack_samples(&w, test_few() ? 3 : testing_cuda() ? 128 : 12);
    for (size_t k = 0; k < sizeof parts / sizeof *parts; k++) {
        parts[k](&w, these);
        world_clear(&w);
    }
    world_close(&w);
}

int main(int argc, char **argv) {
    rounds = argc > 1 ? atoll(argv[1]) : test_few() ? 6 : testing_cuda() ? 150 : 25;
    seed = argc > 2 ? atoll(argv[2]) : 11;
    printf("%lld rounds, seed %lld\n", (long long)rounds, (long long)seed);
    const struct CMUnitTest tests[] = {cmocka_unit_test(packings), cmocka_unit_test(samples)};
    const int failed = cmocka_run_group_tests(tests, NULL, NULL);
    if (!failed) return 0;
    printf("round %lld, sequences begin at", (long long)at_round);
    for (int64_t i = 0; i <= now.n; i++)
        printf(" %d", now.start[i]);
    printf("\n");
    return failed;
}
