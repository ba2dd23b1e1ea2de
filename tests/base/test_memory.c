// Arenas, buffers and mapped files.
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>
#include "base/arena.h"
#include "base/buf.h"
#include "base/mmap.h"
#include "cmocka_all.h"

static void take_some(struct mm_arena *a, unsigned char *out[4]) {
    out[0] = mm_arena_take(a, 1);
    out[1] = mm_arena_take(a, 64);
    const size_t mark = mm_arena_mark(a);
    out[2] = mm_arena_take(a, 1000);
    mm_arena_release(a, mark);
    out[3] = mm_arena_take(a, 130);
}

static void a_plan_is_what_is_used(void **state) {
    (void)state;
    struct mm_arena dry, real;
    unsigned char *p[4];
    mm_arena_init_dry(&dry);
    take_some(&dry, p);
    assert_null(p[0]);
    assert_null(p[3]);
    assert_int_equal(dry.used, 64 + 64 + 192);
    assert_int_equal(dry.peak, 64 + 64 + 1024);
    assert_int_equal(mm_arena_init(&real, dry.peak, NULL), mm_code_ok);
    take_some(&real, p);
    assert_int_equal(real.used, dry.used);
    assert_int_equal(real.peak, dry.peak);
    for (int i = 0; i < 4; i++) {
        assert_int_equal((uintptr_t)p[i] % mm_arena_align, 0);
        assert_int_equal(p[i][0], 0);
    }
    assert_ptr_equal(p[2], p[3]);  // the release gave it back
    memset(p[3], 7, 130);
    assert_ptr_equal(mm_arena_take(&real, 0), p[3] + 192);
    mm_arena_deinit(&real);
    assert_null(real.base);
    mm_arena_deinit(&dry);
}

static void arenas_of_any_size(void **state) {
    (void)state;
    struct mm_arena a;
    assert_int_equal(mm_arena_init(&a, 0, NULL), mm_code_ok);
    mm_arena_deinit(&a);
    assert_int_equal(mm_arena_init(&a, (size_t)5 << 20, NULL), mm_code_ok);  // large pages
    unsigned char *p = mm_arena_take(&a, (size_t)5 << 20);
    p[0] = p[((size_t)5 << 20) - 1] = 1;
    mm_arena_deinit(&a);
    struct mm_error err;
    assert_int_equal(mm_arena_init(&a, SIZE_MAX, &err), mm_code_memory);
    assert_int_equal(mm_arena_init(&a, SIZE_MAX / 2, &err), mm_code_memory);
    assert_true(strlen(err.text) > 10);
    _Alignas(64) static unsigned char mine[200];
    mm_arena_init_over(&a, mine, sizeof mine);
    assert_ptr_equal(mm_arena_take(&a, 100), mine);
    assert_ptr_equal(mm_arena_take(&a, 64), mine + 128);
    assert_int_equal(a.cap - a.used, 0);  // the last 8 bytes are no whole unit
    mm_arena_deinit(&a);
}

#ifdef __SANITIZE_ADDRESS__
#include <sanitizer/asan_interface.h>
// Only in the sanitized build: what was not taken is out of bounds, although it is mapped.
static void slack_is_poisoned(void **state) {
    (void)state;
    struct mm_arena a;
    assert_int_equal(mm_arena_init(&a, 4096, NULL), mm_code_ok);
    unsigned char *p = mm_arena_take(&a, 100);
    assert_false(__asan_address_is_poisoned(p + 99));
    assert_true(__asan_address_is_poisoned(p + 100));
    mm_arena_release(&a, 0);
    p = mm_arena_take(&a, 10);
    assert_true(__asan_address_is_poisoned(p + 10));
    mm_arena_deinit(&a);
}
#endif

static void buffers_grow(void **state) {
    (void)state;
    struct mm_buf b = {0};
    mm_buf_reset(&b);
    mm_buf_adds(&b, "");
    assert_string_equal(b.data, "");
    for (int i = 0; i < 1000; i++) {
        mm_buf_addf(&b, "%d,", i);
    }
    assert_int_equal(b.len, 10 * 2 + 90 * 3 + 900 * 4);
    assert_string_equal(b.data + b.len - 8, "998,999,");
    mm_buf_reset(&b);
    assert_int_equal(b.len, 0);
    mm_buf_add(&b, "a\0b", 3);
    assert_memory_equal(b.data, "a\0b", 4);
    mm_buf_free(&b);
    assert_null(b.data);
    char *s = mm_xasprintf("%s-%d", "x", 5);
    char *t = mm_xstrdup(s);
    assert_string_equal(t, "x-5");
    free(s);
    free(t);
    unsigned char *z = mm_xcalloc(0, 0);
    z = mm_xrealloc(z, 10);
    free(z);
    free(mm_xmalloc(0));
}

static void files_are_mapped(void **state) {
    (void)state;
    char folder[] = "/tmp/mmamba-map-XXXXXX", path[64], pipe_path[64];
    assert_non_null(mkdtemp(folder));
    snprintf(path, sizeof path, "%s/f", folder);
    snprintf(pipe_path, sizeof pipe_path, "%s/p", folder);
    struct mm_map m;
    struct mm_error err;
    assert_int_equal(mm_map_open(&m, path, &err), mm_code_io);
    assert_non_null(strstr(err.text, "/f: cannot open: No such file"));
    FILE *f = fopen(path, "w");
    assert_int_equal(mm_map_open(&m, path, &err), mm_code_ok);
    assert_null(m.data);
    assert_int_equal(m.bytes, 0);
    mm_map_close(&m);
    fputs("hello", f);
    fclose(f);
    assert_int_equal(mm_map_open(&m, path, &err), mm_code_ok);
    assert_int_equal(m.bytes, 5);
    assert_memory_equal(m.data, "hello", 5);
    mm_map_close(&m);
    assert_null(m.data);
    assert_int_equal(mm_map_open(&m, folder, &err), mm_code_input);
    assert_non_null(strstr(err.text, "is a folder, a regular file is needed"));
    assert_int_equal(mkfifo(pipe_path, 0600), 0);
    assert_int_equal(mm_map_open(&m, pipe_path, &err), mm_code_input);  // and does not hang
    assert_non_null(strstr(err.text, "is a pipe"));
    assert_int_equal(mm_map_open(&m, "/dev/null", &err), mm_code_input);
    unlink(path);
    unlink(pipe_path);
    rmdir(folder);
}

// Files on both sides of a huge page, mapped, asked for ahead and copied: the same bytes at the
// same place, and no mapping of the file left.
static void mappings_become_copies(void **state) {
    (void)state;
    static const size_t sizes[] = {0, 1, 4096, 100000, 4 << 20, (4 << 20) + 1, (7 << 20) - 4096};
    char path[] = "/tmp/mmamba-map-XXXXXX";
    const int fd = mkstemp(path);
    assert_true(fd >= 0);
    struct mm_error err;
    for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        const size_t n = sizes[i];
        unsigned char *want = mm_xmalloc(n);
        for (size_t k = 0; k < n; k++)
            want[k] = (unsigned char)(k * 31 + k / 4096);
        assert_int_equal(ftruncate(fd, 0), 0);
        assert_int_equal(pwrite(fd, want, n, 0), (ssize_t)n);
        struct mm_map m;
        assert_int_equal(mm_map_open(&m, path, &err), mm_code_ok);
        assert_int_equal(m.bytes, n);
        if (n >= 4 << 20) assert_int_equal((uintptr_t)m.data % (2 << 20), 0);
        mm_map_prefetch(&m);
        if (n) assert_memory_equal(m.data, want, n);
        const void *at = m.data;
        assert_int_equal(mm_map_copy(&m, &err), mm_code_ok);
        assert_ptr_equal(m.data, at);
        assert_int_equal(ftruncate(fd, 0), 0);  // a mapping of the file would fault now
        if (n) assert_memory_equal(m.data, want, n);
        mm_map_close(&m);
        free(want);
    }
    close(fd);
    unlink(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_plan_is_what_is_used), cmocka_unit_test(arenas_of_any_size),
#ifdef __SANITIZE_ADDRESS__
        cmocka_unit_test(slack_is_poisoned),
#endif
        cmocka_unit_test(buffers_grow),           cmocka_unit_test(files_are_mapped),
        cmocka_unit_test(mappings_become_copies),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
