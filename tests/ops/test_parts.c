// Memory that grows where it lies (struct mm_parts), on a GPU's own memory: addresses stay, what is
// there stays, what is new is zero, what does not fit is refused before anything is taken.
#include "cmocka_all.h"

#include <string.h>

#include "under_test.h"

enum { n_parts = 3, sample = 4096 };

static unsigned char mark(int64_t part, size_t at) {
    return (unsigned char)(1 + (part * 31 + (int64_t)at * 7) % 255);
}

static char *place(const struct mm_parts *p, int64_t part, size_t at) {
    return (char *)p->at + (size_t)part * p->room + at;
}

static void write_marks(struct mm_backend *be, const struct mm_parts *p, size_t at) {
    unsigned char host[sample];
    for (int64_t i = 0; i < n_parts; i++) {
        for (size_t k = 0; k < sample; k++)
            host[k] = mark(i, at + k);
        be->upload(be, place(p, i, at), host, sample);
        assert_int_equal(mm_backend_sync(be, NULL), mm_code_ok);
    }
}

static void expect(struct mm_backend *be, const struct mm_parts *p, size_t at, bool marked) {
    unsigned char host[sample];
    for (int64_t i = 0; i < n_parts; i++) {
        be->download(be, host, place(p, i, at), sample);
        for (size_t k = 0; k < sample; k++)
            assert_int_equal(host[k], marked ? mark(i, at + k) : 0);
    }
}

static void parts_grow_in_place(void **state) {
    (void)state;
    struct mm_backend *be;
    struct mm_error err;
    if (!testing_cuda()) skip();
    unsetenv("MMAMBA_CUDA_MIRROR");
    if (mm_backend_open_cuda(&be, 0, 1, &err)) fail_msg("%s", err.text);
    assert_non_null(be->grow);
    be->gauges->peak_reset(be);
    const int64_t before = be->gauges->peak(be);
    struct mm_parts p = {.n = n_parts};
    assert_int_equal(be->grow(be, &p, 100, &err), mm_code_ok);
    const char *const at = p.at;
    const size_t first = p.bytes;
    assert_true(first >= sample && p.room >= first);
    assert_int_equal(be->gauges->peak(be) - before, n_parts * (int64_t)first);
    expect(be, &p, 0, false);
    write_marks(be, &p, 0);
    write_marks(be, &p, first - sample);

    assert_int_equal(be->grow(be, &p, first, &err), mm_code_ok);  // there already
    assert_int_equal(p.bytes, first);
    assert_int_equal(be->grow(be, &p, first + 1, &err), mm_code_ok);
    assert_int_equal(be->grow(be, &p, 40 * first, &err), mm_code_ok);
    assert_ptr_equal(p.at, at);
    assert_int_equal(p.bytes, 40 * first);
    // never twice what is there
    assert_int_equal(be->gauges->peak(be) - before, n_parts * 40 * (int64_t)first);
    expect(be, &p, 0, true);
    expect(be, &p, first - sample, true);
    expect(be, &p, first, false);
    expect(be, &p, 40 * first - sample, false);
    write_marks(be, &p, 40 * first - sample);

    const size_t much[] = {(size_t)be->available(be) / n_parts + 2 * first + p.bytes, SIZE_MAX / 2};
    for (size_t i = 0; i < 2; i++) {
        assert_int_equal(be->grow(be, &p, much[i], &err), mm_code_memory);
        assert_non_null(strstr(err.text, "GiB are free"));
        assert_int_equal(p.bytes, 40 * first);
    }
    expect(be, &p, 40 * first - sample, true);
    assert_int_equal(mm_backend_sync(be, &err), mm_code_ok);
    be->release_parts(be, &p);
    assert_null(p.at);
    be->gauges->peak_reset(be);
    assert_int_equal(be->gauges->peak(be), before);
    assert_int_equal(mm_backend_sync(be, &err), mm_code_ok);
    mm_backend_close(be);
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(parts_grow_in_place)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
