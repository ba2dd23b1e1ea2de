// Nothing is allocated inside a decode step: every call of the allocator in this program is counted
// while an answer is written, on all threads, and every block a backend gives out.
#include "infer/infer_fixture.h"

#if defined(__SANITIZE_ADDRESS__)
#define COUNTING 0  // the sanitizer's allocator stands in the way
#else
#define COUNTING 1
#endif

static _Atomic long n_calls;

#if COUNTING
void *__libc_malloc(size_t n);
void *__libc_calloc(size_t n, size_t m);
void *__libc_realloc(void *p, size_t n);
void *__libc_memalign(size_t align, size_t n);

void *malloc(size_t n) {
    n_calls++;
    return __libc_malloc(n);
}
void *calloc(size_t n, size_t m) {
    n_calls++;
    return __libc_calloc(n, m);
}
void *realloc(void *p, size_t n) {
    n_calls++;
    return __libc_realloc(p, n);
}
void *aligned_alloc(size_t align, size_t n) {
    n_calls++;
    return __libc_memalign(align, n);
}
int posix_memalign(void **p, size_t align, size_t n) {
    n_calls++;
    *p = __libc_memalign(align, n);
    return *p ? 0 : 12;
}
#endif

static enum mm_code (*real_alloc)(struct mm_backend *, size_t, void **, struct mm_error *);

static enum mm_code counted_alloc(struct mm_backend *be, size_t bytes, void **out,
                                  struct mm_error *e) {
    n_calls++;
    return real_alloc(be, bytes, out, e);
}

struct count {
    long tokens, at_first, at_last;
};

static bool on_text(void *arg, const char *text, size_t n) {
    (void)text, (void)n;
    struct count *c = arg;
    if (c->tokens++ == 2) c->at_first = n_calls;  // first steps may meet a size for the first time
    c->at_last = n_calls;
    return true;
}

static void steps_allocate_nothing(void **state) {
    (void)state;
    static const char *const keeps[] = {"none", "0,4", "all"};
    real_alloc = fixture_be->alloc;
    fixture_be->alloc = counted_alloc;
    for (int k = 0; k < 3; k++) {
        for (int drawn = 0; drawn < 2; drawn++) {
            char *folder = fixture_model(keeps[k], "pre_hybrid", keeps[k], 5);
            struct mm_engine *e = fixture_engine(folder);
            struct mm_session *s;
            OK(mm_session_new(&s, e, &MM_SESSION_OPTIONS, &err));
            if (drawn) {
                OK(mm_session_set_sampling(s, &(struct mm_sampling){1.5, 100, 0.99, 0.001, 1.2},
                                           &err));
            }
            const struct mm_picture p = {.path = "tests/golden/images/photo.jpg"};
            OK(mm_session_add_turn(s, "What is this?", &p, 1, &err));
            struct count c = {0};
            const struct mm_listener l = {NULL, on_text, &c};
            const struct mm_generation g = {700, 700};
            struct mm_answer a;
            const long before = n_calls;
            OK(mm_session_generate(s, &g, &l, &a, &err));
            assert_int_equal(c.tokens >= 700, 1);
            if (COUNTING) assert_true(n_calls > before);  // the prompt did: the counter counts
            assert_int_equal(c.at_last - c.at_first, 0);
            mm_session_free(s);
            mm_engine_close(e);
            free(folder);
        }
    }
    fixture_be->alloc = real_alloc;
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(steps_allocate_nothing)};
    return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
