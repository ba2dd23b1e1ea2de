// The mixer's row operations: convolution, LayerNorm of a head, softplus, gated norm. Each against
// its reference on odd sizes, gradients against differences, the same bits for any threads.
#include "ops/mixer_help.h"
#include "ops/cpu/vmath.h"

// What an operation reads and writes; unused ones stay empty.
struct op {
    int64_t h, p, width;
    struct packed seqs;
    bool option;  // conv: start states; gated_norm: weight present
    struct tens x, g, w, bias, state, stats;
    struct tens y, dy, dx, dg, dw, dbias;
    void (*fwd)(struct mm_backend *be, struct op *o);
    void (*bwd)(struct mm_backend *be, struct op *o);
};

static void op_free(struct op *o) {
    struct tens *const all[] = {&o->x, &o->g,  &o->w,  &o->bias, &o->state, &o->stats,
                                &o->y, &o->dy, &o->dx, &o->dg,   &o->dw,    &o->dbias};
    for (size_t i = 0; i < sizeof all / sizeof *all; i++) {
        free(all[i]->base);
    }
}

static void fwd(struct mm_backend *be, struct op *o) {
    o->fwd(be, o);
    assert_int_equal(be->error.code, mm_code_ok);
}

static const float start_of_sums = 0.5f;  // weight gradients add to what is there

static void bwd(struct mm_backend *be, struct op *o) {
    struct tens *const sums[] = {&o->dw, &o->dbias};
    for (int i = 0; i < 2; i++) {
        for (int64_t j = 0; j < sums[i]->count; j++) {
            sums[i]->base[j] = start_of_sums;
        }
    }
    o->bwd(be, o);
    assert_int_equal(be->error.code, mm_code_ok);
}

struct part {
    const char *name;
    size_t at;
};
#define PART(field) \
    { #field, offsetof(struct op, field) }
static const struct part outputs[] = {PART(y),  PART(stats), PART(state), PART(dx),
                                      PART(dg), PART(dw),    PART(dbias)};
static struct tens *part_of(struct op *o, struct part p) {
    return (struct tens *)(void *)((char *)o + p.at);
}

typedef struct op make_fn(int64_t rows, int64_t h, int64_t p, int64_t width, bool option);

// Everything an operation writes, by every instruction set and 1 .. 4 threads, against the
// reference; and the bits of the threads against each other.
static void compare(make_fn *make, int64_t rows, int64_t h, int64_t p, int64_t width, bool option) {
    struct op want = make(rows, h, p, width, option);
    struct mm_backend *plain = open_isa(mm_isa_plain, 1);
    fwd(plain, &want);
    bwd(plain, &want);
    for (int i = 0; i < n_fast_isas(); i++) {
        struct op one = {0};
        for (int n = 1; n <= (testing_cuda() ? 2 : 4); n++) {
            struct mm_backend *be = open_isa(fast_isa(i), n);
            struct op got = make(rows, h, p, width, option);
            fwd(be, &got);
            bwd(be, &got);
            if (be->error.code) fail_msg("%s", be->error.text);
            for (size_t j = 0; j < sizeof outputs / sizeof *outputs; j++) {
                struct tens *x = part_of(&got, outputs[j]);
                if (!x->base) continue;
                check_close(*x, *part_of(&want, outputs[j]), 1e-5, outputs[j].name);
                if (n > 1) check_same_bits(*x, *part_of(&one, outputs[j]), outputs[j].name);
            }
            mm_backend_close(be);
            if (n > 1) {
                op_free(&got);
            } else {
                one = got;
            }
        }
        op_free(&one);
    }
    mm_backend_close(plain);
    op_free(&want);
}

struct differences {
    struct mm_backend *plain;
    struct op *o;
};

static double loss(void *arg) {
    struct differences *d = arg;
    fwd(d->plain, d->o);
    return weighted_sum(d->o->y, d->o->dy);
}

static void differences(make_fn *make, int64_t rows, int64_t h, int64_t p, int64_t width,
                        bool option) {
    if (test_few()) return;
    struct mm_backend *plain = open_isa(mm_isa_plain, 1);
    for (int i = -1; i < n_fast_isas(); i++) {
        struct mm_backend *be = i < 0 ? plain : open_isa(fast_isa(i), 2);
        struct op o = make(rows, h, p, width, option);
        struct differences d = {plain, &o};
        fwd(be, &o);
        bwd(be, &o);
        for (int64_t j = 0; j < o.dw.count; j++) {
            o.dw.base[j] -= start_of_sums;
        }
        for (int64_t j = 0; j < o.dbias.count; j++) {
            o.dbias.base[j] -= start_of_sums;
        }
        check_gradient(o.x, o.dx, loss, &d, 1e-3, "x");
        if (o.dg.base) check_gradient(o.g, o.dg, loss, &d, 1e-3, "g");
        if (o.dw.base) check_gradient(o.w, o.dw, loss, &d, 1e-3, "w");
        if (o.dbias.base) check_gradient(o.bias, o.dbias, loss, &d, 1e-3, "bias");
        op_free(&o);
        if (i >= 0) mm_backend_close(be);
    }
    mm_backend_close(plain);
}

// ---- convolution ----

static struct mm_view taps(struct op *o, struct tens w) {
    return mm_view2(w.base, mm_dtype_f32, o->x.v.shape[2], o->width);
}

static struct mm_view conv_state(struct op *o) {
    if (!o->option) return MM_NONE;
    return mm_view3(o->state.base, mm_dtype_f32, o->seqs.n, o->width - 1, o->x.v.shape[2]);
}

static void conv_fwd(struct mm_backend *be, struct op *o) {
    be->ops->conv_silu_fwd(be, flat(o->y), flat(o->x), taps(o, o->w), vector(o->bias),
                           conv_state(o), segs_of(&o->seqs));
}

static void conv_bwd(struct mm_backend *be, struct op *o) {
    be->ops->conv_silu_bwd(be, flat(o->dx), taps(o, o->dw), vector(o->dbias), flat(o->dy),
                           flat(o->x), taps(o, o->w), vector(o->bias), segs_of(&o->seqs));
}

// Sequences of 1, 2, 3, ... tokens, an empty one, and the rest.
static struct op conv_new(int64_t rows, int64_t h, int64_t p, int64_t width, bool option) {
    const int64_t n = h * p;
    struct mm_rng rng = mm_rng_make(21, (uint64_t)rows);
    struct op o = {.h = h, .p = p, .width = width, .option = option, .fwd = conv_fwd};
    int lengths[max_seqs], n_seqs = 0;
    for (int64_t left = rows; left > 0; n_seqs++) {
        lengths[n_seqs] = n_seqs < 6 && n_seqs + 1 < left ? n_seqs + 1 : (int)left;
        if (n_seqs == 3) lengths[n_seqs] = 0;
        left -= lengths[n_seqs];
    }
    pack_lengths(&o.seqs, lengths, n_seqs);
    o.bwd = conv_bwd;
    o.x = tens_new(rows, 1, n, 3), o.y = tens_new(rows, 1, n, 1);
    o.dx = tens_new(rows, 1, n, 2), o.dy = tens_new(rows, 1, n, 0);
    o.w = tens_new(1, n, width, 0), o.dw = tens_new(1, n, width, 0);
    o.bias = tens_new(1, n, 1, 0), o.dbias = tens_new(1, n, 1, 0);
    if (option) o.state = tens_new(n_seqs, width - 1, n, 0);
    tens_normal(o.x, &rng, 1.0), tens_normal(o.dy, &rng, 1.0);
    tens_normal(o.w, &rng, 0.7), tens_normal(o.bias, &rng, 0.5);
    if (option) tens_normal(o.state, &rng, 1.0);
    return o;
}

static void convolution(void **state) {
    (void)state;
    const int64_t rows[] = {1, 2, 7, 63, 130, 1100};
    for (size_t i = 0; i < sizeof rows / sizeof *rows; i++) {
        for (int64_t width = 1; width <= 5; width++) {
            compare(conv_new, rows[i], 1, width == 2 ? 300 : 37, width, false);
            compare(conv_new, rows[i], 1, 16, width, true);
        }
    }
    compare(conv_new, 60, 1, 5, 20, true);  // wider than the fast path goes
    for (int64_t width = 1; width <= 4; width++) {
        differences(conv_new, 14, 1, 5, width, false);
    }
}

// One sequence in pieces of every size, and token by token.
static void convolution_in_pieces(void **state) {
    (void)state;
    const int64_t rows = 130, n = 21, sizes[] = {0, 1, 2, 7, 64, 130};  // 0: stepping
    for (int64_t width = 1; width <= 4; width++) {
        for (int i = -1; i < n_fast_isas(); i++) {
            struct mm_backend *be = open_isa(fast_isa(i), 2);
            struct op want = conv_new(rows, 1, n, width, true);
            pack_lengths(&want.seqs, (int[]){(int)rows}, 1);
            fwd(be, &want);
            for (size_t j = 0; j < sizeof sizes / sizeof *sizes; j++) {
                struct op got = conv_new(rows, 1, n, width, true);
                const int64_t size = sizes[j] ? sizes[j] : 1;
                for (int64_t t = 0; t < rows; t += size) {
                    const int64_t m = rows - t < size ? rows - t : size;
                    pack_lengths(&got.seqs, (int[]){(int)m}, 1);
                    const struct mm_view y = mm_view_rows(flat(got.y), t, m);
                    const struct mm_view x = mm_view_rows(flat(got.x), t, m);
                    if (sizes[j]) {
                        be->ops->conv_silu_fwd(be, y, x, taps(&got, got.w), vector(got.bias),
                                               conv_state(&got), segs_of(&got.seqs));
                    } else {
                        be->ops->conv_silu_step(be, y, x, taps(&got, got.w), vector(got.bias),
                                                conv_state(&got));
                    }
                }
                check_same_bits(got.y, want.y, "y in pieces");
                check_same_bits(got.state, want.state, "state in pieces");
                op_free(&got);
            }
            op_free(&want);
            mm_backend_close(be);
        }
    }
}

// ---- LayerNorm of a head ----

static void head_norm_fwd(struct mm_backend *be, struct op *o) {
    be->ops->head_norm_fwd(be, o->y.v, flat(o->stats), o->x.v, vector(o->w), vector(o->bias),
                           1e-5f);
}

static void head_norm_bwd(struct mm_backend *be, struct op *o) {
    be->ops->head_norm_bwd(be, o->dx.v, vector(o->dw), vector(o->dbias), o->dy.v, o->x.v,
                           vector(o->w), flat(o->stats));
}

static struct op head_norm_new(int64_t rows, int64_t h, int64_t p, int64_t width, bool option) {
    struct mm_rng rng = mm_rng_make(22, (uint64_t)rows);
    struct op o = {.h = h, .p = p, .width = width, .option = option, .fwd = head_norm_fwd};
    o.bwd = head_norm_bwd;
    o.x = tens_new(rows, h, p, 3), o.y = tens_new(rows, h, p, 1);
    o.dx = tens_new(rows, h, p, 2), o.dy = tens_new(rows, h, p, 4);
    o.stats = tens_new(rows, h, 2, 0);
    o.w = tens_new(1, p, 1, 0), o.dw = tens_new(1, p, 1, 0);
    o.bias = tens_new(1, p, 1, 0), o.dbias = tens_new(1, p, 1, 0);
    tens_normal(o.x, &rng, 1.0), tens_normal(o.dy, &rng, 1.0);
    tens_normal(o.w, &rng, 1.0), tens_normal(o.bias, &rng, 1.0);
    return o;
}

static void head_norm(void **state) {
    (void)state;
    compare(head_norm_new, 1, 1, 5, 0, false);
    compare(head_norm_new, 77, 3, 7, 0, false);
    compare(head_norm_new, 1100, 2, 64, 0, false);
    compare(head_norm_new, 30, 2, 131, 0, false);
    differences(head_norm_new, 5, 3, 7, 0, false);
}

// ---- softplus ----

static void softplus_fwd(struct mm_backend *be, struct op *o) {
    be->ops->softplus_fwd(be, flat(o->y), flat(o->x), vector(o->bias));
}

static void softplus_bwd(struct mm_backend *be, struct op *o) {
    be->ops->softplus_bwd(be, flat(o->dx), vector(o->dbias), flat(o->dy), flat(o->x),
                          vector(o->bias));
}

static struct op softplus_new(int64_t rows, int64_t h, int64_t p, int64_t width, bool option) {
    struct mm_rng rng = mm_rng_make(23, (uint64_t)rows);
    struct op o = {.h = h, .p = p, .width = width, .option = option, .fwd = softplus_fwd};
    o.bwd = softplus_bwd;
    o.x = tens_new(rows, 1, h, 7), o.y = tens_new(rows, 1, h, 0);
    o.dx = tens_new(rows, 1, h, 2), o.dy = tens_new(rows, 1, h, 0);
    o.bias = tens_new(1, h, 1, 0), o.dbias = tens_new(1, h, 1, 0);
    tens_normal(o.x, &rng, option ? 40.0 : 2.0), tens_normal(o.dy, &rng, 1.0);
    tens_normal(o.bias, &rng, 1.0);
    return o;
}

static void softplus(void **state) {
    (void)state;
    compare(softplus_new, 1, 1, 1, 0, false);
    compare(softplus_new, 1100, 5, 1, 0, false);
    compare(softplus_new, 70, 33, 1, 0, true);
    differences(softplus_new, 6, 5, 1, 0, false);
}

// ---- gated norm ----

static void gated_norm_fwd(struct mm_backend *be, struct op *o) {
    be->ops->gated_norm_fwd(be, o->y.v, o->option ? flat(o->stats) : MM_NONE, o->x.v, flat(o->g),
                            o->option ? vector(o->w) : MM_NONE, 1e-5f);
}

static void gated_norm_bwd(struct mm_backend *be, struct op *o) {
    be->ops->gated_norm_bwd(be, o->dx.v, flat(o->dg), o->option ? vector(o->dw) : MM_NONE, o->dy.v,
                            o->x.v, flat(o->g), o->option ? vector(o->w) : MM_NONE,
                            o->option ? flat(o->stats) : MM_NONE);
}

static struct op gated_norm_new(int64_t rows, int64_t h, int64_t p, int64_t width, bool option) {
    struct mm_rng rng = mm_rng_make(24, (uint64_t)rows);
    struct op o = {.h = h, .p = p, .width = width, .option = option, .fwd = gated_norm_fwd};
    o.bwd = gated_norm_bwd;
    o.x = tens_new(rows, h, p, 3), o.y = tens_new(rows, h, p, 1);
    o.dx = tens_new(rows, h, p, 2), o.dy = tens_new(rows, h, p, 4);
    o.g = tens_new(rows, 1, h * p, 5), o.dg = tens_new(rows, 1, h * p, 6);
    tens_normal(o.x, &rng, 1.0), tens_normal(o.dy, &rng, 1.0), tens_normal(o.g, &rng, 2.0);
    if (!option) return o;
    o.stats = tens_new(rows, 1, h, 0);
    o.w = tens_new(1, p, 1, 0), o.dw = tens_new(1, p, 1, 0);
    tens_normal(o.w, &rng, 1.0);
    return o;
}

static void gated_norm(void **state) {
    (void)state;
    for (int option = 0; option < 2; option++) {
        compare(gated_norm_new, 1, 1, 3, 0, option);
        compare(gated_norm_new, 77, 3, 7, 0, option);
        compare(gated_norm_new, 1100, 2, 64, 0, option);
        compare(gated_norm_new, 30, 2, 131, 0, option);
        differences(gated_norm_new, 5, 3, 7, 0, option);
    }
}

// dx may be dy, y may be x, dy may be d_o.
static void in_place(void **state) {
    (void)state;
    for (int i = -1; i < n_fast_isas(); i++) {
        struct mm_backend *be = open_isa(fast_isa(i), 2);
        make_fn *const makes[] = {head_norm_new, gated_norm_new};
        for (int m = 0; m < 2; m++) {
            struct op apart = makes[m](70, 3, 19, 0, true), same = makes[m](70, 3, 19, 0, true);
            fwd(be, &apart), fwd(be, &same);
            bwd(be, &apart);
            free(same.dx.base);
            same.dx = same.dy;
            bwd(be, &same);
            check_close(same.dx, apart.dx, 1e-7, "dx in place of dy");
            check_close(same.dw, apart.dw, 1e-7, "dw");
            same.dx.base = NULL;
            op_free(&apart), op_free(&same);
        }
        struct op apart = head_norm_new(70, 3, 19, 0, true), same = head_norm_new(70, 3, 19, 0, 1);
        fwd(be, &apart);
        free(same.y.base);
        same.y = same.x;
        fwd(be, &same);
        check_close(same.y, apart.y, 1e-7, "y in place of x");
        same.y.base = NULL;
        op_free(&apart), op_free(&same);
        mm_backend_close(be);
    }
}

// ---- exp and its kin ----

// Error in units of the last place of the true value.
static double ulps(float got, double want) {
    int e;
    frexp(want, &e);
    return fabs((double)got - want) / ldexp(1.0, e < -125 ? -149 : e - 24);
}

static void exponentials(void **state) {
    (void)state;
    double worst[4] = {0};
    // Every 997th float in [-104, 128), both signs.
    for (uint32_t bits = 0; bits <= 0xc2d00000u; bits += 997) {
        if (bits > 0x43000000u && bits < 0x80000000u) bits = 0x80000000u;
        const float x = mm_v_from_bits((int32_t)bits);
        const double e = exp((double)x), s = 1.0 / (1.0 + exp(-(double)x));
        const double large = 3.4028234e38;
        if (e <= large) worst[0] = fmax(worst[0], ulps(mm_v_exp(x), e));
        // Below -87 the exponential of -x is infinite, and these are 0 instead of 1e-38.
        if (x > -87.0f) worst[1] = fmax(worst[1], ulps(mm_v_sigmoid(x), s));
        if (x > -80.0f) worst[2] = fmax(worst[2], ulps(mm_v_silu(x), (double)x * s));
        const double sp = fmax((double)x, 0.0) + log1p(exp(-fabs((double)x)));
        worst[3] = fmax(worst[3], ulps(mm_v_softplus(x), sp));
    }
    assert_true(worst[0] < 1.5);
    assert_true(worst[1] < 3.0);
    assert_true(worst[2] < 3.0);
    assert_true(worst[3] < 3.0);
    double decay = 0.0;
    for (float x = -79.99f; x <= 0.0f; x += 1e-4f) {
        decay = fmax(decay, ulps(mm_v_decay(x), exp((double)x)));
    }
    assert_true(decay < 1.5);
    assert_true(mm_v_decay(0.0f) == 1.0f && mm_v_decay(3.0f) == 1.0f);
    assert_true(mm_v_decay(-80.0f) == 0.0f && mm_v_decay(-1e30f) == 0.0f);
    assert_true(isnan(mm_v_exp(NAN)) && isnan(mm_v_softplus(NAN)) && isnan(mm_v_silu(NAN)));
    assert_true(mm_v_exp(INFINITY) == INFINITY && mm_v_exp(-INFINITY) == 0.0f);
    assert_true(mm_v_exp(0.0f) == 1.0f && mm_v_sigmoid(0.0f) == 0.5f);
    assert_true(mm_v_sigmoid(-1e30f) == 0.0f && mm_v_sigmoid(1e30f) == 1.0f);
    assert_true(mm_v_softplus(1e30f) == 1e30f && mm_v_softplus(-1e30f) == 0.0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(convolution), cmocka_unit_test(convolution_in_pieces),
        cmocka_unit_test(head_norm),   cmocka_unit_test(softplus),
        cmocka_unit_test(gated_norm),  cmocka_unit_test(in_place),
        cmocka_unit_test(exponentials)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
