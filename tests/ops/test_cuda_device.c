// The GPU backend's own promises (MMAMBA_TEST_BACKEND=cuda): memory is counted, what does not fit
// is refused with numbers before it is asked for, and a dead device stays dead and says why.
#include "cmocka_all.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "base/buf.h"
#include "ops/under_test.h"

static struct mm_error err;

#define OK(call)                                                       \
    do {                                                               \
        if ((call) != mm_code_ok) fail_msg("%s: %s", #call, err.text); \
    } while (0)
#define SAYS(words)                                                               \
    do {                                                                          \
        if (!strstr(err.text, words)) fail_msg("the sentence is '%s'", err.text); \
    } while (0)

static struct mm_backend *open_gpu(void) {
    struct mm_backend *be;
    unsetenv("MMAMBA_CUDA_MIRROR");
    OK(mm_backend_open_cuda(&be, 0, 1, &err));
    return be;
}

static int64_t held(struct mm_backend *be) {
    assert_true(be->gauges->peak_reset(be));
    return be->gauges->peak(be);
}

// y = x w^T of n x n floats, all ones: y is n everywhere.
static void multiply(struct mm_backend *be, int64_t n) {
    void *p[3];
    const size_t bytes = (size_t)(n * n) * sizeof(float);
    struct mm_view v[3];
    for (int i = 0; i < 3; i++) {
        OK(be->alloc(be, bytes, &p[i], &err));
        v[i] = mm_view2(p[i], mm_dtype_f32, n, n);
        mm_fill(be, v[i], i < 2 ? 1.0f : -1.0f);
    }
    mm_linear_fwd(be, v[2], v[0], v[1], MM_NONE);
    float *y = mm_xmalloc(bytes);
    be->download(be, y, p[2], bytes);
    OK(mm_backend_sync(be, &err));
    for (int64_t i = 0; i < n * n; i++)
        assert_true(y[i] == (float)n);
    free(y);
    for (int i = 0; i < 3; i++)
        be->release(be, p[i], bytes);
}

static void memory_is_counted(void **state) {
    (void)state;
    if (!testing_cuda()) skip();
    struct mm_backend *be = open_gpu();
    const size_t bytes = (size_t)96 << 20;
    void *p;
    multiply(be, 64);  // products take a workspace, once
    const int64_t before = held(be);
    OK(be->alloc(be, bytes, &p, &err));
    assert_int_equal(held(be), before + (int64_t)bytes);
    unsigned char *host = mm_xmalloc(bytes);
    memset(host, 1, bytes);
    be->download(be, host, p, bytes);  // zeroed
    for (size_t i = 0; i < bytes; i++)
        assert_int_equal(host[i], 0);
    free(host);
    be->release(be, p, bytes);
    for (int i = 0; i < 50; i++)
        multiply(be, 100 + i);
    assert_int_equal(held(be), before);
    mm_backend_close(be);
}

static void what_does_not_fit_is_refused(void **state) {
    (void)state;
    if (!testing_cuda()) skip();
    void *p, *q;
    setenv("MMAMBA_CUDA_MEMORY", "100M", 1);
    struct mm_backend *be = open_gpu();
    assert_int_equal(be->available(be), 100 << 20);
    assert_int_equal(be->alloc(be, (size_t)101 << 20, &p, &err), mm_code_memory);
    assert_null(p);
    SAYS("this needs 0.099 GiB of memory, 0.098 GiB are free");
    OK(be->alloc(be, (size_t)20 << 20, &p, &err));  // it goes on
    assert_int_equal(be->alloc(be, SIZE_MAX / 2, &q, &err), mm_code_memory);
    assert_int_equal(be->available(be), 80 << 20);
    multiply(be, 64);
    // what an operation needs for itself and does not get ends the backend
    held(be);
    const size_t most = (size_t)be->available(be) - (2 << 20);
    assert_true(most >= (size_t)8 << 20);
    OK(be->alloc(be, most, &q, &err));
    assert_int_equal(be->available(be), 2 << 20);
    const struct mm_view x = mm_view2(p, mm_dtype_f32, 1024, 2048);
    const struct mm_view w = mm_view2(p, mm_dtype_bf16, 2048, 2048);
    mm_linear_fwd(be, mm_view2(q, mm_dtype_f32, 1024, 2048), x, w, MM_NONE);
    assert_int_equal(mm_backend_sync(be, &err), mm_code_memory);
    SAYS("what an operation works in needs");
    SAYS("GiB are free");
    mm_backend_close(be);
    static const char *const wrong[] = {
        "lots", "-1", "0", "12 M", "12MB", "1e9", "99999999999999999G"};
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        setenv("MMAMBA_CUDA_MEMORY", wrong[i], 1);
        assert_int_equal(mm_backend_open_cuda(&be, 0, 1, &err), mm_code_usage);
        SAYS("MMAMBA_CUDA_MEMORY is");
    }
    unsetenv("MMAMBA_CUDA_MEMORY");
}

// Under the mirror operands have gaps behind them (src/ops/cuda/mirror.cu). Only a stand-in for a
// device (tests/gpu/stand_in) can be asked to do what a bad kernel does.
static void writes_beside_operands_are_told(void **state) {
    (void)state;
    if (!testing_cuda()) skip();
    struct mm_backend *be;
    float x[5] = {9.0f, 9.0f, 9.0f, 9.0f, 9.0f};
    setenv("MMAMBA_CUDA_MIRROR", "1", 1);
    OK(mm_backend_open_cuda(&be, 0, 1, &err));
    mm_fill(be, mm_view1(x, mm_dtype_f32, 3), 1.0f);
    assert_int_equal(mm_backend_sync(be, &err), mm_code_ok);
    assert_true(x[2] == 1.0f && x[3] == 9.0f);
    if (strstr(be->device, "Stand-in")) {
        setenv("MMAMBA_STAND_IN_SPILLS", "1", 1);
        mm_fill(be, mm_view1(x, mm_dtype_f32, 3), 2.0f);
        unsetenv("MMAMBA_STAND_IN_SPILLS");
        assert_int_equal(mm_backend_sync(be, &err), mm_code_device);
        SAYS("an operation that writes beside its operands");
        assert_true(x[3] == 9.0f);
    }
    mm_backend_close(be);
    unsetenv("MMAMBA_CUDA_MIRROR");
}

static void a_failed_call_is_kept(void **state) {
    (void)state;
    if (!testing_cuda()) skip();
    struct mm_backend *be;
    int n = 1;
    for (bool met = true; met; n++) {
        char text[32];
        snprintf(text, sizeof text, "call:%d", n);
        setenv("MMAMBA_CUDA_FAULT", text, 1);
        enum mm_code code = mm_backend_open_cuda(&be, 0, 1, &err);
        met = code != mm_code_ok;
        if (!met) {
            void *p;
            float x[3] = {7.0f, 7.0f, 7.0f};
            code = be->alloc(be, sizeof x, &p, &err);
            if (!code) {
                mm_fill(be, mm_view1(p, mm_dtype_f32, 3), 1.0f);
                be->download(be, x, p, sizeof x);
                code = mm_backend_sync(be, &err);
                // zeros of a dead device; what came before the last call failed
                assert_true(x[0] == 1.0f || (code && x[0] == 0.0f));
                assert_true(x[0] == x[1] && x[0] == x[2]);
                be->release(be, p, sizeof x);
            }
            met = code != mm_code_ok;
            mm_backend_close(be);
        }
        if (met) {
            assert_int_equal(code, mm_code_device);
            SAYS("failed: unknown error");
        }
    }
    assert_in_range(n, 6, 30);
    unsetenv("MMAMBA_CUDA_FAULT");
}

// The last test: the device is lost to this process.
static void a_dead_device_stays_dead(void **state) {
    (void)state;
    if (!testing_cuda()) skip();
    setenv("MMAMBA_CUDA_FAULT", "launch:2", 1);
    struct mm_backend *be = open_gpu(), *other;
    void *p, *q;
    float x[4] = {5.0f, 5.0f, 5.0f, 5.0f};
    OK(be->alloc(be, sizeof x, &p, &err));
    const struct mm_view v = mm_view1(p, mm_dtype_f32, 4);
    mm_fill(be, v, 1.0f);
    mm_fill(be, v, 2.0f);
    assert_int_equal(mm_backend_sync(be, &err), mm_code_device);
    SAYS("an illegal memory access");
    mm_fill(be, v, 3.0f);
    be->upload(be, p, x, sizeof x);
    be->download(be, x, p, sizeof x);
    for (int i = 0; i < 4; i++)
        assert_true(x[i] == 0.0f);
    assert_int_equal(be->alloc(be, 64, &q, &err), mm_code_device);
    SAYS("an illegal memory access");
    assert_int_equal(mm_backend_sync(be, &err), mm_code_device);
    be->release(be, p, sizeof x);
    mm_backend_close(be);
    unsetenv("MMAMBA_CUDA_FAULT");
    assert_int_not_equal(mm_backend_open_cuda(&other, 0, 1, &err), mm_code_ok);
    assert_true(strlen(err.text) > 10);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(memory_is_counted),
        cmocka_unit_test(what_does_not_fit_is_refused),
        cmocka_unit_test(writes_beside_operands_are_told),
        cmocka_unit_test(a_failed_call_is_kept),
        cmocka_unit_test(a_dead_device_stays_dead),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
