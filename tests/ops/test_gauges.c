// The ceilings: every instruction set has loops that run, and the reading loops read every byte
// once. How fast they are is nobody's business here.
#include "cmocka_all.h"

#include <stdlib.h>
#include <string.h>

#include "ops/cpu/gauge.h"

static void every_ceiling_has_a_rate(void **state) {
    (void)state;
    // from the best down: oneDNN's limit can only be lowered before its first use
    for (int isa = (int)mm_isa_best(); isa >= (int)mm_isa_plain; isa--) {
        struct mm_backend *be;
        struct mm_error err;
        setenv("MMAMBA_ISA", mm_isa_name((enum mm_isa)isa), 1);
        assert_int_equal(mm_backend_open_cpu(&be, 2, &err), mm_code_ok);
        for (int c = mm_ceiling_f32; c < mm_ceiling_count; c++) {
            double rate = 0.0;
            const char *how = NULL;
            assert_int_equal(be->gauges->ceiling(be, (enum mm_ceiling)c, 0.005, &rate, &how, &err),
                             mm_code_ok);
            assert_true(rate > 0.0 && rate < 1e18);
            assert_non_null(how);
        }
        mm_backend_close(be);
    }
    unsetenv("MMAMBA_ISA");
}

static void reading_loops_read_every_byte_once(void **state) {
    (void)state;
    enum { bytes = 8 * 4096 * 3 };
    uint64_t *data = aligned_alloc(4096, bytes), sum = 0;
    for (int i = 0; i < bytes / 8; i++) {
        data[i] = (uint64_t)i * 0x9e3779b97f4a7c15u;
        sum += data[i];
    }
    for (int isa = mm_isa_plain; isa <= (int)mm_isa_best(); isa++) {
        mm_read_loop *read = mm_read_loop_of((enum mm_isa)isa);
        for (int streams = 1; streams <= 8; streams *= 2) {
            assert_true(read(data, bytes, streams, false) == sum);
            assert_true(read(data, bytes, streams, true) == sum);
        }
    }
    free(data);
}

static void the_peak_starts_anew(void **state) {
    (void)state;
    struct mm_backend *be;
    struct mm_error err;
    const size_t bytes = (size_t)96 << 20;
    void *p;
    assert_int_equal(mm_backend_open_cpu(&be, 1, &err), mm_code_ok);
    const int64_t before = be->gauges->peak(be);
    assert_int_equal(be->alloc(be, bytes, &p, &err), mm_code_ok);
    memset(p, 1, bytes);
    be->release(be, p, bytes);
    const int64_t high = be->gauges->peak(be);
    assert_true(high >= before + ((int64_t)90 << 20));
    if (be->gauges->peak_reset(be)) assert_true(be->gauges->peak(be) < high - ((int64_t)80 << 20));
    mm_backend_close(be);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_ceiling_has_a_rate),
        cmocka_unit_test(reading_loops_read_every_byte_once),
        cmocka_unit_test(the_peak_starts_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
