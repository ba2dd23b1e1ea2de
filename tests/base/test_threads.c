// The pool: every item once, the same pieces each time, no lost wake-up, nobody waited for in vain.
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <string.h>
#include <time.h>
#include "base/threads.h"
#include "base/wait.h"
#include "cmocka_all.h"

enum { items_max = 1000 };

struct seen {
    int *count;       // (n) times an item was run
    int64_t *end_of;  // (n) where the piece that begins here ends; 0: none does
    atomic_int calls, wrong, inside[64];
    bool alone;  // the caller is to do everything
    pthread_t caller;
};

static void note(void *arg, int64_t begin, int64_t end, int thread) {
    struct seen *s = arg;
    if (atomic_fetch_add(&s->inside[thread], 1))
        atomic_fetch_add(&s->wrong, 1);  // one call a scratch
    if (begin >= end) atomic_fetch_add(&s->wrong, 1);
    if (s->alone && !pthread_equal(s->caller, pthread_self())) atomic_fetch_add(&s->wrong, 1);
    s->end_of[begin] = end;
    atomic_fetch_add(&s->calls, 1);
    for (int64_t i = begin; i < end; i++) {
        s->count[i]++;
    }
    atomic_fetch_sub(&s->inside[thread], 1);
}

typedef void loop_fn(struct mm_pool *, int64_t, int64_t, mm_task_fn *, void *);

static void run_once(loop_fn *loop, struct mm_pool *pool, struct seen *s, int64_t n,
                     int64_t grain) {
    memset(s->count, 0, (size_t)n * sizeof *s->count);
    memset(s->end_of, 0, (size_t)n * sizeof *s->end_of);
    atomic_store(&s->calls, 0);
    loop(pool, n, grain, note, s);
    assert_int_equal(atomic_load(&s->wrong), 0);
    int64_t at = 0;
    int pieces = 0;
    for (; at < n; at = s->end_of[at], pieces++) {
        assert_true(s->end_of[at] > at);
        if (grain > 0 && n >= 2 * grain) assert_true(s->end_of[at] - at >= grain);
    }
    assert_int_equal(at, n);
    assert_int_equal(pieces, atomic_load(&s->calls));
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(s->count[i], 1);
    }
}

static void every_item_once_in_fixed_pieces(void **state) {
    (void)state;
    static const int sizes[] = {1, 2, 3, 7};
    static const int64_t ns[] = {1, 2, 3, 7, 8, 63, items_max};
    static const int64_t grains[] = {0, 1, 4, 100};
    static loop_fn *const loops[] = {mm_parallel_for, mm_parallel_ranges};
    int count[items_max];
    int64_t end_of[items_max], first[items_max];
    struct seen s = {.count = count, .end_of = end_of, .caller = pthread_self()};
    for (int z = 0; z < 4; z++) {
        struct mm_pool *pool;
        assert_int_equal(mm_pool_new(&pool, sizes[z], NULL), mm_code_ok);
        assert_int_equal(mm_pool_size(pool), sizes[z]);
        for (int k = 0; k < 7 * 4 * 2; k++) {
            const int64_t n = ns[k / 8], grain = grains[k / 2 % 4];
            const int64_t most = n / (grain ? grain : 1);
            const int64_t parts = most < sizes[z] ? most : sizes[z];
            const int64_t cut = k % 2 ? 1 : most / (parts ? parts : 1);  // 8 at most
            const bool one = most < 2 || sizes[z] == 1;
            s.alone = one;
            run_once(loops[k % 2], pool, &s, n, grain);
            memcpy(first, end_of, (size_t)n * sizeof *first);
            assert_int_equal(atomic_load(&s.calls), one ? 1 : parts * (cut < 8 ? cut : 8));
            for (int again = 0; again < 3; again++) {
                run_once(loops[k % 2], pool, &s, n, grain);
                assert_memory_equal(first, end_of, (size_t)n * sizeof *first);
            }
        }
        mm_pool_free(pool);
    }
}

static void without_a_pool_the_caller_does_it(void **state) {
    (void)state;
    int count[5];
    int64_t end_of[5];
    struct seen s = {.count = count, .end_of = end_of, .alone = true, .caller = pthread_self()};
    run_once(mm_parallel_for, NULL, &s, 5, 1);
    assert_int_equal(atomic_load(&s.calls), 1);
    assert_int_equal(mm_pool_size(NULL), 1);
    mm_parallel_for(NULL, 0, 1, note, &s);
    mm_parallel_for(NULL, -1, 1, note, &s);
    assert_int_equal(atomic_load(&s.calls), 1);
    mm_pool_free(NULL);
}

// Plain (not atomic) data handed back and forth: each loop reads what the one before wrote
// elsewhere. A missing fence or a lost wake-up shows as a wrong number or a hang.
struct relay {
    int64_t from[256], to[256];
};

static void pass_on(void *arg, int64_t begin, int64_t end, int thread) {
    struct relay *r = arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        r->to[i] = r->from[255 - i] + 1;
    }
}

static void copy_back(void *arg, int64_t begin, int64_t end, int thread) {
    struct relay *r = arg;
    (void)thread;
    for (int64_t i = begin; i < end; i++) {
        r->from[i] = r->to[255 - i];
    }
}

static void loops_follow_each_other(void **state) {
    (void)state;
    for (int threads = 2; threads <= 5; threads++) {  // more than the CPUs of a small machine too
        struct mm_pool *pool;
        assert_int_equal(mm_pool_new(&pool, threads, NULL), mm_code_ok);
        struct relay r = {0};
        enum { rounds = 3000 };
        for (int k = 0; k < rounds; k++) {
            mm_parallel_for(pool, 256, 1, pass_on, &r);
            mm_parallel_for(pool, 256, 1, copy_back, &r);
            // Now and then long enough for the workers to fall asleep.
            if (k % 500 == 0) nanosleep(&(struct timespec){0, 2000000}, NULL);
        }
        for (int i = 0; i < 256; i++) {
            assert_int_equal(r.from[i], rounds);
        }
        mm_pool_free(pool);
    }
}

// The first piece that anyone begins is not finished until all the others are: with shares that
// nobody else may touch this would wait in vain.
struct delayed {
    atomic_int begun, done;
    int pieces;
    bool in_time;
};

static void delay_the_first(void *arg, int64_t begin, int64_t end, int thread) {
    struct delayed *d = arg;
    (void)begin, (void)end, (void)thread;
    if (atomic_fetch_add(&d->begun, 1) == 0) {
        for (int ms = 0; ms < 20000 && !d->in_time; ms++) {
            d->in_time = atomic_load(&d->done) == d->pieces - 1;
            if (!d->in_time) nanosleep(&(struct timespec){0, 1000000}, NULL);
        }
    }
    atomic_fetch_add(&d->done, 1);
}

static void one_late_thread_holds_up_one_piece(void **state) {
    (void)state;
    for (int threads = 2; threads <= 5; threads++) {
        struct mm_pool *pool;
        assert_int_equal(mm_pool_new(&pool, threads, NULL), mm_code_ok);
        for (int k = 0; k < 5; k++) {
            struct delayed d = {.pieces = threads * 8};
            mm_parallel_for(pool, 1000, 1, delay_the_first, &d);
            assert_int_equal(atomic_load(&d.done), d.pieces);
            assert_true(d.in_time);
        }
        mm_pool_free(pool);
    }
}

// Each thread comes once, and waits there until all have.
struct gang {
    int size, times[64];
    atomic_int there, wrong;
};

static void meet(void *arg, int64_t begin, int64_t end, int thread) {
    struct gang *g = arg;
    if (begin != thread || end != thread + 1) atomic_fetch_add(&g->wrong, 1);
    g->times[thread]++;
    atomic_fetch_add(&g->there, 1);
    for (int ms = 0; ms < 20000 && atomic_load(&g->there) < g->size; ms++) {
        sched_yield();
        if (ms > 100) nanosleep(&(struct timespec){0, 1000000}, NULL);
    }
}

static void all_threads_meet(void **state) {
    (void)state;
    for (int threads = 1; threads <= 5; threads++) {
        struct mm_pool *pool;
        assert_int_equal(mm_pool_new(&pool, threads, NULL), mm_code_ok);
        struct relay r = {0};
        enum { rounds = 300 };
        for (int k = 0; k < rounds; k++) {
            struct gang g = {.size = threads};
            mm_parallel_all(pool, meet, &g);
            assert_int_equal(atomic_load(&g.wrong), 0);
            assert_int_equal(atomic_load(&g.there), threads);
            for (int t = 0; t < threads; t++)
                assert_int_equal(g.times[t], 1);
            mm_parallel_for(pool, 256, 1, pass_on, &r);  // the two kinds take turns
            mm_parallel_for(pool, 256, 1, copy_back, &r);
        }
        assert_int_equal(r.from[0], rounds);
        mm_pool_free(pool);
    }
    struct gang alone = {.size = 1};
    mm_parallel_all(NULL, meet, &alone);
    assert_int_equal(alone.times[0], 1);
}

static void slow_worker(void *arg, int64_t begin, int64_t end, int thread) {
    (void)begin, (void)end;
    // Longer than the caller spins, so that it sleeps and must be woken.
    if (thread == 1) nanosleep(&(struct timespec){0, 3000000}, NULL);
    atomic_fetch_add((atomic_int *)arg, 1);
}

static void the_caller_sleeps_and_is_woken(void **state) {
    (void)state;
    struct mm_pool *pool;
    assert_int_equal(mm_pool_new(&pool, 3, NULL), mm_code_ok);
    for (int k = 0; k < 20; k++) {
        atomic_int done = 0;
        mm_parallel_all(pool, slow_worker, &done);
        assert_int_equal(atomic_load(&done), 3);
    }
    mm_pool_free(pool);
}

static void an_idle_pool_takes_no_time(void **state) {
    (void)state;
    struct mm_pool *pool;
    atomic_int done = 0;
    assert_int_equal(mm_pool_new(&pool, 4, NULL), mm_code_ok);
    mm_parallel_all(pool, slow_worker, &done);
    struct timespec a, b;
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &a);
    nanosleep(&(struct timespec){0, 200000000}, NULL);
    clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &b);
    const double used = (double)(b.tv_sec - a.tv_sec) + (double)(b.tv_nsec - a.tv_nsec) * 1e-9;
    assert_true(used < 0.02);
    mm_pool_free(pool);
}

static void many_pools_come_and_go(void **state) {
    (void)state;
    for (int k = 0; k < 200; k++) {
        struct mm_pool *pool;
        assert_int_equal(mm_pool_new(&pool, 1 + k % 4, NULL), mm_code_ok);
        if (k % 3) {
            atomic_int done = 0;
            mm_parallel_for(pool, 100, 50, slow_worker, &done);
        }
        mm_pool_free(pool);
    }
}

// A mask of one CPU, or of all but one: that many threads, and a pool of them does its work.
static void the_affinity_mask_is_respected(void **state) {
    (void)state;
    cpu_set_t all;
    assert_int_equal(sched_getaffinity(0, sizeof all, &all), 0);
    const int before = mm_threads_available();
    int used = 0;
    cpu_set_t some;
    CPU_ZERO(&some);
    for (size_t cpu = 0; cpu < CPU_SETSIZE && used < before - 1; cpu++) {
        if (!CPU_ISSET(cpu, &all)) continue;
        CPU_SET(cpu, &some);
        used++;
        if (used != 1 && used != before - 1) continue;
        assert_int_equal(sched_setaffinity(0, sizeof some, &some), 0);
        assert_int_equal(mm_threads_available(), used);
        struct mm_pool *pool;
        assert_int_equal(mm_pool_new(&pool, 0, NULL), mm_code_ok);
        assert_int_equal(mm_pool_size(pool), used);
        mm_pool_free(pool);
        assert_int_equal(mm_pool_new(&pool, 3, NULL), mm_code_ok);  // what is asked for is taken
        struct relay r = {0};
        for (int k = 0; k < 20; k++) {
            mm_parallel_for(pool, 256, 1, pass_on, &r);
            mm_parallel_for(pool, 256, 1, copy_back, &r);
        }
        assert_int_equal(r.from[255], 20);
        mm_pool_free(pool);
    }
    assert_int_equal(sched_setaffinity(0, sizeof all, &all), 0);
    assert_int_equal(mm_threads_available(), before);
}

static void vain_spins_become_short(void **state) {
    (void)state;
    struct mm_patience p = MM_PATIENT;
    _Atomic uint32_t word = 7;
    for (int i = 0; i < 40; i++)
        assert_false(mm_spin(&word, 7, false, &p));
    assert_true(p.ns < mm_spin_max_ns / 20);
    const struct mm_patience before = p;
    assert_true(mm_spin(&word, 7, true, &p));
    assert_true(mm_spin(&word, 8, false, &p));
    assert_int_equal(p.waits, before.waits);  // nothing was waited for, nothing learned
}

static void absurd_sizes_are_refused(void **state) {
    (void)state;
    struct mm_pool *pool;
    struct mm_error err;
    assert_int_equal(mm_pool_new(&pool, -1, &err), mm_code_input);
    assert_int_equal(mm_pool_new(&pool, 1 << 20, &err), mm_code_input);
    assert_null(pool);
    assert_true(mm_threads_available() >= 1);
    assert_int_equal(mm_pool_new(&pool, 0, &err), mm_code_ok);
    assert_int_equal(mm_pool_size(pool), mm_threads_available());
    mm_pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_item_once_in_fixed_pieces),
        cmocka_unit_test(without_a_pool_the_caller_does_it),
        cmocka_unit_test(loops_follow_each_other),
        cmocka_unit_test(one_late_thread_holds_up_one_piece),
        cmocka_unit_test(all_threads_meet),
        cmocka_unit_test(the_caller_sleeps_and_is_woken),
        cmocka_unit_test(an_idle_pool_takes_no_time),
        cmocka_unit_test(many_pools_come_and_go),
        cmocka_unit_test(the_affinity_mask_is_respected),
        cmocka_unit_test(vain_spins_become_short),
        cmocka_unit_test(absurd_sizes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
