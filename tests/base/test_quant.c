// Rounding to the quantized formats: what comes back, how far it is from what went in, and that
// nothing is written past a row.
#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/buf.h"
#include "base/quant.h"
#include "base/rng.h"
#include "cmocka_all.h"

static const enum mm_dtype types[] = {mm_dtype_q8, mm_dtype_q4};
static const int64_t lengths[] = {1, 2, 31, 32, 33, 63, 64, 65, 127, 128, 129, 300, 1000};
enum { n_lengths = sizeof lengths / sizeof *lengths, guard = 64, longest = 1024 };

static void normal(float *w, int64_t k, uint64_t seed, double scale) {
    struct mm_rng rng = mm_rng_make(seed, 1);
    for (int64_t i = 0; i < k; i++)
        w[i] = (float)(mm_rng_normal(&rng) * scale);
}

// A row and the bytes after it, which stay as they are.
static unsigned char *new_row(enum mm_dtype t, int64_t k) {
    const size_t bytes = (size_t)mm_quant_row_bytes(t, k);
    unsigned char *row = aligned_alloc(mm_quant_align, bytes + guard);
    assert_non_null(row);
    memset(row, 0xa5, bytes + guard);
    return row;
}

static void free_row(unsigned char *row, enum mm_dtype t, int64_t k) {
    for (int i = 0; i < guard; i++)
        assert_int_equal(row[mm_quant_row_bytes(t, k) + i], 0xa5);
    free(row);
}

// Squared error over squared weights after a round trip.
static double relative_error(enum mm_dtype t, const float *w, const float *importance, int64_t k) {
    unsigned char *row = new_row(t, k);
    float back[longest];
    assert_true(mm_quantize_row(row, t, w, importance, k));
    mm_dequantize_row(back, t, row, k);
    double error = 0, whole = 0;
    for (int64_t i = 0; i < k; i++) {
        const double a = importance ? (double)importance[i] : 1.0;
        error += a * ((double)w[i] - (double)back[i]) * ((double)w[i] - (double)back[i]);
        whole += a * (double)w[i] * (double)w[i];
    }
    free_row(row, t, k);
    return sqrt(error / whole);
}

static void sizes_of_rows(void **state) {
    (void)state;
    assert_int_equal(mm_quant_row_bytes(mm_dtype_q8, 2560), 2624);  // 2560 + 40, then padding
    assert_int_equal(mm_quant_row_bytes(mm_dtype_q4, 2560), 1408);  // 1280 + 80, then padding
    for (int i = 0; i < n_lengths; i++) {
        for (int v = 0; v < 2; v++)
            assert_int_equal(mm_quant_row_bytes(types[v], lengths[i]) % mm_quant_align, 0);
    }
}

static void errors_are_small(void **state) {
    (void)state;
    float w[longest];
    for (int i = 0; i < n_lengths; i++) {
        for (uint64_t seed = 1; seed < 20; seed++) {
            normal(w, lengths[i], seed, 0.02);
            assert_true(relative_error(mm_dtype_q8, w, NULL, lengths[i]) < 0.01);
            assert_true(relative_error(mm_dtype_q4, w, NULL, lengths[i]) < 0.125);
        }
    }
}

// What no code can stand for is refused, wherever in the row it is.
static void numbers_out_of_range_are_refused(void **state) {
    (void)state;
    const float bad[] = {NAN, INFINITY, -INFINITY, 60001.0f, -3e38f};
    float w[300];
    for (int v = 0; v < 2; v++) {
        unsigned char *row = new_row(types[v], 300);
        for (int i = 0; i < 5; i++) {
            for (int at = 0; at < 300; at += 299) {
                normal(w, 300, 4, 1.0);
                w[at] = bad[i];
                assert_false(mm_quantize_row(row, types[v], w, NULL, 300));
                w[at] = 60000.0f;
                assert_true(mm_quantize_row(row, types[v], w, NULL, 300));
            }
        }
        free_row(row, types[v], 300);
    }
}

// Weights down to nothing keep an error that is small beside 1e-5.
static void tiny_weights(void **state) {
    (void)state;
    float w[longest], back[longest];
    for (int v = 0; v < 2; v++) {
        for (double scale = 1e-3; scale > 1e-42; scale *= 0.03) {
            normal(w, 200, 8, scale);
            unsigned char *row = new_row(types[v], 200);
            assert_true(mm_quantize_row(row, types[v], w, NULL, 200));
            mm_dequantize_row(back, types[v], row, 200);
            for (int c = 0; c < 200; c++) {
                assert_true(isfinite(back[c]));
                assert_true(fabs((double)(w[c] - back[c])) <= 0.4 * scale + 4e-6);
            }
            free_row(row, types[v], 200);
        }
    }
}

// Numbers that the format has come back as they are.
static void exact_rows_stay(void **state) {
    (void)state;
    float w[longest], back[longest];
    for (int v = 0; v < 2; v++) {
        for (int i = 0; i < n_lengths; i++) {
            const int64_t k = lengths[i];
            struct mm_rng rng = mm_rng_make((uint64_t)i, 5);
            const int top = types[v] == mm_dtype_q8 ? 127 : 7;
            for (int64_t c = 0; c < k; c++)
                w[c] = 0.25f * (float)((int)mm_rng_below(&rng, (uint32_t)(2 * top + 1)) - top);
            // every group has the largest code, so one scale is right
            for (int64_t c = 0; c < k; c += 32)
                w[c] = 0.25f * (float)(types[v] == mm_dtype_q8 ? 127 : -8);
            unsigned char *row = new_row(types[v], k);
            mm_quantize_row(row, types[v], w, NULL, k);
            mm_dequantize_row(back, types[v], row, k);
            for (int64_t c = 0; c < k; c++) {
                if (types[v] == mm_dtype_q8) assert_true(w[c] == back[c]);
                assert_true(fabsf(w[c] - back[c]) <= 0.01f);
            }
            free_row(row, types[v], k);
        }
    }
}

static void zeros_stay_zeros(void **state) {
    (void)state;
    float w[longest] = {0}, back[longest];
    for (int v = 0; v < 2; v++) {
        for (int i = 0; i < n_lengths; i++) {
            unsigned char *row = new_row(types[v], lengths[i]);
            mm_quantize_row(row, types[v], w, NULL, lengths[i]);
            mm_dequantize_row(back, types[v], row, lengths[i]);
            for (int64_t c = 0; c < lengths[i]; c++)
                assert_true(back[c] == 0.0f);
            free_row(row, types[v], lengths[i]);
        }
    }
}

// The expanded codes times the block's scale are the row, and the padding expands to zero.
static void expansion_is_exact(void **state) {
    (void)state;
    float w[longest], back[longest];
    int8_t w8[longest];
    for (int v = 0; v < 2; v++) {
        for (int i = 0; i < n_lengths; i++) {
            const int64_t k = lengths[i];
            normal(w, k, 3, 1.0);
            unsigned char *row = new_row(types[v], k);
            mm_quantize_row(row, types[v], w, NULL, k);
            mm_dequantize_row(back, types[v], row, k);
            mm_quant_expand_row(w8, types[v], row, k);
            const uint16_t *s = mm_quant_scales(types[v], row, k);
            for (int64_t c = 0; c < mm_quant_blocks(k) * mm_quant_block; c++) {
                const float is = mm_f16_to_f32(s[c / mm_quant_block]) * (float)w8[c];
                assert_true(is == (c < k ? back[c] : 0.0f));
            }
            free_row(row, types[v], k);
        }
    }
}

static void importance_moves_the_error(void **state) {
    (void)state;
    float w[longest], importance[longest];
    for (int v = 0; v < 2; v++) {
        normal(w, 512, 9, 0.02);
        for (int c = 0; c < 512; c++)
            importance[c] = c % 7 == 0 ? 100.0f : 1.0f;
        unsigned char *plain = new_row(types[v], 512), *aware = new_row(types[v], 512);
        mm_quantize_row(plain, types[v], w, NULL, 512);
        mm_quantize_row(aware, types[v], w, importance, 512);
        float a[512], b[512];
        mm_dequantize_row(a, types[v], plain, 512);
        mm_dequantize_row(b, types[v], aware, 512);
        double without = 0, with = 0;
        for (int c = 0; c < 512; c++) {
            without += (double)(importance[c] * (w[c] - a[c]) * (w[c] - a[c]));
            with += (double)(importance[c] * (w[c] - b[c]) * (w[c] - b[c]));
        }
        assert_true(with < without);
        free_row(plain, types[v], 512);
        free_row(aware, types[v], 512);
    }
}

static void operands_are_rounded_to_the_nearest(void **state) {
    (void)state;
    float x[longest], r[8];
    int8_t a[longest];
    for (int i = 0; i < n_lengths; i++) {
        const int64_t k = lengths[i];
        normal(x, k, 11, 3.0);
        mm_quantize_x(a, r, x, k);
        for (int64_t c = 0; c < mm_quant_blocks(k) * mm_quant_block; c++) {
            const float is = r[c / mm_quant_block] * (float)a[c], want = c < k ? x[c] : 0.0f;
            assert_true(fabsf(is - want) <= 0.501f * r[c / mm_quant_block]);
        }
    }
    memset(x, 0, sizeof x);
    mm_quantize_x(a, r, x, 200);
    for (int c = 0; c < 256; c++)
        assert_int_equal(a[c], 0);
    assert_true(r[0] == 0.0f && r[1] == 0.0f);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sizes_of_rows),
        cmocka_unit_test(errors_are_small),
        cmocka_unit_test(numbers_out_of_range_are_refused),
        cmocka_unit_test(tiny_weights),
        cmocka_unit_test(exact_rows_stay),
        cmocka_unit_test(zeros_stay_zeros),
        cmocka_unit_test(expansion_is_exact),
        cmocka_unit_test(importance_moves_the_error),
        cmocka_unit_test(operands_are_rounded_to_the_nearest),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
