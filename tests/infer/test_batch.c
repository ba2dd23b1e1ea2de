// Sessions that answer side by side get the tokens they would have got alone, whoever joins and
// leaves meanwhile.
#include <math.h>
#include "infer/batch.h"
#include "infer/infer_fixture.h"

enum { n_sessions = 7 };

static const char *const questions[n_sessions] = {
    "What is this?", "How many?", "a", "Which colour has the roof of the house on the left?",
    "Why?",          "b",         "c"};
static const int64_t lengths[n_sessions] = {40, 7, 1, 25, 60, 33, 12};

static struct mm_session *ask(struct mm_engine *e, int i) {
    struct mm_session *s;
    OK(mm_session_new(&s, e, &MM_SESSION_OPTIONS, &err));
    if (i % 2) {
        OK(mm_session_set_sampling(s, &(struct mm_sampling){1.3, 50, 0.99, 0.0, 1.1}, &err));
        mm_session_set_seed(s, (uint64_t)i);
    }
    const struct mm_picture p = {.path = "tests/golden/images/photo.jpg"};
    OK(mm_session_add_turn(s, questions[i], &p, i % 3 == 0, &err));
    return s;
}

static struct mm_generation wanted(int i) {
    return (struct mm_generation){lengths[i], lengths[i] / 2};
}

// The answers one after the other.
static void alone(struct mm_engine *e, struct mm_ids *ids, char **texts) {
    for (int i = 0; i < n_sessions; i++) {
        struct mm_session *s = ask(e, i);
        const struct mm_generation g = wanted(i);
        struct mm_answer a;
        OK(mm_session_generate(s, &g, NULL, &a, &err));
        texts[i] = mm_xstrdup(a.text);
        for (int64_t t = 0; t < s->ids.n; t++)
            mm_ids_add(&ids[i], s->ids.data[t]);
        mm_session_free(s);
    }
}

static void same_ids(const struct mm_ids *a, const struct mm_ids *b) {
    assert_int_equal(a->n, b->n);
    for (int64_t i = 0; i < a->n; i++)
        assert_int_equal(a->data[i], b->data[i]);
}

static void in_batches(struct mm_engine *e, int max, const struct mm_ids *ids, char *const *texts) {
    static int numbers[n_sessions] = {0, 1, 2, 3, 4, 5, 6};
    struct mm_batch *b;
    OK(mm_batch_new(&b, e, max, &err));
    int next = 0, done_n = 0;
    while (done_n < n_sessions) {
        // one more a step, so that they are at different places
        if (next < n_sessions && mm_batch_count(b) < max) {
            const struct mm_generation g = wanted(next);
            OK(mm_batch_join(b, ask(e, next), &g, NULL, &numbers[next], &err));
            next++;
        }
        OK(mm_batch_step(b, &err));
        struct mm_batch_done done;
        while (mm_batch_take(b, &done)) {
            const int i = *(int *)done.tag;
            assert_int_equal(done.code, mm_code_ok);
            same_ids(&done.session->ids, &ids[i]);
            assert_string_equal(done.answer.text, texts[i]);
            assert_true(done.answer.new_tokens <= lengths[i]);
            mm_session_free(done.session);
            done_n++;
        }
    }
    assert_int_equal(mm_batch_count(b), 0);
    mm_batch_free(b);
}

// Answers alone and in batches of several sizes.
static void compare(const char *folder) {
    struct mm_engine *e = fixture_engine(folder);
    struct mm_ids ids[n_sessions] = {{0}};
    char *texts[n_sessions];
    alone(e, ids, texts);
    const int sizes[] = {1, 2, 3, n_sessions};
    for (int i = 0; i < 4; i++)
        in_batches(e, sizes[i], ids, texts);
    for (int i = 0; i < n_sessions; i++) {
        mm_ids_free(&ids[i]);
        free(texts[i]);
    }
    mm_engine_close(e);
}

static void same_as_alone(void **state) {
    (void)state;
    static const char *const keeps[] = {"none", "0,4", "all"};
    fixture_gain = 4.0f;
    for (int k = 0; k < 3; k++) {
        char *folder = fixture_model(keeps[k], "pre_hybrid", keeps[k], 11);
        compare(folder);
        free(folder);
    }
    fixture_gain = 1.0f;
}

// The same of rounded weights, where a mixer's projection is two matrices.
static void same_as_alone_quantized(void **state) {
    (void)state;
    static const enum mm_dtype formats[] = {mm_dtype_q8, mm_dtype_q4};
    char *folder = fixture_model("plain", "pre_hybrid", "0,4", 14);
    struct mm_model m;
    struct mm_backend *cpu;  // where weights are rounded
    OK(mm_backend_open_cpu(&cpu, 2, &err));
    OK(mm_model_load(&m, cpu, folder, -1, &err));
    for (int i = 0; i < 2; i++) {
        char *rounded = fixture_path(mm_dtype_name(formats[i]));
        const struct mm_quantize how = {.dtype = formats[i]};
        struct mm_quantize_report report;
        OK(mm_model_quantize(&m, rounded, &how, folder, &report, &err));
        assert_true(report.n_quantized > 0);
        compare(rounded);
        free(rounded);
    }
    mm_model_deinit(&m);
    mm_backend_close(cpu);
    free(folder);
}

// A session taken out early keeps what was said, and can go on alone as if nothing had been.
static void leaving(void **state) {
    (void)state;
    char *folder = fixture_model("leaving", "pre_hybrid", "0,4", 12);
    struct mm_engine *e = fixture_engine(folder);
    struct mm_session *whole = ask(e, 3), *cut = ask(e, 3), *other = ask(e, 0);
    const struct mm_generation g = {30, 30}, rest = {20, 20};
    struct mm_answer a;
    OK(mm_session_generate(whole, &g, NULL, &a, &err));
    struct mm_batch *b;
    OK(mm_batch_new(&b, e, 2, &err));
    OK(mm_batch_join(b, other, &g, NULL, NULL, &err));
    OK(mm_batch_join(b, cut, &g, NULL, NULL, &err));
    for (int i = 0; i < 10; i++)
        OK(mm_batch_step(b, &err));
    struct mm_batch_done done;
    assert_false(mm_batch_take(b, &done));
    mm_batch_leave(b, cut, &done);
    assert_ptr_equal(done.session, cut);
    assert_int_equal(done.answer.finish, mm_finish_cancelled);
    assert_int_equal(done.answer.new_tokens, 10);
    OK(mm_batch_step(b, &err));
    mm_batch_leave(b, other, &done);
    assert_int_equal(done.answer.new_tokens, 11);
    assert_int_equal(mm_batch_count(b), 0);
    OK(mm_session_generate(cut, &rest, NULL, &a, &err));
    same_ids(&cut->ids, &whole->ids);
    mm_batch_free(b);
    mm_session_free(whole);
    mm_session_free(cut);
    mm_session_free(other);
    mm_engine_close(e);
    free(folder);
}

static struct mm_session *ask_and_draw(struct mm_engine *e, int i) {
    struct mm_session *s = ask(e, i);
    OK(mm_session_set_sampling(s, &(struct mm_sampling){1.3, 50, 0.99, 0.0, 1.0}, &err));
    mm_session_set_seed(s, (uint64_t)i);
    return s;
}

// Logits that a batch left where it computed them are not lost when the engine steps for somebody
// else, nor when the batch goes without its sessions; a token drawn ahead is drawn again.
static void logits_left_behind(void **state) {
    (void)state;
    char *folder = fixture_model("behind", "pre_hybrid", "0,4", 15);
    struct mm_engine *e = fixture_engine(folder);
    const struct mm_generation g = {30, 30}, some = {5, 5}, rest = {22, 22};
    struct mm_session *whole[2], *in[2], *copy, *between = ask(e, 1);
    struct mm_answer a;
    struct mm_batch *b;
    OK(mm_batch_new(&b, e, 2, &err));
    for (int i = 0; i < 2; i++) {
        whole[i] = ask_and_draw(e, 2 + i);
        OK(mm_session_generate(whole[i], &g, NULL, &a, &err));
        in[i] = ask_and_draw(e, 2 + i);
        OK(mm_batch_join(b, in[i], &g, NULL, NULL, &err));
    }
    for (int i = 0; i < 8; i++) {
        OK(mm_batch_step(b, &err));
        // its steps take the place of the first session's logits
        if (i == 4) OK(mm_session_generate(between, &some, NULL, &a, &err));
    }
    OK(mm_session_generate(between, &some, NULL, &a, &err));
    mm_batch_free(b);
    OK(mm_session_fork(&copy, in[1], &err));
    struct mm_session *go_on[3] = {in[0], in[1], copy};
    for (int i = 0; i < 3; i++) {
        OK(mm_session_generate(go_on[i], &rest, NULL, &a, &err));
        same_ids(&go_on[i]->ids, &whole[i > 0]->ids);
        mm_session_free(go_on[i]);
    }
    mm_session_free(whole[0]);
    mm_session_free(whole[1]);
    mm_session_free(between);
    mm_engine_close(e);
    free(folder);
}

static void refusals(void **state) {
    (void)state;
    char *folder = fixture_model("refusals", "pre_hybrid", "none", 13);
    struct mm_engine *e = fixture_engine(folder);
    struct mm_batch *b;
    REFUSED(mm_batch_new(&b, e, 0, &err), "a batch of 0");
    REFUSED(mm_batch_new(&b, e, mm_batch_max + 1, &err), "wanted 1 to 1024");
    OK(mm_batch_new(&b, e, 1, &err));
    struct mm_session *s = ask(e, 2);
    REFUSED(mm_batch_join(b, s, &(struct mm_generation){0, 0}, NULL, NULL, &err), "max_new_tokens");
    assert_int_equal(mm_batch_count(b), 0);
    OK(mm_batch_step(b, &err));  // of nobody
    OK(mm_batch_join(b, s, &(struct mm_generation){5, 5}, NULL, NULL, &err));
    OK(mm_batch_step(b, &err));
    // a state that is damaged meanwhile ends the answer, not the batch: the token that was drawn
    // before is read, and none comes after it
    mm_fill(fixture_be, s->state.blocks[0].S, NAN);
    OK(mm_batch_step(b, &err));
    OK(mm_batch_step(b, &err));
    struct mm_batch_done done;
    assert_true(mm_batch_take(b, &done));
    assert_int_equal(done.code, mm_code_input);
    assert_non_null(strstr(done.error.text, "not finite"));
    mm_session_free(s);
    mm_batch_free(b);
    mm_engine_close(e);
    free(folder);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(same_as_alone), cmocka_unit_test(same_as_alone_quantized),
        cmocka_unit_test(leaving),       cmocka_unit_test(logits_left_behind),
        cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, fixture_begin, fixture_end);
}
