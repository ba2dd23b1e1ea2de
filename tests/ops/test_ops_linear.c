// Dense products of every instruction set this processor has against the reference, and to the
// bit against themselves with other thread counts.
#include "ops_test.h"

static const int64_t sizes[][3] = {  // T, N, K
    {1, 1, 1},   {2, 3, 5},     {3, 31, 17},    {4, 65, 130},  {5, 7, 9},
    {7, 64, 33}, {65, 131, 77}, {130, 99, 257}, {33, 150, 320}};

static double tolerance_of(enum mm_dtype type) {
    return type == mm_dtype_bf16 ? tol_bf16_rounded : tol_sum;
}

static void forward(struct world *w, const int64_t *s, enum mm_dtype type, bool coarse,
                    bool with_bias, int64_t pad) {
    const struct mm_view x = make(w, mm_dtype_f32, s[0], s[2], pad);
    randomize(w, x, 1.0, coarse);
    const struct mm_view weight = random_view(w, type, s[1], s[2], pad, 1.0);
    const struct mm_view bias = with_bias ? random_vector(w, type, s[1], 1.0) : MM_NONE;
    const struct out y = poisoned(w, s[0], s[1], pad);
    for (int b = 0; b < 2; b++)
        mm_linear_fwd(w->be[b], y.v[b], x, weight, bias);
    // A GPU rounds x for a single row as well: relative to the terms, of which there may be one
    // that a bias nearly cancels.
    const double least = testing_cuda() && type == mm_dtype_bf16 ? sqrt((double)s[2]) : 0.0;
    expect_close_over("linear_fwd", y, coarse ? tol_bf16_exact : tolerance_of(type), least);
}

static void forward_added(struct world *w, const int64_t *s, enum mm_dtype type, bool coarse,
                          int64_t pad) {
    const struct mm_view x = make(w, mm_dtype_f32, s[0], s[2], pad);
    randomize(w, x, 1.0, coarse);
    const struct mm_view weight = random_view(w, type, s[1], s[2], pad, 1.0);
    const struct mm_view add = random_view(w, mm_dtype_f32, s[0], s[1], 2 * pad, 1.0);
    const struct out y = poisoned(w, s[0], s[1], pad);
    for (int b = 0; b < 2; b++)
        mm_linear_add_fwd(w->be[b], y.v[b], x, weight, add);
    const double least = testing_cuda() && type == mm_dtype_bf16 ? sqrt((double)s[2]) : 0.0;
    expect_close_over("linear_add_fwd", y, coarse ? tol_bf16_exact : tolerance_of(type), least);
}

static void backward_x(struct world *w, const int64_t *s, enum mm_dtype type, bool coarse,
                       bool accumulate, int64_t pad) {
    const struct mm_view dy = make(w, mm_dtype_f32, s[0], s[1], pad);
    randomize(w, dy, 1.0, coarse);
    const struct mm_view weight = random_view(w, type, s[1], s[2], pad, 1.0);
    const struct out dx =
        accumulate ? accumulating(w, s[0], s[2], pad) : poisoned(w, s[0], s[2], pad);
    for (int b = 0; b < 2; b++)
        mm_linear_bwd_x(w->be[b], dx.v[b], dy, weight, accumulate);
    expect_close("linear_bwd_x", dx, coarse ? tol_bf16_exact : tolerance_of(type));
}

static void backward_w(struct world *w, const int64_t *s, enum mm_dtype how, bool with_bias,
                       int64_t pad) {
    const struct mm_view x = random_view(w, mm_dtype_f32, s[0], s[2], pad, 1.0);
    const struct mm_view dy = random_view(w, mm_dtype_f32, s[0], s[1], pad, 1.0);
    const struct out dw = accumulating(w, s[1], s[2], pad);
    struct out dbias = {{MM_NONE, MM_NONE}};
    if (with_bias) dbias = accumulating_vector(w, s[1]);
    for (int b = 0; b < 2; b++)
        mm_linear_bwd_w(w->be[b], dw.v[b], dbias.v[b], dy, x, how);
    // Both round the operands to bf16, so the products agree.
    expect_close("linear_bwd_w", dw, how == mm_dtype_bf16 ? tol_bf16_exact : tol_sum);
    if (with_bias) expect_close("linear_bwd_w dbias", dbias, tol_sum);
}

// A quantized weight, guarded as the others are.
static struct mm_view quantized_view(struct world *w, enum mm_dtype type, int64_t n, int64_t k) {
    const int64_t row_bytes = mm_quant_row_bytes(type, k);
    struct mm_view v = make(w, mm_dtype_u8, n, row_bytes, 0);
    v = mm_view2(v.data, type, n, k);
    const struct mm_view plain = random_view(w, mm_dtype_f32, n, k, 0, 1.0);
    for (int64_t r = 0; r < n; r++)
        mm_quantize_row(mm_view_at(v, r, 0), type, mm_view_at(plain, r, 0), NULL, k);
    return v;
}

static void forward_quantized(struct world *w, const int64_t *s, enum mm_dtype type, bool with_bias,
                              int64_t pad) {
    const struct mm_view x = random_view(w, mm_dtype_f32, s[0], s[2], pad, 1.0);
    // A block of zeros, and one whose largest entry is negative.
    for (int64_t k = 0; k < s[2] && k < mm_quant_block; k++)
        put(x, 0, k, 0.0f);
    put(x, s[0] - 1, s[2] - 1, -9.0f);
    const struct mm_view weight = quantized_view(w, type, s[1], s[2]);
    const struct mm_view bias = with_bias ? random_vector(w, mm_dtype_bf16, s[1], 1.0) : MM_NONE;
    const struct out y = poisoned(w, s[0], s[1], pad);
    for (int b = 0; b < 2; b++)
        mm_linear_fwd(w->be[b], y.v[b], x, weight, bias);
    // Both round x the same way, so the inner sums are equal and only the outer one differs.
    expect_close("linear_fwd, quantized", y, tol_sum);
}

static void quantized_parity(void **state) {
    (void)state;
    const int64_t more[][3] = {{1, 5, 127},  {1, 9, 128},   {2, 17, 129},   {6, 33, 385},
                               {8, 70, 640}, {9, 130, 511}, {70, 45, 1000}, {3, 100, 2560}};
    for (int isa = best_under_test(); isa > 0; isa--) {
        struct world w;
        world_open(&w, (enum mm_isa)isa, 2);
        for (int v = 0; v < 4; v++) {
            const enum mm_dtype type = v % 2 ? mm_dtype_q4 : mm_dtype_q8;
            const bool odd = v / 2;
            for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
                forward_quantized(&w, sizes[i], type, odd, odd ? 3 : 0), world_clear(&w);
            for (size_t i = 0; i < sizeof more / sizeof *more; i++)
                forward_quantized(&w, more[i], type, odd, odd ? 3 : 0), world_clear(&w);
        }
        world_close(&w);
    }
}

// The reference against the definition written out in f32 numbers: rows and x as their codes
// stand for them.
static void quantized_reference(void **state) {
    (void)state;
    enum { t_dim = 3, n_dim = 7, k = 300, padded = 384 };
    struct world w;
    world_open(&w, mm_isa_best(), 1);
    for (int v = 0; v < 2; v++) {
        const enum mm_dtype type = v ? mm_dtype_q4 : mm_dtype_q8;
        const struct mm_view x = random_view(&w, mm_dtype_f32, t_dim, k, 0, 1.0);
        const struct mm_view weight = quantized_view(&w, type, n_dim, k);
        const struct out y = poisoned(&w, t_dim, n_dim, 0);
        mm_linear_fwd(w.be[1], y.v[1], x, weight, MM_NONE);
        for (int64_t t = 0; t < t_dim; t++) {
            int8_t a[padded];
            float r[padded / mm_quant_block], row[k];
            mm_quantize_x(a, r, mm_view_at(x, t, 0), k);
            for (int64_t n = 0; n < n_dim; n++) {
                double sum = 0.0;
                mm_dequantize_row(row, type, mm_view_at(weight, n, 0), k);
                for (int i = 0; i < k; i++)
                    sum += (double)row[i] * (double)r[i / mm_quant_block] * a[i];
                put(y.v[0], t, n, (float)sum);
            }
        }
        expect_close("quantized product", y, tol_sum);
        world_clear(&w);
    }
    world_close(&w);
}

static void parity(void **state) {
    (void)state;
    const enum mm_dtype types[] = {mm_dtype_f32, mm_dtype_bf16, mm_dtype_f16};
    for (int isa = best_under_test(); isa > 0; isa--) {
        struct world w;
        world_open(&w, (enum mm_isa)isa, 2);
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            for (int v = 0; v < 12; v++) {
                const enum mm_dtype type = types[v % 3];
                const bool odd = v / 3 % 2, coarse = v / 6;
                const int64_t pad = odd ? 3 : 0;
                forward(&w, sizes[i], type, coarse, odd, pad);
                forward_added(&w, sizes[i], type, coarse, pad);
                backward_x(&w, sizes[i], type, coarse, odd, pad);
                backward_w(&w, sizes[i], type == mm_dtype_f16 ? mm_dtype_f32 : type, odd, pad);
                world_clear(&w);
            }
        }
        world_close(&w);
    }
}

// A weight too large for one widened block, and rows wider than it.
static void wide_weights(void **state) {
    (void)state;
    const int64_t tall[3] = {5, 2100, 700}, deep[3] = {6, 70, 20000};
    for (int isa = best_under_test(); isa > 0; isa--) {
        struct world w;
        world_open(&w, (enum mm_isa)isa, 2);
        forward(&w, tall, mm_dtype_bf16, true, true, 0);
        backward_x(&w, tall, mm_dtype_f16, true, true, 1);
        forward(&w, deep, mm_dtype_f16, true, false, 0);
        forward_added(&w, deep, mm_dtype_bf16, true, 0);
        backward_x(&w, deep, mm_dtype_bf16, true, false, 0);
        world_close(&w);
    }
}

// More than one block of everything that products are cut into: rows, columns, passes over k.
static void many_blocks(void **state) {
    (void)state;
    const int64_t deep[3] = {140, 300, 2130}, tall[3] = {1100, 70, 40}, wide[3] = {17, 1130, 100};
    const int64_t deep_codes[3] = {140, 100, 4200};
    for (int isa = best_under_test(); isa > 0; isa--) {
        struct world w;
        world_open(&w, (enum mm_isa)isa, 2);
        for (int v = 0; v < 3; v++) {
            const int64_t *s = v == 0 ? deep : v == 1 ? tall : wide;
            forward(&w, s, mm_dtype_bf16, true, v == 1, v);
            backward_x(&w, s, mm_dtype_bf16, true, v == 1, v);
            backward_w(&w, s, mm_dtype_bf16, true, v);
            world_clear(&w);
            forward_quantized(&w, v == 0 ? deep_codes : s, mm_dtype_q8, v == 1, v);
            forward_quantized(&w, v == 0 ? deep_codes : s, mm_dtype_q4, v == 0, 0);
            world_clear(&w);
        }
        world_close(&w);
    }
}

// A result so large, and so placed, that it goes past the caches.
static void large_result(void **state) {
    (void)state;
    enum { t_dim = 2050, n_dim = 4112, k_dim = 5 };
    struct world w;
    world_open(&w, mm_isa_best(), 2);
    const enum mm_dtype types[] = {mm_dtype_bf16, mm_dtype_q8};
    for (int v = 0; v < 2; v++) {
        const struct mm_view x = make(&w, mm_dtype_f32, t_dim, k_dim, 0);
        randomize(&w, x, 1.0, true);
        const struct mm_view weight = v ? quantized_view(&w, types[v], n_dim, k_dim)
                                        : random_view(&w, types[v], n_dim, k_dim, 0, 1.0);
        struct out y = poisoned(&w, t_dim + 1, n_dim, 0);
        for (int b = 0; b < 2; b++) {
            y.v[b].data = (void *)(((uintptr_t)y.v[b].data + 63) / 64 * 64);
            y.v[b].shape[0] = t_dim;
            mm_linear_fwd(w.be[b], y.v[b], x, weight, MM_NONE);
        }
        expect_close("linear_fwd, large", y, tol_sum);
        world_clear(&w);
    }
    world_close(&w);
}

static void threads_do_not_matter(void **state) {
    (void)state;
    const int counts[] = {2, 3, 5};
    const enum mm_dtype types[] = {mm_dtype_f32, mm_dtype_bf16, mm_dtype_f16};
    struct world w;
    world_open(&w, mm_isa_best(), 1);
    for (size_t i = 0; i < sizeof counts / sizeof *counts; i++) {
        struct mm_backend *many = open_isa(mm_isa_best(), counts[i]);
        for (int v = 0; v < 6; v++) {
            const int64_t t = v / 3 ? 3 : 301, n = 260, k = 333;
            const enum mm_dtype type = types[v % 3];
            const enum mm_dtype how = type == mm_dtype_f16 ? mm_dtype_f32 : type;
            const struct mm_view x = random_view(&w, mm_dtype_f32, t, k, 0, 1.0);
            const struct mm_view weight = random_view(&w, type, n, k, 0, 1.0);
            const struct mm_view bias = random_vector(&w, type, n, 1.0);
            const struct out y = poisoned(&w, t, n, 0), dx = poisoned(&w, t, k, 0);
            const struct out dw = accumulating(&w, n, k, 0), db = accumulating_vector(&w, n);
            for (int b = 0; b < 2; b++) {
                struct mm_backend *be = b ? many : w.be[0];
                mm_linear_fwd(be, y.v[b], x, weight, bias);
                mm_linear_bwd_x(be, dx.v[b], y.v[0], weight, false);
                mm_linear_bwd_w(be, dw.v[b], db.v[b], y.v[0], x, how);
            }
            expect_close("linear_fwd, threads", y, tol_exact);
            expect_close("linear_bwd_x, threads", dx, tol_exact);
            expect_close("linear_bwd_w, threads", dw, tol_exact);
            expect_close("linear_bwd_w dbias, threads", db, tol_exact);
            world_clear(&w);
        }
        for (int v = 0; v < 4; v++) {
            const int64_t t = v / 2 ? 3 : 131, n = 260, k = 333;
            const struct mm_view x = random_view(&w, mm_dtype_f32, t, k, 0, 1.0);
            const struct mm_view q = quantized_view(&w, v % 2 ? mm_dtype_q4 : mm_dtype_q8, n, k);
            const struct out y = poisoned(&w, t, n, 0);
            mm_linear_fwd(w.be[0], y.v[0], x, q, MM_NONE);
            mm_linear_fwd(many, y.v[1], x, q, MM_NONE);
            expect_close("linear_fwd of quantized weights, threads", y, tol_exact);
            world_clear(&w);
        }
        mm_backend_close(many);
    }
    world_close(&w);
}

// Once a size has been seen, nothing more is taken.
static void scratch_settles(void **state) {
    (void)state;
    struct world w;
    world_open(&w, mm_isa_best(), 2);
    const int64_t s[3] = {65, 131, 77};
    size_t after_first = 0;
    for (int i = 0; i < 3; i++) {
        forward(&w, s, mm_dtype_bf16, false, true, 0);
        backward_x(&w, s, mm_dtype_bf16, false, true, 0);
        backward_w(&w, s, mm_dtype_bf16, true, 0);
        world_clear(&w);
        if (i == 0) after_first = w.be[0]->scratch_bytes;
        assert_int_equal(w.be[0]->scratch_bytes, after_first);
    }
    assert_true(after_first > 0);
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parity),
        cmocka_unit_test(quantized_parity),
        cmocka_unit_test(quantized_reference),
        cmocka_unit_test(wide_weights),
        cmocka_unit_test(many_blocks),
        cmocka_unit_test(large_result),
        cmocka_unit_test(threads_do_not_matter),
        cmocka_unit_test(scratch_settles),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
