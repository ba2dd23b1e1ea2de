// A fixed set of threads and one way to use them: a loop split into contiguous ranges. Thread t
// of n always gets the same range of the same loop, so results depend on the number of threads
// at most, never on timing.
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

// Runs fn(arg, begin, end, thread) over [0, n), each thread one contiguous range; a loop of fewer
// than 2 * grain items runs on the caller alone. pool may be NULL: everything on the caller.
// Not reentrant: fn must not call mm_parallel_for on the same pool. Workers spin briefly between
// loops, then sleep.
typedef void mm_task_fn(void *arg, int64_t begin, int64_t end, int thread);
void mm_parallel_for(struct mm_pool *pool, int64_t n, int64_t grain, mm_task_fn *fn, void *arg);

#endif
