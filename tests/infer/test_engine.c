// Opening a model folder for answering: its recommendations, and everything that does not fit.
#include "infer/infer_fixture.h"

static char *model;

static int begin(void **state) {
    if (fixture_begin(state) != 0) return -1;
    model = fixture_model("model", "pre_hybrid", "0", 2);
    return 0;
}

static int end(void **state) {
    free(model);
    return fixture_end(state);
}

static void write_text(const char *name, const char *text) {
    char *path = mm_path_join(model, name);
    if (text) {
        OK(mm_file_write(path, text, strlen(text), &err));
    } else {
        unlink(path);
    }
    free(path);
}

static void recommendations_are_read(void **state) {
    (void)state;
    struct mm_engine *e = fixture_engine(model);
    assert_int_equal(e->answer.max_new_tokens, 1024);
    assert_int_equal(e->answer.min_new_tokens, 0);
    assert_true(e->sampling.temperature == 0.0 && e->sampling.repetition_penalty == 1.0);
    assert_int_equal(strlen(mm_engine_hash(e)), 32);
    mm_engine_close(e);
    write_text("generation_config.json",
               "{\"do_sample\": true, \"temperature\": 0.5, \"top_k\": 7, \"top_p\": 0.25, "
               "\"min_p\": 0.125, \"repetition_penalty\": 1.5, \"max_new_tokens\": 12, "
               "\"min_new_tokens\": 3, \"eos_token_id\": [2, 900]}");
    e = fixture_engine(model);
    assert_int_equal(e->answer.max_new_tokens, 12);
    assert_int_equal(e->answer.min_new_tokens, 3);
    assert_true(e->sampling.temperature == 0.5 && e->sampling.top_k == 7);
    assert_true(e->sampling.top_p == 0.25 && e->sampling.min_p == 0.125);
    assert_true(e->sampling.repetition_penalty == 1.5);
    mm_engine_close(e);
    // without do_sample the published generate() is greedy, whatever the temperature
    write_text("generation_config.json", "{\"temperature\": 0.5, \"repetition_penalty\": 1.25}");
    e = fixture_engine(model);
    assert_true(e->sampling.temperature == 0.0 && e->sampling.repetition_penalty == 1.25);
    mm_engine_close(e);
    write_text("generation_config.json", NULL);
}

static void bad_recommendations_are_refused(void **state) {
    (void)state;
    static const struct {
        const char *text, *says;
    } wrong[] = {{"{\"temperature\": -1}", "'temperature'"},
                 {"{\"top_p\": \"high\"}", "'top_p'"},
                 {"{\"max_new_tokens\": 0}", "'max_new_tokens'"},
                 {"{\"max_new_tokens\": 3, \"min_new_tokens\": 4}", "'min_new_tokens' is 4"},
                 {"{\"do_sample\": 1}", "'do_sample'"},
                 {"{", "generation_config.json"}};
    struct mm_engine *e;
    for (size_t i = 0; i < sizeof wrong / sizeof *wrong; i++) {
        write_text("generation_config.json", wrong[i].text);
        REFUSED(mm_engine_open(&e, fixture_be, model, -1, &err), wrong[i].says);
        assert_null(e);
        assert_non_null(strstr(err.text, "generation_config.json"));
    }
    write_text("generation_config.json", NULL);
}

// Writes config.json with one number changed, and back.
static void with_config(const char *section, const char *key, int64_t value, const char *says) {
    char *path = mm_path_join(model, "config.json");
    json_t *o = NULL;
    OK(mm_json_load(&o, path, &err));
    json_t *was = json_deep_copy(o);
    json_object_set_new(json_object_get(o, section), key, json_integer(value));
    OK(mm_json_write_file(o, path, &err));
    struct mm_engine *e;
    REFUSED(mm_engine_open(&e, fixture_be, model, -1, &err), says);
    assert_null(e);
    OK(mm_json_write_file(was, path, &err));
    json_decref(o);
    json_decref(was);
    free(path);
}

static void parts_that_do_not_fit_are_refused(void **state) {
    (void)state;
    struct mm_engine *e;
    with_config("embedding_config", "img_context_token_id", 903, "<IMG_CONTEXT> the id 904");
    REFUSED(mm_engine_open(&e, fixture_be, "tests/golden/nothing", -1, &err), "not a model folder");
    REFUSED(mm_engine_open(&e, fixture_be, "tests/golden/images", -1, &err), "tokenizer.model");
    REFUSED(mm_engine_open(&e, fixture_be, "tests/golden/tokenizer", -1, &err), "config.json");
    // the golden model has 200 rows, the tokenizer 905 ids
    struct mm_model m;
    OK(mm_model_load(&m, fixture_be,
                     "tests/golden/pre_hybrid/student_config.json:"
                     "tests/golden/pre_hybrid/student.safetensors",
                     -1, &err));
    char *small = fixture_path("small");
    OK(mm_model_save(&m, small, mm_dtype_f32, "tests/golden/tokenizer", &err));
    mm_model_deinit(&m);
    REFUSED(mm_engine_open(&e, fixture_be, small, -1, &err), "vocabulary has 200");
    free(small);
    // a tokenizer without the chat's tokens
    write_text("added_tokens.json", "{\"<|im_end|>\": 900}");
    write_text("tokenizer_config.json", "{}");
    REFUSED(mm_engine_open(&e, fixture_be, model, -1, &err), "<|im_start|>");
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(recommendations_are_read),
        cmocka_unit_test(bad_recommendations_are_refused),
        cmocka_unit_test(parts_that_do_not_fit_are_refused),
    };
    return cmocka_run_group_tests(tests, begin, end);
}
