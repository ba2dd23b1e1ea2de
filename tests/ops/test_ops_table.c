// Every slot of both tables of the CPU backend is filled, and MMAMBA_ISA is obeyed or refused.
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>
#include "ops/cpu/cpu.h"

static void check_filled(const struct mm_ops *ops) {
#define MM_OPS_FILLED(name, params, args) \
    if (!ops->name) fail_msg("the slot of mm_%s is empty", #name);
    MM_OPS_TABLE(MM_OPS_FILLED)
#undef MM_OPS_FILLED
}

static void both_tables_are_full(void **state) {
    (void)state;
    check_filled(&mm_ops_cpu);
    check_filled(&mm_ops_cpu_ref);
}

// Nothing of the two tables is shared: each operation has a reference and a fast form.
static void fast_is_not_the_reference(void **state) {
    (void)state;
#define MM_OPS_DIFFER(name, params, args) \
    if (mm_ops_cpu.name == mm_ops_cpu_ref.name) fail_msg("mm_%s has no fast form", #name);
    MM_OPS_TABLE(MM_OPS_DIFFER)
#undef MM_OPS_DIFFER
}

static void isa_is_obeyed(void **state) {
    (void)state;
    for (int isa = (int)mm_isa_best(); isa >= 0; isa--) {
        setenv("MMAMBA_ISA", mm_isa_name((enum mm_isa)isa), 1);
        struct mm_backend *be;
        struct mm_error err = {0};
        assert_int_equal(mm_backend_open_cpu(&be, 1, &err), mm_code_ok);
        assert_int_equal(mm_cpu_isa(be), isa);
        assert_ptr_equal(be->ops, isa == mm_isa_plain ? &mm_ops_cpu_ref : &mm_ops_cpu);
        assert_non_null(strstr(be->device, mm_isa_name((enum mm_isa)isa)));
        assert_non_null(strstr(be->device, "1 thread"));
        mm_backend_close(be);
    }
}

static void unknown_isa_is_refused(void **state) {
    (void)state;
    struct mm_backend *be;
    struct mm_error err = {0};
    setenv("MMAMBA_ISA", "avx9000", 1);
    assert_int_equal(mm_backend_open_cpu(&be, 1, &err), mm_code_usage);
    assert_null(be);
    assert_non_null(strstr(err.text, "avx9000"));
    assert_non_null(strstr(err.text, "plain"));
    if (mm_isa_best() + 1 < (int)mm_isa_count) {
        setenv("MMAMBA_ISA", mm_isa_name(mm_isa_count - 1), 1);
        assert_int_equal(mm_backend_open_cpu(&be, 1, &err), mm_code_unsupported);
    }
    unsetenv("MMAMBA_ISA");
}

static void memory_is_zero_and_aligned(void **state) {
    (void)state;
    struct mm_backend *be;
    struct mm_error err = {0};
    assert_int_equal(mm_backend_open_cpu(&be, 2, &err), mm_code_ok);
    const size_t sizes[] = {0, 1, 63, 4097, 5u << 20};
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        void *p;
        assert_int_equal(be->alloc(be, sizes[i], &p, &err), mm_code_ok);
        assert_int_equal((uintptr_t)p % 64, 0);
        for (size_t b = 0; b < sizes[i]; b++)
            assert_int_equal(((unsigned char *)p)[b], 0);
        memset(p, 0xff, sizes[i]);
        be->release(be, p, sizes[i]);
    }
    void *p;
    assert_int_equal(be->alloc(be, SIZE_MAX / 2, &p, &err), mm_code_memory);
    mm_backend_close(be);
}

static void errors_are_sticky(void **state) {
    (void)state;
    struct mm_backend *be;
    struct mm_error err = {0};
    assert_int_equal(mm_backend_open_cpu(&be, 1, &err), mm_code_ok);
    float x[3] = {1, 2, 3};
    mm_fill(be, mm_view1(x, mm_dtype_f32, 3), 7.0f);
    assert_true(x[2] == 7.0f);
    assert_null(mm_cpu_scratch(be, mm_scratch_a, SIZE_MAX / 2));
    mm_fill(be, mm_view1(x, mm_dtype_f32, 3), 8.0f);
    assert_true(x[2] == 7.0f);
    assert_int_equal(mm_backend_sync(be, &err), mm_code_memory);
    assert_non_null(strstr(err.text, "scratch"));
    mm_backend_close(be);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(both_tables_are_full),
        cmocka_unit_test(fast_is_not_the_reference),
        cmocka_unit_test(isa_is_obeyed),
        cmocka_unit_test(unknown_isa_is_refused),
        cmocka_unit_test(memory_is_zero_and_aligned),
        cmocka_unit_test(errors_are_sticky),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
