// The file of a session: its size, whose model it is, and every way it can be damaged.
#include <sys/stat.h>

#include "infer/infer_fixture.h"

static struct mm_engine *linear, *hybrid;
static char *saved;  // a session of `hybrid`: a picture, a cut answer

static struct mm_session *talked(struct mm_engine *e, int64_t n) {
    struct mm_session *s;
    struct mm_answer a;
    OK(mm_session_new(&s, e, &MM_SESSION_OPTIONS, &err));
    const struct mm_picture p = {.path = "tests/golden/images/photo.jpg"};
    OK(mm_session_add_turn(s, "What is this?", &p, 1, &err));
    const struct mm_generation g = {n, n};
    OK(mm_session_generate(s, &g, NULL, &a, &err));
    return s;
}

static int begin(void **state) {
    if (fixture_begin(state) != 0) return -1;
    char *a = fixture_model("linear", "pre_hybrid", "none", 3);
    char *b = fixture_model("hybrid", "pre_hybrid", "0,4", 3);
    linear = fixture_engine(a);
    hybrid = fixture_engine(b);
    saved = fixture_path("saved");
    struct mm_session *s = talked(hybrid, 10);
    OK(mm_session_save(s, saved, &err));
    mm_session_free(s);
    free(a);
    free(b);
    return 0;
}

static int end(void **state) {
    mm_engine_close(linear);
    mm_engine_close(hybrid);
    free(saved);
    return fixture_end(state);
}

static int64_t size_of(const char *path) {
    struct stat st;
    assert_int_equal(stat(path, &st), 0);
    return st.st_size;
}

// docs/SESSIONS.md: fixed state + 4 V + 4 ids + cache rows used + header.
static void size_is_the_formula(void **state) {
    (void)state;
    char *path = fixture_path("sizes");
    struct mm_engine *engines[2] = {linear, hybrid};
    for (int i = 0; i < 2; i++) {
        int64_t rest[2];
        for (int j = 0; j < 2; j++) {
            struct mm_session *s = talked(engines[i], j == 0 ? 5 : 300);
            OK(mm_session_save(s, path, &err));
            int64_t fixed = 0;
            for (int64_t b = 0; b < s->e->model.n_blocks; b++) {
                const struct mm_block_state *t = &s->state.blocks[b];
                if (t->S.data) fixed += 4 * (mm_view_count(t->S) + mm_view_count(t->conv));
            }
            const int64_t cache = (int64_t)mm_model_cache_bytes_per_token(&s->e->model) * s->n_fed;
            assert_true(i == 0 ? cache == 0 : cache > 0);
            rest[j] = size_of(path) - fixed - 4 * 905 - 4 * s->ids.n - cache;
            mm_session_free(s);
        }
        assert_true(rest[0] > 0 && rest[0] < 8000);
        assert_true(rest[1] - rest[0] < 6000);  // the text, for people
    }
    free(path);
}

static void another_model_is_refused(void **state) {
    (void)state;
    struct mm_session *s;
    char *path = fixture_path("linear_session"), *folder;
    struct mm_session *t = talked(linear, 4);
    OK(mm_session_save(t, path, &err));
    REFUSED(mm_session_load(&s, hybrid, &MM_SESSION_OPTIONS, path, &err), "another config");
    mm_session_free(t);
    // the same config, other weights: both hashes are named
    folder = fixture_model("other", "pre_hybrid", "0,4", 4);
    struct mm_engine *other = fixture_engine(folder);
    REFUSED(mm_session_load(&s, other, &MM_SESSION_OPTIONS, saved, &err), mm_engine_hash(hybrid));
    assert_non_null(strstr(err.text, mm_engine_hash(other)));
    mm_engine_close(other);
    free(folder);
    // the same folder in another dtype computes other numbers
    folder = fixture_path("hybrid");
    OK(mm_engine_open(&other, fixture_be, folder, mm_dtype_bf16, &err));
    REFUSED(mm_session_load(&s, other, &MM_SESSION_OPTIONS, saved, &err), "in bf16");
    mm_engine_close(other);
    // and a model that was written again with the same weights is the same
    struct mm_engine *again;
    char *copy = fixture_path("again");
    OK(mm_model_save(&hybrid->model, copy, mm_dtype_f32, "tests/golden/tokenizer", &err));
    OK(mm_engine_open(&again, fixture_be, copy, -1, &err));
    OK(mm_session_load(&s, again, &MM_SESSION_OPTIONS, saved, &err));
    mm_session_free(s);
    mm_engine_close(again);
    free(copy);
    free(folder);
    free(path);
}

static void other_files_are_refused(void **state) {
    (void)state;
    struct mm_session *s;
    char *weights = fixture_path("hybrid/model.safetensors");
    REFUSED(mm_session_load(&s, hybrid, &MM_SESSION_OPTIONS, weights, &err), "no session");
    REFUSED(mm_session_load(&s, hybrid, &MM_SESSION_OPTIONS, "tests/golden/images/gray.png", &err),
            "gray.png");
    REFUSED(mm_session_load(&s, hybrid, &MM_SESSION_OPTIONS, "tests/golden/nothing", &err),
            "nothing");
    struct mm_session *t = talked(hybrid, 2);
    REFUSED(mm_session_save(t, "/nowhere/at/all", &err), "/nowhere/at/all");
    mm_session_free(t);
    free(weights);
}

// ---- damage -------------------------------------------------------------------------------------

struct copy {
    struct mm_st *st;
    struct mm_st_tensor t[64];
    struct mm_st_meta meta[24];
    int n, n_meta;
};

static void copy_begin(struct copy *c) {
    static const char *const keys[] = {
        "format",      "weights",  "weights_dtype", "config",      "n_fed",  "n_answered",
        "answer_from", "n_turns",  "finished",      "temperature", "top_k",  "top_p",
        "min_p",       "rng_seed", "rng_stream",    "rng_counter", "system", "repetition_penalty",
        "text",
    };
    *c = (struct copy){0};
    OK(mm_st_open(&c->st, saved, &err));
    for (; c->n < mm_st_count(c->st); c->n++)
        c->t[c->n] = *mm_st_at(c->st, c->n);
    for (; c->n_meta < (int)(sizeof keys / sizeof *keys); c->n_meta++) {
        c->meta[c->n_meta] =
            (struct mm_st_meta){keys[c->n_meta], mm_st_metadata(c->st, keys[c->n_meta])};
        assert_non_null(c->meta[c->n_meta].value);
    }
}

static struct mm_st_tensor *tensor(struct copy *c, const char *name) {
    for (int i = 0; i < c->n; i++)
        if (strcmp(c->t[i].name, name) == 0) return &c->t[i];
    fail_msg("no tensor %s", name);
    return NULL;
}

// Writes the copy and says whether it is refused with these words (NULL: it loads).
static void copy_end(struct copy *c, const char *says) {
    char *path = fixture_path("damaged");
    struct mm_session *s = NULL;
    OK(mm_st_write(path, c->t, c->n, c->meta, c->n_meta, &err));
    mm_st_close(c->st);
    if (says) {
        REFUSED(mm_session_load(&s, hybrid, &MM_SESSION_OPTIONS, path, &err), says);
        assert_non_null(strstr(err.text, path));
        assert_null(s);
    } else {
        OK(mm_session_load(&s, hybrid, &MM_SESSION_OPTIONS, path, &err));
        mm_session_free(s);
    }
    free(path);
}

static void every_metadata_value_is_checked(void **state) {
    (void)state;
    struct copy c;
    copy_begin(&c);
    const int n_meta = c.n_meta;
    copy_end(&c, NULL);
    for (int i = 0; i < n_meta; i++) {
        copy_begin(&c);
        const char *key = c.meta[i].key;
        const bool free_text = !strcmp(key, "text") || !strcmp(key, "system");
        c.meta[i].value = "nonsense";
        copy_end(&c, free_text                       ? NULL
                     : !strcmp(key, "weights_dtype") ? NULL  // only said, the hash decides
                     : !strcmp(key, "weights")       ? "other weights"
                     : !strcmp(key, "config")        ? "another config"
                                                     : key);
        copy_begin(&c);
        c.meta[i] = c.meta[--c.n_meta];
        copy_end(&c, !strcmp(key, "text") ? NULL : key);
    }
    static const struct {
        const char *key, *value;
    } wrong[] = {{"n_fed", "-1"},
                 {"n_fed", "99999999"},
                 {"n_fed", "3"},  // a picture's tokens would be unread
                 {"n_fed", "4 "},
                 {"n_fed", "99999999999999999999999999"},
                 {"finished", "2"},
                 {"answer_from", "1000000"},
                 {"temperature", "nan"},
                 {"temperature", "-1"},
                 {"top_p", "1.5"},
                 {"repetition_penalty", "0"},
                 {"rng_counter", "12"},
                 {"rng_seed", "000000000000000g"},
                 {"format", "mmamba-session-2"}};
    for (size_t w = 0; w < sizeof wrong / sizeof *wrong; w++) {
        copy_begin(&c);
        for (int i = 0; i < c.n_meta; i++)
            if (!strcmp(c.meta[i].key, wrong[w].key)) c.meta[i].value = wrong[w].value;
        copy_end(&c, wrong[w].key);
    }
}

static void every_tensor_is_checked(void **state) {
    (void)state;
    struct copy c;
    copy_begin(&c);
    const int n = c.n;
    mm_st_close(c.st);
    for (int i = 0; i < n; i++) {
        copy_begin(&c);
        const char *name = c.t[i].name;
        char *says = mm_xasprintf("%s", name);
        c.t[i] = c.t[--c.n];
        // without ids nothing was said, so nothing can have been read
        copy_end(&c, strcmp(says, "ids") == 0 ? "n_fed" : says);
        copy_begin(&c);
        c.t[i].shape[0] -= 1;  // a row less
        c.t[i].bytes = c.t[i].bytes / (size_t)(c.t[i].shape[0] + 1) * (size_t)c.t[i].shape[0];
        copy_end(&c, strcmp(says, "ids") == 0 ? "" : says);
        free(says);
    }
    copy_begin(&c);
    tensor(&c, "logits")->dtype = mm_dtype_i32;
    copy_end(&c, "logits");
    copy_begin(&c);
    tensor(&c, "ids")->dtype = mm_dtype_f32;
    copy_end(&c, "ids");
    copy_begin(&c);
    int32_t *ids = mm_xmalloc(tensor(&c, "ids")->bytes);
    memcpy(ids, tensor(&c, "ids")->data, tensor(&c, "ids")->bytes);
    ids[4] = 905;
    tensor(&c, "ids")->data = ids;
    copy_end(&c, "'ids' holds 905 at position 4");
    copy_begin(&c);
    tensor(&c, "ids")->data = ids;
    ids[4] = -1;
    copy_end(&c, "'ids' holds -1");
    free(ids);
    copy_begin(&c);
    const float more[2] = {0, 0};
    c.t[c.n++] = (struct mm_st_tensor){"more", mm_dtype_f32, 1, {2}, more, 8};
    copy_end(&c, "no part of this session");
}

// Cut anywhere, or any byte of the header changed: a sentence or a session, never a crash.
static void broken_bytes_do_no_harm(void **state) {
    (void)state;
    struct mm_buf b = {NULL, 0, 0};
    OK(mm_file_read(&b, saved, 1 << 24, &err));
    char *path = fixture_path("bytes");
    struct mm_session *s;
    int loaded = 0;
    struct mm_rng rng = mm_rng_make(1, 1);
    for (int i = 0; i < 300; i++) {
        const size_t at = mm_rng_below(&rng, i % 3 ? 2500 : (uint32_t)b.len);
        const char old = b.data[at];
        const size_t n = i % 10 == 0 ? at : b.len;
        b.data[at] = (char)(b.data[at] ^ (1 << mm_rng_below(&rng, 8)));
        FILE *f = fopen(path, "wb");  // in place: nothing here needs a disk flush
        assert_int_equal(fwrite(b.data, 1, n, f), n);
        fclose(f);
        b.data[at] = old;
        if (mm_session_load(&s, hybrid, &MM_SESSION_OPTIONS, path, &err) == mm_code_ok) {
            loaded++;
            struct mm_answer a;
            const struct mm_generation g = {2, 0};
            if (!s->finished) mm_session_generate(s, &g, NULL, &a, &err);
            mm_session_free(s);
        } else {
            assert_true(strlen(err.text) > 10);
        }
    }
    assert_true(loaded > 0 && loaded < 290);
    mm_buf_free(&b);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(size_is_the_formula),
        cmocka_unit_test(another_model_is_refused),
        cmocka_unit_test(other_files_are_refused),
        cmocka_unit_test(every_metadata_value_is_checked),
        cmocka_unit_test(every_tensor_is_checked),
        cmocka_unit_test(broken_bytes_do_no_harm),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
