// Nothing is allocated inside a decode step, nor for a piece of a prompt of a length that was seen
// before: every call of the allocator, of libraries too, and every mapping is counted while prompts
// are read and answers written, on all threads, with every instruction set that this machine has.
#include "infer/infer_fixture.h"

#include <stdlib.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "infer/batch.h"
#include "ops/cpu/isa.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
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
void *memalign(size_t align, size_t n) {
    n_calls++;
    return __libc_memalign(align, n);
}
int posix_memalign(void **p, size_t align, size_t n) {
    n_calls++;
    *p = __libc_memalign(align, n);
    return *p ? 0 : 12;
}
void *mmap(void *at, size_t n, int prot, int flags, int fd, off_t offset) {
    n_calls++;
    return (void *)syscall(SYS_mmap, at, n, prot, flags, fd, offset);
}
#endif

enum { few = 80, piece = 32, prompt_pieces = 12, side_by_side = 3 };

static const char *const keeps[] = {"none", "0,4", "all"};  // linear, hybrid, teacher
static const enum mm_dtype dtypes[] = {mm_dtype_f32, mm_dtype_bf16};
static char *folders[3];

static int begin(void **state) {
    if (fixture_begin(state)) return -1;
    for (int k = 0; k < 3; k++)
        folders[k] = fixture_model(keeps[k], "pre_hybrid", keeps[k], 5);
    return 0;
}

static int end(void **state) {
    for (int k = 0; k < 3; k++)
        free(folders[k]);
    return fixture_end(state);
}

// An engine on a backend of one instruction set.
struct place {
    struct mm_backend *be;
    struct mm_engine *e;
};

static struct place place_open(int isa, int model, enum mm_dtype dtype) {
    struct place p;
    setenv("MMAMBA_ISA", mm_isa_name((enum mm_isa)isa), 1);
    OK(mm_backend_open_cpu(&p.be, 2, &err));
    OK(mm_engine_open(&p.e, p.be, folders[model], (int)dtype, &err));
    return p;
}

static void place_close(struct place *p) {
    mm_engine_close(p->e);
    mm_backend_close(p->be);
    unsetenv("MMAMBA_ISA");
}

static struct mm_session *asked(struct mm_engine *e, const char *question) {
    struct mm_session *s;
    OK(mm_session_new(&s, e, &MM_SESSION_OPTIONS, &err));
    const struct mm_picture p = {.path = "tests/golden/images/photo.jpg"};
    OK(mm_session_add_turn(s, question, &p, 1, &err));
    return s;
}

// The counter after the first step (the first token comes from the prompt) and after the last.
struct count {
    long tokens, at_first, at_last;
};

static bool on_text(void *arg, const char *text, size_t n) {
    (void)text, (void)n;
    struct count *c = arg;
    if (c->tokens++ == 1) c->at_first = n_calls;
    c->at_last = n_calls;
    return true;
}

static void steps_of(struct mm_engine *e, bool drawn) {
    struct mm_session *s = asked(e, "What is this?");
    if (drawn) {
        OK(mm_session_set_sampling(s, &(struct mm_sampling){1.5, 100, 0.99, 0.001, 1.2}, &err));
    }
    struct count c = {0};
    const struct mm_listener l = {NULL, on_text, &c};
    const struct mm_generation g = {few, few};
    struct mm_answer a;
    const long before = n_calls;
    OK(mm_session_generate(s, &g, &l, &a, &err));
    assert_true(c.tokens >= few);
    if (COUNTING) assert_true(n_calls > before);  // the prompt did: the counter counts
    assert_int_equal(c.at_last - c.at_first, 0);
    mm_session_free(s);
}

static void steps_of_a_batch(struct mm_engine *e) {
    static const char *const questions[side_by_side] = {"What is this?", "Why?", "Is it a tree?"};
    struct mm_session *s[side_by_side];
    struct mm_batch *b;
    OK(mm_batch_new(&b, e, side_by_side, &err));
    const struct mm_generation g = {few, few};
    for (int i = 0; i < side_by_side; i++) {
        s[i] = asked(e, questions[i]);
        OK(mm_batch_join(b, s[i], &g, NULL, NULL, &err));
    }
    OK(mm_batch_step(b, &err));
    const long first = n_calls;
    for (int i = 1; i < few - 1; i++)
        OK(mm_batch_step(b, &err));
    assert_int_equal(n_calls - first, 0);
    OK(mm_batch_step(b, &err));
    struct mm_batch_done done;
    for (int i = 0; i < side_by_side; i++) {
        assert_true(mm_batch_take(b, &done));
        assert_int_equal(done.answer.new_tokens, few);
        mm_session_free(done.session);
    }
    mm_batch_free(b);
}

// Where nothing can be counted the sanitizer sees the fastest path only.
static int first_isa(void) {
    return COUNTING ? 0 : (int)mm_isa_best();
}

static void steps_allocate_nothing(void **state) {
    (void)state;
    for (int isa = first_isa(); isa <= (int)mm_isa_best(); isa++) {
        for (int k = 0; k < 3; k++) {
            for (int d = 0; d < 4; d++) {
                struct place p = place_open(isa, k, dtypes[d % 2]);
                p.e->be->steps_ahead = d < 2 ? 0 : 8;  // as a GPU
                steps_of(p.e, false);
                steps_of(p.e, true);
                steps_of_a_batch(p.e);
                place_close(&p);
            }
        }
    }
}

struct reading {
    int pieces;
    long at[prompt_pieces];  // the counter after each
};

static bool on_piece(void *arg, int64_t n_read, int64_t n_all) {
    struct reading *r = arg;
    (void)n_all;
    r->at[r->pieces++] = n_calls;
    assert_int_equal(n_read, r->pieces * piece);
    return true;
}

// Whether every product of a prompt is our own: oneDNN packs its operands into memory it asks for
// in each call.
static bool own_products(int isa, enum mm_dtype dtype) {
#if defined(__x86_64__)
    return isa == mm_isa_plain || (isa >= mm_isa_amx && dtype == mm_dtype_bf16);
#else
    return isa == mm_isa_plain || dtype != mm_dtype_bf16;
#endif
}

static void an_equal_piece_allocates_nothing(void **state) {
    (void)state;
    for (int isa = first_isa(); isa <= (int)mm_isa_best(); isa++) {
        for (int k = 0; k < 3; k++) {
            for (int d = 0; d < 2; d++) {
                struct place p = place_open(isa, k, dtypes[d]);
                struct mm_session_options o = MM_SESSION_OPTIONS;
                o.piece_tokens = piece;
                struct mm_session *s;
                OK(mm_session_new(&s, p.e, &o, &err));
                while (s->ids.n < piece * prompt_pieces) {
                    OK(mm_session_add_text(s, "<|im_end|>", NULL, 0, &err));
                }
                struct reading r = {0};
                OK(mm_session_prefill(s, &(struct mm_listener){on_piece, NULL, &r}, &err));
                assert_int_equal(r.pieces, prompt_pieces);
                const long each = r.at[1] - r.at[0];
                if (own_products(isa, dtypes[d])) assert_int_equal(each, 0);
                for (int i = 2; i < prompt_pieces; i++)
                    assert_int_equal(r.at[i] - r.at[i - 1], each);
                mm_session_free(s);
                place_close(&p);
            }
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(steps_allocate_nothing),
        cmocka_unit_test(an_equal_piece_allocates_nothing),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
