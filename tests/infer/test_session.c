// Sessions of small random models, of every kind of mixer and both places of the shuffle: whatever
// way a conversation is taken (in pieces, saved and loaded, copied, taken back and said again), the
// same tokens come out.
#include "infer/infer_fixture.h"

static const char photo[] = "tests/golden/images/photo.jpg",
                  gray[] = "tests/golden/images/gray.png";
static const struct mm_sampling lively = {1.3, 40, 0.95, 0.001, 1.1};

// The models that every test walks through.
static const struct kind {
    const char *name, *golden, *keep;
} kinds[] = {{"linear", "pre_hybrid", "none"},
             {"hybrid", "pre_hybrid", "0,4"},
             {"attention", "pre_hybrid", "all"},
             {"post", "post_gqa", "1,2"}};
enum { n_kinds = sizeof kinds / sizeof *kinds };
static struct mm_engine *engines[n_kinds];

static int begin(void **state) {
    if (fixture_begin(state) != 0) return -1;
    for (int i = 0; i < n_kinds; i++) {
        char *folder = fixture_model(kinds[i].name, kinds[i].golden, kinds[i].keep, 7);
        engines[i] = fixture_engine(folder);
        free(folder);
    }
    return 0;
}

static int end(void **state) {
    for (int i = 0; i < n_kinds; i++)
        mm_engine_close(engines[i]);
    return fixture_end(state);
}

static struct mm_session *session(struct mm_engine *e, const struct mm_sampling *how) {
    struct mm_session *s;
    OK(mm_session_new(&s, e, &MM_SESSION_OPTIONS, &err));
    if (how) OK(mm_session_set_sampling(s, how, &err));
    return s;
}

static struct mm_answer answer(struct mm_session *s, int64_t n) {
    struct mm_answer a;
    const struct mm_generation g = {n, 0};
    OK(mm_session_generate(s, &g, NULL, &a, &err));
    return a;
}

// Nothing when the last answer has ended.
static void go_on(struct mm_session *s, int64_t n) {
    if (!s->finished) answer(s, n);
}

static void turn(struct mm_session *s, const char *text, const char *picture) {
    const struct mm_picture p = {.path = picture};
    OK(mm_session_add_turn(s, text, &p, picture != NULL, &err));
}

static void *fixed_state(const struct mm_session *s) {
    void *copy = mm_xmalloc(s->state.fixed_bytes + 1);
    s->e->be->download(s->e->be, copy, s->state.fixed, s->state.fixed_bytes);
    return copy;
}

static void same(const struct mm_session *a, const struct mm_session *b) {
    assert_int_equal(a->ids.n, b->ids.n);
    assert_memory_equal(a->ids.data, b->ids.data, (size_t)a->ids.n * sizeof *a->ids.data);
    assert_int_equal(a->n_fed, b->n_fed);
    assert_int_equal(a->finished, b->finished);
    assert_memory_equal(&a->rng, &b->rng, sizeof a->rng);
    assert_int_equal(a->have_logits, b->have_logits);
    if (a->have_logits) {
        assert_memory_equal(a->logits, b->logits, (size_t)a->e->model.config.V * sizeof(float));
    }
    void *x = fixed_state(a), *y = fixed_state(b);
    assert_memory_equal(x, y, a->state.fixed_bytes);
    free(x);
    free(y);
    assert_int_equal(a->state.n_embed, b->state.n_embed);
    assert_int_equal(a->state.n_llm, b->state.n_llm);
}

// ---- what is said -------------------------------------------------------------------------------

static void text_of(const struct mm_session *s, struct mm_buf *b) {
    mm_buf_reset(b);
    mm_session_text(s, b);
}

static void follows_the_template(void **state) {
    (void)state;
    struct mm_engine *e = engines[1];
    const struct mm_session_options o = {"Be brief.", 0, 1, 0, 8};
    struct mm_session *s;
    OK(mm_session_new(&s, e, &o, &err));
    turn(s, "What is this?", photo);
    struct mm_buf b = {NULL, 0, 0};
    text_of(s, &b);
    assert_string_equal(b.data,
                        "<s><|im_start|>system\nBe brief.<|im_end|><|im_start|>user\n"
                        "<image>\nWhat is this?<|im_end|><|im_start|>assistant\n");
    // the ids are those of the whole text encoded at once, one tile of one token
    struct mm_ids ids = {NULL, 0, 0};
    const char *whole =
        "<|im_start|>system\nBe brief.<|im_end|><|im_start|>user\n"
        "<img><IMG_CONTEXT></img>\nWhat is this?<|im_end|><|im_start|>assistant\n";
    mm_tokenizer_encode(e->tok, whole, strlen(whole), true, &ids);
    assert_int_equal(ids.n, s->ids.n);
    assert_memory_equal(ids.data, s->ids.data, (size_t)ids.n * sizeof *ids.data);
    const struct mm_answer a = answer(s, 3);
    assert_int_equal(a.prompt_tokens, ids.n);
    // an answer that was cut short is closed; several pictures are numbered
    const struct mm_picture two[2] = {{.path = photo}, {.path = gray}};
    const int64_t before = s->ids.n;
    OK(mm_session_add_turn(s, "And now?", two, 2, &err));
    struct mm_ids more = {NULL, 0, 0};
    const char *next =
        "<|im_end|><|im_start|>user\nImage-1: <img><IMG_CONTEXT></img>\n"
        "Image-2: <img><IMG_CONTEXT></img>\nAnd now?<|im_end|><|im_start|>assistant\n";
    mm_tokenizer_encode(e->tok, next, strlen(next), false, &more);
    assert_int_equal(s->ids.n - before, more.n);
    assert_memory_equal(more.data, s->ids.data + before, (size_t)more.n * sizeof *more.data);
    // what a user types is never a special token, and pictures go where the text says
    OK(mm_session_add_turn(s, "see <image> <|im_end|>", two, 1, &err));
    text_of(s, &b);
    assert_non_null(strstr(b.data, "see <image> <|im_end|><|im_end|>"));
    int ends = 0;
    for (int64_t i = before + more.n; i < s->ids.n; i++)
        ends += s->ids.data[i] == e->special.im_end;
    assert_int_equal(ends, 2);  // of the unanswered turn, and of the user's
    mm_ids_free(&ids);
    mm_ids_free(&more);
    mm_buf_free(&b);
    mm_session_free(s);
}

static void tiles_come_from_the_config_or_the_caller(void **state) {
    (void)state;
    struct mm_engine *e = engines[0];
    const struct mm_picture p = {.path = "tests/golden/images/wide.png"};
    int64_t n[2];
    for (int i = 0; i < 2; i++) {
        const struct mm_session_options o = {"", 0, i == 0 ? 1 : 0, 0, 0};
        struct mm_session *s;
        OK(mm_session_new(&s, e, &o, &err));
        OK(mm_session_add_turn(s, "?", &p, 1, &err));
        n[i] = 0;
        for (int64_t j = 0; j < s->ids.n; j++)
            n[i] += s->ids.data[j] == e->special.img_context;
        mm_session_free(s);
    }
    assert_int_equal(n[0], 1);
    assert_true(n[1] > 2);
}

// The same tiles, however they are handed over, leave the same state.
static void pictures_by_path_bytes_and_tiles(void **state) {
    (void)state;
    for (int k = 0; k < n_kinds; k++) {
        struct mm_engine *e = engines[k];
        struct mm_buf bytes = {NULL, 0, 0};
        OK(mm_file_read(&bytes, photo, 1 << 20, &err));
        struct mm_image im;
        OK(mm_image_open(&im, photo, &err));
        const struct mm_config *c = &e->model.config;
        struct mm_tiles tiles;
        OK(mm_tiles_make(&tiles, &im, (int32_t)c->image_size, (int32_t)c->min_tiles,
                         (int32_t)c->max_tiles, c->thumbnail, &err));
        mm_image_free(&im);
        const struct mm_picture how[3] = {
            {.path = photo}, {.bytes = bytes.data, .n_bytes = bytes.len}, {.tiles = &tiles}};
        struct mm_session *s[3];
        for (int i = 0; i < 3; i++) {
            s[i] = session(e, NULL);
            OK(mm_session_add_turn(s[i], "What?", &how[i], 1, &err));
            answer(s[i], 4);
            same(s[0], s[i]);
        }
        assert_null(tiles.rgb);
        for (int i = 0; i < 3; i++)
            mm_session_free(s[i]);
        mm_buf_free(&bytes);
    }
}

// ---- the same conversation in other ways --------------------------------------------------------

// Where the tokens lie, sums are made in another order in pieces of other sizes; but little.
static void pieces_agree(void **state) {
    (void)state;
    for (int k = 0; k < n_kinds; k++) {
        struct mm_engine *e = engines[k];
        const int64_t sizes[] = {0, 1, 3, 16, 61};
        float *wanted = NULL;
        const int64_t V = e->model.config.V;
        for (size_t i = 0; i < sizeof sizes / sizeof *sizes; i++) {
            const struct mm_session_options o = {NULL, 0, 0, sizes[i], 0};
            struct mm_session *s;
            OK(mm_session_new(&s, e, &o, &err));
            turn(s, "What is this, and where?", photo);
            OK(mm_session_prefill(s, NULL, &err));
            assert_int_equal(s->n_fed, s->ids.n);
            float largest = 0.0f, off = 0.0f;
            if (wanted == NULL) {
                wanted = mm_xmalloc((size_t)V * sizeof *wanted);
                memcpy(wanted, s->logits, (size_t)V * sizeof *wanted);
            }
            for (int64_t j = 0; j < V; j++) {
                const float d = s->logits[j] - wanted[j], a = wanted[j];
                if ((d < 0 ? -d : d) > off) off = d < 0 ? -d : d;
                if ((a < 0 ? -a : a) > largest) largest = a < 0 ? -a : a;
            }
            if (!(off <= 1e-4f * largest)) {
                fail_msg("%s in pieces of %lld: off by %g of %g", kinds[k].name,
                         (long long)sizes[i], (double)off, (double)largest);
            }
            mm_session_free(s);
        }
        free(wanted);
    }
}

static void saved_and_loaded_goes_on_exactly(void **state) {
    (void)state;
    char *path = fixture_path("one.session");
    for (int k = 0; k < n_kinds; k++) {
        for (int drawn = 0; drawn < 2; drawn++) {
            struct mm_session *s = session(engines[k], drawn ? &lively : NULL), *t;
            mm_session_set_seed(s, 11);
            turn(s, "What is this?", photo);
            answer(s, 9);  // cut inside the answer: a token waits that the state has not seen
            OK(mm_session_save(s, path, &err));
            OK(mm_session_load(&t, engines[k], &MM_SESSION_OPTIONS, path, &err));
            same(s, t);
            for (int more = 0; more < 2; more++) {
                go_on(s, 12);
                go_on(t, 12);
                same(s, t);
                turn(s, "And this?", gray);
                turn(t, "And this?", gray);
                const struct mm_answer a = answer(s, 7);
                const struct mm_answer b = answer(t, 7);
                same(s, t);
                assert_string_equal(a.text, b.text);
            }
            mm_session_free(s);
            mm_session_free(t);
        }
    }
    // with a picture still waiting, and with nothing said at all
    struct mm_session *s = session(engines[1], NULL), *t;
    OK(mm_session_save(s, path, &err));
    OK(mm_session_load(&t, engines[1], &MM_SESSION_OPTIONS, path, &err));
    turn(s, "What?", photo);
    turn(t, "What?", photo);
    OK(mm_session_save(s, path, &err));
    mm_session_free(t);
    OK(mm_session_load(&t, engines[1], &MM_SESSION_OPTIONS, path, &err));
    answer(s, 5);
    answer(t, 5);
    same(s, t);
    mm_session_free(s);
    mm_session_free(t);
    free(path);
}

static void forks_are_independent(void **state) {
    (void)state;
    for (int k = 0; k < n_kinds; k++) {
        struct mm_session *base = session(engines[k], &lively), *plain, *fork, *other;
        turn(base, "What is this?", photo);
        OK(mm_session_fork(&plain, base, &err));  // its picture still waits
        OK(mm_session_prefill(base, NULL, &err));
        OK(mm_session_fork(&fork, base, &err));
        OK(mm_session_fork(&other, base, &err));
        answer(other, 30);  // disturbs nobody
        turn(other, "Something else", gray);
        answer(other, 5);
        mm_session_free(other);
        answer(fork, 20);
        answer(base, 20);
        answer(plain, 20);
        same(base, fork);
        same(base, plain);
        mm_session_free(base);
        mm_session_free(plain);
        turn(fork, "Go on", NULL);  // lives on after the one it came from
        answer(fork, 3);
        OK(mm_session_rewind(fork, 2, &err));
        assert_int_equal(fork->ids.n, 0);
        mm_session_free(fork);
    }
}

static void questions_on_one_picture_share_its_reading(void **state) {
    (void)state;
    for (int k = 0; k < n_kinds; k++) {
        const struct mm_session_options o = {NULL, 0, 0, 0, 0};
        const struct mm_picture p = {.path = photo};
        const char *head = "<|im_start|>user\n<image>", *questions[] = {"What?", "Where is it?"};
        struct mm_session *base, *s, *whole;
        OK(mm_session_new(&base, engines[k], &o, &err));
        OK(mm_session_add_text(base, head, &p, 1, &err));
        OK(mm_session_prefill(base, NULL, &err));
        for (int i = 0; i < 2; i++) {
            char *tail = mm_xasprintf("\n%s<|im_end|><|im_start|>assistant\n", questions[i]);
            char *all = mm_xasprintf("%s%s", head, tail);
            OK(mm_session_fork(&s, base, &err));
            OK(mm_session_add_text(s, tail, NULL, 0, &err));
            OK(mm_session_new(&whole, engines[k], &o, &err));
            OK(mm_session_add_text(whole, all, &p, 1, &err));
            answer(s, 1);
            answer(whole, 1);
            assert_int_equal(s->ids.n, whole->ids.n);
            assert_memory_equal(s->ids.data, whole->ids.data,
                                (size_t)s->ids.n * sizeof *s->ids.data);
            mm_session_free(s);
            mm_session_free(whole);
            free(tail);
            free(all);
        }
        mm_session_free(base);
    }
}

static void rewind_is_exact_and_bounded(void **state) {
    (void)state;
    for (int k = 0; k < n_kinds; k++) {
        const struct mm_session_options o = {NULL, 0, 0, 0, 2};
        struct mm_session *s, *t;
        OK(mm_session_new(&s, engines[k], &o, &err));
        OK(mm_session_set_sampling(s, &lively, &err));
        turn(s, "What is this?", photo);
        answer(s, 10);
        OK(mm_session_fork(&t, s, &err));
        turn(s, "A detour", gray);
        answer(s, 15);
        turn(s, "and another", NULL);
        answer(s, 5);
        assert_int_equal(s->n_turns, 3);
        REFUSED(mm_session_rewind(s, 3, &err), "2 are remembered at most");
        OK(mm_session_rewind(s, 2, &err));
        assert_int_equal(s->n_turns, 1);
        same(s, t);
        REFUSED(mm_session_rewind(s, 1, &err), "0 of the 1 turns");
        go_on(s, 4);  // the cut answer itself goes on as if nothing had been said after it
        go_on(t, 4);
        same(s, t);
        turn(s, "The way", gray);
        turn(t, "The way", gray);
        answer(s, 15);
        answer(t, 15);
        same(s, t);
        mm_session_free(s);
        mm_session_free(t);
    }
}

// ---- answers ------------------------------------------------------------------------------------

struct heard {
    struct mm_buf text;
    int64_t n_read, n_all;
    int calls, stop_after;
};

static bool hear_text(void *arg, const char *text, size_t n) {
    struct heard *h = arg;
    for (size_t at = 0; at < n;) {
        const int len = mm_utf8_char(text + at, n - at);
        assert_true(len > 0);  // whole characters only
        at += (size_t)len;
    }
    mm_buf_add(&h->text, text, n);
    return ++h->calls != h->stop_after;
}

static bool hear_reading(void *arg, int64_t n_read, int64_t n_all) {
    struct heard *h = arg;
    assert_true(n_read > h->n_read && n_read <= n_all);
    h->n_read = n_read;
    h->n_all = n_all;
    return h->stop_after != -1;
}

static void what_is_heard_is_the_answer(void **state) {
    (void)state;
    for (uint64_t seed = 0; seed < 30; seed++) {
        struct mm_session *s = session(engines[1], &(struct mm_sampling){2.5, 0, 1.0, 0.0, 1.0});
        mm_session_set_seed(s, seed);
        turn(s, "Say something", NULL);
        struct heard h = {.stop_after = 0};
        const struct mm_listener l = {hear_reading, hear_text, &h};
        const struct mm_generation g = {60, 0};
        struct mm_answer a;
        OK(mm_session_generate(s, &g, &l, &a, &err));
        assert_int_equal(h.n_read, h.n_all);
        assert_int_equal(h.n_read, a.prompt_tokens);
        assert_int_equal(h.text.len, a.n_bytes);
        assert_memory_equal(h.text.data, a.text, a.n_bytes);
        // <0x00> is a token like others
        assert_int_equal(strlen(a.text) == a.n_bytes, !memchr(a.text, 0, a.n_bytes));
        if (a.n_bytes > 0) assert_true(a.text[0] != ' ' && a.text[a.n_bytes - 1] != ' ');
        assert_true(a.finish == mm_finish_stop || a.new_tokens == 60);
        // the same as decoding it at once, but for ids that no token has
        struct mm_buf b = {NULL, 0, 0};
        int64_t n = a.new_tokens;
        const int32_t *ids = s->ids.data + s->ids.n - n;
        OK(mm_tokenizer_decode(s->e->tok, ids, n, true, &b, &err));
        const char *from = b.data ? b.data : "";
        while (*from && strchr(" \t\n\r\f\v\x1c\x1d\x1e\x1f", *from))
            from++;
        assert_int_equal(strncmp(from, a.text, a.n_bytes), 0);
        mm_buf_free(&b);
        mm_buf_free(&h.text);
        mm_session_free(s);
    }
}

static void ends_with_im_end_and_not_before_min(void **state) {
    (void)state;
    int stopped = 0;
    for (uint64_t seed = 0; seed < 60; seed++) {
        struct mm_session *s = session(engines[0], &(struct mm_sampling){30.0, 0, 1.0, 0.0, 1.0});
        mm_session_set_seed(s, seed);
        turn(s, "Say something", NULL);
        struct mm_answer a;
        const struct mm_generation g = {100, 50};
        OK(mm_session_generate(s, &g, NULL, &a, &err));
        for (int64_t i = s->ids.n - a.new_tokens; i < s->ids.n - 1; i++) {
            assert_int_not_equal(s->ids.data[i], s->e->special.im_end);
            assert_int_not_equal(s->ids.data[i], s->e->special.img_context);
        }
        if (a.finish == mm_finish_stop) {
            stopped++;
            assert_true(a.new_tokens > 50);
            assert_int_equal(s->ids.data[s->ids.n - 1], s->e->special.im_end);
            REFUSED(mm_session_generate(s, &g, NULL, &a, &err), "the answer has ended");
            const int64_t n = s->ids.n;
            turn(s, "More", NULL);  // and <|im_end|> does not come twice
            assert_int_equal(s->ids.data[n], s->e->special.im_start);
        } else {
            assert_int_equal(a.new_tokens, 100);
        }
        mm_session_free(s);
    }
    assert_true(stopped > 0);  // about one in 18 draws of 50 tokens
}

static void stops_when_asked(void **state) {
    (void)state;
    struct mm_session *s = session(engines[1], &lively), *t;
    turn(s, "What is this?", photo);
    OK(mm_session_fork(&t, s, &err));
    struct heard h = {.stop_after = 4};
    struct mm_listener l = {NULL, hear_text, &h};
    const struct mm_generation g = {50, 0};
    struct mm_answer a;
    OK(mm_session_generate(s, &g, &l, &a, &err));
    assert_int_equal(a.finish, mm_finish_cancelled);
    assert_int_equal(a.new_tokens, 4);
    answer(t, 4);
    same(s, t);
    go_on(s, 6);
    go_on(t, 6);
    same(s, t);
    // while a prompt is read: the turn is gone, all before it is there
    struct heard r = {.stop_after = -1};
    l = (struct mm_listener){hear_reading, NULL, &r};
    turn(s, "Another picture", gray);
    REFUSED(mm_session_generate(s, &g, &l, &a, &err), "stopped after");
    assert_int_equal(err.code, mm_code_interrupted);
    same(s, t);
    mm_buf_free(&h.text);
    mm_session_free(s);
    mm_session_free(t);
}

// ---- bad input ----------------------------------------------------------------------------------

static void refuses_bad_turns_and_stays_whole(void **state) {
    (void)state;
    struct mm_session *s = session(engines[1], NULL), *t;
    struct mm_answer a;
    const struct mm_generation g = {5, 0}, none = {0, 0}, upside = {3, 4};
    REFUSED(mm_session_generate(s, &g, NULL, &a, &err), "nothing to answer");
    turn(s, "What is this?", photo);
    answer(s, 5);
    OK(mm_session_fork(&t, s, &err));
    const struct mm_picture missing = {.path = "tests/golden/none.png"},
                            text = {.bytes = "not a picture", .n_bytes = 13, .name = "note"},
                            good = {.path = photo};
    REFUSED(mm_session_add_turn(s, "a", &missing, 1, &err), "tests/golden/none.png");
    REFUSED(mm_session_add_turn(s, "a", &text, 1, &err), "note");
    REFUSED(mm_session_add_turn(s, "<image> <image>", &good, 1, &err), "2 <image>");
    REFUSED(mm_session_add_turn(s, "<image>", NULL, 0, &err), "1 <image>");
    REFUSED(mm_session_add_text(s, "", NULL, 0, &err), "empty");
    REFUSED(mm_session_generate(s, &none, NULL, &a, &err), "max_new_tokens is 0");
    REFUSED(mm_session_generate(s, &upside, NULL, &a, &err), "min_new_tokens is 4");
    REFUSED(mm_session_set_sampling(s, &(struct mm_sampling){-1, 0, 1, 0, 1}, &err),
            "'temperature' is -1");
    same(s, t);
    // a header that is right and pixels that are not: found while reading, and the turn is undone
    struct mm_buf bytes = {NULL, 0, 0};
    OK(mm_file_read(&bytes, gray, 1 << 20, &err));
    const struct mm_picture cut = {.bytes = bytes.data, .n_bytes = bytes.len / 2, .name = "cut"};
    const struct mm_picture both[2] = {good, cut};
    OK(mm_session_add_turn(s, "a", both, 2, &err));
    REFUSED(mm_session_generate(s, &g, NULL, &a, &err), "cut");
    same(s, t);
    turn(s, "b", NULL);
    turn(t, "b", NULL);
    answer(s, 3);
    answer(t, 3);
    same(s, t);
    // without marks nothing can be undone, and the session says so from then on
    const struct mm_session_options o = {NULL, 0, 0, 4, 0};
    struct mm_session *u;
    OK(mm_session_new(&u, engines[1], &o, &err));
    OK(mm_session_add_text(u, "<image> and <image>", both, 2, &err));
    REFUSED(mm_session_prefill(u, NULL, &err), "cut");
    REFUSED(mm_session_prefill(u, NULL, &err), "start a new one");
    REFUSED(mm_session_add_turn(u, "c", NULL, 0, &err), "start a new one");
    mm_session_free(s);
    mm_session_free(t);
    mm_session_free(u);
    mm_buf_free(&bytes);
}

static void refuses_written_out_picture_tokens_without_a_picture(void **state) {
    (void)state;
    struct mm_session *s;
    const struct mm_session_options o = {NULL, 0, 0, 0, 0};
    OK(mm_session_new(&s, engines[1], &o, &err));
    OK(mm_session_add_text(s, "a <IMG_CONTEXT> b", NULL, 0, &err));
    REFUSED(mm_session_prefill(s, NULL, &err), "<IMG_CONTEXT>");
    mm_session_free(s);
}

static void refuses_options_out_of_range(void **state) {
    (void)state;
    struct mm_session *s;
    const struct mm_session_options wrong[] = {
        {NULL, 3, 2, 0, 0},  {NULL, 0, 5000, 0, 0}, {NULL, -1, 0, 0, 0},
        {NULL, 0, 0, -1, 0}, {NULL, 0, 0, 0, -1},   {NULL, 0, 0, 0, 100000},
    };
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        REFUSED(mm_session_new(&s, engines[0], &wrong[i], &err), "wanted");
        assert_null(s);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(follows_the_template),
        cmocka_unit_test(tiles_come_from_the_config_or_the_caller),
        cmocka_unit_test(pictures_by_path_bytes_and_tiles),
        cmocka_unit_test(pieces_agree),
        cmocka_unit_test(saved_and_loaded_goes_on_exactly),
        cmocka_unit_test(forks_are_independent),
        cmocka_unit_test(questions_on_one_picture_share_its_reading),
        cmocka_unit_test(rewind_is_exact_and_bounded),
        cmocka_unit_test(what_is_heard_is_the_answer),
        cmocka_unit_test(ends_with_im_end_and_not_before_min),
        cmocka_unit_test(stops_when_asked),
        cmocka_unit_test(refuses_bad_turns_and_stays_whole),
        cmocka_unit_test(refuses_written_out_picture_tokens_without_a_picture),
        cmocka_unit_test(refuses_options_out_of_range),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
