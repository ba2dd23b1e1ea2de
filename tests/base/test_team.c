// Threads that work together: each item once, everything written before a meeting seen after it,
// nobody left behind, also with more threads than cores.
#include <stdatomic.h>
#include <string.h>
#include "base/team.h"
#include "cmocka_all.h"

enum { n_items = 777, n_rounds = 400 };

struct shared {
    int64_t value[2][n_items];  // of this round and the one before; no atomics: meetings order them
    atomic_int wrong, present;
    int grain;
};

// Each round makes every value out of its neighbour's of the round before.
static void rounds(void *arg, struct mm_team *team, int thread) {
    struct shared *s = arg;
    atomic_fetch_add(&s->present, 1);
    if (thread < 0 || thread >= mm_team_size(team)) atomic_fetch_add(&s->wrong, 1);
    for (int r = 1; r <= n_rounds; r++) {
        int64_t begin, end;
        while (mm_team_take(team, n_items, s->grain, &begin, &end)) {
            if (begin >= end || end > n_items) atomic_fetch_add(&s->wrong, 1);
            for (int64_t i = begin; i < end; i++)
                s->value[r % 2][i] = s->value[(r + 1) % 2][(i + 1) % n_items] + 1;
        }
        mm_team_meet(team);
    }
}

static void nothing_is_lost(void **state) {
    (void)state;
    static const int sizes[] = {1, 2, 3, 7}, grains[] = {1, 50, 2000};
    for (int i = 0; i < 12; i++) {
        struct mm_pool *pool;
        struct mm_team *team;
        struct mm_error err;
        assert_int_equal(mm_pool_new(&pool, sizes[i / 3], &err), mm_code_ok);
        assert_int_equal(mm_team_new(&team, pool, &err), mm_code_ok);
        assert_int_equal(mm_team_size(team), sizes[i / 3]);
        for (int again = 0; again < 2; again++) {
            static struct shared s;
            memset(&s, 0, sizeof s);
            s.grain = grains[i % 3];
            mm_team_run(team, rounds, &s);
            assert_int_equal(atomic_load(&s.present), sizes[i / 3]);
            assert_int_equal(atomic_load(&s.wrong), 0);
            for (int k = 0; k < n_items; k++)
                assert_int_equal(s.value[n_rounds % 2][k], n_rounds);
        }
        mm_team_free(team);
        mm_pool_free(pool);
    }
}

struct pieces {
    int64_t smallest, n;
};

static void take_all(void *arg, struct mm_team *team, int thread) {
    struct pieces *p = arg;
    int64_t begin, end;
    (void)thread;
    while (mm_team_take(team, p->n, 10, &begin, &end)) {
        if (end < p->n && end - begin < p->smallest) p->smallest = end - begin;
    }
}

static void pieces_keep_their_size(void **state) {
    (void)state;
    struct mm_pool *pool;
    struct mm_team *team;
    struct mm_error err;
    assert_int_equal(mm_pool_new(&pool, 1, &err), mm_code_ok);
    assert_int_equal(mm_team_new(&team, pool, &err), mm_code_ok);
    struct pieces p = {INT64_MAX, 1003};
    mm_team_run(team, take_all, &p);
    assert_true(p.smallest == INT64_MAX);  // alone: one piece
    p.n = 0;
    mm_team_run(team, take_all, &p);
    mm_team_free(team);
    mm_pool_free(pool);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_is_lost),
        cmocka_unit_test(pieces_keep_their_size),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
