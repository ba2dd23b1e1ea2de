// Threads that go through one piece of work together: all of them run the same function, share out
// loops inside it, and meet between one loop and the next. A meeting costs some hundred
// nanoseconds, starting a loop on the pool some microseconds: what matters where a loop takes no
// longer than that, as in decoding.
#ifndef MM_BASE_TEAM_H
#define MM_BASE_TEAM_H

#include <stdbool.h>
#include "base/threads.h"

struct mm_team;

// A team of all threads of a pool, which must outlive it.
enum mm_code mm_team_new(struct mm_team **team, struct mm_pool *pool, struct mm_error *err);
void mm_team_free(struct mm_team *team);  // NULL is allowed
int mm_team_size(const struct mm_team *team);

// Runs fn once on every thread of the pool, all at the same time.
typedef void mm_team_fn(void *arg, struct mm_team *team, int thread);
void mm_team_run(struct mm_team *team, mm_team_fn *fn, void *arg);

// Inside: waits until every thread is here. What any of them wrote before is then seen by all.
// Waiting spins as long as that is worth while (base/wait.h), then sleeps.
void mm_team_meet(struct mm_team *team);

// Inside: the next piece of a loop over n items that nobody has taken yet; false when there is
// none. Between two meetings there may be one such loop, the same for every thread. Pieces shrink
// towards the end, to no less than `grain`; their borders depend on timing.
bool mm_team_take(struct mm_team *team, int64_t n, int64_t grain, int64_t *begin, int64_t *end);

#endif
