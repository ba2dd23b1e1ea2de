#include "base/team.h"

#include <limits.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include "base/wait.h"

enum { cache_line = 64 };

struct mm_team {
    struct mm_pool *pool;
    int size;
    bool spin;  // false when there are more threads than CPUs
    // Each on its own cache line: all threads write the first two.
    _Alignas(cache_line) _Atomic int64_t next;      // items of the loop that have been taken
    _Alignas(cache_line) _Atomic uint32_t arrived;  // threads at the meeting
    _Alignas(cache_line) _Atomic uint32_t meeting;  // number of the last one that ended
    _Alignas(cache_line) _Atomic uint32_t sleepers;
};

enum mm_code mm_team_new(struct mm_team **out, struct mm_pool *pool, struct mm_error *err) {
    struct mm_team *team = *out = aligned_alloc(cache_line, sizeof *team);
    if (team == NULL) return mm_fail(err, mm_code_memory, "no memory for a team of threads");
    memset(team, 0, sizeof *team);
    team->pool = pool;
    team->size = mm_pool_size(pool);
    team->spin = team->size <= mm_threads_available();
    return mm_code_ok;
}

void mm_team_free(struct mm_team *team) {
    free(team);
}

int mm_team_size(const struct mm_team *team) {
    return team->size;
}

// ---- running ----

struct running {
    struct mm_team *team;
    mm_team_fn *fn;
    void *arg;
};

static void run_thread(void *arg, int64_t begin, int64_t end, int thread) {
    const struct running *r = arg;
    (void)begin, (void)end;
    r->fn(r->arg, r->team, thread);
}

void mm_team_run(struct mm_team *team, mm_team_fn *fn, void *arg) {
    struct running r = {team, fn, arg};
    atomic_store_explicit(&team->next, 0, memory_order_relaxed);
    mm_parallel_all(team->pool, run_thread, &r);
}

// ---- meeting ----

// How long this thread spins at meetings.
static _Thread_local struct mm_patience patience = MM_PATIENT;

static void await(struct mm_team *team, uint32_t before) {
    if (team->spin && mm_spin(&team->meeting, before, false, &patience)) return;
    // Announce, then look again: the last thread ends the meeting before it looks for sleepers, so
    // one of the two sees the other. All of it sequentially consistent.
    atomic_fetch_add(&team->sleepers, 1);
    while (atomic_load(&team->meeting) == before) {
        mm_futex_wait(&team->meeting, before);
    }
    atomic_fetch_sub(&team->sleepers, 1);
}

void mm_team_meet(struct mm_team *team) {
    const uint32_t before = atomic_load_explicit(&team->meeting, memory_order_relaxed);
    if (team->size > 1 && atomic_fetch_add(&team->arrived, 1) + 1 < (uint32_t)team->size) {
        await(team, before);
        return;
    }
    // All are here: nobody else touches these until the meeting has ended.
    atomic_store_explicit(&team->arrived, 0, memory_order_relaxed);
    atomic_store_explicit(&team->next, 0, memory_order_relaxed);
    if (team->size == 1) return;
    atomic_store(&team->meeting, before + 1);
    if (atomic_load(&team->sleepers) > 0) mm_futex_wake(&team->meeting, INT_MAX);
}

// ---- sharing ----

bool mm_team_take(struct mm_team *team, int64_t n, int64_t grain, int64_t *begin, int64_t *end) {
    int64_t at = atomic_load_explicit(&team->next, memory_order_relaxed);
    int64_t stop;
    do {
        if (at >= n) return false;
        // half an even share of what is left
        int64_t piece = (n - at) / (2 * team->size);
        if (piece < grain || team->size == 1) piece = team->size == 1 ? n : grain;
        stop = n - at < piece ? n : at + piece;
    } while (!atomic_compare_exchange_weak_explicit(&team->next, &at, stop, memory_order_relaxed,
                                                    memory_order_relaxed));
    *begin = at;
    *end = stop;
    return true;
}
