// Steps that are taken before the host looks at what they drew: whatever their number, sessions are
// what they would be if the host had waited for each, to the bit. On the CPU none are taken unless
// a backend says so, which these tests let it.
#include "infer/batch.h"
#include "infer/infer_fixture.h"

enum { together = 8 };

static struct mm_engine *engine(const char *folder, int steps) {
    fixture_be->steps_ahead = steps;
    return fixture_engine(folder);
}

// Draws of all kinds; with the warm ones about every tenth token ends an answer.
static struct mm_session *ask(struct mm_engine *e, int i) {
    static const struct mm_sampling how[] = {{0.0, 0, 1.0, 0.0, 1.0},
                                             {1.3, 50, 0.99, 0.0, 1.1},
                                             {40.0, 0, 1.0, 0.0, 1.0},
                                             {0.0, 0, 1.0, 0.0, 1.3},
                                             {2.5, 0, 0.9, 0.01, 0.9}};
    struct mm_session *s;
    OK(mm_session_new(&s, e, &MM_SESSION_OPTIONS, &err));
    OK(mm_session_set_sampling(s, &how[i % 5], &err));
    mm_session_set_seed(s, (uint64_t)i);
    const struct mm_picture p = {.path = "tests/golden/images/photo.jpg"};
    OK(mm_session_add_turn(s, i % 2 ? "How many?" : "What is this?", &p, i % 4 == 0, &err));
    return s;
}

static struct mm_buf saved(struct mm_session *s, const char *name) {
    char *path = fixture_path(name);
    struct mm_buf b = {NULL, 0, 0};
    OK(mm_session_save(s, path, &err));
    FILE *f = fopen(path, "rb");
    assert_non_null(f);
    for (int c; (c = getc(f)) != EOF;) {
        const char one = (char)c;
        mm_buf_add(&b, &one, 1);
    }
    fclose(f);
    free(path);
    return b;
}

// As files, which hold everything there is: tokens, states, caches, logits, random numbers.
static void same(struct mm_session *a, struct mm_session *b) {
    assert_int_equal(a->ids.n, b->ids.n);
    assert_memory_equal(a->ids.data, b->ids.data, (size_t)a->ids.n * sizeof *a->ids.data);
    assert_int_equal(a->n_fed, b->n_fed);
    assert_int_equal(a->finished, b->finished);
    struct mm_buf x = saved(a, "a.mms"), y = saved(b, "b.mms");
    assert_int_equal(x.len, y.len);
    assert_memory_equal(x.data, y.data, x.len);
    mm_buf_free(&x);
    mm_buf_free(&y);
}

struct hearing {
    int n, stop_after;  // calls; 0: not stopped
};
static bool hear(void *arg, const char *text, size_t n_bytes) {
    struct hearing *h = arg;
    (void)text, (void)n_bytes;
    return ++h->n != h->stop_after;
}

// Answers that end by themselves, by their length and by their listener, each gone on with after.
static void answers(struct mm_engine *e, int i, struct mm_session **out, int64_t *tokens,
                    int *stopped) {
    struct mm_session *s = ask(e, i);
    for (int k = 0; k < 4 && !s->finished; k++) {
        struct hearing h = {0, k == 1 ? 1 + i % 23 : 0};
        const struct mm_listener l = {NULL, hear, &h};
        const struct mm_generation g = {k == 3 ? 1 : 10 + 7 * (i % 6), k == 0 ? i % 4 * 3 : 0};
        struct mm_answer a;
        OK(mm_session_generate(s, &g, k == 2 ? NULL : &l, &a, &err));
        tokens[k] = a.new_tokens;
        if (a.finish == mm_finish_stop) ++*stopped;
        // every token is heard of when it is taken, and what was held back at the end
        const int64_t heard = a.new_tokens - (a.finish == mm_finish_stop);
        if (k != 2) assert_true(h.n == heard || h.n == heard + 1);
        assert_int_equal(s->ahead.n, 0);
    }
    *out = s;
}

static char *models[3];

static int begin(void **state) {
    if (fixture_begin(state) != 0) return -1;
    static const char *const keeps[] = {"none", "0,4", "all"};
    fixture_gain = 4.0f;
    for (int k = 0; k < 3; k++)
        models[k] = fixture_model(keeps[k], "pre_hybrid", keeps[k], 21);
    fixture_gain = 1.0f;
    return 0;
}

static int end(void **state) {
    for (int k = 0; k < 3; k++)
        free(models[k]);
    return fixture_end(state);
}

static void sessions_are_those_of_single_steps(void **state) {
    (void)state;
    int stopped = 0, again = 0;
    for (int k = 0; k < 3; k++) {
        for (int i = 0; i < 30; i++) {
            struct mm_engine *one = engine(models[k], 1);
            struct mm_session *a, *b;
            int64_t x[4] = {0}, y[4] = {0};
            answers(one, i, &a, x, &stopped);
            struct mm_engine *some = engine(models[k], i % 3 ? together : mm_stepper_ahead);
            answers(some, i, &b, y, &again);
            assert_memory_equal(x, y, sizeof x);
            same(a, b);
            mm_session_free(a);
            mm_session_free(b);
            mm_engine_close(one);
            mm_engine_close(some);
        }
    }
    assert_int_equal(stopped, again);
    assert_true(stopped > 3);
}

// The host looks less often than there are tokens.
static int n_syncs;
static enum mm_code (*real_sync)(struct mm_backend *, struct mm_error *);
static enum mm_code counted_sync(struct mm_backend *be, struct mm_error *e) {
    n_syncs++;
    return real_sync(be, e);
}

static void the_host_looks_seldom(void **state) {
    (void)state;
    int looks[2];
    real_sync = fixture_be->sync;
    for (int k = 0; k < 2; k++) {
        struct mm_engine *e = engine(models[0], k ? together : 1);
        struct mm_session *s = ask(e, 3);
        OK(mm_session_prefill(s, NULL, &err));
        struct mm_answer a;
        n_syncs = 0;
        fixture_be->sync = counted_sync;
        OK(mm_session_generate(s, &(struct mm_generation){64, 64}, NULL, &a, &err));
        fixture_be->sync = real_sync;
        assert_int_equal(a.new_tokens, 64);
        looks[k] = n_syncs;
        mm_session_free(s);
        mm_engine_close(e);
    }
    // a GPU takes models of f32 operation by operation, for which the host looks at who has
    // stopped; its stand-in takes whole steps
    const bool gpu = getenv("MMAMBA_TEST_BACKEND") && !getenv("MMAMBA_TEST_STAND_IN");
    const int by_ops = gpu ? 64 : 0;
    // 1 + 2 + 4 + 7 times 8 and the last
    assert_in_range(looks[0], 63, 80);
    assert_in_range(looks[1], 0, looks[0] - 63 + 12 + by_ops);
}

enum { n_asked = 9 };

// Some join late, some are taken out before they are over; who stays gets the answer as if alone.
static void batch_of(struct mm_engine *e, int max, struct mm_session **out, int64_t *left_after) {
    struct mm_batch *b;
    OK(mm_batch_new(&b, e, max, &err));
    int next = 0, n_done = 0;
    static int numbers[n_asked];
    struct mm_session *in[n_asked];
    while (n_done < n_asked) {
        while (next < n_asked && mm_batch_count(b) < max && (next == 0 || next % 3)) {
            numbers[next] = next;
            in[next] = ask(e, next);
            const struct mm_generation g = {20 + next * 5, next * 2};
            OK(mm_batch_join(b, in[next], &g, NULL, &numbers[next], &err));
            next++;
        }
        OK(mm_batch_step(b, &err));
        if (next < n_asked && next % 3 == 0 && mm_batch_count(b) < max) {  // one a step
            numbers[next] = next;
            in[next] = ask(e, next);
            const struct mm_generation g = {20 + next * 5, next * 2};
            OK(mm_batch_join(b, in[next], &g, NULL, &numbers[next], &err));
            next++;
        }
        struct mm_batch_done done;
        for (int i = 0; i < next; i++) {
            if (i % 4 != 1 || !in[i] || in[i]->ids.n - in[i]->answer_from < 9) continue;
            bool over = in[i]->finished;
            if (over) continue;
            mm_batch_leave(b, in[i], &done);
            left_after[i] = done.answer.new_tokens;
            out[i] = in[i], in[i] = NULL;
            n_done++;
        }
        while (mm_batch_take(b, &done)) {
            const int i = *(int *)done.tag;
            assert_int_equal(done.code, mm_code_ok);
            left_after[i] = done.answer.new_tokens;
            out[i] = in[i], in[i] = NULL;
            n_done++;
        }
    }
    assert_int_equal(mm_batch_count(b), 0);
    mm_batch_free(b);
}

static void batches_are_those_of_single_steps(void **state) {
    (void)state;
    static const int sizes[] = {1, 3, 5, n_asked + 1};
    for (int k = 0; k < 3; k++) {
        struct mm_engine *one = engine(models[k], 1);
        struct mm_session *want[n_asked], *is[n_asked];
        int64_t n[n_asked], m[n_asked];
        batch_of(one, 1, want, n);
        for (int i = 0; i < 4; i++) {
            struct mm_engine *some = engine(models[k], together);
            batch_of(some, sizes[i], is, m);
            for (int t = 0; t < n_asked; t++) {
                assert_int_equal(m[t], n[t]);
                same(is[t], want[t]);
                mm_session_free(is[t]);
            }
            mm_engine_close(some);
        }
        for (int t = 0; t < n_asked; t++)
            mm_session_free(want[t]);
        mm_engine_close(one);
    }
}

// A copy made while an answer is being written is that of what was handed out, and both go on.
static struct mm_session *copied, *copied_from;
static int copy_after;
static bool copy(void *arg, const char *text, size_t n_bytes) {
    struct hearing *h = arg;
    (void)text, (void)n_bytes;
    if (++h->n == copy_after) OK(mm_session_fork(&copied, copied_from, &err));
    return true;
}

static void a_copy_meanwhile_is_exact(void **state) {
    (void)state;
    for (copy_after = 1; copy_after < 26; copy_after += 3) {
        struct mm_session *end[2][2];
        struct mm_engine *e[2];
        for (int k = 0; k < 2; k++) {
            e[k] = engine(models[1], k ? together : 1);
            copied_from = end[k][0] = ask(e[k], 11);
            struct hearing h = {0, 0};
            const struct mm_listener l = {NULL, copy, &h};
            struct mm_answer a;
            OK(mm_session_generate(copied_from, &(struct mm_generation){40, 40}, &l, &a, &err));
            end[k][1] = copied;
        }
        same(end[0][1], end[1][1]);
        same(end[0][0], end[1][0]);
        for (int k = 0; k < 2; k++) {
            mm_session_free(end[k][0]);
            mm_session_free(end[k][1]);
            mm_engine_close(e[k]);
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(sessions_are_those_of_single_steps),
        cmocka_unit_test(the_host_looks_seldom),
        cmocka_unit_test(batches_are_those_of_single_steps),
        cmocka_unit_test(a_copy_meanwhile_is_exact),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
