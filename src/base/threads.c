// The pool. A loop is cut into pieces; each thread has a queue of the pieces of its own contiguous
// share, takes from the front of it, and when it is empty from the back of the others'. So a thread
// that the kernel has taken off its core holds up the one piece it was in, not its share.
//
// A loop is published by opening the gate and raising a generation number. Workers enter through
// the gate, which counts them; the caller shuts it when no piece is left and waits for those inside
// only: a worker that never got a core, or was still waking up, is not waited for.
//
// Waiting, on either side, spins for some microseconds (operations of one model step follow each
// other that closely; how long is learned, see base/wait.h) and then sleeps on the futex, so that
// an idle pool costs nothing.
#include "base/threads.h"

#include <assert.h>
#include <errno.h>
#include <limits.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdbool.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/cgroup.h"
#include "base/wait.h"

enum {
    cache_line = 64,
    max_threads = 4096,
    pieces_max = 8,  // of a thread's share
};

static const uint32_t gate_open = 1u << 31;  // the other bits count the workers inside

// The pieces of one thread's share that nobody has taken: first in the upper half, end in the
// lower.
struct queue {
    _Alignas(cache_line) _Atomic uint64_t left;
};

struct worker {
    struct mm_pool *pool;
    pthread_t thread;
    int index;  // 1 .. size - 1; 0 is the caller
    struct mm_patience patience;
};

struct mm_pool {
    int size;
    bool spin;  // false when there are more threads than CPUs: a spinning one would hold up another
    struct worker *workers;       // (size - 1)
    struct queue *queues;         // (size)
    struct mm_patience patience;  // of the caller
    // The loop being run: written by the caller while nobody is inside, then only read.
    mm_task_fn *fn;
    void *arg;
    int64_t n;
    int parts, pieces;  // shares, and pieces of a share
    bool gang;          // every thread runs its own piece
    atomic_flag busy;
    atomic_bool stop;
    // Each on its own line: they are written by different threads.
    _Alignas(cache_line) _Atomic uint32_t generation;
    _Alignas(
        cache_line) _Atomic uint32_t sleepers;  // workers asleep on `generation`, or about to be
    _Alignas(cache_line) _Atomic uint32_t gate;
    _Alignas(cache_line) _Atomic uint32_t absent;  // workers that have not run their gang piece
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

// ---- waiting ----

// Waits for a generation other than `seen` and returns it.
static uint32_t await_generation(struct mm_pool *p, uint32_t seen, struct mm_patience *patience) {
    if (!p->spin || !mm_spin(&p->generation, seen, false, patience)) {
        // Announce, then look again: the caller raises the generation before it looks for sleepers,
        // so one of the two sees the other. All of it sequentially consistent.
        atomic_fetch_add(&p->sleepers, 1);
        while (atomic_load(&p->generation) == seen) {
            mm_futex_wait(&p->generation, seen);
        }
        atomic_fetch_sub(&p->sleepers, 1);
    }
    return atomic_load_explicit(&p->generation, memory_order_acquire);
}

// The caller waits for *word (the gate, shut, or `absent`) to become 0.
static void await_zero(struct mm_pool *p, _Atomic uint32_t *word) {
    if (p->spin && mm_spin(word, 0, true, &p->patience)) return;
    atomic_store(&p->caller_sleeps, 1);
    uint32_t left;
    while ((left = atomic_load(word)) != 0) {
        mm_futex_wait(word, left);
    }
    atomic_store(&p->caller_sleeps, 0);
}

// A worker counts down a word that the caller may be waiting for.
static void count_down(struct mm_pool *p, _Atomic uint32_t *word) {
    if (atomic_fetch_sub(word, 1) == 1 && atomic_load(&p->caller_sleeps)) mm_futex_wake(word, 1);
}

// ---- pieces ----

// Part i of `parts` of [0, n): contiguous, sizes differing by at most one item.
static int64_t part_begin(int64_t n, int64_t parts, int64_t i) {
    const int64_t size = n / parts, extra = n % parts;
    return i * size + (i < extra ? i : extra);
}

// A piece of the queue, from its front or its back; -1 when it is empty.
static int take(struct queue *q, bool front) {
    uint64_t left = atomic_load_explicit(&q->left, memory_order_relaxed);
    for (;;) {
        const uint32_t first = (uint32_t)(left >> 32), end = (uint32_t)left;
        if (first >= end) return -1;
        const uint64_t less = front ? left + (UINT64_C(1) << 32) : left - 1;
        // Relaxed: the gate orders the loop's data, the queue only hands out numbers.
        if (atomic_compare_exchange_weak_explicit(&q->left, &left, less, memory_order_relaxed,
                                                  memory_order_relaxed)) {
            return (int)(front ? first : end - 1);
        }
    }
}

static void run_piece(const struct mm_pool *p, int share, int piece, int thread) {
    const int64_t begin = part_begin(p->n, p->parts, share);
    const int64_t n = part_begin(p->n, p->parts, share + 1) - begin;
    p->fn(p->arg, begin + part_begin(n, p->pieces, piece),
          begin + part_begin(n, p->pieces, piece + 1), thread);
}

// What is left of thread t's share, then of the others'; false when there was nothing.
static bool run_pieces(struct mm_pool *p, int t) {
    bool any = false;
    int piece;
    while (t < p->parts && (piece = take(&p->queues[t], true)) >= 0) {
        run_piece(p, t, piece, t);
        any = true;
    }
    for (int i = 1; !p->gang && i <= p->parts; i++) {
        const int from = (t + i) % p->parts;
        while ((piece = take(&p->queues[from], false)) >= 0) {
            run_piece(p, from, piece, t);
            any = true;
        }
    }
    return any;
}

// ---- workers ----

static bool enter(struct mm_pool *p) {
    uint32_t gate = atomic_load(&p->gate);
    while (gate & gate_open) {
        if (atomic_compare_exchange_weak(&p->gate, &gate, gate + 1)) return true;
    }
    return false;
}

static void *worker_main(void *arg) {
    struct worker *w = arg;
    struct mm_pool *p = w->pool;
    uint32_t seen = 0;
    for (;;) {
        seen = await_generation(p, seen, &w->patience);
        if (atomic_load(&p->stop)) return NULL;
        // A late worker finds the gate shut, or open for a later loop, in which case it meets that
        // loop's generation again and finds nothing left to do.
        if (!enter(p)) continue;
        const bool gang = p->gang;
        if (run_pieces(p, w->index) && gang) count_down(p, &p->absent);
        count_down(p, &p->gate);
    }
}

static void publish(struct mm_pool *p, int wanted) {
    atomic_fetch_add(&p->generation, 1);
    if (atomic_load(&p->sleepers) > 0) mm_futex_wake(&p->generation, wanted);
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
    struct queue *queues = aligned_alloc(cache_line, (size_t)n * sizeof *queues);
    if (!p || !workers || !queues) {
        free(p);
        free(workers);
        free(queues);
        return mm_fail(err, mm_code_memory, "no memory for %d threads", n);
    }
    memset(p, 0, sizeof *p);
    p->size = 1;
    p->spin = n <= available;
    p->workers = workers;
    p->queues = queues;
    memset(queues, 0, (size_t)n * sizeof *queues);
    p->patience = (struct mm_patience)MM_PATIENT;
    atomic_flag_clear(&p->busy);

    // Signals are the main thread's: a worker in the middle of a loop must not run a handler.
    sigset_t all, old;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int failed = 0;
    for (int i = 1; i < n && !failed; i++) {
        struct worker *w = &workers[i - 1];
        *w = (struct worker){.pool = p, .index = i, .patience = MM_PATIENT};
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
    atomic_store(&pool->stop, true);
    publish(pool, INT_MAX);
    for (int i = 1; i < pool->size; i++) {
        pthread_join(pool->workers[i - 1].thread, NULL);
    }
    free(pool->workers);
    free(pool->queues);
    free(pool);
}

int mm_pool_size(const struct mm_pool *pool) {
    return pool ? pool->size : 1;
}

// ---- loops ----

static void run_loop(struct mm_pool *p) {
    for (int t = 0; t < p->parts; t++) {
        atomic_store_explicit(&p->queues[t].left, (uint64_t)p->pieces, memory_order_relaxed);
    }
    atomic_store(&p->gate, gate_open);
    publish(p, p->gang ? INT_MAX : p->parts - 1);
    run_pieces(p, 0);
    if (p->gang) await_zero(p, &p->absent);
    atomic_fetch_and(&p->gate, ~gate_open);
    await_zero(p, &p->gate);
}

static void lock_pool(struct mm_pool *pool) {
    const bool was_busy = atomic_flag_test_and_set_explicit(&pool->busy, memory_order_acquire);
    assert(!was_busy && "a pool runs one loop at a time");
    (void)was_busy;
}

static void cut_loop(struct mm_pool *pool, int64_t n, int64_t grain, int pieces, mm_task_fn *fn,
                     void *arg) {
    if (n <= 0) return;
    const int64_t most = n / (grain > 0 ? grain : 1);
    if (!pool || pool->size == 1 || most < 2) {
        fn(arg, 0, n, 0);
        return;
    }
    lock_pool(pool);
    pool->fn = fn;
    pool->arg = arg;
    pool->n = n;
    pool->parts = most < pool->size ? (int)most : pool->size;
    const int64_t of_share = most / pool->parts;
    pool->pieces = of_share < pieces ? (int)of_share : pieces;
    pool->gang = false;
    run_loop(pool);
    atomic_flag_clear_explicit(&pool->busy, memory_order_release);
}

void mm_parallel_for(struct mm_pool *pool, int64_t n, int64_t grain, mm_task_fn *fn, void *arg) {
    cut_loop(pool, n, grain, pieces_max, fn, arg);
}

void mm_parallel_ranges(struct mm_pool *pool, int64_t n, int64_t grain, mm_task_fn *fn, void *arg) {
    cut_loop(pool, n, grain, 1, fn, arg);
}

void mm_parallel_all(struct mm_pool *pool, mm_task_fn *fn, void *arg) {
    if (!pool || pool->size == 1) {
        fn(arg, 0, 1, 0);
        return;
    }
    lock_pool(pool);
    pool->fn = fn;
    pool->arg = arg;
    pool->n = pool->parts = pool->size;
    pool->pieces = 1;
    pool->gang = true;
    atomic_store(&pool->absent, (uint32_t)pool->size - 1);
    run_loop(pool);
    atomic_flag_clear_explicit(&pool->busy, memory_order_release);
}
