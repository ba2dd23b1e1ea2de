// A mixer in one pass (mm_mamba2_fwd) against the operations it stands for, in the reference: every
// way to cut a sequence, states, options, the same bits for any threads; and rounded operands.
#include "ops/mixer_help.h"
#include "tolerance.h"

struct shape {
    int64_t G, H, P, K;
};

struct whole {
    struct shape s;
    struct packed seqs;
    struct tens z, o, conv_w, conv_b, dt_bias, a_log, d, norm_w, conv, S;
    bool with_state, plain;  // plain: without d and norm
};

static int64_t channels(struct shape s) {
    return (2 * s.G + s.H) * s.P;
}

static struct whole whole_new(struct shape s, const int *lengths, int n, uint64_t seed) {
    struct whole x = {.s = s};
    const int64_t C = channels(s);
    struct mm_rng rng = mm_rng_make(seed, 3);
    pack_lengths(&x.seqs, lengths, n);
    const int64_t T = x.seqs.start[n];
    x.z = tens_new(T, 1, C + s.H * s.P + s.H, 3), x.o = tens_new(T, s.H, s.P, 5);
    x.conv_w = tens_new(C, 1, s.K, 0), x.conv_b = tens_new(1, C, 1, 0);
    x.dt_bias = tens_new(1, s.H, 1, 0), x.a_log = tens_new(1, s.H, 1, 0);
    x.d = tens_new(1, s.H, 1, 0), x.norm_w = tens_new(1, s.P, 1, 0);
    x.conv = tens_new(n, 1, s.K > 1 ? (s.K - 1) * C : 1, 0);
    x.S = tens_new(n, s.H, s.P * s.P, 0);
    tens_normal(x.z, &rng, 1.0);
    for (int64_t t = 0; t < T; t++) {
        for (int64_t h = 0; h < s.H; h++)
            *tens_at(x.z, t, C + s.H * s.P + h) -= 3.0f;
    }
    struct tens *const small[] = {&x.conv_w, &x.conv_b, &x.dt_bias, &x.a_log,
                                  &x.d,      &x.norm_w, &x.conv,    &x.S};
    for (size_t i = 0; i < sizeof small / sizeof *small; i++)
        tens_normal(*small[i], &rng, 0.5);
    return x;
}

static void whole_free(struct whole *x) {
    struct tens *const all[] = {&x->z,     &x->o, &x->conv_w, &x->conv_b, &x->dt_bias,
                                &x->a_log, &x->d, &x->norm_w, &x->conv,   &x->S};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++)
        free(all[i]->base);
}

// Rows [begin, begin + n) of all sequences, or of one.
static struct mm_mamba2 of(struct whole *x, int64_t begin, int64_t n, struct mm_segs segs) {
    const struct shape s = x->s;
    struct mm_mamba2 m = {.G = s.G,
                          .H = s.H,
                          .P = s.P,
                          .z = mm_view_rows(flat(x->z), begin, n),
                          .conv_w = mm_view2(x->conv_w.base, mm_dtype_f32, channels(s), s.K),
                          .conv_b = vector(x->conv_b),
                          .dt_bias = vector(x->dt_bias),
                          .a_log = vector(x->a_log),
                          .eps = 1e-5f,
                          .segs = segs};
    if (!x->plain) m.d = vector(x->d), m.norm_w = vector(x->norm_w);
    if (x->with_state) {
        m.S = mm_view4(x->S.base, mm_dtype_f32, segs.n, s.H, s.P, s.P);
        if (s.K > 1) {
            m.conv = mm_view3(x->conv.base, mm_dtype_f32, segs.n, s.K - 1, channels(s));
        }
    }
    return m;
}

static struct mm_mamba2 all(struct whole *x) {
    return of(x, 0, x->seqs.start[x->seqs.n], segs_of(&x->seqs));
}

// The operations one after the other.
static void by_operations(struct mm_backend *be, struct whole *x) {
    const struct mm_mamba2 m = all(x);
    const int64_t T = m.z.shape[0], C = channels(x->s), G = m.G, H = m.H, P = m.P;
    struct tens c = tens_new(T, 1, C, 0), dt = tens_new(T, H, 1, 0), y = tens_new(T, H, P, 0);
    const struct mm_view cv = flat(c);
    be->ops->conv_silu_fwd(be, cv, mm_view_cut(m.z, 0, C), m.conv_w, m.conv_b, m.conv, m.segs);
    be->ops->softplus_fwd(be, flat(dt), mm_view_cut(m.z, C + H * P, H), m.dt_bias);
    be->ops->ssd_fwd(be, y.v, mm_view_split(mm_view_cut(cv, 0, G * P), G, P),
                     mm_view_split(mm_view_cut(cv, G * P, G * P), G, P),
                     mm_view_split(mm_view_cut(cv, 2 * G * P, H * P), H, P), flat(dt), m.a_log, m.d,
                     m.S, m.segs);
    be->ops->gated_norm_fwd(be, x->o.v, MM_NONE, y.v, mm_view_cut(m.z, C, H * P), m.norm_w, m.eps);
    assert_int_equal(be->error.code, mm_code_ok);
    free(c.base), free(dt.base), free(y.base);
}

// Whether this backend should have the pass: the tiles, with products of bf16.
static bool has_pass(const struct mm_backend *be) {
    return be->product == mm_dtype_bf16 && strstr(be->device, ", amx,");
}

static void check_whole(struct whole *got, struct whole *want, bool rounds) {
    const double scan = rounds ? tol_scan_rounded : tol_scan;
    const double normed = rounds ? tol_scan_rounded_normed : tol_scan_normed;
    check_close(got->o, want->o, got->plain ? scan : normed, "o");
    check_close(got->S, want->S, scan, "S");
    check_close(got->conv, want->conv, 0.0, "conv");
}

static void compare(struct shape s, const int *lengths, int n, int n_threads, bool rounds) {
    struct mm_backend *plain = open_isa(mm_isa_plain, 1);
    struct mm_backend *be = open_isa(fast_isa(0), n_threads);
    be->scan_rounds = rounds;
    for (int i = 0; i < 4; i++) {
        struct whole want = whole_new(s, lengths, n, 11), got = whole_new(s, lengths, n, 11);
        want.with_state = got.with_state = i % 2;
        want.plain = got.plain = i / 2;
        const struct mm_mamba2 m = all(&got);
        const bool done = mm_mamba2_fwd(be, got.o.v, &m);
        assert_int_equal(done, has_pass(be));
        if (done) {
            by_operations(plain, &want);
            check_whole(&got, &want, rounds);
        }
        whole_free(&got), whole_free(&want);
    }
    mm_backend_close(be);
    mm_backend_close(plain);
}

static const struct shape shapes[] = {{2, 4, 16, 2}, {1, 3, 5, 4},  {2, 2, 33, 1},
                                      {1, 6, 19, 2}, {2, 4, 64, 2}, {1, 2, 128, 4}};
enum { n_shapes = sizeof shapes / sizeof *shapes };

static void one_pass_is_the_operations(void **state) {
    (void)state;
    const int lengths[] = {1, 2, 8, 17, 64, 79, 127, 128, 129, 300};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i++) {
        for (int s = 0; s < n_shapes; s++)
            compare(shapes[s], lengths + i, 1, 1 + (int)i % 2, i % 2);
    }
    const int many[] = {1, 75, 3, 130, 1, 64, 200, 8, 1};
    for (int s = 0; s < n_shapes; s++) {
        compare(shapes[s], many, 9, 3, false);
        compare(shapes[s], many, 9, 2, true);
    }
}

static void pieces_agree(void **state) {
    (void)state;
    const int lengths[] = {700};
    const int64_t sizes[] = {1, 7, 64, 128, 129, 256, 699};
    struct mm_backend *plain = open_isa(mm_isa_plain, 1), *be = open_isa(fast_isa(0), 2);
    struct whole want = whole_new(shapes[4], lengths, 1, 5);
    want.with_state = true;
    by_operations(plain, &want);
    for (size_t i = 0; has_pass(be) && i < sizeof sizes / sizeof *sizes; i++) {
        struct whole got = whole_new(shapes[4], lengths, 1, 5);
        got.with_state = true;
        for (int64_t t = 0; t < 700; t += sizes[i]) {
            const int64_t n = 700 - t < sizes[i] ? 700 - t : sizes[i];
            const int32_t start[2] = {0, (int32_t)n};
            const struct mm_mamba2 m = of(&got, t, n, (struct mm_segs){1, start, start});
            assert_true(mm_mamba2_fwd(be, mm_view_rows(got.o.v, t, n), &m));
        }
        check_whole(&got, &want, false);
        whole_free(&got);
    }
    whole_free(&want);
    mm_backend_close(be);
    mm_backend_close(plain);
}

// Chunks of a long sequence are shared out from some number of threads on; nothing shows it.
static void threads_do_not_show(void **state) {
    (void)state;
    const int lengths[][3] = {{1500, 0, 0}, {900, 5, 75}};
    for (int i = 0; i < 4; i++) {
        struct whole one = {0};
        for (int n = 1; n <= 6; n++) {
            struct mm_backend *be = open_isa(fast_isa(0), n);
            be->scan_rounds = i / 2;
            struct whole x = whole_new(shapes[0], lengths[i % 2], i % 2 ? 3 : 1, 8);
            x.with_state = true;
            const struct mm_mamba2 m = all(&x);
            if (mm_mamba2_fwd(be, x.o.v, &m) && n > 1) {
                check_same_bits(x.o, one.o, "o");
                check_same_bits(x.S, one.S, "S");
                check_same_bits(x.conv, one.conv, "conv");
            }
            mm_backend_close(be);
            if (n > 1) {
                whole_free(&x);
            } else {
                one = x;
            }
        }
        whole_free(&one);
    }
}

// Steps and gates beyond every range still give finite numbers.
static void absurd_operands(void **state) {
    (void)state;
    const int lengths[] = {300};
    struct mm_backend *be = open_isa(fast_isa(0), 1);
    for (int rounds = 0; rounds < 2 && has_pass(be); rounds++) {
        be->scan_rounds = rounds;
        struct whole x = whole_new(shapes[0], lengths, 1, 9);
        x.with_state = true;
        const int64_t C = channels(x.s), gates = x.s.H * x.s.P;
        for (int64_t h = 0; h < x.s.H; h++)
            x.a_log.base[h] = h % 2 ? 80.0f : -80.0f;
        for (int64_t t = 0; t < 300; t++) {
            *tens_at(x.z, t, C + t % gates) = t % 2 ? 1e30f : -1e30f;
            *tens_at(x.z, t, C + gates) = t % 3 ? 200.0f : -200.0f;
        }
        const struct mm_mamba2 m = all(&x);
        assert_true(mm_mamba2_fwd(be, x.o.v, &m));
        check_close(x.o, x.o, 0.0, "o");
        check_close(x.S, x.S, 0.0, "S");
        whole_free(&x);
    }
    mm_backend_close(be);
}

static void only_with_products_of_bf16(void **state) {
    (void)state;
    const int lengths[] = {20};
    struct mm_backend *be = open_isa(fast_isa(0), 1);
    be->product = mm_dtype_f32;
    struct whole x = whole_new(shapes[0], lengths, 1, 1);
    const struct mm_mamba2 m = all(&x);
    assert_false(mm_mamba2_fwd(be, x.o.v, &m));
    whole_free(&x);
    mm_backend_close(be);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_pass_is_the_operations), cmocka_unit_test(pieces_agree),
        cmocka_unit_test(threads_do_not_show), cmocka_unit_test(absurd_operands),
        cmocka_unit_test(only_with_products_of_bf16)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
