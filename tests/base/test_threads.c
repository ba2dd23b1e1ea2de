// The pool: every item once, the same ranges each time, no lost wake-up.
#include <pthread.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include "base/threads.h"
#include "cmocka_all.h"

struct seen {
    int64_t n;
    int *count;            // (n) times an item was run
    int64_t range[64][2];  // by thread; -1 when it had none
    pthread_t who[64];
    atomic_int calls;
};

static void note(void *arg, int64_t begin, int64_t end, int thread) {
    struct seen *s = arg;
    s->range[thread][0] = begin, s->range[thread][1] = end;
    s->who[thread] = pthread_self();
    atomic_fetch_add(&s->calls, 1);
    for (int64_t i = begin; i < end; i++) {
        s->count[i]++;
    }
}

static void run_once(struct mm_pool *pool, struct seen *s, int64_t n, int64_t grain) {
    memset(s->range, 0xff, sizeof s->range);
    memset(s->count, 0, (size_t)n * sizeof *s->count);
    atomic_store(&s->calls, 0);
    s->n = n;
    mm_parallel_for(pool, n, grain, note, s);
    int64_t at = 0;
    for (int t = 0; t < 64 && s->range[t][0] >= 0; t++) {
        assert_int_equal(s->range[t][0], at);  // contiguous, in order of the thread
        assert_true(s->range[t][1] > at);
        at = s->range[t][1];
    }
    assert_int_equal(at, n);
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(s->count[i], 1);
    }
}

static void every_item_once_in_fixed_ranges(void **state) {
    (void)state;
    static const int sizes[] = {1, 2, 3, 7};
    static const int64_t ns[] = {1, 2, 3, 7, 8, 63, 1000};
    static const int64_t grains[] = {0, 1, 4, 100};
    struct seen s = {.count = calloc(1000, sizeof(int))};
    for (int z = 0; z < 4; z++) {
        struct mm_pool *pool;
        assert_int_equal(mm_pool_new(&pool, sizes[z], NULL), mm_code_ok);
        assert_int_equal(mm_pool_size(pool), sizes[z]);
        for (int i = 0; i < 7; i++) {
            for (int g = 0; g < 4; g++) {
                run_once(pool, &s, ns[i], grains[g]);
                int64_t first[64][2];
                memcpy(first, s.range, sizeof first);
                const int64_t grain = grains[g] ? grains[g] : 1;
                const int64_t most = ns[i] / grain;
                const int parts = most < 2 ? 1 : most < sizes[z] ? (int)most : sizes[z];
                assert_int_equal(atomic_load(&s.calls), parts);
                assert_true(pthread_equal(s.who[0], pthread_self()));
                for (int again = 0; again < 3; again++) {
                    run_once(pool, &s, ns[i], grains[g]);
                    assert_memory_equal(first, s.range, sizeof first);
                }
            }
        }
        mm_pool_free(pool);
    }
    free(s.count);
}

static void without_a_pool_the_caller_does_it(void **state) {
    (void)state;
    int count[5];
    struct seen s = {.count = count};
    run_once(NULL, &s, 5, 1);
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
        mm_parallel_for(pool, 3, 1, slow_worker, &done);
        assert_int_equal(atomic_load(&done), 3);
    }
    mm_pool_free(pool);
}

static void an_idle_pool_takes_no_time(void **state) {
    (void)state;
    struct mm_pool *pool;
    atomic_int done = 0;
    assert_int_equal(mm_pool_new(&pool, 4, NULL), mm_code_ok);
    mm_parallel_for(pool, 4, 1, slow_worker, &done);
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
        cmocka_unit_test(every_item_once_in_fixed_ranges),
        cmocka_unit_test(without_a_pool_the_caller_does_it),
        cmocka_unit_test(loops_follow_each_other),
        cmocka_unit_test(the_caller_sleeps_and_is_woken),
        cmocka_unit_test(an_idle_pool_takes_no_time),
        cmocka_unit_test(many_pools_come_and_go),
        cmocka_unit_test(absurd_sizes_are_refused),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
