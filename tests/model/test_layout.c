// Where rows go, by hand: packed sequences with pictures and special tokens, with the shuffle
// before and after the first stack, from a state, and every input that does not fit.
#include "model/model_test.h"
#include "model/tiny_model.h"

enum { I = tiny_image_id };

static struct mm_backend *be;
static struct mm_arena arena;

static int setup(void **state) {
    (void)state;
    be = open_isa(mm_isa_plain, 1);
    return mm_arena_init(&arena, 1 << 16, &err);
}

static int teardown(void **state) {
    (void)state;
    mm_arena_deinit(&arena);
    mm_backend_close(be);
    return 0;
}

static void model(struct mm_model *m, bool post, int n_special) {
    struct mm_config c;
    tiny_config(&c, &(struct tiny){.post = post, .n_special = n_special});
    mm_model_init(m, &c, be, mm_dtype_f32);
    mm_config_deinit(&c);
}

#define SAME(view, ...)                                                  \
    do {                                                                 \
        const int32_t want_[] = {__VA_ARGS__};                           \
        assert_int_equal((view).shape[0], sizeof want_ / sizeof *want_); \
        assert_memory_equal((view).data, want_, sizeof want_);           \
    } while (0)

static void segments(const struct mm_stream *s, const int32_t *want, int64_t n) {
    assert_int_equal(s->segs.n, n);
    assert_memory_equal(s->segs.start, want, (size_t)(n + 1) * sizeof *want);
    assert_ptr_equal(s->segs.start, s->segs.dev);
    assert_int_equal(s->T, want[n]);
}

// A tile is 16 patches: 4 tokens in short form, 16 rows in the first stack when shuffled after it.
static void before(void **state) {
    (void)state;
    struct mm_model m;
    model(&m, false, 2);
    const int32_t ids[] = {3, I, I, I, I, 24, 5, 6, 23, I, I, I, I}, start[] = {0, 6, 7, 13};
    struct mm_layout l;
    mm_arena_release(&arena, 0);
    OK(mm_layout_make(&l, &m, &arena, &arena, ids, start, 3, 2, 0, 0, "x", &err));
    segments(&l.embed, start, 3);
    segments(&l.llm, start, 3);
    assert_int_equal(l.embed.longest, 6);
    SAME(l.embed.pos, 0, 1, 2, 3, 4, 5, 0, 0, 1, 2, 3, 4, 5);
    SAME(l.llm.pos, 0, 1, 2, 3, 4, 5, 0, 0, 1, 2, 3, 4, 5);
    SAME(l.ids, 3, -1, -1, -1, -1, -1, 5, 6, -1, -1, -1, -1, -1);
    SAME(l.img_rows, 1, 2, 3, 4, 9, 10, 11, 12);
    SAME(l.special_rows, 5, 8);
    SAME(l.special_ids, 1, 0);
    assert_int_equal(l.n_tiles, 2);
    assert_int_equal(l.text_from.shape[0] + l.text_to.shape[0] + l.img_to.shape[0], 0);
    mm_model_deinit(&m);
}

static void after(void **state) {
    (void)state;
    struct mm_model m;
    model(&m, true, 1);
    const int32_t ids[] = {3, I, I, I, I, 5, 23, I, I, I, I}, start[] = {0, 6, 11};
    struct mm_layout l;
    mm_arena_release(&arena, 0);
    OK(mm_layout_make(&l, &m, &arena, &arena, ids, start, 2, 2, 0, 0, "x", &err));
    segments(&l.embed, (const int32_t[]){0, 18, 35}, 2);
    segments(&l.llm, start, 2);
    assert_int_equal(l.embed.longest, 18);
    assert_int_equal(l.llm.longest, 6);
    SAME(l.llm.pos, 0, 1, 2, 3, 4, 5, 0, 1, 2, 3, 4);
    const int32_t *pos = l.embed.pos.data, *rows = l.ids.data, *img = l.img_rows.data;
    for (int32_t i = 0; i < 35; i++) {
        assert_int_equal(pos[i], i < 18 ? i : i - 18);
        assert_int_equal(rows[i], i == 0 ? 3 : i == 17 ? 5 : -1);
    }
    assert_int_equal(l.img_rows.shape[0], 32);
    for (int32_t i = 0; i < 16; i++) {
        assert_int_equal(img[i], 1 + i);
        assert_int_equal(img[16 + i], 19 + i);
    }
    SAME(l.special_rows, 18);
    SAME(l.special_ids, 0);
    SAME(l.text_from, 0, 17, 18);
    SAME(l.text_to, 0, 5, 6);
    SAME(l.img_to, 1, 2, 3, 4, 7, 8, 9, 10);
    mm_model_deinit(&m);
}

// A piece of one sequence: positions go on where the state is, in each stack by itself.
static void goes_on(void **state) {
    (void)state;
    struct mm_model m;
    model(&m, true, 0);
    const int32_t ids[] = {I, I, I, I, 7}, start[] = {0, 5};
    struct mm_layout l;
    mm_arena_release(&arena, 0);
    OK(mm_layout_make(&l, &m, &arena, &arena, ids, start, 1, 1, 40, 10, "x", &err));
    SAME(l.llm.pos, 10, 11, 12, 13, 14);
    const int32_t *pos = l.embed.pos.data;
    for (int32_t i = 0; i < 17; i++)
        assert_int_equal(pos[i], 40 + i);
    assert_int_equal(l.embed.longest, 57);
    assert_int_equal(l.llm.longest, 15);
    mm_model_deinit(&m);
}

// What is planned is never less than what is taken.
static void planned(void **state) {
    (void)state;
    for (int post = 0; post < 2; post++) {
        struct mm_model m;
        model(&m, post, 2);
        struct tiny_batch memory;
        const struct batch b = tiny_batch_make(&memory, &m.config, false);
        const int64_t T = b.start[b.n_seqs];
        const size_t bytes = mm_layout_host_bytes(&m, T, b.n_seqs, b.n_tiles);
        struct mm_arena dry;
        mm_arena_init_dry(&dry);
        struct mm_layout l;
        mm_layout_plan(&l, &m, &dry, T, b.n_seqs, b.n_tiles);
        mm_arena_release(&arena, 0);
        OK(mm_layout_make(&l, &m, &arena, &arena, b.ids, b.start, b.n_seqs, b.n_tiles, 0, 0, "x",
                          &err));
        assert_true(arena.used <= bytes);
        assert_true(arena.used <= dry.peak);
        mm_model_deinit(&m);
    }
}

static void refused(const char *why, const int32_t *ids, int32_t n, int64_t tiles) {
    struct mm_model m;
    model(&m, true, 1);
    const int32_t start[] = {0, n};
    struct mm_layout l;
    mm_arena_release(&arena, 0);
    assert_int_equal(
        mm_layout_make(&l, &m, &arena, &arena, ids, start, 1, tiles, 0, 0, "some file", &err),
        mm_code_input);
    if (!strstr(err.text, why) || strncmp(err.text, "some file: ", 11) != 0) {
        fail_msg("'%s' does not say '%s'", err.text, why);
    }
    mm_model_deinit(&m);
}

static void refusals(void **state) {
    (void)state;
    refused("a run of 3 image tokens", (const int32_t[]){1, I, I, I, 2}, 5, 1);
    refused("a run of 5 image tokens", (const int32_t[]){I, I, I, I, I}, 5, 1);
    refused("4 image tokens, but 0 tiles", (const int32_t[]){I, I, I, I}, 4, 0);
    refused("0 image tokens, but 1 tiles", (const int32_t[]){1, 2}, 2, 1);
    refused("token id 24 at position 1", (const int32_t[]){1, 24}, 2, 0);
    refused("token id -1 at position 0", (const int32_t[]){-1, 2}, 2, 0);
    // a run may not go over the border of two sequences
    struct mm_model m;
    model(&m, false, 0);
    const int32_t ids[] = {I, I, I, I}, start[] = {0, 2, 4};
    struct mm_layout l;
    mm_arena_release(&arena, 0);
    assert_int_equal(mm_layout_make(&l, &m, &arena, &arena, ids, start, 2, 1, 0, 0, "x", &err),
                     mm_code_input);
    mm_model_deinit(&m);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(before),  cmocka_unit_test(after),    cmocka_unit_test(goes_on),
        cmocka_unit_test(planned), cmocka_unit_test(refusals),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
