// A fixed set of threads and loops over them. A loop is cut into pieces at places that depend on
// its length, its grain and the number of threads only; who computes a piece depends on timing, so
// that one delayed thread does not hold up the others. Results must come from the piece, never from
// the thread, which only names its scratch: then they depend on the number of threads at most.
#ifndef MM_BASE_THREADS_H
#define MM_BASE_THREADS_H

#include <stdint.h>
#include "base/status.h"

struct mm_pool;

// The number of threads this process may use: affinity mask and cgroup CPU limit, whichever is
// smaller, at least 1.
int mm_threads_available(void);

// n threads in all, the caller of mm_parallel_for being thread 0. n = 0 means
// mm_threads_available().
enum mm_code mm_pool_new(struct mm_pool **pool, int n, struct mm_error *err);
void mm_pool_free(struct mm_pool *pool);
int mm_pool_size(const struct mm_pool *pool);

// begin and end of a piece; 0 <= thread < mm_pool_size(pool), and no two calls at a time have the
// same one. fn must not run a loop on the same pool.
typedef void mm_task_fn(void *arg, int64_t begin, int64_t end, int thread);

// Runs fn over [0, n) in pieces of at least `grain` items, up to 8 for each thread: first those of
// its own contiguous share in order, then what others have not begun. A loop of fewer than
// 2 * grain items runs on the caller alone, in one piece. pool may be NULL: everything on the
// caller. Workers spin briefly between loops, then sleep.
void mm_parallel_for(struct mm_pool *pool, int64_t n, int64_t grain, mm_task_fn *fn, void *arg);

// The same with one piece for each thread: for work that a cut makes dearer.
void mm_parallel_ranges(struct mm_pool *pool, int64_t n, int64_t grain, mm_task_fn *fn, void *arg);

// Runs fn(arg, t, t + 1, t) once on every thread t, all at the same time, so that they may wait for
// each other.
void mm_parallel_all(struct mm_pool *pool, mm_task_fn *fn, void *arg);

#endif
