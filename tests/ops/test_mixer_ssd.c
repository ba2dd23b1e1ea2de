// The state-space recurrence: chunks against the token-by-token reference, every way to cut a
// sequence, gradients against differences, extreme steps, and the same bits for any threads.
#include "ops/mixer_help.h"

struct shape {
    int64_t g, h, p, n;
};

// v, k, q are parts of one buffer, as the convolution leaves them.
struct ssd {
    struct shape s;
    struct packed seqs;
    struct tens vkq, dt, a_log, d, state, y;
    struct tens dy, dvkq, ddt, da_log, dd;
    bool use_state;
};

static struct mm_view part(struct ssd *x, struct tens all, char which) {
    const int64_t gp = x->s.g * x->s.p, gn = x->s.g * x->s.n;
    const struct mm_view rows = flat(all);
    if (which == 'v') return mm_view_split(mm_view_cut(rows, 0, gp), x->s.g, x->s.p);
    if (which == 'k') return mm_view_split(mm_view_cut(rows, gp, gn), x->s.g, x->s.n);
    return mm_view_split(mm_view_cut(rows, gp + gn, x->s.h * x->s.n), x->s.h, x->s.n);
}

static struct ssd ssd_new(struct shape s, const int *lengths, int n_seqs, double dt_lo,
                          double dt_hi, uint64_t seed) {
    struct ssd x = {.s = s};
    struct mm_rng rng = mm_rng_make(seed, 7);
    pack_lengths(&x.seqs, lengths, n_seqs);
    const int64_t rows = x.seqs.start[n_seqs], cols = s.g * (s.p + s.n) + s.h * s.n;
    x.vkq = tens_new(rows, 1, cols, 3), x.dvkq = tens_new(rows, 1, cols, 5);
    x.dt = tens_new(rows, s.h, 1, 1), x.ddt = tens_new(rows, s.h, 1, 2);
    x.a_log = tens_new(1, s.h, 1, 0), x.da_log = tens_new(1, s.h, 1, 0);
    x.d = tens_new(1, s.h, 1, 0), x.dd = tens_new(1, s.h, 1, 0);
    x.state = tens_new(n_seqs, s.h, s.p * s.n, 0);
    x.y = tens_new(rows, s.h, s.p, 4), x.dy = tens_new(rows, s.h, s.p, 1);
    tens_normal(x.vkq, &rng, 1.0 / sqrt((double)s.n));
    tens_log_uniform(x.dt, &rng, dt_lo, dt_hi);
    tens_normal(x.a_log, &rng, 1.0);
    tens_normal(x.d, &rng, 1.0);
    tens_normal(x.state, &rng, 0.3);
    tens_normal(x.dy, &rng, 1.0);
    return x;
}

static void ssd_free(struct ssd *x) {
    struct tens *const all[] = {&x->vkq, &x->dt,   &x->a_log, &x->d,      &x->state, &x->y,
                                &x->dy,  &x->dvkq, &x->ddt,   &x->da_log, &x->dd};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]->base);
    }
}

static struct mm_view state_view(struct ssd *x) {
    return mm_view4(x->state.base, mm_dtype_f32, x->seqs.n, x->s.h, x->s.p, x->s.n);
}

static void forward(struct mm_backend *be, struct ssd *x) {
    be->ops->ssd_fwd(be, x->y.v, part(x, x->vkq, 'v'), part(x, x->vkq, 'k'), part(x, x->vkq, 'q'),
                     flat(x->dt), vector(x->a_log), vector(x->d),
                     x->use_state ? state_view(x) : MM_NONE, segs_of(&x->seqs));
    assert_int_equal(be->error.code, mm_code_ok);
}

static void backward(struct mm_backend *be, struct ssd *x) {
    for (int64_t h = 0; h < x->s.h; h++) {  // weight gradients add
        x->da_log.base[h] = 0.5f, x->dd.base[h] = -0.25f;
    }
    be->ops->ssd_bwd(be, part(x, x->dvkq, 'v'), part(x, x->dvkq, 'k'), part(x, x->dvkq, 'q'),
                     flat(x->ddt), vector(x->da_log), vector(x->dd), x->dy.v, part(x, x->vkq, 'v'),
                     part(x, x->vkq, 'k'), part(x, x->vkq, 'q'), flat(x->dt), vector(x->a_log),
                     vector(x->d), segs_of(&x->seqs));
    assert_int_equal(be->error.code, mm_code_ok);
}

// The reference, then every instruction set, on the same operands.
static void compare(struct shape s, const int *lengths, int n_seqs, double dt_lo, double dt_hi,
                    int n_threads) {
    struct ssd a = ssd_new(s, lengths, n_seqs, dt_lo, dt_hi, 11);
    struct mm_backend *plain = open_isa(mm_isa_plain, 1);
    for (int with_state = 0; with_state < 2; with_state++) {
        struct ssd want = ssd_new(s, lengths, n_seqs, dt_lo, dt_hi, 11);
        want.use_state = with_state;
        forward(plain, &want);
        for (int i = 0; i < n_fast_isas(); i++) {
            struct mm_backend *be = open_isa(fast_isa(i), n_threads);
            struct ssd got = ssd_new(s, lengths, n_seqs, dt_lo, dt_hi, 11);
            got.use_state = with_state;
            forward(be, &got);
            check_close(got.y, want.y, 2e-5, "y");
            check_close(got.state, want.state, 2e-5, "state");
            mm_backend_close(be);
            ssd_free(&got);
        }
        ssd_free(&want);
    }
    backward(plain, &a);
    for (int i = 0; i < n_fast_isas(); i++) {
        struct mm_backend *be = open_isa(fast_isa(i), n_threads);
        struct ssd got = ssd_new(s, lengths, n_seqs, dt_lo, dt_hi, 11);
        backward(be, &got);
        check_close(got.dvkq, a.dvkq, 2e-5, "dv, dk, dq");
        check_close(got.ddt, a.ddt, 5e-5, "ddt");
        check_close(got.da_log, a.da_log, 5e-5, "da_log");
        check_close(got.dd, a.dd, 2e-5, "dd");
        mm_backend_close(be);
        ssd_free(&got);
    }
    mm_backend_close(plain);
    ssd_free(&a);
}

static const struct shape shapes[] = {{2, 4, 16, 16}, {1, 3, 5, 7}, {2, 2, 19, 33}, {1, 2, 64, 64}};

static void chunks_are_the_recurrence(void **state) {
    (void)state;
    const int lengths[] = {1, 2, 7, 8, 9, 63, 64, 65, 127, 128, 129, 191, 300};
    for (size_t i = 0; i < sizeof lengths / sizeof *lengths; i += test_few() ? 4 : 1) {
        for (size_t s = 0; s < 3; s++) {
            compare(shapes[s], lengths + i, 1, 1e-3, 1.0, 1);
        }
    }
    const int one[] = {200};
    compare(shapes[3], one, 1, 1e-3, 0.1, 2);
}

static void sequences_do_not_mix(void **state) {
    (void)state;
    const int lengths[] = {1, 75, 3, 130, 1, 64, 200, 8, 1};
    for (size_t s = 0; s < 3; s++) {
        compare(shapes[s], lengths, 9, 1e-3, 1.0, 3);
    }
}

static void extreme_steps(void **state) {
    (void)state;
    const int lengths[] = {5, 140};
    compare(shapes[0], lengths, 2, 1e-6, 1e-5, 1);
    compare(shapes[0], lengths, 2, 1e-6, 50.0, 1);
    compare(shapes[1], lengths, 2, 20.0, 50.0, 1);
}

// Steps so absurd that logarithms of decays leave f32 still give finite numbers.
static void absurd_steps(void **state) {
    (void)state;
    const int lengths[] = {150};
    for (int i = 0; i < n_fast_isas(); i++) {
        struct mm_backend *be = open_isa(fast_isa(i), 1);
        struct ssd x = ssd_new(shapes[0], lengths, 1, 1e-6, 50.0, 3);
        for (int64_t h = 0; h < x.s.h; h++) {
            x.a_log.base[h] = h % 2 ? 80.0f : -80.0f;
        }
        *tens_at(x.dt, 70, 0) = 0.0f;
        forward(be, &x);
        backward(be, &x);
        check_close(x.y, x.y, 0.0, "y");
        check_close(x.dvkq, x.dvkq, 0.0, "dv, dk, dq");
        check_close(x.ddt, x.ddt, 0.0, "ddt");
        check_close(x.da_log, x.da_log, 0.0, "da_log");
        ssd_free(&x);
        mm_backend_close(be);
    }
}

// Rows [begin, begin + n) of every operand, as a piece of one sequence.
static void piece(struct mm_backend *be, struct ssd *x, int64_t begin, int64_t n, bool step) {
    const int32_t start[2] = {0, (int32_t)n};
    const struct mm_segs segs = {1, start, start};
#define ROWS(view) mm_view_rows(view, begin, n)
    struct mm_view v = ROWS(part(x, x->vkq, 'v')), k = ROWS(part(x, x->vkq, 'k'));
    struct mm_view q = ROWS(part(x, x->vkq, 'q'));
    if (step) {
        be->ops->ssd_step(be, ROWS(x->y.v), v, k, q, ROWS(flat(x->dt)), vector(x->a_log),
                          vector(x->d), state_view(x));
    } else {
        be->ops->ssd_fwd(be, ROWS(x->y.v), v, k, q, ROWS(flat(x->dt)), vector(x->a_log),
                         vector(x->d), state_view(x), segs);
    }
#undef ROWS
}

static void pieces_agree(void **state) {
    (void)state;
    const int lengths[] = {300};
    const int64_t sizes[] = {0, 1, 7, 64, 65, 128, 299};  // 0: stepping
    struct mm_backend *plain = open_isa(mm_isa_plain, 1);
    struct ssd want = ssd_new(shapes[2], lengths, 1, 1e-3, 0.3, 5);
    want.use_state = true;
    forward(plain, &want);
    for (int i = -1; i < n_fast_isas(); i++) {
        struct mm_backend *be = open_isa(fast_isa(i), 2);
        for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++) {
            struct ssd got = ssd_new(shapes[2], lengths, 1, 1e-3, 0.3, 5);
            const int64_t size = sizes[j] ? sizes[j] : 1;
            for (int64_t t = 0; t < 300; t += size) {
                piece(be, &got, t, 300 - t < size ? 300 - t : size, !sizes[j]);
            }
            check_close(got.y, want.y, 2e-5, "y in pieces");
            check_close(got.state, want.state, 2e-5, "state in pieces");
            ssd_free(&got);
        }
        mm_backend_close(be);
    }
    mm_backend_close(plain);
    ssd_free(&want);
}

// Stepping several sequences at once is stepping each.
static void steps_of_a_batch(void **state) {
    (void)state;
    const int lengths[] = {1, 1, 1, 1, 1};
    struct mm_backend *plain = open_isa(mm_isa_plain, 1);
    struct ssd want = ssd_new(shapes[1], lengths, 5, 1e-3, 1.0, 6);
    want.use_state = true;
    forward(plain, &want);
    for (int i = 0; i < n_fast_isas(); i++) {
        struct mm_backend *be = open_isa(fast_isa(i), 4);
        struct ssd got = ssd_new(shapes[1], lengths, 5, 1e-3, 1.0, 6);
        piece(be, &got, 0, 5, true);
        check_close(got.y, want.y, 1e-5, "y of a batch");
        check_close(got.state, want.state, 1e-5, "states of a batch");
        ssd_free(&got);
        mm_backend_close(be);
    }
    mm_backend_close(plain);
    ssd_free(&want);
}

static void same_bits(const int *lengths, int n_seqs) {
    for (int i = 0; i < n_fast_isas(); i++) {
        for (int with_state = 0; with_state < 2; with_state++) {
            struct ssd one = ssd_new(shapes[0], lengths, n_seqs, 1e-3, 1.0, 8);
            one.use_state = with_state;
            for (int n = 1; n <= (testing_cuda() ? 2 : 4); n++) {
                struct mm_backend *be = open_isa(fast_isa(i), n);
                struct ssd x = ssd_new(shapes[0], lengths, n_seqs, 1e-3, 1.0, 8);
                x.use_state = with_state;
                forward(be, n == 1 ? &one : &x);
                backward(be, n == 1 ? &one : &x);
                if (n > 1) {
                    check_same_bits(x.y, one.y, "y");
                    check_same_bits(x.state, one.state, "state");
                    check_same_bits(x.dvkq, one.dvkq, "dv, dk, dq");
                    check_same_bits(x.ddt, one.ddt, "ddt");
                    check_same_bits(x.da_log, one.da_log, "da_log");
                    check_same_bits(x.dd, one.dd, "dd");
                }
                ssd_free(&x);
                mm_backend_close(be);
            }
            ssd_free(&one);
        }
    }
}

static void threads_do_not_show(void **state) {
    (void)state;
    const int many[] = {75, 80, 1, 64, 130, 77, 200, 75};
    const int one_long[] = {1500};  // chunks are shared out from 3 threads on
    const int mixed[] = {900, 5, 75};
    same_bits(many, 8);
    same_bits(one_long, 1);
    same_bits(mixed, 3);
}

// ---- gradients ----

struct differences {
    struct mm_backend *plain;
    struct ssd *x;
};

static double loss(void *arg) {
    struct differences *d = arg;
    forward(d->plain, d->x);
    return weighted_sum(d->x->y, d->x->dy);
}

static void gradients_are_differences(void **state) {
    (void)state;
    if (test_few()) skip();
    const int lengths[] = {1, 11, 4};
    const struct shape s = {2, 4, 3, 5};
    struct mm_backend *plain = open_isa(mm_isa_plain, 1);
    for (int i = -1; i < n_fast_isas(); i++) {
        struct mm_backend *be = i < 0 ? plain : open_isa(fast_isa(i), 2);
        struct ssd x = ssd_new(s, lengths, 3, 0.05, 2.0, 9);
        struct differences d = {plain, &x};
        backward(be, &x);
        for (int64_t h = 0; h < s.h; h++) {
            x.da_log.base[h] -= 0.5f, x.dd.base[h] += 0.25f;
        }
        check_gradient(x.vkq, x.dvkq, loss, &d, 1e-3, "v, k, q");
        check_gradient(x.dt, x.ddt, loss, &d, 1e-3, "dt");
        check_gradient(x.a_log, x.da_log, loss, &d, 1e-3, "a_log");
        check_gradient(x.d, x.dd, loss, &d, 1e-3, "d");
        ssd_free(&x);
        if (i >= 0) mm_backend_close(be);
    }
    mm_backend_close(plain);
}

// Without a_log nothing decays, without d nothing skips; their gradients are then not wanted.
static void options_may_be_absent(void **state) {
    (void)state;
    const int lengths[] = {70, 131};
    struct mm_backend *plain = open_isa(mm_isa_plain, 1);
    struct ssd want = ssd_new(shapes[1], lengths, 2, 1e-3, 0.05, 10);
    for (int i = -1; i < n_fast_isas(); i++) {
        struct mm_backend *be = i < 0 ? plain : open_isa(fast_isa(i), 2);
        struct ssd got = ssd_new(shapes[1], lengths, 2, 1e-3, 0.05, 10);
        struct ssd *x = i < 0 ? &want : &got;
        be->ops->ssd_fwd(be, x->y.v, part(x, x->vkq, 'v'), part(x, x->vkq, 'k'),
                         part(x, x->vkq, 'q'), flat(x->dt), MM_NONE, MM_NONE, MM_NONE,
                         segs_of(&x->seqs));
        be->ops->ssd_bwd(be, part(x, x->dvkq, 'v'), part(x, x->dvkq, 'k'), part(x, x->dvkq, 'q'),
                         flat(x->ddt), MM_NONE, MM_NONE, x->dy.v, part(x, x->vkq, 'v'),
                         part(x, x->vkq, 'k'), part(x, x->vkq, 'q'), flat(x->dt), MM_NONE, MM_NONE,
                         segs_of(&x->seqs));
        check_close(x->y, want.y, 2e-5, "y");
        check_close(x->dvkq, want.dvkq, 2e-5, "dv, dk, dq");
        check_close(x->ddt, want.ddt, 5e-5, "ddt");
        ssd_free(&got);
        if (i >= 0) mm_backend_close(be);
    }
    mm_backend_close(plain);
    ssd_free(&want);
}

// Nothing is allocated once a size has been seen.
static void scratch_only_grows(void **state) {
    (void)state;
    const int lengths[] = {300, 75};
    struct mm_backend *be = open_isa(fast_isa(0), 2);
    struct ssd x = ssd_new(shapes[3], lengths, 2, 1e-3, 1.0, 12);
    forward(be, &x);
    backward(be, &x);
    const size_t bytes = be->scratch_bytes;
    forward(be, &x);
    backward(be, &x);
    assert_true(bytes > 0);
    assert_int_equal(be->scratch_bytes, bytes);
    ssd_free(&x);
    mm_backend_close(be);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(chunks_are_the_recurrence),
                                       cmocka_unit_test(sequences_do_not_mix),
                                       cmocka_unit_test(extreme_steps),
                                       cmocka_unit_test(absurd_steps),
                                       cmocka_unit_test(pieces_agree),
                                       cmocka_unit_test(steps_of_a_batch),
                                       cmocka_unit_test(threads_do_not_show),
                                       cmocka_unit_test(gradients_are_differences),
                                       cmocka_unit_test(options_may_be_absent),
                                       cmocka_unit_test(scratch_only_grows)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
