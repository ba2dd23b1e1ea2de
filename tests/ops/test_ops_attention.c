// Rotation and softmax attention: fast against reference, packed sequences, caches, thread counts.
#include "ops_test.h"

struct shape {
    int64_t h, g, p;
};
// Products of halves have a bound of their own; every other path keeps the tight one.
static bool halves(const struct world *w) {
    return w->be[0]->product == mm_dtype_bf16 && strstr(w->be[0]->device, ", amx,");
}
static double tolerance(const struct world *w) {
    if (halves(w) && w->be[0]->scan_rounds) return tol_attention_rounded;
    return halves(w) ? tol_attention_halves : tol_attention;
}

static const struct shape shapes[] = {{1, 1, 2}, {4, 2, 10}, {6, 2, 34}, {4, 4, 64}, {8, 1, 128}};

// Packed sequences: one, of length 1, odd, empty, longer than a tile of keys.
static const int32_t starts[][6] = {{0, 1}, {0, 2}, {0, 7}, {0, 1, 4, 4, 69, 70}, {0, 200, 333}};
static const int64_t n_seqs[] = {1, 1, 1, 5, 2};

static struct mm_view random_heads(struct world *w, int64_t rows, int64_t heads, int64_t p,
                                   int64_t pad) {
    return heads_view(random_view(w, mm_dtype_f32, rows, heads * p, pad, 1.0), heads);
}

static struct out empty_heads(struct world *w, int64_t rows, int64_t heads, int64_t p,
                              int64_t pad) {
    struct out o = poisoned(w, rows, heads * p, pad);
    for (int k = 0; k < 2; k++)
        o.v[k] = heads_view(o.v[k], heads);
    return o;
}

static void full_and_gradient(struct world *w, struct shape s, struct mm_segs segs, int64_t pad) {
    const int64_t rows = segs.start[segs.n];
    const struct mm_view q = random_heads(w, rows, s.h, s.p, pad);
    const struct mm_view k = random_heads(w, rows, s.g, s.p, pad);
    const struct mm_view v = random_heads(w, rows, s.g, s.p, pad);
    const struct mm_view dy = random_heads(w, rows, s.h, s.p, pad);
    const struct out y = empty_heads(w, rows, s.h, s.p, pad), lse = poisoned(w, rows, s.h, pad);
    const struct out bare = empty_heads(w, rows, s.h, s.p, 0);
    const struct out dq = empty_heads(w, rows, s.h, s.p, pad);
    const struct out dk = empty_heads(w, rows, s.g, s.p, pad);
    const struct out dv = empty_heads(w, rows, s.g, s.p, pad);
    for (int b = 0; b < 2; b++) {
        mm_attention_fwd(w->be[b], y.v[b], lse.v[b], q, k, v, segs);
        mm_attention_fwd(w->be[b], bare.v[b], MM_NONE, q, k, v, segs);
    }
    for (int b = 0; b < 2; b++) {
        mm_attention_bwd(w->be[b], dq.v[b], dk.v[b], dv.v[b], dy, y.v[1], lse.v[1], q, k, v, segs);
    }
    expect_close("attention_fwd", y, tolerance(w));
    expect_close("attention_fwd lse", lse, tolerance(w));
    expect_close("attention_fwd without lse", bare, tolerance(w));
    expect_close("attention_bwd dv", dv, tolerance(w));
    if (rows == segs.n) return;  // one key each: dq and dk are zero but for rounding
    expect_close("attention_bwd dq", dq, tolerance(w));
    expect_close("attention_bwd dk", dk, tolerance(w));
}

static void test_attention(void **state) {
    (void)state;
    for (int isa = best_under_test(); isa > 0; isa--) {
        struct world w;
        world_open(&w, (enum mm_isa)isa, 2);
        for (int i = 0; i < 25; i++) {
            w.be[0]->product = i % 3 ? mm_dtype_bf16 : mm_dtype_f32;
            if (i / 5 == 4 && i % 5 != 1 && i % 5 != 3) continue;  // the long one is slow to judge
            full_and_gradient(&w, shapes[i % 5], segs_from(starts[i / 5], n_seqs[i / 5]),
                              i % 2 ? 5 : 0);
            world_clear(&w);
        }
        world_close(&w);
    }
}

// Long sequences go another way in the backward: keys and queries are shared out by blocks.
static void test_long_attention(void **state) {
    (void)state;
    static const int32_t start[] = {0, 530, 533};
    for (int isa = best_under_test(); isa > 0; isa--) {
        struct world w;
        world_open(&w, (enum mm_isa)isa, 3);
        full_and_gradient(&w, shapes[1], segs_from(start, 2), 3);
        full_and_gradient(&w, (struct shape){2, 1, 64}, segs_from(start, 2), 0);
        world_close(&w);
    }
}

// Large scores: the largest of a row decides, nothing overflows.
// product: of the model that is computed; bf16 allows products of halves.
static void large_scores(enum mm_dtype product) {
    struct world w;
    world_open(&w, mm_isa_best(), 2);
    w.be[0]->product = product;
    const int32_t start[] = {0, 150};
    const struct mm_view q = random_heads(&w, 150, 2, 16, 0), k = random_heads(&w, 150, 1, 16, 0);
    const struct mm_view v = random_heads(&w, 150, 1, 16, 0);
    for (int b = 0; b < 2; b++)
        mm_scale(w.be[0], b ? q : k, b ? q : k, 30.0f);
    const struct out y = empty_heads(&w, 150, 2, 16, 0), lse = poisoned(&w, 150, 2, 0);
    for (int b = 0; b < 2; b++) {
        mm_attention_fwd(w.be[b], y.v[b], lse.v[b], q, k, v, segs_from(start, 1));
    }
    // Scores near 4000 keep 2^-12 of absolute precision in f32, and exp turns that into relative;
    // products of bf16 halves keep a little less.
    expect_close("attention_fwd of large scores", y, halves(&w) ? 3e-3 : 1e-3);
    expect_close("lse of large scores", lse, tolerance(&w));
    world_close(&w);
}

static void test_large_scores(void **state) {
    (void)state;
    large_scores(mm_dtype_f32);
    large_scores(mm_dtype_bf16);
}

static void step(struct world *w, struct shape s, int64_t past, int64_t n, int64_t pad) {
    const struct mm_view q = random_heads(w, n, s.h, s.p, pad);
    const struct mm_view k = random_heads(w, past + n, s.g, s.p, pad);
    const struct mm_view v = random_heads(w, past + n, s.g, s.p, pad);
    const struct out y = empty_heads(w, n, s.h, s.p, pad);
    for (int b = 0; b < 2; b++)
        mm_attention_step(w->be[b], y.v[b], q, k, v, past);
    expect_close("attention_step", y, tolerance(w));
}

static void test_rounded(void **state) {
    (void)state;
    struct world w;
    world_open(&w, mm_isa_best(), 2);
    w.be[0]->scan_rounds = true;
    for (int i = 0; i < 25; i++) {
        const struct shape s = shapes[i % 5];
        const struct mm_segs segs = segs_from(starts[i / 5], n_seqs[i / 5]);
        const int64_t rows = segs.start[segs.n];
        const struct mm_view q = random_heads(&w, rows, s.h, s.p, 3);
        const struct mm_view k = random_heads(&w, rows, s.g, s.p, 0);
        const struct mm_view v = random_heads(&w, rows, s.g, s.p, 5);
        const struct out y = empty_heads(&w, rows, s.h, s.p, 1), lse = poisoned(&w, rows, s.h, 2);
        for (int b = 0; b < 2; b++)
            mm_attention_fwd(w.be[b], y.v[b], lse.v[b], q, k, v, segs);
        expect_close("attention_fwd, rounded", y, tolerance(&w));
        expect_close("attention_fwd lse, rounded", lse, tolerance(&w));
        step(&w, s, 7 * i, 5 + 9 * i, i % 2);
        world_clear(&w);
    }
    world_close(&w);
}

static void test_step(void **state) {
    (void)state;
    static const int64_t sizes[][2] = {{0, 1}, {1, 1}, {6, 3},    {65, 4},   {511, 1}, {600, 2},
                                       {0, 5}, {9, 7}, {130, 65}, {1030, 5}, {300, 50}};
    for (int isa = best_under_test(); isa > 0; isa--) {
        struct world w;
        world_open(&w, (enum mm_isa)isa, 2);
        for (int i = 0; i < 55; i++) {
            w.be[0]->product = i % 3 ? mm_dtype_bf16 : mm_dtype_f32;
            step(&w, shapes[i % 5], sizes[i / 5][0], sizes[i / 5][1], i % 2 ? 3 : 0);
            world_clear(&w);
        }
        world_close(&w);
    }
}

// A sequence in pieces against its cache gives what it gives in one go.
static void test_pieces(void **state) {
    (void)state;
    static const int64_t pieces[] = {1, 7, 64, 1, 100, 2, 25};
    struct world w;
    world_open(&w, mm_isa_best(), 2);
    const int64_t rows = 200;
    const int32_t start[] = {0, (int32_t)rows};
    const struct mm_view q = random_heads(&w, rows, 4, 16, 0);
    const struct mm_view k = random_heads(&w, rows, 2, 16, 0);
    const struct mm_view v = random_heads(&w, rows, 2, 16, 0);
    const struct out y = empty_heads(&w, rows, 4, 16, 0);
    mm_attention_fwd(w.be[0], y.v[1], MM_NONE, q, k, v, segs_from(start, 1));
    int64_t past = 0;
    for (int i = 0; i < 7; i++) {
        const int64_t n = pieces[i];
        mm_attention_step(w.be[0], mm_view_rows(y.v[0], past, n), mm_view_rows(q, past, n),
                          mm_view_rows(k, 0, past + n), mm_view_rows(v, 0, past + n), past);
        past += n;
    }
    assert_int_equal(past, rows);
    expect_close("attention in pieces", y, tolerance(&w));
    world_close(&w);
}

static void rope(struct world *w, struct shape s, int64_t rows, int64_t pad, float base,
                 float pos_scale, int32_t far) {
    const struct mm_view qkv = random_view(w, mm_dtype_f32, rows, (s.h + 2 * s.g) * s.p, pad, 1.0);
    const struct mm_view pos = random_ids(w, rows, 0, far);
    const struct out q = empty_heads(w, rows, s.h, s.p, pad);
    const struct out k = empty_heads(w, rows, s.g, s.p, pad);
    const struct out v = empty_heads(w, rows, s.g, s.p, pad);
    const struct out back = poisoned(w, rows, mm_view_cols(qkv), pad);
    for (int b = 0; b < 2; b++) {
        mm_qkv_rope_fwd(w->be[b], q.v[b], k.v[b], v.v[b], qkv, pos, base, pos_scale);
        mm_qkv_rope_bwd(w->be[b], back.v[b], q.v[b], k.v[b], v.v[b], pos, base, pos_scale);
    }
    expect_close("qkv_rope_fwd q", q, tol_pointwise);
    expect_close("qkv_rope_fwd k", k, tol_pointwise);
    expect_close("qkv_rope_fwd v", v, tol_exact);
    expect_close("qkv_rope_bwd", back, tol_pointwise);
    // A rotation's transpose is its inverse.
    expect_close("rotation and back", (struct out){{back.v[0], qkv}}, tol_pointwise);
}

static void test_rope(void **state) {
    (void)state;
    static const int64_t lengths[] = {1, 2, 7, 65, 200};
    for (int isa = best_under_test(); isa > 0; isa--) {
        struct world w;
        world_open(&w, (enum mm_isa)isa, 2);
        for (int i = 0; i < 25; i++) {
            rope(&w, shapes[i % 5], lengths[i / 5], i % 2 ? 3 : 0, i % 3 ? 10000.0f : 1e6f,
                 i % 4 ? 1.0f : 0.25f, i % 2 ? 300 : 2000000);
            world_clear(&w);
        }
        world_close(&w);
    }
}

static void test_threads_do_not_matter(void **state) {
    (void)state;
    enum { n_rows = 860 };  // the last is long for the backward
    static const int32_t start[] = {0, 1, 60, 61, 300, n_rows};
    const struct mm_segs segs = segs_from(start, 5);
    struct world w;
    world_open(&w, mm_isa_best(), 1);
    for (int threads = 2; threads < 6; threads++) {
        struct mm_backend *many = open_isa(mm_isa_best(), threads);
        const struct mm_view q = random_heads(&w, n_rows, 4, 32, 0);
        const struct mm_view k = random_heads(&w, n_rows, 2, 32, 0);
        const struct mm_view v = random_heads(&w, n_rows, 2, 32, 0);
        const struct mm_view one = mm_view_rows(q, n_rows - 1, 1);
        const struct out y = empty_heads(&w, n_rows, 4, 32, 0), lse = poisoned(&w, n_rows, 4, 0);
        const struct out dq = empty_heads(&w, n_rows, 4, 32, 0),
                         step_y = empty_heads(&w, 1, 4, 32, 0);
        const struct out dk = empty_heads(&w, n_rows, 2, 32, 0);
        const struct out dv = empty_heads(&w, n_rows, 2, 32, 0);
        for (int b = 0; b < 2; b++) {
            struct mm_backend *be = b ? many : w.be[0];
            mm_attention_fwd(be, y.v[b], lse.v[b], q, k, v, segs);
            mm_attention_bwd(be, dq.v[b], dk.v[b], dv.v[b], q, y.v[b], lse.v[b], q, k, v, segs);
            mm_attention_step(be, step_y.v[b], one, k, v, n_rows - 1);
        }
        expect_close("attention_fwd, threads", y, tol_exact);
        expect_close("attention_bwd dq, threads", dq, tol_exact);
        expect_close("attention_bwd dk, threads", dk, tol_exact);
        expect_close("attention_bwd dv, threads", dv, tol_exact);
        expect_close("attention_step, threads", step_y, tol_exact);
        world_clear(&w);
        mm_backend_close(many);
    }
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_attention),    cmocka_unit_test(test_long_attention),
        cmocka_unit_test(test_large_scores), cmocka_unit_test(test_rounded),
        cmocka_unit_test(test_step),         cmocka_unit_test(test_pieces),
        cmocka_unit_test(test_rope),         cmocka_unit_test(test_threads_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
