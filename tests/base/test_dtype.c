// Half precision against a second definition (value = mantissa * 2^exponent), over every f16 and
// bf16 value and over the points where rounding turns.
#include <math.h>
#include <string.h>
#include "base/dtype.h"
#include "cmocka_all.h"

static uint32_t bits(float f) {
    uint32_t u;
    memcpy(&u, &f, sizeof u);
    return u;
}

// The value of a finite half with `mantissa_bits` and exponent bias `bias`, exactly.
static double half_value(uint32_t h, int mantissa_bits, int bias) {
    const int exponent = (int)((h & 0x7fffu) >> mantissa_bits);
    const int mantissa = (int)(h & ((1u << mantissa_bits) - 1));
    const double m = exponent ? mantissa + (1 << mantissa_bits) : mantissa;
    const double v = ldexp(m, (exponent ? exponent : 1) - bias - mantissa_bits);
    return h & 0x8000u ? -v : v;
}

static void every_f16_widens_exactly_and_comes_back(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000u; h++) {
        const float f = mm_f16_to_f32((uint16_t)h);
        if ((h & 0x7c00u) == 0x7c00u) {
            if (h & 0x3ffu) {
                assert_true(isnan(f));
                const uint16_t back = mm_f32_to_f16(f);
                assert_true((back & 0x7c00u) == 0x7c00u && (back & 0x3ffu));
                continue;
            }
            assert_true(isinf(f));
            assert_int_equal(signbit(f) != 0, h >> 15);
        } else {
            assert_true((double)f == half_value(h, 10, 15));
            assert_int_equal(signbit(f) != 0, h >> 15);
        }
        assert_int_equal(mm_f32_to_f16(f), h);
    }
}

static void every_bf16_widens_exactly_and_comes_back(void **state) {
    (void)state;
    for (uint32_t h = 0; h < 0x10000u; h++) {
        const float f = mm_bf16_to_f32((uint16_t)h);
        if ((h & 0x7f80u) == 0x7f80u && (h & 0x7fu)) {
            assert_true(isnan(f));
            assert_true(isnan(mm_bf16_to_f32(mm_f32_to_bf16(f))));
            continue;
        }
        if ((h & 0x7f80u) != 0x7f80u) assert_true((double)f == half_value(h, 7, 127));
        assert_int_equal(mm_f32_to_bf16(f), h);
    }
}

// Between neighbours a and a + 1: below the middle goes down, above goes up, the middle to even.
static void check_between(uint32_t a, int mantissa_bits, int bias, uint16_t (*narrow)(float)) {
    const double lo = half_value(a, mantissa_bits, bias),
                 hi = half_value(a + 1, mantissa_bits, bias);
    const float middle = (float)((lo + hi) / 2);
    assert_true((double)middle == (lo + hi) / 2);
    assert_int_equal(narrow(middle), a & 1u ? a + 1 : a);
    assert_int_equal(narrow(-middle), 0x8000u | (a & 1u ? a + 1 : a));
    assert_int_equal(narrow(nextafterf(middle, 0.0f)), a);
    assert_int_equal(narrow(nextafterf(middle, INFINITY)), a + 1);
}

static void f16_rounds_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t a = 0; a < 0x7bffu; a++) {
        check_between(a, 10, 15, mm_f32_to_f16);
    }
    assert_int_equal(mm_f32_to_f16(65519.996f), 0x7bff);
    assert_int_equal(mm_f32_to_f16(65520.0f), 0x7c00);  // the middle to the first that overflows
    assert_int_equal(mm_f32_to_f16(-3.4e38f), 0xfc00);
    assert_int_equal(mm_f32_to_f16(0x1p-25f), 0);  // the middle to the smallest subnormal
    assert_int_equal(mm_f32_to_f16(0x1.000002p-25f), 1);
    assert_int_equal(mm_f32_to_f16(-0.0f), 0x8000);
    assert_int_equal(mm_f32_to_f16(0x1p-149f), 0);
}

static void bf16_rounds_to_nearest_even(void **state) {
    (void)state;
    for (uint32_t a = 1; a < 0x7f7fu; a++) {
        check_between(a, 7, 127, mm_f32_to_bf16);
    }
    assert_int_equal(mm_f32_to_bf16(3.4028235e38f), 0x7f80);  // the largest f32 overflows
    float quiet;
    const uint32_t signalling = 0x7f800001u;  // its payload is all in the bits that are dropped
    memcpy(&quiet, &signalling, sizeof quiet);
    assert_true(isnan(mm_bf16_to_f32(mm_f32_to_bf16(quiet))));
}

static void arrays_convert_like_elements(void **state) {
    (void)state;
    enum { n = 1037 };
    float in[n], out[n + 1];
    uint16_t half[n + 1];
    for (int i = 0; i < n; i++) {
        in[i] = (float)(i - 500) * 1.37e-3f * (float)(1 << (i % 20));
    }
    const enum mm_dtype types[] = {mm_dtype_bf16, mm_dtype_f16};
    for (int t = 0; t < 2; t++) {
        half[n] = 0xabcd;
        out[n] = -7.0f;
        mm_from_f32(half, types[t], in, n);
        mm_to_f32(out, half, types[t], n);
        for (int i = 0; i < n; i++) {
            const uint16_t h = t ? mm_f32_to_f16(in[i]) : mm_f32_to_bf16(in[i]);
            assert_int_equal(half[i], h);
            assert_int_equal(bits(out[i]), bits(t ? mm_f16_to_f32(h) : mm_bf16_to_f32(h)));
        }
        assert_int_equal(half[n], 0xabcd);
        assert_true(out[n] == -7.0f);
    }
    mm_from_f32(out, mm_dtype_f32, in, n);
    assert_memory_equal(out, in, sizeof in);
    mm_to_f32(out, NULL, mm_dtype_f32, 0);
}

static void names(void **state) {
    (void)state;
    for (int d = 0; d < mm_dtype_count; d++) {
        assert_int_equal(mm_dtype_parse(mm_dtype_name((enum mm_dtype)d)), d);
        assert_int_equal(mm_dtype_parse(mm_dtype_st_name((enum mm_dtype)d)), d);
    }
    assert_int_equal(mm_dtype_parse("F64"), -1);
    assert_int_equal(mm_dtype_parse(""), -1);
    assert_int_equal(mm_dtype_bytes(mm_dtype_i64), 8);
    assert_int_equal(mm_dtype_bytes(mm_dtype_bf16), 2);
    assert_int_equal(mm_dtype_bytes(mm_dtype_u8), 1);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_f16_widens_exactly_and_comes_back),
        cmocka_unit_test(every_bf16_widens_exactly_and_comes_back),
        cmocka_unit_test(f16_rounds_to_nearest_even),
        cmocka_unit_test(bf16_rounds_to_nearest_even),
        cmocka_unit_test(arrays_convert_like_elements),
        cmocka_unit_test(names),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
