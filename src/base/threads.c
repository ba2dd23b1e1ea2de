// The pool. A loop is published by raising a generation number; each worker runs its range and
// counts down. Waiting, on either side, spins for a few tens of microseconds (operations of one
// model step follow each other that closely) and then sleeps on the futex, so that an idle pool,
// or one that shares its cores with others, costs nothing.
#include "base/threads.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <linux/futex.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>
#include "base/cgroup.h"

enum { cache_line = 64, max_threads = 4096, spin_ns = 40000, spins_per_look = 64 };

struct worker {
    struct mm_pool *pool;
    pthread_t thread;
    int index;  // 1 .. size - 1; 0 is the caller
};

struct mm_pool {
    int size;
    bool spin;  // false when there are more threads than CPUs: a spinning one would hold up another
    struct worker *workers;  // (size - 1)
    // The loop being run: written by the caller before `generation` rises, then only read.
    mm_task_fn *fn;
    void *arg;
    int64_t n;
    int parts;
    bool stop;
    atomic_flag busy;
    // Each on its own line: they are written by different threads.
    _Alignas(cache_line) _Atomic uint32_t generation;
    _Alignas(
        cache_line) _Atomic uint32_t sleepers;  // workers asleep on `generation`, or about to be
    _Alignas(cache_line) _Atomic uint32_t remaining;  // workers that have not finished this loop
    _Alignas(cache_line) _Atomic uint32_t caller_sleeps;
};

int mm_threads_available(void) {
    int n = 0;
    // The kernel refuses a mask smaller than its own; it grows until it fits.
    for (int bits = 1024; n == 0 && bits <= 1 << 20; bits *= 4) {
        cpu_set_t *set = CPU_ALLOC((size_t)bits);
        if (!set) break;
        const size_t bytes = CPU_ALLOC_SIZE((size_t)bits);
        if (sched_getaffinity(0, bytes, set) == 0) {
            n = CPU_COUNT_S(bytes, set);
        } else if (errno != EINVAL) {
            bits = 1 << 20;
        }
        CPU_FREE(set);
    }
    if (n == 0) n = (int)sysconf(_SC_NPROCESSORS_ONLN);
    const int limit = mm_cgroup_cpus("/proc/self/cgroup", "/sys/fs/cgroup");
    if (limit > 0 && limit < n) n = limit;
    return n < 1 ? 1 : n > max_threads ? max_threads : n;
}

static void futex_wait(_Atomic uint32_t *word, uint32_t seen) {
    syscall(SYS_futex, word, FUTEX_WAIT_PRIVATE, seen, NULL, NULL, 0);
}

static void futex_wake(_Atomic uint32_t *word, int n) {
    syscall(SYS_futex, word, FUTEX_WAKE_PRIVATE, n, NULL, NULL, 0);
}

static inline void cpu_relax(void) {
#if defined(__x86_64__) || defined(__i386__)
    __builtin_ia32_pause();
#elif defined(__aarch64__)
    __asm__ volatile("yield");
#endif
}

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

// Spins until *word differs from `seen` (equals = false) or equals it (equals = true); false when
// that did not happen in time.
static bool spin_until(_Atomic uint32_t *word, uint32_t seen, bool equals) {
    const int64_t end = now_ns() + spin_ns;
    do {
        for (int i = 0; i < spins_per_look; i++) {
            if ((atomic_load_explicit(word, memory_order_acquire) == seen) == equals) return true;
            cpu_relax();
        }
    } while (now_ns() < end);
    return false;
}

// Waits for a generation other than `seen` and returns it.
static uint32_t await_generation(struct mm_pool *p, uint32_t seen) {
    if (!p->spin || !spin_until(&p->generation, seen, false)) {
        // Announce, then look again: the caller raises the generation before it looks for sleepers,
        // so one of the two sees the other. All of it sequentially consistent.
        atomic_fetch_add(&p->sleepers, 1);
        while (atomic_load(&p->generation) == seen) {
            futex_wait(&p->generation, seen);
        }
        atomic_fetch_sub(&p->sleepers, 1);
    }
    return atomic_load_explicit(&p->generation, memory_order_acquire);
}

// Thread t's part of [0, n): contiguous, sizes differing by at most one item.
static void run_part(const struct mm_pool *p, int t) {
    if (t >= p->parts) return;
    const int64_t size = p->n / p->parts, extra = p->n % p->parts;
    const int64_t begin = t * size + (t < extra ? t : extra);
    const int64_t end = begin + size + (t < extra);
    p->fn(p->arg, begin, end, t);
}

static void *worker_main(void *arg) {
    const struct worker *w = arg;
    struct mm_pool *p = w->pool;
    uint32_t seen = 0;
    for (;;) {
        seen = await_generation(p, seen);
        if (p->stop) return NULL;
        run_part(p, w->index);
        if (atomic_fetch_sub(&p->remaining, 1) == 1 && atomic_load(&p->caller_sleeps)) {
            futex_wake(&p->remaining, 1);
        }
    }
}

static void publish(struct mm_pool *p) {
    atomic_fetch_add(&p->generation, 1);
    if (atomic_load(&p->sleepers) > 0) futex_wake(&p->generation, INT_MAX);
}

enum mm_code mm_pool_new(struct mm_pool **pool, int n, struct mm_error *err) {
    *pool = NULL;
    if (n < 0 || n > max_threads) {
        return mm_fail(err, mm_code_input, "%d threads were asked for, must be 0 to %d", n,
                       max_threads);
    }
    const int available = mm_threads_available();
    if (n == 0) n = available;
    struct mm_pool *p = aligned_alloc(cache_line, sizeof *p);
    struct worker *workers = calloc((size_t)n, sizeof *workers);
    if (!p || !workers) {
        free(p);
        free(workers);
        return mm_fail(err, mm_code_memory, "no memory for %d threads", n);
    }
    memset(p, 0, sizeof *p);
    p->size = 1;
    p->spin = n <= available;
    p->workers = workers;
    atomic_flag_clear(&p->busy);

    // Signals are the main thread's: a worker in the middle of a loop must not run a handler.
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = 0;
    for (int i = 1; i < n && !failed; i++) {
        struct worker *w = &workers[i - 1];
        *w = (struct worker){.pool = p, .index = i};
        failed = pthread_create(&w->thread, NULL, worker_main, w);
        if (!failed) {
            char name[16];
            snprintf(name, sizeof name, "mm-%d", i);
            pthread_setname_np(w->thread, name);
            p->size++;
        }
    }
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (failed) {
        const int started = p->size;
        mm_pool_free(p);
        errno = failed;
        return mm_fail_errno(err, "cannot start thread %d of %d", started + 1, n);
    }
    *pool = p;
    return mm_code_ok;
}

void mm_pool_free(struct mm_pool *pool) {
    if (!pool) return;
    pool->stop = true;
    publish(pool);
    for (int i = 1; i < pool->size; i++) {
        pthread_join(pool->workers[i - 1].thread, NULL);
    }
    free(pool->workers);
    free(pool);
}

int mm_pool_size(const struct mm_pool *pool) {
    return pool ? pool->size : 1;
}

void mm_parallel_for(struct mm_pool *pool, int64_t n, int64_t grain, mm_task_fn *fn, void *arg) {
    if (n <= 0) return;
    const int64_t most = n / (grain > 0 ? grain : 1);
    if (!pool || pool->size == 1 || most < 2) {
        fn(arg, 0, n, 0);
        return;
    }
    const bool was_busy = atomic_flag_test_and_set_explicit(&pool->busy, memory_order_acquire);
    assert(!was_busy && "a pool runs one loop at a time");
    (void)was_busy;
    pool->fn = fn;
    pool->arg = arg;
    pool->n = n;
    pool->parts = most < pool->size ? (int)most : pool->size;
    atomic_store_explicit(&pool->remaining, (uint32_t)pool->size - 1, memory_order_relaxed);
    publish(pool);
    run_part(pool, 0);
    if (!pool->spin || !spin_until(&pool->remaining, 0, true)) {
        atomic_store(&pool->caller_sleeps, 1);
        uint32_t left;
        while ((left = atomic_load(&pool->remaining)) != 0) {
            futex_wait(&pool->remaining, left);
        }
        atomic_store(&pool->caller_sleeps, 0);
    }
    atomic_flag_clear_explicit(&pool->busy, memory_order_release);
}
