// Philox against Random123's known answers; the distributions; order does not matter.
#include <math.h>
#include <string.h>
#include "base/rng.h"
#include "cmocka_all.h"

static void known_answers(void **state) {
    (void)state;
    static const struct {
        uint32_t counter[4], key[2], out[4];
    } kat[] = {
        // kat_vectors of Random123 1.14, "philox4x32 10"
        {{0, 0, 0, 0}, {0, 0}, {0x6627e8d5, 0xe169c58d, 0xbc57ac4c, 0x9b00dbd8}},
        {{0xffffffff, 0xffffffff, 0xffffffff, 0xffffffff},
         {0xffffffff, 0xffffffff},
         {0x408f276d, 0x41c83b0e, 0xa20bc7c6, 0x6d5451fd}},
        {{0x243f6a88, 0x85a308d3, 0x13198a2e, 0x03707344},
         {0xa4093822, 0x299f31d0},
         {0xd16cfe09, 0x94fdcceb, 0x5001e420, 0x24126ea1}},
    };
    for (size_t i = 0; i < sizeof kat / sizeof kat[0]; i++) {
        uint32_t out[4];
        mm_philox4x32(kat[i].counter, kat[i].key, out);
        assert_memory_equal(out, kat[i].out, sizeof out);
    }
}

static void a_stream_is_a_function_of_its_index(void **state) {
    (void)state;
    const uint64_t seed = 0x299f31d0a4093822u;
    // Index 4 * 0x05a308d3243f6a88 + lane is block 0x05a308d3243f6a88 of stream 0x0370734413198a2e.
    const uint32_t counter[4] = {0x243f6a88, 0x05a308d3, 0x13198a2e, 0x03707344};
    const uint32_t key[2] = {0xa4093822, 0x299f31d0};
    uint32_t out[4];
    mm_philox4x32(counter, key, out);
    struct mm_rng r = mm_rng_make(seed, 0x0370734413198a2eu);
    r.counter = 4 * 0x05a308d3243f6a88u;
    for (unsigned lane = 0; lane < 4; lane++) {
        assert_int_equal(mm_rng_u32_at(r.seed, r.stream, r.counter), out[lane]);
        assert_int_equal(mm_rng_u32(&r), out[lane]);
    }
    // Saved and restored: the three numbers are all there is.
    struct mm_rng saved = r;
    const uint64_t a = mm_rng_u64(&r);
    assert_true(mm_rng_u64(&saved) == a);
    assert_true(memcmp(&saved, &r, sizeof r) == 0);
}

static void each_draw_takes_its_counters(void **state) {
    (void)state;
    struct mm_rng r = mm_rng_make(1, 2);
    mm_rng_f32(&r);
    assert_int_equal(r.counter, 1);
    mm_rng_normal(&r);
    assert_int_equal(r.counter, 3);
    mm_rng_uniform(&r, 0, 1);
    assert_int_equal(r.counter, 5);
}

static void distributions(void **state) {
    (void)state;
    enum { n = 200000 };
    struct mm_rng r = mm_rng_make(7, mm_rng_stream("test"));
    double sum = 0, squares = 0, cubes = 0, uniform = 0;
    int beyond = 0;
    for (int i = 0; i < n; i++) {
        const double z = mm_rng_normal(&r);
        assert_true(isfinite(z));
        sum += z, squares += z * z, cubes += z * z * z;
        beyond += fabs(z) > 1.959963985;
        const float f = mm_rng_f32(&r);
        assert_true(f >= 0 && f < 1);
        const double u = mm_rng_uniform(&r, -3, 5);
        assert_true(u >= -3 && u < 5);
        uniform += u;
    }
    // Five standard errors of each estimate.
    const double e = 5 / sqrt(n);
    assert_true(fabs(sum / n) < e);
    assert_true(fabs(squares / n - 1) < e * sqrt(2));
    assert_true(fabs(cubes / n) < e * sqrt(15));
    assert_true(fabs((double)beyond / n - 0.05) < e * sqrt(0.05 * 0.95));
    assert_true(fabs(uniform / n - 1) < e * 8 / sqrt(12));
}

static void below_is_fair_and_in_range(void **state) {
    (void)state;
    struct mm_rng r = mm_rng_make(3, 4);
    int count[7] = {0};
    for (int i = 0; i < 70000; i++) {
        const uint32_t k = mm_rng_below(&r, 7);
        assert_in_range(k, 0, 6);
        count[k]++;
    }
    double chi = 0;
    for (int k = 0; k < 7; k++) {
        chi += (count[k] - 10000.0) * (count[k] - 10000.0) / 10000.0;
    }
    assert_true(chi < 27.9);  // 6 degrees of freedom, one in ten thousand
    assert_int_equal(mm_rng_below(&r, 1), 0);
    // With n = 3 * 2^30 a quarter of the draws must be thrown away; modulo would make the lower
    // third twice as likely.
    int low = 0;
    for (int i = 0; i < 30000; i++) {
        low += mm_rng_below(&r, 3u << 30) < 1u << 30;
    }
    assert_in_range(low, 10000 - 5 * 82, 10000 + 5 * 82);
    mm_rng_below(&r, UINT32_MAX);
}

static void shuffle_permutes(void **state) {
    (void)state;
    int64_t items[1000];
    for (int64_t i = 0; i < 1000; i++) {
        items[i] = i;
    }
    struct mm_rng r = mm_rng_make(5, 6);
    mm_rng_shuffle(&r, items, 1000);
    int seen[1000] = {0}, fixed = 0;
    for (int64_t i = 0; i < 1000; i++) {
        assert_in_range(items[i], 0, 999);
        seen[items[i]]++;
        fixed += items[i] == i;
    }
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(seen[i], 1);
    }
    assert_true(fixed < 10);
    int64_t one = 42;
    mm_rng_shuffle(&r, &one, 1);
    mm_rng_shuffle(&r, NULL, 0);
    assert_int_equal(one, 42);
    // All six orders of three come about equally often.
    int orders[27] = {0};
    for (int i = 0; i < 6000; i++) {
        int64_t t[3] = {0, 1, 2};
        mm_rng_shuffle(&r, t, 3);
        orders[t[0] * 9 + t[1] * 3 + t[2]]++;
    }
    int kinds = 0;
    for (int i = 0; i < 27; i++) {
        if (orders[i]) {
            kinds++;
            assert_in_range(orders[i], 1000 - 5 * 29, 1000 + 5 * 29);
        }
    }
    assert_int_equal(kinds, 6);
}

static void streams_differ(void **state) {
    (void)state;
    const uint64_t a = mm_rng_stream("layers.1"), b = mm_rng_stream("layers.2");
    assert_true(a != b && a == mm_rng_stream("layers.1"));
    int same = 0;
    for (uint64_t i = 0; i < 1000; i++) {
        same += mm_rng_u32_at(1, a, i) == mm_rng_u32_at(1, b, i);
        same += mm_rng_u32_at(1, a, i) == mm_rng_u32_at(2, a, i);
    }
    assert_int_equal(same, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(known_answers),
        cmocka_unit_test(a_stream_is_a_function_of_its_index),
        cmocka_unit_test(each_draw_takes_its_counters),
        cmocka_unit_test(distributions),
        cmocka_unit_test(below_is_fair_and_in_range),
        cmocka_unit_test(shuffle_permutes),
        cmocka_unit_test(streams_differ),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
