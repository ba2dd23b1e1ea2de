// Losses, gradient norm and AdamW: fast against reference.
#include "ops_test.h"

static const int64_t lengths[] = {1, 2, 7, 65, 200};
static const int64_t widths[] = {1, 5, 33, 96, 2051};

static void kl_and_entropy(struct world *w, int64_t rows, int64_t cols, int64_t pad) {
    const struct mm_view s = random_view(w, mm_dtype_f32, rows, cols, pad, 3.0);
    const struct mm_view t = random_view(w, mm_dtype_f32, rows, cols, 2 * pad, 3.0);
    const struct mm_view weight = random_vector(w, mm_dtype_f32, rows, 1.0);
    const struct mm_view target = random_ids(w, rows, 0, (int32_t)cols);
    if (rows > 1) {  // a row that does not count may hold anything
        put(weight, 1, 0, 0.0f), put(s, 1, 0, NAN);
        ((int32_t *)target.data)[1] = -100;
    }
    const struct out kl = poisoned_vector(w, rows), ce = poisoned_vector(w, rows);
    const struct out bare = poisoned_vector(w, rows), bare_ce = poisoned_vector(w, rows);
    const struct out ds = poisoned(w, rows, cols, pad), in_place = copies(w, s, pad);
    const struct out dc = copies(w, s, pad);
    for (int k = 0; k < 2; k++) {
        mm_kl(w->be[k], kl.v[k], ds.v[k], s, t, weight);
        mm_kl(w->be[k], bare.v[k], MM_NONE, s, t, weight);
        mm_kl(w->be[k], bare.v[k], in_place.v[k], in_place.v[k], t, weight);
        mm_cross_entropy(w->be[k], bare_ce.v[k], MM_NONE, s, target, weight);
        mm_cross_entropy(w->be[k], ce.v[k], dc.v[k], dc.v[k], target, weight);
    }
    if (rows > 1) assert_true(get(kl.v[0], 1, 0) == 0.0f && get(ds.v[0], 1, cols - 1) == 0.0f);
    if (cols == 1) {  // one word: no doubt, no loss
        for (int64_t r = 0; r < rows; r++) {
            assert_true(fabsf(get(kl.v[0], r, 0)) < 1e-5f && fabsf(get(ce.v[0], r, 0)) < 1e-5f);
            assert_true(fabsf(get(ds.v[0], r, 0)) < 1e-6f && fabsf(get(dc.v[0], r, 0)) < 1e-6f);
        }
        return;
    }
    expect_close("kl", kl, tol_sum);
    expect_close("kl without gradient", bare, tol_sum);
    expect_close("kl gradient", ds, tol_sum);
    expect_close("kl in place", in_place, tol_sum);
    expect_close("cross_entropy", ce, tol_sum);
    expect_close("cross_entropy without gradient", bare_ce, tol_sum);
    expect_close("cross_entropy gradient in place", dc, tol_sum);
}

static void squares(struct world *w, int64_t rows, int64_t cols, int64_t pad) {
    const struct mm_view y = random_view(w, mm_dtype_f32, rows, cols, pad, 2.0);
    const struct mm_view t = random_view(w, mm_dtype_f32, rows, cols, 0, 2.0);
    const struct out loss = accumulating_vector(w, 1), bare = accumulating_vector(w, 1);
    const struct out dy = poisoned(w, rows, cols, pad), sum = accumulating_vector(w, 1);
    for (int k = 0; k < 2; k++) {
        mm_mse(w->be[k], loss.v[k], dy.v[k], y, t, 0.37f);
        mm_mse(w->be[k], bare.v[k], MM_NONE, y, t, 0.37f);
        mm_sum_squares(w->be[k], sum.v[k], y);
    }
    expect_close("mse", loss, tol_pointwise);
    expect_close("mse without gradient", bare, tol_pointwise);
    expect_close("mse gradient", dy, tol_pointwise);
    expect_close("sum_squares", sum, tol_pointwise);
}

static void optimizer(struct world *w, int64_t rows, int64_t cols, int64_t pad) {
    const struct mm_view p = random_view(w, mm_dtype_f32, rows, cols, 0, 1.0);
    const struct mm_view g = random_view(w, mm_dtype_f32, rows, cols, pad, 1.0);
    const struct mm_view moment = random_view(w, mm_dtype_f32, rows, cols, 0, 0.1);
    const struct out weight = copies(w, p, pad), m = copies(w, moment, pad);
    struct out v = copies(w, moment, pad);
    for (int64_t r = 0; r < rows; r++) {
        for (int64_t c = 0; c < cols; c++) {
            const float x = get(moment, r, c);
            put(v.v[0], r, c, x * x), put(v.v[1], r, c, x * x);
        }
    }
    const struct mm_adamw h = {.lr = 3e-3f,
                               .b1 = 0.9f,
                               .b2 = 0.99f,
                               .eps = 1e-8f,
                               .decay = 0.05f,
                               .bias1 = 0.19f,
                               .bias2 = 0.0199f,
                               .grad_scale = 0.5f};
    for (int k = 0; k < 2; k++) {
        for (int step = 0; step < 3; step++) {
            mm_adamw(w->be[k], weight.v[k], m.v[k], v.v[k], g, h);
        }
    }
    expect_close("adamw w", weight, tol_pointwise);
    expect_close("adamw m", m, tol_pointwise);
    expect_close("adamw v", v, tol_pointwise);
}

static void sweep(void (*test)(struct world *, int64_t rows, int64_t cols, int64_t pad)) {
    for (int isa = best_under_test(); isa > 0; isa--) {
        struct world w;
        world_open(&w, (enum mm_isa)isa, 2);
        for (int i = 0; i < 50; i++) {
            if (i % 5 > 2 && i / 5 % 5 == 4 && i < 25) continue;  // large and dense: one of them
            test(&w, lengths[i % 5], widths[i / 5 % 5], i / 25 ? 3 : 0);
            world_clear(&w);
        }
        world_close(&w);
    }
}

static void test_losses(void **state) {
    (void)state;
    sweep(kl_and_entropy);
}
static void test_squares(void **state) {
    (void)state;
    sweep(squares);
}
static void test_optimizer(void **state) {
    (void)state;
    sweep(optimizer);
}

// Two distributions that almost agree: the loss is far below the logits' own rounding.
static void test_small_kl(void **state) {
    (void)state;
    struct world w;
    world_open(&w, mm_isa_best(), 1);
    const struct mm_view t = random_view(&w, mm_dtype_f32, 3, 2048, 0, 3.0);
    const struct mm_view s = random_view(&w, mm_dtype_f32, 3, 2048, 0, 0.01);
    mm_add(w.be[0], s, s, t);
    for (int64_t c = 0; c < 2048; c++)
        put(s, 2, c, get(s, 2, c) + 40.0f);  // only a shift
    const struct mm_view weight = vector_of(make(&w, mm_dtype_f32, 3, 1, 0));
    mm_fill(w.be[0], weight, 1.0f);
    const struct out kl = poisoned_vector(&w, 3);
    for (int k = 0; k < 2; k++)
        mm_kl(w.be[k], kl.v[k], MM_NONE, s, t, weight);
    for (int64_t r = 0; r < 3; r++) {
        assert_true(get(kl.v[1], r, 0) > 1e-5f && get(kl.v[1], r, 0) < 2e-4f);
        assert_true(fabsf(get(kl.v[0], r, 0) - get(kl.v[1], r, 0)) < 3e-7f);
    }
    world_close(&w);
}

// The update of PyTorch's AdamW, worked by hand for one number: w 1, g 2, first step, lr 0.1,
// decay 0.5: w = 1 - 0.05 - 0.1 * 2 / (2 + 1e-8) = 0.85.
static void test_adamw_by_hand(void **state) {
    (void)state;
    struct world w;
    world_open(&w, mm_isa_best(), 1);
    for (int k = 0; k < 2; k++) {
        float x = 1.0f, m = 0.0f, v = 0.0f, g = 4.0f;
        const struct mm_adamw h = {0.1f, 0.9f, 0.999f, 1e-8f, 0.5f, 0.1f, 0.001f, 0.5f};
        mm_adamw(w.be[k], mm_view1(&x, mm_dtype_f32, 1), mm_view1(&m, mm_dtype_f32, 1),
                 mm_view1(&v, mm_dtype_f32, 1), mm_view1(&g, mm_dtype_f32, 1), h);
        assert_true(fabsf(x - 0.85f) < 1e-6f);
        assert_true(fabsf(m - 0.2f) < 1e-6f && fabsf(v - 0.004f) < 1e-6f);
    }
    world_close(&w);
}

static void test_threads_do_not_matter(void **state) {
    (void)state;
    struct world w;
    world_open(&w, mm_isa_best(), 1);
    for (int threads = 2; threads < 6; threads++) {
        struct mm_backend *many = open_isa(mm_isa_best(), threads);
        const struct mm_view x = random_view(&w, mm_dtype_f32, 301, 333, 0, 1.0);
        const struct mm_view t = random_view(&w, mm_dtype_f32, 301, 333, 3, 1.0);
        const struct mm_view weight = random_vector(&w, mm_dtype_f32, 333, 1.0);
        const struct out loss = accumulating_vector(&w, 1), sum = accumulating_vector(&w, 1);
        const struct out rinv = poisoned_vector(&w, 301), dw = accumulating_vector(&w, 333);
        const struct out y = poisoned(&w, 301, 333, 0), dx = poisoned(&w, 301, 333, 0);
        for (int k = 0; k < 2; k++) {
            struct mm_backend *be = k ? many : w.be[0];
            mm_mse(be, loss.v[k], MM_NONE, x, t, 1.0f);
            mm_sum_squares(be, sum.v[k], x);
            mm_rmsnorm_fwd(be, y.v[k], rinv.v[k], x, weight, 1e-6f);
            mm_rmsnorm_bwd(be, dx.v[k], dw.v[k], t, x, weight, rinv.v[k]);
        }
        expect_close("mse, threads", loss, tol_exact);
        expect_close("sum_squares, threads", sum, tol_exact);
        expect_close("rmsnorm dw, threads", dw, tol_exact);
        expect_close("rmsnorm dx, threads", dx, tol_exact);
        world_clear(&w);
        mm_backend_close(many);
    }
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_losses),        cmocka_unit_test(test_squares),
        cmocka_unit_test(test_optimizer),     cmocka_unit_test(test_small_kl),
        cmocka_unit_test(test_adamw_by_hand), cmocka_unit_test(test_threads_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
