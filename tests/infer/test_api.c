// The public header, used as a stranger would: everything through include/mmamba.h.
#include <mmamba.h>

#include "infer/infer_fixture.h"

#define FINE(call)                                                       \
    do {                                                                 \
        if ((call) != mmamba_code_ok) fail_msg("%s: %s", #call, e.text); \
    } while (0)

static struct mmamba_error e;
static char *model;
static struct mmamba_engine_options here;  // the CPU, or the GPU that is tested

static int begin(void **state) {
    if (fixture_begin(state) != 0) return -1;
    if (testing_cuda()) here.backend = "cuda";
    model = fixture_model("model", "pre_hybrid", "0,4", 7);
    return 0;
}

static int end(void **state) {
    free(model);
    return fixture_end(state);
}

static const struct mmamba_picture photo = {.path = "tests/golden/images/photo.jpg"};

static bool collect(void *arg, const char *text, size_t n) {
    mm_buf_add(arg, text, n);
    return true;
}

static void a_conversation(void **state) {
    (void)state;
    struct mmamba_engine *engine;
    struct mmamba_session *s, *t;
    struct mmamba_answer a, b;
    FINE(mmamba_engine_open(&engine, model, &here, &e));
    assert_int_equal(e.code, mmamba_code_ok);
    struct mmamba_engine_info info;
    mmamba_engine_describe(engine, &info);
    assert_int_equal(info.n_blocks, 6);
    assert_int_equal(info.n_attention_blocks, 2);
    assert_int_equal(info.tile_tokens, 1);
    assert_int_equal(strlen(info.weights_hash), 32);
    assert_true(info.state_bytes > 0 && info.cache_bytes_per_token > 0);
    assert_true(strlen(info.device) > 0);

    FINE(mmamba_session_new(&s, engine, NULL, &e));
    struct mmamba_sampling how;
    mmamba_session_get_sampling(s, &how);
    assert_true(how.temperature == 0.0);
    how = (struct mmamba_sampling){1.5, 50, 0.95, 0.0, 1.0};
    FINE(mmamba_session_set_sampling(s, &how, &e));
    mmamba_session_set_seed(s, 3);
    FINE(mmamba_session_add_turn(s, "What is this?", &photo, 1, &e));
    struct mm_buf heard = {NULL, 0, 0};
    const struct mmamba_listener l = {NULL, collect, &heard};
    FINE(mmamba_session_generate(s, &(struct mmamba_generation){15, 0}, &l, &a, &e));
    assert_int_equal(a.n_bytes, heard.len);
    assert_memory_equal(a.text, heard.data, heard.len);
    assert_string_equal(mmamba_finish_name(a.finish), a.new_tokens == 15 ? "length" : "stop");

    char *file = fixture_path("session");
    FINE(mmamba_session_save(s, file, &e));
    FINE(mmamba_session_fork(&t, s, &e));
    FINE(mmamba_session_add_turn(t, "Off", NULL, 0, &e));
    FINE(mmamba_session_generate(t, &(struct mmamba_generation){5, 5}, NULL, &b, &e));
    FINE(mmamba_session_rewind(t, 1, &e));
    FINE(mmamba_session_add_turn(t, "On", NULL, 0, &e));
    FINE(mmamba_session_generate(t, &(struct mmamba_generation){20, 0}, NULL, &b, &e));
    FINE(mmamba_session_add_turn(s, "On", NULL, 0, &e));
    FINE(mmamba_session_generate(s, &(struct mmamba_generation){20, 0}, NULL, &a, &e));
    assert_string_equal(a.text, b.text);
    mmamba_session_free(t);
    FINE(mmamba_session_load(&t, engine, NULL, file, &e));
    FINE(mmamba_session_add_turn(t, "On", NULL, 0, &e));
    FINE(mmamba_session_generate(t, &(struct mmamba_generation){20, 0}, NULL, &b, &e));
    assert_string_equal(a.text, b.text);

    struct mmamba_session_info about;
    mmamba_session_describe(s, &about);
    assert_int_equal(about.n_turns, 2);
    assert_int_equal(about.n_rewind, 2);
    assert_int_equal(about.state_bytes, info.state_bytes);
    assert_true(about.cache_bytes > 0);
    assert_true(about.cache_bytes <= about.n_tokens * info.cache_bytes_per_token);
    char *x = mmamba_session_text(s), *y = mmamba_session_text(t);
    assert_string_equal(x, y);
    assert_non_null(strstr(x, "<image>\nWhat is this?"));
    mmamba_text_free(x);
    mmamba_text_free(y);
    mm_buf_free(&heard);
    free(file);
    mmamba_session_free(s);
    mmamba_session_free(t);
    mmamba_engine_close(engine);
}

#define SAYS(call, wanted, words)                                             \
    do {                                                                      \
        assert_int_equal(call, wanted);                                       \
        assert_int_equal(e.code, wanted);                                     \
        if (!strstr(e.text, words)) fail_msg("%s: says '%s'", #call, e.text); \
    } while (0)

static void mistakes_are_told(void **state) {
    (void)state;
    struct mmamba_engine *engine;
    struct mmamba_session *s;
    struct mmamba_answer a;
    SAYS(mmamba_engine_open(&engine, "nothing", NULL, &e), mmamba_code_input, "nothing");
    assert_null(engine);
    assert_int_equal(mmamba_engine_open(&engine, "nothing", NULL, NULL), mmamba_code_input);
    SAYS(mmamba_engine_open(&engine, model, &(struct mmamba_engine_options){"gpu", 0, NULL}, &e),
         mmamba_code_usage, "'gpu'");
    SAYS(mmamba_engine_open(&engine, model, &(struct mmamba_engine_options){"cuda:x", 0, NULL}, &e),
         mmamba_code_usage, "cuda:N");
    SAYS(mmamba_engine_open(&engine, model, &(struct mmamba_engine_options){NULL, -1, NULL}, &e),
         mmamba_code_usage, "n_threads is -1");
    SAYS(mmamba_engine_open(&engine, model, &(struct mmamba_engine_options){NULL, 0, "q4"}, &e),
         mmamba_code_usage, "'q4'");
    FINE(mmamba_engine_open(&engine, model,
                            &(struct mmamba_engine_options){here.backend, 1, "bf16"}, &e));
    SAYS(mmamba_session_new(&s, engine, &(struct mmamba_session_options){.max_tiles = 100000}, &e),
         mmamba_code_input, "100000");
    assert_null(s);
    FINE(mmamba_session_new(&s, engine, &(struct mmamba_session_options){.n_rewind = -1}, &e));
    SAYS(mmamba_session_generate(s, NULL, NULL, &a, &e), mmamba_code_input, "nothing to answer");
    assert_string_equal(a.text, "");
    struct mmamba_picture p = {.path = "a", .bytes = "b", .n_bytes = 1};
    SAYS(mmamba_session_add_turn(s, "a", &p, 1, &e), mmamba_code_usage, "both are given");
    p = (struct mmamba_picture){.name = "n"};
    SAYS(mmamba_session_add_turn(s, "a", &p, 1, &e), mmamba_code_usage, "none is given");
    SAYS(mmamba_session_set_sampling(s, &(struct mmamba_sampling){0}, &e), mmamba_code_input,
         "'repetition_penalty' is 0");
    SAYS(mmamba_session_rewind(s, 1, &e), mmamba_code_input, "0 of the 0");
    SAYS(mmamba_session_save(s, "/nowhere/x", &e), mmamba_code_io, "/nowhere/x");
    mmamba_session_free(s);
    SAYS(mmamba_session_load(&s, engine, NULL, "tests/golden/images/gray.png", &e),
         mmamba_code_input, "gray.png");
    assert_null(s);
    mmamba_session_free(NULL);
    mmamba_engine_close(NULL);
    mmamba_engine_close(engine);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_conversation),
        cmocka_unit_test(mistakes_are_told),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
