// Moving rows and elements, pictures, pointwise, norms: fast against reference.
#include "ops_test.h"

static const int64_t lengths[] = {1, 2, 7, 65, 200};
static const int64_t widths[] = {1, 5, 33, 96, 257};
enum { n_lengths = 5, n_widths = 5 };

// Runs `test` for every instruction set, length and width, dense and strided.
static void sweep(void (*test)(struct world *, int64_t rows, int64_t cols, int64_t pad)) {
    for (int isa = best_under_test(); isa > 0; isa--) {
        struct world w;
        world_open(&w, (enum mm_isa)isa, 2);
        for (int i = 0; i < n_lengths * n_widths * 2; i += test_few() ? 7 : 1) {
            test(&w, lengths[i % n_lengths], widths[i / n_lengths % n_widths],
                 i / n_lengths / n_widths ? 3 : 0);
            world_clear(&w);
        }
        test(&w, 70, 1030, 0);  // more than one piece, more than one thread
        world_close(&w);
    }
}

static void elements(struct world *w, int64_t rows, int64_t cols, int64_t pad) {
    const struct mm_view a = random_view(w, mm_dtype_f32, rows, cols, pad, 1.0);
    const struct mm_view b = random_view(w, mm_dtype_f32, rows, cols, 2 * pad, 1.0);
    const struct out sum = poisoned(w, rows, cols, pad), by = poisoned(w, rows, cols, pad);
    const struct out full = poisoned(w, rows, cols, pad), in_place = copies(w, a, pad);
    for (int k = 0; k < 2; k++) {
        mm_add(w->be[k], sum.v[k], a, b);
        mm_scale(w->be[k], by.v[k], a, -0.7f);
        mm_fill(w->be[k], full.v[k], 1.25f);
        mm_add(w->be[k], in_place.v[k], in_place.v[k], b);
        mm_add(w->be[k], in_place.v[k], b, in_place.v[k]);
        mm_scale(w->be[k], in_place.v[k], in_place.v[k], 3.0f);
    }
    expect_close("add", sum, tol_exact);
    expect_close("scale", by, tol_exact);
    expect_close("fill", full, tol_exact);
    expect_close("add and scale in place", in_place, tol_exact);
    assert_true(get(full.v[0], rows - 1, cols - 1) == 1.25f);
}

static void conversions(struct world *w, int64_t rows, int64_t cols, int64_t pad) {
    const enum mm_dtype types[] = {mm_dtype_f32, mm_dtype_bf16, mm_dtype_f16};
    for (int i = 0; i < 9; i++) {
        const struct mm_view x = random_view(w, types[i / 3], rows, cols, pad, 1.0);
        if (types[i / 3] == mm_dtype_f32 && cols > 4) {
            put(x, 0, 0, 1e-41f), put(x, 0, 1, INFINITY), put(x, 0, 2, 65519.0f);
            put(x, 0, 3, -1.00390625f);  // a tie in bf16
        }
        struct out y = {
            {make(w, types[i % 3], rows, cols, pad), make(w, types[i % 3], rows, cols, pad)}};
        for (int k = 0; k < 2; k++)
            mm_copy(w->be[k], y.v[k], x);
        for (int64_t r = 0; r < rows; r++) {
            assert_memory_equal(mm_view_at(y.v[0], r, 0), mm_view_at(y.v[1], r, 0),
                                (size_t)cols * mm_dtype_bytes(types[i % 3]));
        }
        struct out filled = {
            {make(w, types[i % 3], rows, cols, pad), make(w, types[i % 3], rows, cols, pad)}};
        for (int k = 0; k < 2; k++)
            mm_fill(w->be[k], filled.v[k], 0.3f);
        expect_close("fill", filled, tol_exact);
    }
}

static void embedding(struct world *w, int64_t rows, int64_t cols, int64_t pad) {
    const enum mm_dtype types[] = {mm_dtype_f32, mm_dtype_bf16, mm_dtype_f16};
    const int64_t vocabulary = 11;
    const struct mm_view ids = random_ids(w, rows, -1, (int32_t)vocabulary);
    for (int i = 0; i < 3; i++) {
        const struct mm_view table = random_view(w, types[i], vocabulary, cols, pad, 1.0);
        const struct out y = poisoned(w, rows, cols, pad);
        for (int k = 0; k < 2; k++)
            mm_embed_fwd(w->be[k], y.v[k], table, ids);
        expect_close("embed_fwd", y, tol_exact);
    }
    const struct mm_view dy = random_view(w, mm_dtype_f32, rows, cols, pad, 1.0);
    const struct out dtable = accumulating(w, vocabulary, cols, pad);
    for (int k = 0; k < 2; k++)
        mm_embed_bwd(w->be[k], dtable.v[k], dy, ids);
    expect_close("embed_bwd", dtable, tol_exact);  // both add in the order of t
}

static void gather_scatter(struct world *w, int64_t rows, int64_t cols, int64_t pad) {
    const int64_t more = rows + 3;
    const struct mm_view x = random_view(w, mm_dtype_f32, rows, cols, pad, 1.0);
    const struct mm_view any = random_ids(w, more, 0, (int32_t)rows);
    const struct mm_view once = random_ids(w, rows, 0, 1);
    for (int64_t i = 0; i < rows; i++)
        ((int32_t *)once.data)[i] = (int32_t)(more - 1 - i);
    const struct out gathered = poisoned(w, more, cols, pad);
    const struct out scattered = accumulating(w, more, cols, pad);
    const float kept = get(scattered.v[0], 0, 0);
    for (int k = 0; k < 2; k++) {
        mm_gather_rows(w->be[k], gathered.v[k], x, any);
        mm_scatter_rows(w->be[k], scattered.v[k], x, once);
    }
    expect_close("gather_rows", gathered, tol_exact);
    expect_close("scatter_rows", scattered, tol_exact);
    assert_true(get(scattered.v[0], 0, 0) == kept);
    assert_true(get(scattered.v[0], more - 1, 0) == get(x, 0, 0));
}

static void largest(struct world *w, int64_t rows, int64_t cols, int64_t pad) {
    const struct mm_view x = random_view(w, mm_dtype_f32, rows, cols, pad, 1.0);
    const struct mm_view banned = random_ids(w, 3, -1, (int32_t)cols);
    put(x, 0, cols - 1, 90.0f), put(x, 0, cols / 2, 90.0f);  // alike: the first counts
    put(x, rows - 1, cols / 2, NAN);
    put(x, rows / 2, 0, INFINITY);
    for (int i = 0; i < 2; i++) {
        const struct mm_view y[2] = {random_ids(w, rows, 0, 1), random_ids(w, rows, 0, 1)};
        for (int k = 0; k < 2; k++)
            mm_argmax(w->be[k], y[k], x, i ? banned : MM_NONE);
        for (int64_t r = 0; r < rows; r++)
            assert_int_equal(((int32_t *)y[0].data)[r], ((int32_t *)y[1].data)[r]);
        if (i == 0 && rows > 2 && cols > 2) {
            assert_int_equal(((int32_t *)y[0].data)[0], cols / 2);
            assert_int_equal(((int32_t *)y[0].data)[rows / 2], -1);
        }
    }
}

static void pointwise(struct world *w, int64_t rows, int64_t cols, int64_t pad) {
    const struct mm_view a = random_view(w, mm_dtype_f32, rows, cols, pad, 3.0);
    const struct mm_view b = random_view(w, mm_dtype_f32, rows, cols, 0, 3.0);
    const struct mm_view dy = random_view(w, mm_dtype_f32, rows, cols, pad, 1.0);
    put(a, 0, 0, 120.0f), put(a, rows - 1, cols - 1, -120.0f);
    const struct out y = poisoned(w, rows, cols, pad), u = poisoned(w, rows, cols, pad);
    const struct out da = copies(w, a, pad), db = copies(w, b, pad);
    const struct out dx = copies(w, dy, pad);
    for (int k = 0; k < 2; k++) {
        mm_swiglu_fwd(w->be[k], y.v[k], a, b);
        mm_swiglu_bwd(w->be[k], da.v[k], db.v[k], dy, da.v[k], db.v[k]);
        mm_gelu_fwd(w->be[k], u.v[k], a);
        mm_gelu_bwd(w->be[k], dx.v[k], dx.v[k], a);
    }
    expect_close("swiglu_fwd", y, tol_pointwise);
    expect_close("swiglu_bwd da", da, tol_pointwise);
    expect_close("swiglu_bwd db", db, tol_pointwise);
    expect_close("gelu_fwd", u, tol_pointwise);
    expect_close("gelu_bwd", dx, tol_pointwise);
}

static void norms(struct world *w, int64_t rows, int64_t cols, int64_t pad) {
    const enum mm_dtype types[] = {mm_dtype_f32, mm_dtype_bf16, mm_dtype_f16};
    const struct mm_view x = random_view(w, mm_dtype_f32, rows, cols, pad, 2.0);
    const struct mm_view dy = random_view(w, mm_dtype_f32, rows, cols, pad, 1.0);
    for (int i = 0; i < 3; i++) {
        const struct mm_view weight = random_vector(w, types[i], cols, 1.0);
        const struct out y = copies(w, x, pad), rinv = poisoned_vector(w, rows);
        const struct out dx = copies(w, dy, pad), dw = accumulating_vector(w, cols);
        const struct out alone = poisoned(w, rows, cols, pad);
        for (int k = 0; k < 2; k++) {
            mm_rmsnorm_fwd(w->be[k], y.v[k], rinv.v[k], y.v[k], weight, 1e-5f);
        }
        for (int k = 0; k < 2; k++) {
            mm_rmsnorm_bwd(w->be[k], alone.v[k], MM_NONE, dy, x, weight, rinv.v[1]);
            mm_rmsnorm_bwd(w->be[k], dx.v[k], dw.v[k], dx.v[k], x, weight, rinv.v[1]);
        }
        expect_close("rmsnorm_fwd", y, tol_sum);
        expect_close("rmsnorm_fwd rinv", rinv, tol_sum);
        // One column: dx is a difference of two numbers that almost agree.
        if (cols > 1) expect_close("rmsnorm_bwd", alone, tol_sum);
        if (cols > 1) expect_close("rmsnorm_bwd in place", dx, tol_sum);
        expect_close("rmsnorm_bwd dw", dw, tol_sum);
    }
    for (int64_t c = 0; c < cols; c++)
        put(x, 0, c, 0.0f);  // a row without direction
    const struct out y = copies(w, x, pad), rinv = poisoned_vector(w, rows);
    const struct out dx = copies(w, dy, pad);
    for (int k = 0; k < 2; k++) {
        mm_l2norm_fwd(w->be[k], y.v[k], rinv.v[k], x);
    }
    for (int k = 0; k < 2; k++) {
        mm_l2norm_bwd(w->be[k], dx.v[k], dx.v[k], y.v[1], rinv.v[1]);
    }
    expect_close("l2norm_fwd", y, tol_sum);
    expect_close("l2norm_fwd rinv", rinv, tol_sum);
    if (cols > 1) expect_close("l2norm_bwd", dx, tol_sum);
}

static void pictures(struct world *w, int64_t rows, int64_t cols, int64_t pad) {
    if (rows > 7) return;  // here the number of tiles
    const int64_t patch = 3, grid = 6, side = patch * grid, n = grid * grid;
    struct mm_view pixels = random_view(w, mm_dtype_f32, rows, 3 * side * side, 0, 1.0);
    pixels = mm_view4(pixels.data, mm_dtype_f32, rows, 3, side, side);
    const struct out tiles = poisoned(w, rows, 3 * side * side, 0);
    const struct mm_view table = random_view(w, mm_dtype_f32, 3, 256, 0, 1.0);
    struct mm_view rgb = random_view(w, mm_dtype_f32, rows, 3 * side * side, 0, 1.0);
    uint8_t *bytes = rgb.data;  // any: the floats' own
    rgb = mm_view4(bytes, mm_dtype_u8, rows, side, side, 3);
    for (int k = 0; k < 2; k++) {
        struct mm_view v = mm_view4(tiles.v[k].data, mm_dtype_f32, rows, 3, side, side);
        mm_normalize(w->be[k], v, rgb, table);
        for (int64_t i = 0; i < rows * 3 * side * side; i++) {  // NCHW from NHWC
            const int64_t at = i / (side * side), p = i % (side * side);
            const uint8_t value = bytes[(at / 3 * side * side + p) * 3 + at % 3];
            assert_true(((float *)v.data)[i] == ((float *)table.data)[at % 3 * 256 + value]);
        }
    }
    expect_close("normalize", tiles, tol_exact);

    const struct out y = poisoned(w, rows * n, 3 * patch * patch, pad);
    for (int k = 0; k < 2; k++)
        mm_patchify(w->be[k], y.v[k], pixels, patch);
    expect_close("patchify", y, tol_exact);

    const enum mm_dtype types[] = {mm_dtype_f32, mm_dtype_bf16, mm_dtype_f16};
    const struct mm_view x = random_view(w, mm_dtype_f32, rows * n, cols, pad, 1.0);
    for (int i = 0; i < 3; i++) {
        const struct mm_view e = random_view(w, types[i], n, cols, pad, 1.0);
        const struct out z = copies(w, x, pad);
        for (int k = 0; k < 2; k++)
            mm_add_position_fwd(w->be[k], z.v[k], z.v[k], e);
        expect_close("add_position_fwd", z, tol_exact);
    }
    const struct out de = accumulating(w, n, cols, pad);
    const struct out shuffled = poisoned(w, rows * n / 4, 4 * cols, pad);
    const struct out back = poisoned(w, rows * n, cols, pad);
    for (int k = 0; k < 2; k++) {
        mm_add_position_bwd(w->be[k], de.v[k], x);
        mm_pixel_shuffle_fwd(w->be[k], shuffled.v[k], x, grid);
        mm_pixel_shuffle_bwd(w->be[k], back.v[k], shuffled.v[k], grid);
    }
    expect_close("add_position_bwd", de, tol_pointwise);
    expect_close("pixel_shuffle_fwd", shuffled, tol_exact);
    expect_close("pixel_shuffle_bwd", back, tol_exact);
    expect_close("pixel shuffle and back", (struct out){{back.v[0], x}}, tol_exact);
}

// InternVL's pixel_shuffle (ps v2) on one 4 x 4 grid of two channels, element c of row r being
// 2 r + c, followed by hand through its reshapes and swaps.
static void pixel_shuffle_is_internvls(void **state) {
    (void)state;
    static const float want[4][8] = {{0, 1, 2, 3, 8, 9, 10, 11},
                                     {4, 5, 6, 7, 12, 13, 14, 15},
                                     {16, 17, 18, 19, 24, 25, 26, 27},
                                     {20, 21, 22, 23, 28, 29, 30, 31}};
    struct world w;
    world_open(&w, mm_isa_best(), 1);
    const struct mm_view x = make(&w, mm_dtype_f32, 16, 2, 0);
    for (int i = 0; i < 32; i++)
        put(x, i / 2, i % 2, (float)i);
    const struct out y = poisoned(&w, 4, 8, 0);
    for (int k = 0; k < 2; k++) {
        mm_pixel_shuffle_fwd(w.be[k], y.v[k], x, 4);
        assert_memory_equal(y.v[k].data, want, sizeof want);
    }
    world_close(&w);
}

static void test_elements(void **state) {
    (void)state;
    sweep(elements);
}
static void test_conversions(void **state) {
    (void)state;
    sweep(conversions);
}
static void test_embedding(void **state) {
    (void)state;
    sweep(embedding);
    struct world w;
    world_open(&w, mm_isa_best(), 2);
    embedding(&w, 9001, 5, 3);  // each id hundreds of times
    world_close(&w);
}
static void test_argmax(void **state) {
    (void)state;
    sweep(largest);
    struct world w;
    world_open(&w, mm_isa_best(), 2);
    largest(&w, 5, 9001, 3);  // a GPU looks through such a row with several blocks
    world_close(&w);
}

static void test_gather_scatter(void **state) {
    (void)state;
    sweep(gather_scatter);
}
static void test_pointwise(void **state) {
    (void)state;
    sweep(pointwise);
}
static void test_norms(void **state) {
    (void)state;
    sweep(norms);
}
static void test_pictures(void **state) {
    (void)state;
    sweep(pictures);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_elements),  cmocka_unit_test(test_conversions),
        cmocka_unit_test(test_embedding), cmocka_unit_test(test_gather_scatter),
        cmocka_unit_test(test_pointwise), cmocka_unit_test(test_norms),
        cmocka_unit_test(test_pictures),  cmocka_unit_test(pixel_shuffle_is_internvls),
        cmocka_unit_test(test_argmax),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
