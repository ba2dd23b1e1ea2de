// The feed-forward half of a block: every instruction set against the reference, in place and not,
// and to the bit against itself with other thread counts.
#include "ops_test.h"

static const int64_t sizes[][3] = {  // T, D, F
    {1, 8, 16}, {8, 130, 257}, {9, 7, 5}, {33, 64, 128}, {70, 129, 300}, {300, 200, 136}};

static struct mm_view weight_of(struct world *w, enum mm_dtype type, int64_t n, int64_t k) {
    const struct mm_view plain = random_view(w, mm_dtype_f32, n, k, 0, 1.5 / sqrt((double)k));
    if (!mm_dtype_quantized(type)) {
        const struct mm_view v = make(w, type, n, k, 0);
        copy_view(v, plain);
        return v;
    }
    struct mm_view v = make(w, mm_dtype_u8, n, mm_quant_row_bytes(type, k), 0);
    v = mm_view2(v.data, type, n, k);
    for (int64_t r = 0; r < n; r++)
        assert_true(mm_quantize_row(mm_view_at(v, r, 0), type, mm_view_at(plain, r, 0), NULL, k));
    return v;
}

// The result between the products is rounded to bf16, or to codes: an f32 sum in another order can
// tip one over.
static double tolerance_of(enum mm_dtype type) {
    if (mm_dtype_quantized(type)) return tol_step_quantized;
    return type == mm_dtype_bf16 ? tol_bf16_rounded : tol_sum;
}

static void one(struct world *w, const int64_t *s, enum mm_dtype type, bool in_place, int64_t pad) {
    const int64_t T = s[0], D = s[1], F = s[2];
    const struct mm_view h = random_view(w, mm_dtype_f32, T, D, pad, 1.0);
    const struct mm_view x = random_view(w, mm_dtype_f32, T, D, pad, 1.0);
    const struct mm_view w1 = weight_of(w, type, F, D), w3 = weight_of(w, type, F, D),
                         w2 = weight_of(w, type, D, F);
    const struct out y = in_place ? copies(w, x, pad) : poisoned(w, T, D, pad);
    for (int b = 0; b < 2; b++)
        mm_ffn_fwd(w->be[b], y.v[b], in_place ? y.v[b] : x, h, w1, w3, w2);
    expect_close("ffn_fwd", y, tolerance_of(type));
    world_clear(w);
}

static void parity(void **state) {
    (void)state;
    const enum mm_dtype types[] = {mm_dtype_f32, mm_dtype_bf16, mm_dtype_f16, mm_dtype_q8,
                                   mm_dtype_q4};
    // more than one pass over k, block of rows, and slice of rows
    const int64_t deep[3] = {40, 2130, 130}, tall[3] = {1060, 24, 140}, taller[3] = {8500, 8, 520};
    // a GPU is one, but every set of numbers counts there, too
    for (int isa = (int)mm_isa_best(); isa > 0; isa--) {
        struct world w;
        world_open(&w, (enum mm_isa)isa, 2);
        for (int t = 0; t < 5; t++) {
            for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++)
                one(&w, sizes[i], types[t], i % 2, (int64_t)i % 3);
            one(&w, deep, types[t], true, 0);
            one(&w, tall, types[t], false, 0);
            // its slices are larger
            if (testing_cuda() && isa == 1) one(&w, taller, types[t], false, 0);
        }
        world_close(&w);
    }
}

static void threads_do_not_matter(void **state) {
    (void)state;
    const enum mm_dtype types[] = {mm_dtype_bf16, mm_dtype_q8, mm_dtype_q4};
    struct world w;
    world_open(&w, mm_isa_best(), 1);
    for (int v = 0; v < 6; v++) {
        struct mm_backend *many = open_isa(mm_isa_best(), v % 2 ? 3 : 5);
        const int64_t T = 301, D = 96, F = 700;
        const enum mm_dtype type = types[v / 2];
        const struct mm_view h = random_view(&w, mm_dtype_f32, T, D, 0, 1.0);
        const struct mm_view x = random_view(&w, mm_dtype_f32, T, D, 0, 1.0);
        const struct mm_view w1 = weight_of(&w, type, F, D), w3 = weight_of(&w, type, F, D),
                             w2 = weight_of(&w, type, D, F);
        const struct out y = poisoned(&w, T, D, 0);
        mm_ffn_fwd(w.be[0], y.v[0], x, h, w1, w3, w2);
        mm_ffn_fwd(many, y.v[1], x, h, w1, w3, w2);
        struct mm_error err;
        if (mm_backend_sync(many, &err)) fail_msg("%s", err.text);
        if (!testing_cuda()) {
            assert_memory_equal(y.v[0].data, y.v[1].data, (size_t)(T * D) * sizeof(float));
        }
        mm_backend_close(many);
        world_clear(&w);
    }
    world_close(&w);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(parity),
        cmocka_unit_test(threads_do_not_matter),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
