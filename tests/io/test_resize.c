// The resize held to Pillow, to the bit. tests/golden/images/resize.safetensors has "NN.in" and
// what Pillow 11.3 makes of it, "NN.bicubic" and "NN.bilinear": larger and smaller, odd sizes,
// sides of one pixel, one side unchanged, tall and wide.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "cmocka_all.h"

#include "base/buf.h"
#include "base/rng.h"
#include "io/image.h"
#include "io/image_resize_rows.h"
#include "io/safetensors.h"

static struct mm_error err;

// (height, width, 3) in memory that ends where the pixels do.
static struct mm_image image_of(const struct mm_st_tensor *t) {
    struct mm_image im = {.width = (int32_t)t->shape[1], .height = (int32_t)t->shape[0]};
    im.rgb = malloc(t->bytes);
    memcpy(im.rgb, t->data, t->bytes);
    return im;
}

static void resizes_as_pillow(void **state) {
    (void)state;
    struct mm_st *st;
    assert_int_equal(mm_st_open(&st, "tests/golden/images/resize.safetensors", &err), mm_code_ok);
    int n = 0;
    for (;; n++) {
        char name[32];
        snprintf(name, sizeof name, "%02d.in", n);
        const struct mm_st_tensor *in = mm_st_find(st, name);
        if (!in) {
            break;
        }
        struct mm_image src = image_of(in);
        for (int f = 0; f < 2; f++) {
            snprintf(name, sizeof name, "%02d.%s", n, f ? "bicubic" : "bilinear");
            const struct mm_st_tensor *out = mm_st_find(st, name);
            assert_non_null(out);
            struct mm_image dst;
            assert_int_equal(
                mm_image_resize(&dst, &src, (int32_t)out->shape[1], (int32_t)out->shape[0],
                                f ? mm_filter_bicubic : mm_filter_bilinear, &err),
                mm_code_ok);
            const uint8_t *wanted = out->data;
            for (size_t i = 0; i < out->bytes; i++) {
                if (dst.rgb[i] != wanted[i]) {
                    fail_msg("%s: byte %zu is %d, wanted %d", name, i, dst.rgb[i], wanted[i]);
                }
            }
            mm_image_free(&dst);
        }
        mm_image_free(&src);
    }
    mm_st_close(st);
    assert_int_equal(n, 27);
}

// Coefficients as large as they come, of either sign, in counts that do not divide by anything.
static void make_taps(struct mm_taps *t, struct mm_rng *rng, int32_t n_in, int32_t n_out) {
    *t = (struct mm_taps){.n_out = n_out};
    t->first = mm_xmalloc((size_t)n_out * 3 * sizeof *t->first);
    t->count = t->first + n_out;
    t->offset = t->count + n_out;
    int32_t n = 0;
    for (int32_t i = 0; i < n_out; i++) {
        t->first[i] = (int32_t)mm_rng_below(rng, (uint32_t)n_in);
        t->count[i] = 1 + (int32_t)mm_rng_below(rng, (uint32_t)(n_in - t->first[i]));
        t->max_count = t->count[i] > t->max_count ? t->count[i] : t->max_count;
        t->offset[i] = n;
        n += t->count[i];
    }
    t->k = mm_xmalloc((size_t)n * sizeof *t->k);
    for (int32_t i = 0; i < n_out; i++) {
        // Their absolute values sum to at most 1.5 in fixed point, so that the sum fits 32 bits.
        const int32_t most = 3 * (mm_resize_half / t->count[i]);
        for (int32_t x = 0; x < t->count[i]; x++) {
            t->k[t->offset[i] + x] = (int32_t)mm_rng_below(rng, (uint32_t)(2 * most + 1)) - most;
        }
    }
}

static void fast_is_the_plain_version(void **state) {
    (void)state;
    const struct mm_resize_rows *fast = mm_resize_rows_fast();
    if (!fast) {
        skip();
    }
    const struct mm_resize_rows *plain = &mm_resize_rows_plain;
    struct mm_rng rng = mm_rng_make(7, 7);
    for (int round = 0; round < 300; round++) {
        const int32_t n_in = 1 + (int32_t)mm_rng_below(&rng, 60);
        const int32_t n_out = 1 + (int32_t)mm_rng_below(&rng, 60);
        struct mm_taps t;
        make_taps(&t, &rng, n_in, n_out);
        uint8_t *row = mm_xmalloc((size_t)n_in * 3 + mm_resize_over_read);
        for (int32_t i = 0; i < n_in * 3 + mm_resize_over_read; i++) {
            row[i] = round % 3 ? (uint8_t)mm_rng_u32(&rng) : 255;
        }
        uint8_t *a = mm_xcalloc((size_t)n_out, 3), *b = mm_xcalloc((size_t)n_out, 3);
        assert_true(!fast->prepare_x || fast->prepare_x(&t));
        plain->along_x(a, row, &t);
        fast->along_x(b, row, &t);
        assert_memory_equal(a, b, (size_t)n_out * 3);

        // The same coefficients down the columns of a picture n_in rows high.
        const size_t n_bytes = 1 + mm_rng_below(&rng, 200);
        uint8_t *rows = mm_xmalloc(n_bytes * (size_t)n_in);
        for (size_t i = 0; i < n_bytes * (size_t)n_in; i++) {
            rows[i] = (uint8_t)mm_rng_u32(&rng);
        }
        uint8_t *c = mm_xmalloc(n_bytes), *d = mm_xmalloc(n_bytes);
        for (int32_t i = 0; i < n_out; i++) {
            const uint8_t *from = rows + (size_t)t.first[i] * n_bytes;
            plain->along_y(c, from, n_bytes, n_bytes, t.k + t.offset[i], t.count[i]);
            fast->along_y(d, from, n_bytes, n_bytes, t.k + t.offset[i], t.count[i]);
            assert_memory_equal(c, d, n_bytes);
        }
        free(t.first);
        free(t.k);
        free(t.split);
        free(row);
        free(rows);
        free(a);
        free(b);
        free(c);
        free(d);
    }
}

static void resize_one(uint8_t *pixel, int32_t w, int32_t h, int32_t to_w, int32_t to_h,
                       enum mm_code wanted) {
    const struct mm_image src = {.width = w, .height = h, .rgb = pixel};
    struct mm_image dst;
    assert_int_equal(mm_image_resize(&dst, &src, to_w, to_h, mm_filter_bicubic, &err), wanted);
    if (wanted == mm_code_ok) {
        assert_int_equal(dst.width, to_w);
        assert_int_equal(dst.height, to_h);
        for (int64_t i = 0; i < (int64_t)to_w * to_h * 3; i++) {
            assert_int_equal(dst.rgb[i], 200);  // a flat picture stays flat at any size
        }
        mm_image_free(&dst);
    } else {
        assert_null(dst.rgb);
        assert_true(strlen(err.text) > 20);
    }
}

static void flat_pictures_and_limits(void **state) {
    (void)state;
    static uint8_t flat[65535 * 3];
    memset(flat, 200, sizeof flat);
    static const int32_t sizes[][4] = {
        {1, 1, 1, 1},     {1, 1, 300, 200},   {65535, 1, 1, 1},   {1, 65535, 1, 1},
        {65535, 1, 7, 3}, {1, 65535, 3, 7},   {255, 257, 31, 33}, {1, 1, 65535, 1},
        {1, 1, 1, 65535}, {256, 255, 256, 9}, {256, 255, 9, 255}, {256, 255, 256, 255}};
    for (size_t i = 0; i < sizeof sizes / sizeof sizes[0]; i++) {
        resize_one(flat, sizes[i][0], sizes[i][1], sizes[i][2], sizes[i][3], mm_code_ok);
    }
    resize_one(flat, 1, 1, 0, 5, mm_code_input);
    resize_one(flat, 1, 1, 5, -1, mm_code_input);
    resize_one(flat, 1, 1, 65536, 1, mm_code_input);
    resize_one(flat, 1, 1, 20000, 20000, mm_code_input);
    // Every source row counts for the one output row, at 65535 pixels each: 12 GB between the
    // passes.
    resize_one(flat, 1, 65535, 65535, 1, mm_code_memory);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(resizes_as_pillow),
        cmocka_unit_test(fast_is_the_plain_version),
        cmocka_unit_test(flat_pictures_and_limits),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
