// Operations on activations of bf16, mixed with f32 operand by operand: against the reference on
// the same values. Only a backend that takes them (the GPU) is asked.
#include "halves_help.h"

static void elements(struct world *w, int64_t rows, int64_t cols) {
    const struct out a = act_in(w, rows, cols, 1.0), b = act_in(w, rows, cols, 1.0);
    const struct out sum = act_out(w, rows, cols);
    const struct out full = act_out(w, rows, cols), same = act_out(w, rows, cols);
    struct out in_place = act_in(w, rows, cols, 1.0);
    for (int k = 0; k < 2; k++) {
        mm_add(w->be[k], sum.v[k], a.v[k], b.v[k]);
        mm_fill(w->be[k], full.v[k], 1.25f);
        mm_copy(w->be[k], same.v[k], a.v[k]);
        mm_add(w->be[k], in_place.v[k], in_place.v[k], b.v[k]);
        mm_scale(w->be[k], in_place.v[k], in_place.v[k], 0.5f);
    }
    expect_halves("add", sum, tol_pointwise);
    expect_halves("fill", full, tol_exact);
    expect_halves("copy", same, tol_exact);
    expect_halves("add and scale in place", in_place, tol_pointwise);
}

static void rows_moved(struct world *w, int64_t rows, int64_t cols) {
    const struct out x = act_in(w, rows, cols, 1.0);
    const struct mm_view any = random_ids(w, rows + 3, 0, (int32_t)rows);
    const struct mm_view ids = random_ids(w, rows, -1, 11);
    const struct mm_view once = random_ids(w, rows, 0, 1);
    for (int64_t i = 0; i < rows; i++)
        ((int32_t *)once.data)[i] = (int32_t)(rows + 2 - i);
    const struct mm_view table = random_view(w, mm_dtype_bf16, 11, cols, 0, 1.0);
    const struct out dtable = accumulating(w, 11, cols, 0);
    const struct out embedded = act_out(w, rows, cols);
    struct out gathered, scattered;
    for (int k = 0; k < 2; k++) {
        gathered.v[k] = make(w, x.v[k].dtype, rows + 3, cols, 0);
        scattered.v[k] = make(w, x.v[k].dtype, rows + 3, cols, 0);
        mm_fill(w->be[k], scattered.v[k], 0.25f);
        mm_gather_rows(w->be[k], gathered.v[k], x.v[k], any);
        mm_scatter_rows(w->be[k], scattered.v[k], x.v[k], once);
        mm_embed_fwd(w->be[k], embedded.v[k], table, ids);
        mm_embed_bwd(w->be[k], dtable.v[k], x.v[k], ids);
    }
    expect_close("gather_rows", gathered, tol_exact);
    expect_close("scatter_rows", scattered, tol_exact);
    expect_close("embed_fwd", embedded, tol_exact);
    expect_close("embed_bwd", dtable, tol_exact);
}

static void pictures(struct world *w, int64_t rows, int64_t cols) {
    const int64_t grid = 4, patch = 3, side = grid * patch, tiles = 1 + rows % 2;
    const struct mm_view pixels =
        mm_view4(random_view(w, mm_dtype_f32, tiles, 3 * side * side, 0, 1.0).data, mm_dtype_f32,
                 tiles, 3, side, side);
    const struct out patches = act_out(w, tiles * grid * grid, 3 * patch * patch);
    const struct out x = act_in(w, tiles * grid * grid, cols, 1.0);
    const struct mm_view e = random_view(w, mm_dtype_bf16, grid * grid, cols, 0, 1.0);
    const struct out placed = act_out(w, tiles * grid * grid, cols);
    const struct out de = accumulating(w, grid * grid, cols, 0);
    const struct out shuffled = act_out(w, tiles * grid * grid / 4, 4 * cols);
    const struct out back = act_out(w, tiles * grid * grid, cols);
    for (int k = 0; k < 2; k++) {
        mm_patchify(w->be[k], patches.v[k], pixels, patch);
        mm_add_position_fwd(w->be[k], placed.v[k], x.v[k], e);
        mm_add_position_bwd(w->be[k], de.v[k], x.v[k]);
        mm_pixel_shuffle_fwd(w->be[k], shuffled.v[k], x.v[k], grid);
        mm_pixel_shuffle_bwd(w->be[k], back.v[k], shuffled.v[k], grid);
    }
    expect_halves("patchify", patches, tol_exact);
    expect_halves("add_position_fwd", placed, tol_pointwise);
    expect_halves("add_position_bwd", de, tol_sum);
    expect_halves("pixel_shuffle_fwd", shuffled, tol_exact);
    expect_halves("pixel_shuffle_bwd", back, tol_exact);
}

static void dense(struct world *w, int64_t rows, int64_t cols) {
    const int64_t n = 2 * cols - 7;
    for (int t = 0; t < 2; t++) {
        const enum mm_dtype type = t ? mm_dtype_bf16 : mm_dtype_f32;
        const double round = t ? tol_bf16_exact : tol_sum;
        struct mm_view weight = make(w, type, n, cols, 0);
        randomize(w, weight, 1.0, true);
        struct mm_view bias = full_vector(w, n, 1.0);
        const struct out x = act_in(w, rows, cols, 1.0), dy = act_in(w, rows, n, 1.0);
        const struct out y = act_out(w, rows, n), dx = act_out(w, rows, cols);
        const struct out more = act_in(w, rows, cols, 1.0);
        const struct out onto = act_in(w, rows, n, 1.0), added = act_out(w, rows, n);
        const struct out dw = accumulating(w, n, cols, 0), db = accumulating_vector(w, n);
        for (int k = 0; k < 2; k++) {
            mm_linear_fwd(w->be[k], y.v[k], x.v[k], weight, bias);
            mm_linear_add_fwd(w->be[k], added.v[k], x.v[k], weight, onto.v[k]);
            mm_linear_bwd_x(w->be[k], dx.v[k], dy.v[k], weight, false);
            mm_linear_bwd_x(w->be[k], more.v[k], dy.v[k], weight, true);
            mm_linear_bwd_w(w->be[k], dw.v[k], db.v[k], dy.v[k], x.v[k], type);
        }
        expect_halves("linear_fwd", y, tol_halves + round);  // rounded, then the bias, rounded
        expect_halves("linear_add_fwd", added, tol_halves + round);
        expect_halves("linear_bwd_x", dx, round);
        expect_halves("linear_bwd_x added", more, round);
        expect_close("linear_bwd_w", dw, round);
        expect_close("linear_bwd_w bias", db, tol_sum);
    }
}

// Codes are widened to bf16 and rows are not rounded to codes: the reference's own rounding of rows
// is the larger part of the difference.
static void widened(struct world *w, int64_t rows, int64_t cols) {
    const int64_t n = 2 * cols - 7;
    for (int t = 0; t < 2; t++) {
        const enum mm_dtype type = t ? mm_dtype_q4 : mm_dtype_q8;
        const struct mm_view plain = random_view(w, mm_dtype_f32, n, cols, 0, 1.0);
        struct mm_view weight = make(w, mm_dtype_u8, n, mm_quant_row_bytes(type, cols), 0);
        weight = mm_view2(weight.data, type, n, cols);
        for (int64_t r = 0; r < n; r++) {
            assert_true(mm_quantize_row(mm_view_at(weight, r, 0), type, mm_view_at(plain, r, 0),
                                        NULL, cols));
        }
        const struct out x = act_in(w, rows, cols, 1.0), y = act_out(w, rows, n);
        for (int k = 0; k < 2; k++)
            mm_linear_fwd(w->be[k], y.v[k], x.v[k], weight, MM_NONE);
        expect_halves("linear_fwd with codes", y, tol_step_quantized);
    }
}

// Sizes of which the tensor cores take the most and leave a rest.
static void test_rests(void **state) {
    (void)state;
    if (!testing_cuda()) {
        skip();
        return;
    }
    struct world w;
    world_open(&w, mm_isa_best(), 1);
    w.be[0]->activations = mm_dtype_bf16;
    const int64_t T = 67, N = 1029, K = 1035;
    for (int i = 0; i < 4; i++) {
        const struct mm_view weight = make(&w, mm_dtype_bf16, N, K, 5);
        randomize(&w, weight, 1.0, true);
        const struct out x = act_in(&w, T, K, 1.0), dy = act_in(&w, T, N, 1.0);
        const struct out onto = act_in(&w, T, N, 1.0), y = act_out(&w, T, N);
        const struct out added = act_out(&w, T, N), dx = act_out(&w, T, K);
        const struct out more = act_in(&w, T, K, 1.0), dw = accumulating(&w, N, K, 3);
        for (int k = 0; k < 2; k++) {
            mm_linear_fwd(w.be[k], y.v[k], x.v[k], weight, MM_NONE);
            mm_linear_add_fwd(w.be[k], added.v[k], x.v[k], weight, onto.v[k]);
            mm_linear_bwd_x(w.be[k], dx.v[k], dy.v[k], weight, false);
            mm_linear_bwd_x(w.be[k], more.v[k], dy.v[k], weight, true);
            mm_linear_bwd_w(w.be[k], dw.v[k], MM_NONE, dy.v[k], x.v[k], mm_dtype_bf16);
        }
        expect_halves("linear_fwd", y, tol_halves + tol_bf16_exact);
        expect_halves("linear_add_fwd", added, tol_halves + tol_bf16_exact);
        expect_halves("linear_bwd_x", dx, tol_halves + tol_bf16_exact);
        expect_halves("linear_bwd_x added", more, tol_halves + tol_bf16_exact);
        expect_close("linear_bwd_w", dw, tol_bf16_exact);
        world_clear(&w);
    }
    world_close(&w);
}

static void norms(struct world *w, int64_t rows, int64_t cols) {
    const struct out x = act_in(w, rows, cols, 2.0), dy = act_in(w, rows, cols, 1.0);
    const struct mm_view weight = full_vector(w, cols, 1.0);
    const struct out y = act_out(w, rows, cols), rinv = poisoned_vector(w, rows);
    const struct out dx = act_out(w, rows, cols), dw = accumulating_vector(w, cols);
    const struct out unit = act_out(w, rows, cols), length = poisoned_vector(w, rows);
    const struct out dunit = act_out(w, rows, cols);
    const struct out in_place = act_in(w, rows, cols, 1.0);
    for (int k = 0; k < 2; k++) {
        mm_rmsnorm_fwd(w->be[k], y.v[k], rinv.v[k], x.v[k], weight, 1e-5f);
        mm_l2norm_fwd(w->be[k], unit.v[k], length.v[k], x.v[k]);
    }
    for (int k = 0; k < 2; k++) {
        mm_rmsnorm_bwd(w->be[k], dx.v[k], dw.v[k], dy.v[k], x.v[k], weight, rinv.v[1]);
        mm_rmsnorm_bwd(w->be[k], in_place.v[k], MM_NONE, in_place.v[k], x.v[k], weight, rinv.v[1]);
        mm_l2norm_bwd(w->be[k], dunit.v[k], dy.v[k], x.v[k], length.v[1]);
    }
    expect_halves("rmsnorm_fwd", y, tol_sum);
    expect_close("rmsnorm_fwd rinv", rinv, tol_sum);
    expect_halves("rmsnorm_bwd", dx, tol_sum);
    expect_halves("rmsnorm_bwd in place", in_place, tol_sum);
    expect_close("rmsnorm_bwd dw", dw, tol_sum);
    expect_halves("l2norm_fwd", unit, tol_sum);
    expect_close("l2norm_fwd rinv", length, tol_sum);
    expect_halves("l2norm_bwd", dunit, tol_sum);
}

static void pointwise(struct world *w, int64_t rows, int64_t cols) {
    const struct out a = act_in(w, rows, cols, 2.0), b = act_in(w, rows, cols, 2.0);
    const struct out dy = act_in(w, rows, cols, 1.0), y = act_out(w, rows, cols);
    const struct out u = act_out(w, rows, cols), du = act_out(w, rows, cols);
    const struct out da = act_in(w, rows, cols, 2.0), db = act_in(w, rows, cols, 2.0);
    const struct mm_view bias = full_vector(w, cols, 1.0);
    const struct out dt = poisoned(w, rows, cols, 0), dpre = act_out(w, rows, cols);
    const struct out ddt = full_in(w, rows, cols, 1.0), dbias = accumulating_vector(w, cols);
    for (int k = 0; k < 2; k++) {
        mm_swiglu_fwd(w->be[k], y.v[k], a.v[k], b.v[k]);
        mm_swiglu_bwd(w->be[k], da.v[k], db.v[k], dy.v[k], da.v[k], db.v[k]);
        mm_gelu_fwd(w->be[k], u.v[k], a.v[k]);
        mm_gelu_bwd(w->be[k], du.v[k], dy.v[k], a.v[k]);
        mm_softplus_fwd(w->be[k], dt.v[k], a.v[k], bias);
        mm_softplus_bwd(w->be[k], dpre.v[k], dbias.v[k], ddt.v[k], a.v[k], bias);
    }
    expect_halves("swiglu_fwd", y, tol_pointwise);
    expect_halves("swiglu_bwd da", da, tol_pointwise);
    expect_halves("swiglu_bwd db", db, tol_pointwise);
    expect_halves("gelu_fwd", u, tol_pointwise);
    expect_halves("gelu_bwd", du, tol_pointwise);
    expect_close("softplus_fwd", dt, tol_pointwise);
    expect_halves("softplus_bwd", dpre, tol_pointwise);
    expect_close("softplus_bwd dbias", dbias, tol_sum);
}

static void losses(struct world *w, int64_t rows, int64_t cols) {
    const struct out s = act_in(w, rows, cols, 2.0), t = act_in(w, rows, cols, 2.0);
    const struct mm_view weight = full_vector(w, rows, 1.0);
    const struct mm_view target = random_ids(w, rows, 0, (int32_t)cols);
    const struct out kl = poisoned_vector(w, rows), ce = poisoned_vector(w, rows);
    const struct out dkl = act_out(w, rows, cols), dce = act_out(w, rows, cols);
    const struct out mse = accumulating_vector(w, 1), dmse = act_out(w, rows, cols);
    for (int k = 0; k < 2; k++) {
        mm_kl(w->be[k], kl.v[k], dkl.v[k], s.v[k], t.v[k], weight);
        mm_cross_entropy(w->be[k], ce.v[k], dce.v[k], s.v[k], target, weight);
        mm_mse(w->be[k], mse.v[k], dmse.v[k], s.v[k], t.v[k], 0.3f);
    }
    expect_close("kl", kl, tol_sum);
    expect_halves("kl dlogits", dkl, tol_sum);
    expect_close("cross_entropy", ce, tol_sum);
    expect_halves("cross_entropy dlogits", dce, tol_sum);
    expect_close("mse", mse, tol_sum);
    expect_halves("mse dy", dmse, tol_pointwise);
}

#define TEST_OF(name)                       \
    static void test_##name(void **state) { \
        (void)state;                        \
        for_sizes(name);                    \
    }
TEST_OF(elements)
TEST_OF(rows_moved)
TEST_OF(pictures)
TEST_OF(dense)
TEST_OF(widened)
TEST_OF(norms)
TEST_OF(pointwise)
TEST_OF(losses)

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elements), cmocka_unit_test(test_rows_moved),
        cmocka_unit_test(test_pictures), cmocka_unit_test(test_dense),
        cmocka_unit_test(test_widened),  cmocka_unit_test(test_rests),
        cmocka_unit_test(test_norms),    cmocka_unit_test(test_pointwise),
        cmocka_unit_test(test_losses),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
