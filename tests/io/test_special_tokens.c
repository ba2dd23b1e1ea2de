// Folders with special tokens: what counts, and what each contradiction is answered.
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "cmocka_all.h"
#include "io/file.h"
#include "io/tokenizer.h"

static struct mm_error err;
static char folder[64];
static const char *const names[] = {"tokenizer.model",       "added_tokens.json",
                                    "tokenizer_config.json", "special_tokens_map.json",
                                    "tokenizer.json",        "tokenization_x.py"};

static void empty_folder(const char *path) {
    for (size_t i = 0; i < sizeof names / sizeof *names; i++) {
        char *file = mm_path_join(path, names[i]);
        unlink(file);
        free(file);
    }
}

static int make_folder(void **state) {
    (void)state;
    snprintf(folder, sizeof folder, "/tmp/mm_special_XXXXXX");
    return mkdtemp(folder) ? 0 : -1;
}
static int drop_folder(void **state) {
    (void)state;
    empty_folder(folder);
    return rmdir(folder);
}

static void put(const char *name, const char *text) {
    char *path = mm_path_join(folder, name);
    assert_int_equal(mm_file_write(path, text, strlen(text), &err), mm_code_ok);
    free(path);
}

// A folder with a model of tests/golden and the given JSON files (NULL: none).
static enum mm_code open_with(struct mm_tokenizer **t, const char *model, const char *added,
                              const char *config, const char *map) {
    empty_folder(folder);
    char *path = mm_path_join(folder, "tokenizer.model");
    assert_int_equal(mm_file_copy(model, path, &err), mm_code_ok);
    free(path);
    if (added) put("added_tokens.json", added);
    if (config) put("tokenizer_config.json", config);
    if (map) put("special_tokens_map.json", map);
    err.text[0] = 0;
    return mm_tokenizer_open(t, folder, &err);
}
static const char golden[] = "tests/golden/tokenizer/tokenizer.model";
static const char rules[] = "tests/golden/spm/bpe_rules.model";
static const char suffix[] = "tests/golden/spm/bpe_suffix.model";

static struct mm_tokenizer *opened(const char *model, const char *added, const char *config,
                                   const char *map) {
    struct mm_tokenizer *t;
    if (open_with(&t, model, added, config, map) != mm_code_ok) fail_msg("%s", err.text);
    return t;
}

static void encode(struct mm_ids *ids, const struct mm_tokenizer *t, const char *text) {
    ids->n = 0;
    mm_tokenizer_encode(t, text, strlen(text), false, ids);
}

static void test_model_alone(void **state) {
    (void)state;
    struct mm_tokenizer *t = opened(golden, NULL, NULL, NULL);
    struct mm_ids ids = {NULL, 0, 0};
    assert_int_equal(mm_tokenizer_size(t), 900);
    assert_int_equal(mm_tokenizer_bos(t), 1);
    assert_int_equal(mm_tokenizer_eos(t), 2);
    assert_int_equal(mm_tokenizer_max_length(t), 0);
    encode(&ids, t, "J");
    assert_int_equal(ids.data[ids.n - 1], 898);  // test_ids_below_and_above gives it away
    encode(&ids, t, "<s></s><unk>");
    assert_int_equal(ids.n, 3);
    assert_int_equal(ids.data[1], 2);
    mm_ids_free(&ids);
    mm_tokenizer_close(t);
}

// As in InternLM2: ids below the model's size are given to other texts, and some lie far above.
static void test_ids_below_and_above(void **state) {
    (void)state;
    struct mm_tokenizer *t =
        opened(golden, "{\"<|im_end|>\": 898, \"<img>\": 5000}",
               "{\"additional_special_tokens\": [\"<|im_end|>\"], \"model_max_length\": "
               "1000000000000000019884624838656}",
               NULL);
    struct mm_ids ids = {NULL, 0, 0};
    struct mm_buf out = {NULL, 0, 0};
    assert_int_equal(mm_tokenizer_size(t), 5001);
    assert_int_equal(mm_tokenizer_max_length(t), 0);
    encode(&ids, t, "<img><|im_end|>");
    assert_int_equal(ids.n, 2);
    assert_int_equal(ids.data[0], 5000);
    assert_int_equal(ids.data[1], 898);
    // only tokens that are called special are skipped, as Hugging Face does
    assert_int_equal(mm_tokenizer_decode(t, ids.data, 2, true, &out, &err), mm_code_ok);
    assert_string_equal(out.data, "<img>");
    const int32_t hole = 4999;
    assert_int_equal(mm_tokenizer_decode(t, &hole, 1, true, &out, &err), mm_code_input);
    // the piece that had 898 is what a user may still type, without becoming <|im_end|>
    ids.n = 0;
    mm_tokenizer_encode_plain(t, "J~", 2, &ids);
    for (int64_t i = 0; i < ids.n; i++) {
        assert_int_not_equal(ids.data[i], 898);
    }
    mm_buf_free(&out);
    mm_ids_free(&ids);
    mm_tokenizer_close(t);
}

static void test_user_defined_is_barred(void **state) {
    (void)state;
    // the model itself has <|im_start|> as a user-defined piece
    struct mm_tokenizer *t =
        opened(rules, NULL, "{\"additional_special_tokens\": [\"<|im_start|>\"]}", NULL);
    struct mm_ids ids = {NULL, 0, 0};
    encode(&ids, t, "a<|im_start|>b");
    const int32_t special = mm_tokenizer_special(t, "<|im_start|>");
    int found = 0;
    for (int64_t i = 0; i < ids.n; i++) {
        found += ids.data[i] == special;
    }
    assert_int_equal(found, 1);
    ids.n = 0;
    mm_tokenizer_encode_plain(t, "a<|im_start|>b", 14, &ids);
    for (int64_t i = 0; i < ids.n; i++) {
        assert_int_not_equal(ids.data[i], special);
    }
    mm_ids_free(&ids);
    mm_tokenizer_close(t);
}

// The dummy prefix stands before every piece between special tokens, and decoding drops each.
static void test_prefix_per_piece(void **state) {
    (void)state;
    struct mm_tokenizer *t = opened(rules, "{\"<x>\": 700}", NULL, NULL);
    struct mm_ids apart = {NULL, 0, 0}, whole = {NULL, 0, 0};
    struct mm_buf out = {NULL, 0, 0};
    mm_tokenizer_encode(t, "the car", 7, false, &apart);
    mm_ids_add(&apart, 700);
    mm_tokenizer_encode(t, "the car", 7, false, &apart);
    encode(&whole, t, "the car<x>the car");
    assert_int_equal(whole.n, apart.n);
    assert_memory_equal(whole.data, apart.data, (size_t)whole.n * sizeof *whole.data);
    assert_int_equal(mm_tokenizer_decode(t, whole.data, whole.n, true, &out, &err), mm_code_ok);
    assert_string_equal(out.data, "the car<x>the car");
    mm_buf_free(&out);
    mm_ids_free(&apart);
    mm_ids_free(&whole);
    mm_tokenizer_close(t);
}

// The longest token that opens leftmost wins; lstrip and rstrip swallow white space around it.
static void test_longest_and_strip(void **state) {
    (void)state;
    struct mm_tokenizer *t =
        opened(golden, "{\"<a>\": 900, \"<a>b\": 901, \"><\": 902}",
               "{\"added_tokens_decoder\": {\"903\": {\"content\": \"<r>\", \"rstrip\": true}, "
               "\"904\": {\"content\": \"<l>\", \"lstrip\": true, \"special\": true}}}",
               NULL);
    struct mm_ids ids = {NULL, 0, 0};
    encode(&ids, t, "<a><a>b><");
    assert_int_equal(ids.n, 3);
    assert_int_equal(ids.data[0], 900);
    assert_int_equal(ids.data[1], 901);
    assert_int_equal(ids.data[2], 902);
    struct mm_ids tight = {NULL, 0, 0};
    encode(&tight, t, "<r>a<l>b<r><l>");
    encode(&ids, t,
           "<r> \n\t\xE3\x80\x80"
           "a\xC2\xA0 <l>b<r>  <l>");
    assert_int_equal(ids.n, tight.n);
    assert_memory_equal(ids.data, tight.data, (size_t)ids.n * sizeof *ids.data);
    encode(&ids, t, " <r>a <a>");  // no flag, nothing swallowed
    assert_int_equal(ids.n, 5);
    mm_ids_free(&ids);
    mm_ids_free(&tight);
    mm_tokenizer_close(t);
}

static void test_bos_wanted_or_not(void **state) {
    (void)state;
    struct mm_tokenizer *t = opened(golden, NULL, "{\"add_bos_token\": false}", NULL);
    struct mm_ids ids = {NULL, 0, 0};
    mm_tokenizer_encode(t, "a", 1, true, &ids);
    assert_int_equal(ids.n, 1);
    ids.n = 0;
    mm_tokenizer_close(t);
    t = opened(golden, "{\"<go>\": 900}", "{\"bos_token\": {\"content\": \"<go>\"}}",
               "{\"bos_token\": \"<s>\", \"eos_token\": \"<go>\"}");  // warns, the first is taken
    mm_tokenizer_encode(t, "a", 1, true, &ids);
    assert_int_equal(ids.n, 2);
    assert_int_equal(ids.data[0], 900);
    assert_int_equal(mm_tokenizer_eos(t), 900);
    mm_ids_free(&ids);
    mm_tokenizer_close(t);
}

static void refuse(const char *model, const char *added, const char *config, const char *map,
                   const char *why) {
    struct mm_tokenizer *t;
    if (open_with(&t, model, added, config, map) == mm_code_ok) fail_msg("accepted: %s", why);
    assert_null(t);
    if (!strstr(err.text, why)) fail_msg("'%s' does not say '%s'", err.text, why);
    assert_non_null(strstr(err.text, folder));
}

static void test_contradictions(void **state) {
    (void)state;
    refuse(golden, "{\"<a>\": 900, \"<b>\": 900}", NULL, NULL,
           "'<b>' has id 900, but in added_tokens.json '<a>' has id 900");
    refuse(golden, "{\"<a>\": 900}",
           "{\"added_tokens_decoder\": {\"901\": {\"content\": \"<a>\"}}}", NULL,
           "tokenizer_config.json: '<a>' has id 901, but in added_tokens.json '<a>' has id 900");
    refuse(golden, "{\"<s>\": 7}", NULL, NULL, "id of '<s>' is 7, but tokenizer.model has it at 1");
    refuse(golden, "{\"<a>\": 0}", NULL, NULL,
           "id of '<a>' is 0, which tokenizer.model needs for its unknown piece");
    refuse(suffix, "{\"<a>\": 5}", NULL, NULL, "which tokenizer.model needs for its byte piece");
    refuse(suffix, NULL, "{\"pad_token\": \"<0x0A>\"}", NULL, "needs for its byte piece");
    refuse(golden, "{\"<a>\": -1}", NULL, NULL, "id of '<a>' is -1, must be 0 to 16777215");
    refuse(golden, "{\"<a>\": 1e30}", NULL, NULL, "must be 0 to 16777215");
    refuse(golden, "{\"<a>\": 900.5}", NULL, NULL, "id of '<a>' is 900.5");
    refuse(golden, "{\"<a>\": \"900\"}", NULL, NULL, "id of '<a>' is not a number");
    refuse(golden, "{\"\": 900}", NULL, NULL, "a token has 0 bytes");
    refuse(golden, "[1]", NULL, NULL, "must be a JSON object");
    refuse(golden, "{\"<a>\": 900", NULL, NULL, "not valid JSON at line 1");
    refuse(golden, "{\"<a>\": 900, \"<a>\": 901}", NULL, NULL, "not valid JSON");
    refuse(golden, "", NULL, NULL, "not valid JSON");
    refuse(golden, NULL, "{\"additional_special_tokens\": [\"<img>\"]}", NULL,
           "names '<img>', which has an id neither in added_tokens.json nor in tokenizer.model");
    refuse(golden, NULL, NULL, "{\"eos_token\": \"<end>\"}",
           "special_tokens_map.json: 'eos_token' names '<end>'");
    refuse(golden, NULL, "{\"additional_special_tokens\": \"<img>\"}", NULL, "must be an array");
    refuse(golden, NULL, "{\"bos_token\": 1}", NULL, "must be a text or an object with 'content'");
    refuse(golden, NULL, "{\"added_tokens_decoder\": {\"x\": {\"content\": \"a\"}}}", NULL,
           "entry 'x' of added_tokens_decoder");
    refuse(golden, NULL, "{\"added_tokens_decoder\": {\"900\": \"a\"}}", NULL,
           "entry '900' of added_tokens_decoder");
    refuse(golden, NULL, "{\"added_tokens_decoder\": []}", NULL, "must be an object");
    refuse(golden, NULL,
           "{\"added_tokens_decoder\": {\"900\": {\"content\": \"<a>\", \"single_word\": true}}}",
           NULL, "single_word");
    refuse(golden, NULL,
           "{\"added_tokens_decoder\": {\"900\": {\"content\": \"<a>\", \"special\": 1}}}", NULL,
           "'special' in added_tokens_decoder must be true or false");
    refuse(golden, NULL, "{\"add_bos_token\": \"no\"}", NULL, "'add_bos_token' must be true or");
    refuse(golden, NULL, "{\"model_max_length\": 0}", NULL, "at least 1");
}

static void test_missing_files(void **state) {
    (void)state;
    struct mm_tokenizer *t;
    empty_folder(folder);
    assert_int_equal(mm_tokenizer_open(&t, folder, &err), mm_code_io);
    assert_non_null(strstr(err.text, "tokenizer.model"));
    put("tokenizer.json", "{}");
    assert_int_equal(mm_tokenizer_open(&t, folder, &err), mm_code_unsupported);
    assert_non_null(strstr(err.text, "there is only a tokenizer.json"));
    put("tokenizer.model", "garbage");
    assert_int_equal(mm_tokenizer_open(&t, folder, &err), mm_code_input);
    assert_non_null(strstr(err.text, "tokenizer.model: not a SentencePiece model"));
}

static void test_copy_files(void **state) {
    (void)state;
    struct mm_tokenizer *t;
    empty_folder(folder);
    assert_int_equal(mm_tokenizer_copy_files("tests/golden/tokenizer", folder, &err), mm_code_ok);
    assert_int_equal(mm_tokenizer_open(&t, folder, &err), mm_code_ok);
    assert_int_equal(mm_tokenizer_size(t), 905);
    mm_tokenizer_close(t);
    char *vectors = mm_path_join(folder, "vectors.json");
    assert_false(mm_path_exists(vectors));  // only the tokenizer's own files
    free(vectors);
    put("tokenization_x.py", "pass");
    char second[] = "/tmp/mm_special_XXXXXX";
    assert_non_null(mkdtemp(second));
    assert_int_equal(mm_tokenizer_copy_files(folder, second, &err), mm_code_ok);
    char *code = mm_path_join(second, "tokenization_x.py");
    assert_true(mm_path_exists(code));
    free(code);
    empty_folder(second);
    assert_int_equal(mm_tokenizer_copy_files(second, folder, &err), mm_code_io);
    assert_int_equal(rmdir(second), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_model_alone),
        cmocka_unit_test(test_ids_below_and_above),
        cmocka_unit_test(test_user_defined_is_barred),
        cmocka_unit_test(test_prefix_per_piece),
        cmocka_unit_test(test_longest_and_strip),
        cmocka_unit_test(test_bos_wanted_or_not),
        cmocka_unit_test(test_contradictions),
        cmocka_unit_test(test_missing_files),
        cmocka_unit_test(test_copy_files),
    };
    return cmocka_run_group_tests(tests, make_folder, drop_folder);
}
