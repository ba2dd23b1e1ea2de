// The state-space recurrence on bf16 operands against the CPU's reference on the same numbers: for
// a backend that has such operations (MMAMBA_TEST_BACKEND=cuda). Outputs are poisoned, rows
// strided.
#include "ops_test.h"

struct shape {
    int64_t g, h, p, n;
};
// Whole tiles of 128, 64 and 32; parts of tiles; N unlike P.
static const struct shape shapes[] = {{2, 4, 128, 128}, {1, 1, 64, 64}, {2, 6, 48, 64},
                                      {1, 2, 16, 24},   {2, 2, 32, 32}, {1, 2, 120, 88}};

// Two of each: [0] as the backend has it, [1] the same numbers in f32 for the reference.
struct ssd {
    struct shape s;
    struct out vkq, dy, y, dvkq, state, ddt, da_log, dd;
    struct mm_view dt, a_log, d;
    struct mm_segs segs;
};

static struct out pair(struct world *w, int64_t rows, int64_t cols, int64_t pad) {
    return (struct out){
        {make(w, mm_dtype_bf16, rows, cols, pad), make(w, mm_dtype_f32, rows, cols, pad)}};
}

static struct out random_pair(struct world *w, int64_t rows, int64_t cols, int64_t pad,
                              double scale) {
    const struct out o = pair(w, rows, cols, pad);
    randomize(w, o.v[0], scale, true);
    copy_view(o.v[1], o.v[0]);
    return o;
}

static struct mm_view part(const struct ssd *x, struct mm_view all, char which) {
    const int64_t gp = x->s.g * x->s.p, gn = x->s.g * x->s.n;
    if (which == 'v') return mm_view_split(mm_view_cut(all, 0, gp), x->s.g, x->s.p);
    if (which == 'k') return mm_view_split(mm_view_cut(all, gp, gn), x->s.g, x->s.n);
    return mm_view_split(mm_view_cut(all, gp + gn, x->s.h * x->s.n), x->s.h, x->s.n);
}

static struct ssd ssd_new(struct world *w, struct shape s, const int32_t *start, int64_t n,
                          double longest_step) {
    struct ssd x = {.s = s, .segs = segs_from(start, n)};
    const int64_t rows = start[n], cols = s.g * (s.p + s.n) + s.h * s.n;
    const int64_t pad = (8 - cols % 8) % 8 + 8;  // rows begin at multiples of 16 bytes
    x.vkq = random_pair(w, rows, cols, pad, 1.0 / sqrt((double)s.n));
    x.dvkq = pair(w, rows, cols, pad);
    x.dy = random_pair(w, rows, s.h * s.p, 8, 1.0), x.y = pair(w, rows, s.h * s.p, 8);
    x.dt = random_view(w, mm_dtype_f32, rows, s.h, 1, 1.0);
    for (int64_t t = 0; t < rows; t++) {
        for (int64_t h = 0; h < s.h; h++)
            put(x.dt, t, h, (float)exp(mm_rng_uniform(&w->rng, log(1e-3), log(longest_step))));
    }
    x.a_log = random_vector(w, mm_dtype_f32, s.h, 0.7);
    x.d = random_vector(w, mm_dtype_f32, s.h, 1.0);
    x.state = copies(w, random_view(w, mm_dtype_f32, n, s.h * s.p * s.n, 0, 0.3), 0);
    x.ddt = poisoned(w, rows, s.h, 3);
    x.da_log = accumulating_vector(w, s.h), x.dd = accumulating_vector(w, s.h);
    return x;
}

static struct mm_view heads(const struct ssd *x, struct mm_view v) {
    return mm_view_split(v, x->s.h, x->s.p);
}

static void forward(struct mm_backend *be, const struct ssd *x, int b, bool state) {
    const struct mm_view all = x->vkq.v[b];
    struct mm_view s =
        mm_view4(x->state.v[b].data, mm_dtype_f32, x->segs.n, x->s.h, x->s.p, x->s.n);
    be->ops->ssd_fwd(be, heads(x, x->y.v[b]), part(x, all, 'v'), part(x, all, 'k'),
                     part(x, all, 'q'), x->dt, x->a_log, x->d, state ? s : MM_NONE, x->segs);
    assert_int_equal(be->error.code, mm_code_ok);
}

static void backward(struct mm_backend *be, const struct ssd *x, int b, bool skip) {
    const struct mm_view all = x->vkq.v[b], grad = x->dvkq.v[b];
    be->ops->ssd_bwd(be, part(x, grad, 'v'), part(x, grad, 'k'), part(x, grad, 'q'), x->ddt.v[b],
                     x->da_log.v[b], skip ? x->dd.v[b] : MM_NONE, heads(x, x->dy.v[b]),
                     part(x, all, 'v'), part(x, all, 'k'), part(x, all, 'q'), x->dt, x->a_log,
                     skip ? x->d : MM_NONE, x->segs);
    assert_int_equal(be->error.code, mm_code_ok);
}

// The sum of magnitudes that da_log is a sum of, about: of one head, the largest.
static double decay_scale(const struct ssd *x) {
    double top = 0.0;
    for (int64_t h = 0; h < x->s.h; h++) {
        double sum = 0.0;
        for (int64_t t = 0; t < x->dt.shape[0]; t++)
            sum += fabs((double)get(x->ddt.v[1], t, h)) * (double)get(x->dt, t, h);
        top = fmax(top, sum);
    }
    return top;
}

static void compare(struct shape s, const int32_t *start, int64_t n, double longest_step) {
    struct world w;
    world_open(&w, mm_isa_best(), 1);
    const struct ssd x = ssd_new(&w, s, start, n, longest_step);
    for (int state = 0; state < 2; state++) {
        for (int b = 0; b < 2; b++)
            forward(w.be[b], &x, b, state);
        expect_close("ssd_fwd y", x.y, tol_halves_mixer);
        expect_close("ssd_fwd state", x.state, tol_halves_mixer);
    }
    for (int skip = 0; skip < 2; skip++) {
        for (int b = 0; b < 2; b++)
            backward(w.be[b], &x, b, skip);
        expect_close("ssd_bwd dv, dk, dq", x.dvkq, tol_halves_mixer);
        expect_close("ssd_bwd ddt", x.ddt, tol_halves_dt);
        expect_close_over("ssd_bwd da_log", x.da_log, tol_halves_dt, decay_scale(&x));
        expect_close("ssd_bwd dd", x.dd, tol_sum);
    }
    world_close(&w);
}

static void lengths(void **state) {
    (void)state;
    static const int32_t n[] = {1, 63, 64, 65, 200, 1000};
    if (!testing_cuda()) skip();
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++) {
        for (size_t i = 0; i < sizeof n / sizeof *n; i++) {
            const int32_t start[] = {0, n[i]};
            if (s > 0 && n[i] == 1000) continue;  // the reference is slow
            if (test_few() && n[i] != 65 && n[i] != 200) continue;
            compare(shapes[s], start, 1, 0.3);
        }
    }
}

static void sequences(void **state) {
    (void)state;
    static const int32_t start[] = {0, 1, 64, 64, 200, 265, 600};
    if (!testing_cuda()) skip();
    for (size_t s = 0; s < sizeof shapes / sizeof *shapes; s++)
        compare(shapes[s], start, 6, 0.1);
    compare(shapes[1], start, 6, 20.0);  // some forget everything
}

static void expect_finite(const char *what, struct mm_view v) {
    for (int64_t r = 0; r < v.shape[0]; r++) {
        for (int64_t c = 0; c < mm_view_cols(v); c++)
            if (!isfinite(get(v, r, c))) fail_msg("%s (%d, %d) is not", what, (int)r, (int)c);
    }
}

// Steps so absurd that logarithms of decays nearly leave f32 still give finite numbers.
static void absurd_steps(void **state) {
    (void)state;
    static const int32_t start[] = {0, 300};
    if (!testing_cuda()) skip();
    struct world w;
    world_open(&w, mm_isa_best(), 1);
    const struct ssd x = ssd_new(&w, shapes[1], start, 1, 50.0);
    put(x.dt, 70, 0, 0.0f);
    for (int i = 0; i < 2; i++) {
        put(x.a_log, 0, 0, i ? 80.0f : -80.0f);
        forward(w.be[0], &x, 0, true);
        backward(w.be[0], &x, 0, true);
        expect_finite("y", x.y.v[0]);
        expect_finite("state", x.state.v[0]);
        expect_finite("dv, dk, dq", x.dvkq.v[0]);
        expect_finite("ddt", x.ddt.v[0]);
        expect_finite("da_log", x.da_log.v[0]);
    }
    world_close(&w);
}

// The same operands give the same bits.
static void repeats(void **state) {
    (void)state;
    static const int32_t start[] = {0, 700};
    if (!testing_cuda()) skip();
    struct world w;
    world_open(&w, mm_isa_best(), 1);
    struct ssd x = ssd_new(&w, shapes[0], start, 1, 0.1);
    struct ssd y = x;
    y.y = pair(&w, 700, x.s.h * x.s.p, 8), y.dvkq = pair(&w, 700, mm_view_cols(x.dvkq.v[0]), 8);
    y.ddt = poisoned(&w, 700, x.s.h, 3);
    for (int i = 0; i < 2; i++) {
        memset(x.da_log.v[0].data, 0, (size_t)x.s.h * sizeof(float));
        forward(w.be[0], i ? &y : &x, 0, false);
        backward(w.be[0], i ? &y : &x, 0, true);
        copy_view(i ? x.da_log.v[1] : x.dd.v[1], x.da_log.v[0]);
    }
    expect_close("y again", (struct out){{y.y.v[0], x.y.v[0]}}, tol_exact);
    expect_close("gradients again", (struct out){{y.dvkq.v[0], x.dvkq.v[0]}}, tol_exact);
    expect_close("ddt again", (struct out){{y.ddt.v[0], x.ddt.v[0]}}, tol_exact);
    expect_close("da_log again", (struct out){{x.da_log.v[1], x.dd.v[1]}}, tol_exact);
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(lengths), cmocka_unit_test(sequences),
                                       cmocka_unit_test(absurd_steps), cmocka_unit_test(repeats)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
