// The tokenizer against the golden vectors and against SentencePiece's own programs.
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/utf8.h"
#include "cmocka_all.h"
#include "io/file.h"
#include "io/json.h"
#include "io/spm.h"
#include "io/tokenizer.h"

static const char golden[] = "tests/golden/tokenizer";
static struct mm_error err;

static struct mm_tokenizer *open_golden(void) {
    struct mm_tokenizer *t = NULL;
    if (mm_tokenizer_open(&t, golden, &err) != mm_code_ok) fail_msg("%s", err.text);
    return t;
}

static void same_ids(const struct mm_ids *got, const json_t *want, const char *text) {
    bool same = (size_t)got->n == json_array_size(want);
    for (size_t i = 0; same && i < (size_t)got->n; i++) {
        same = got->data[i] == json_integer_value(json_array_get(want, i));
    }
    if (same) return;
    for (int64_t i = 0; i < got->n; i++) {
        print_message("%d ", got->data[i]);
    }
    fail_msg("ids of '%s' differ", text);
}

static void test_golden(void **state) {
    (void)state;
    struct mm_tokenizer *t = open_golden();
    json_t *vectors;
    assert_int_equal(mm_json_load(&vectors, "tests/golden/tokenizer/vectors.json", &err),
                     mm_code_ok);
    assert_int_equal(json_array_size(vectors), 23);
    size_t i;
    json_t *v;
    json_array_foreach(vectors, i, v) {
        const json_t *text = json_object_get(v, "text");
        struct mm_ids ids = {NULL, 0, 0};
        struct mm_buf back = {NULL, 0, 0};
        mm_tokenizer_encode(t, json_string_value(text), json_string_length(text), true, &ids);
        same_ids(&ids, json_object_get(v, "ids"), json_string_value(text));
        assert_int_equal(mm_tokenizer_decode(t, ids.data + 1, ids.n - 1, false, &back, &err),
                         mm_code_ok);
        if (!strstr(json_string_value(text), MM_SPM_SPACE)) {
            assert_int_equal(back.len, json_string_length(text));
            assert_memory_equal(back.data ? back.data : "", json_string_value(text), back.len);
        }
        mm_ids_free(&ids);
        mm_buf_free(&back);
    }
    json_decref(vectors);
    mm_tokenizer_close(t);
}

static void text_of(struct mm_buf *out, const json_t *vector) {
    const json_t *text = json_object_get(vector, "text");
    if (text) {
        mm_buf_add(out, json_string_value(text), json_string_length(text));
        return;
    }
    const char *hex = json_string_value(json_object_get(vector, "hex"));
    for (; hex[0] && hex[1]; hex += 2) {
        const char digits[3] = {hex[0], hex[1], 0};
        const char byte = (char)strtol(digits, NULL, 16);
        mm_buf_add(out, &byte, 1);
    }
}

// Encoding and decoding as spm_encode and spm_decode do, whatever the model's kind and flags.
static void check_oracle(const char *name, size_t at_least_decoded) {
    char path[128];
    struct mm_buf model = {NULL, 0, 0};
    struct mm_spm spm;
    struct mm_tokenizer *t;
    json_t *vectors, *v;
    snprintf(path, sizeof path, "tests/golden/spm/%s.model", name);
    assert_int_equal(mm_file_read(&model, path, 1 << 20, &err), mm_code_ok);
    assert_int_equal(mm_spm_init(&spm, model.data, model.len, path, &err), mm_code_ok);
    assert_int_equal(mm_tokenizer_open_memory(&t, model.data, model.len, NULL, 0, path, &err),
                     mm_code_ok);
    snprintf(path, sizeof path, "tests/golden/spm/%s.json", name);
    assert_int_equal(mm_json_load(&vectors, path, &err), mm_code_ok);
    assert_int_equal(json_array_size(vectors), 80);
    size_t i, n_decoded = 0;
    json_array_foreach(vectors, i, v) {
        struct mm_buf text = {NULL, 0, 0}, back = {NULL, 0, 0};
        struct mm_ids ids = {NULL, 0, 0};
        text_of(&text, v);
        mm_spm_encode(&spm, text.data, text.len, NULL, &ids);
        same_ids(&ids, json_object_get(v, "ids"), text.data ? text.data : "");
        const json_t *decoded = json_object_get(v, "decoded");
        if (decoded) {
            n_decoded++;
            assert_int_equal(mm_tokenizer_decode(t, ids.data, ids.n, true, &back, &err),
                             mm_code_ok);
            assert_string_equal(back.data ? back.data : "", json_string_value(decoded));
        }
        mm_ids_free(&ids);
        mm_buf_free(&text);
        mm_buf_free(&back);
    }
    assert_true(n_decoded >= at_least_decoded);
    json_decref(vectors);
    mm_tokenizer_close(t);
    mm_spm_deinit(&spm);
    mm_buf_free(&model);
}

static void test_oracle(void **state) {
    (void)state;
    check_oracle("bpe_rules", 20);
    check_oracle("bpe_suffix", 80);
    check_oracle("unigram_bytes", 80);
    check_oracle("unigram_plain", 20);
}

static void expect_ids(const struct mm_ids *ids, const int32_t *want, int64_t n) {
    assert_int_equal(ids->n, n);
    for (int64_t i = 0; i < n; i++) {
        assert_int_equal(ids->data[i], want[i]);
    }
}
#define EXPECT_IDS(ids, ...)                        \
    expect_ids(ids, (const int32_t[]){__VA_ARGS__}, \
               (int64_t)(sizeof(int32_t[]){__VA_ARGS__} / sizeof(int32_t)))

static void test_questions(void **state) {
    (void)state;
    struct mm_tokenizer *t = open_golden();
    assert_int_equal(mm_tokenizer_size(t), 905);
    assert_int_equal(mm_tokenizer_bos(t), 1);
    assert_int_equal(mm_tokenizer_eos(t), 2);
    assert_int_equal(mm_tokenizer_max_length(t), 8192);
    assert_int_equal(mm_tokenizer_special(t, "<|im_end|>"), 900);
    assert_int_equal(mm_tokenizer_special(t, "<|im_end|"), -1);
    assert_int_equal(mm_tokenizer_special(t, "<|im_end|>>"), -1);
    assert_int_equal(mm_tokenizer_special(t, ""), -1);
    assert_true(mm_tokenizer_is_special(t, 904));
    assert_true(mm_tokenizer_is_special(t, 0));
    assert_false(mm_tokenizer_is_special(t, 899));
    assert_false(mm_tokenizer_is_special(t, -1));
    assert_int_equal(mm_tokenizer_check_vocab(t, 905, "m", &err), mm_code_ok);
    assert_int_equal(mm_tokenizer_check_vocab(t, 904, "m", &err), mm_code_input);
    assert_string_equal(err.text,
                        "m: the tokenizer has ids up to 904 ('<IMG_CONTEXT>'), the model's "
                        "vocabulary has 904: they do not belong together");
    mm_tokenizer_close(t);
}

// What a user types can hold no special token; around it the text reads as one.
static void test_plain(void **state) {
    (void)state;
    struct mm_tokenizer *t = open_golden();
    static const char typed[] = "hi<|im_end|><s><IMG_CONTEXT><unk>";
    struct mm_ids ids = {NULL, 0, 0}, whole = {NULL, 0, 0};
    mm_tokenizer_encode_plain(t, typed, sizeof typed - 1, &ids);
    for (int64_t i = 0; i < ids.n; i++) {
        assert_false(mm_tokenizer_is_special(t, ids.data[i]));
    }
    struct mm_buf back = {NULL, 0, 0};
    assert_int_equal(mm_tokenizer_decode(t, ids.data, ids.n, false, &back, &err), mm_code_ok);
    assert_string_equal(back.data, typed);
    ids.n = 0;
    // markers that only come about across the seam of a plain part stay text
    const struct mm_text_part split[] = {
        {"<|im_start|>us", 14, false}, {"er\nwho ar", 9, true}, {"", 0, false},
        {"e you?<|im_", 11, false},    {"end|>", 5, true},      {"<|im_end|>", 10, false}};
    mm_tokenizer_encode_parts(t, split, 6, true, &ids);
    assert_int_equal(ids.data[0], 1);
    assert_int_equal(ids.data[1], 901);
    assert_int_equal(ids.data[ids.n - 1], 900);
    for (int64_t i = 2; i < ids.n - 1; i++) {
        assert_false(mm_tokenizer_is_special(t, ids.data[i]));
    }
    // pieces run across parts
    const struct mm_text_part benign[] = {
        {"<|im_start|>us", 14, false}, {"er\nwho ar", 9, true}, {"e you?<|im_end|>", 16, false}};
    static const char all[] = "<|im_start|>user\nwho are you?<|im_end|>";
    ids.n = 0;
    mm_tokenizer_encode_parts(t, benign, 3, true, &ids);
    mm_tokenizer_encode(t, all, sizeof all - 1, true, &whole);
    expect_ids(&ids, whole.data, whole.n);
    mm_ids_free(&ids);
    mm_ids_free(&whole);
    mm_buf_free(&back);
    mm_tokenizer_close(t);
}

static void test_decode(void **state) {
    (void)state;
    struct mm_tokenizer *t = open_golden();
    struct mm_buf out = {NULL, 0, 0}, streamed = {NULL, 0, 0};
    mm_buf_adds(&out, "kept ");
    const int32_t ids[] = {1, 231, 192, 163, 900, 823, 231, 192};  // BOS U+4F60 <|im_end|> H + half
    assert_int_equal(mm_tokenizer_decode(t, ids, 8, true, &out, &err), mm_code_ok);
    assert_string_equal(out.data, "kept \xE4\xBD\xA0H\xEF\xBF\xBD\xEF\xBF\xBD");
    mm_buf_reset(&out);
    assert_int_equal(mm_tokenizer_decode(t, ids, 8, false, &out, &err), mm_code_ok);
    assert_string_equal(out.data, "<s>\xE4\xBD\xA0<|im_end|>H\xEF\xBF\xBD\xEF\xBF\xBD");
    struct mm_utf8_stream s = {{0}, 0};
    for (int i = 0; i < 8; i++) {
        struct mm_buf piece = {NULL, 0, 0};
        mm_tokenizer_piece(t, ids[i], i == 0, &piece);
        mm_utf8_stream_add(&s, piece.data, piece.len, &streamed);
        mm_buf_free(&piece);
    }
    mm_utf8_stream_end(&s, &streamed);
    assert_string_equal(streamed.data, out.data);
    const int32_t wrong[][2] = {{5, -1}, {5, 905}, {5, INT32_MAX}, {5, INT32_MIN}};
    for (int i = 0; i < 4; i++) {
        mm_buf_reset(&out);
        assert_int_equal(mm_tokenizer_decode(t, wrong[i], 2, false, &out, &err), mm_code_input);
        assert_non_null(strstr(err.text, "is no id of the tokenizer, which has 0 to 904"));
        assert_int_equal(out.len, 0);
        mm_tokenizer_piece(t, wrong[i][1], false, &out);
        assert_int_equal(out.len, 0);
    }
    mm_buf_free(&out);
    mm_buf_free(&streamed);
    mm_tokenizer_close(t);
}

// Merging that is not quadratic: this takes a second, and hours if every merge walked the text.
static void test_long_text(void **state) {
    (void)state;
    struct mm_tokenizer *t = open_golden();
    const size_t n = 2u << 20;
    static const char *const patterns[] = {"a", " ", "th", "the ", "\xF0\x9F\x98\x80"};
    char *text = malloc(n);
    for (size_t p = 0; p < sizeof patterns / sizeof *patterns; p++) {
        const size_t len = strlen(patterns[p]);
        for (size_t i = 0; i < n; i++) {
            text[i] = patterns[p][i % len];
        }
        struct mm_ids ids = {NULL, 0, 0};
        struct mm_buf back = {NULL, 0, 0};
        mm_tokenizer_encode(t, text, n, false, &ids);
        assert_int_equal(mm_tokenizer_decode(t, ids.data, ids.n, false, &back, &err), mm_code_ok);
        assert_int_equal(back.len, n);
        assert_memory_equal(back.data, text, n);
        mm_ids_free(&ids);
        mm_buf_free(&back);
    }
    free(text);
    mm_tokenizer_close(t);
}

// Models written by hand: fields of the protocol buffer, one piece a call.
static void add_field(struct mm_buf *b, int number, const char *data, size_t n) {
    const char head[2] = {(char)(number << 3 | 2), (char)n};
    assert_true(n < 128);
    mm_buf_add(b, head, 2);
    mm_buf_add(b, data, n);
}
static void add_piece(struct mm_buf *b, const char *text, float score, enum mm_spm_type type) {
    struct mm_buf p = {NULL, 0, 0};
    add_field(&p, 1, text, strlen(text));
    mm_buf_adds(&p, "\x15");
    mm_buf_add(&p, &score, 4);  // little-endian machines only, as the program
    const char kind[2] = {0x18, (char)type};
    mm_buf_add(&p, kind, 2);
    add_field(b, 1, p.data, p.len);
    mm_buf_free(&p);
}
static struct mm_buf bare_model(void) {
    struct mm_buf b = {NULL, 0, 0};
    add_field(&b, 2, "\x18\x02", 2);          // BPE
    add_field(&b, 3, "\x18\x00\x20\x00", 4);  // no dummy prefix, no space removed
    add_piece(&b, "<unk>", 0, mm_spm_type_unknown);
    add_piece(&b, "<s>", 0, mm_spm_type_control);
    add_piece(&b, "</s>", 0, mm_spm_type_control);
    return b;
}

static void test_unused_pieces(void **state) {
    (void)state;
    struct mm_buf b = bare_model();
    const char *const letters[] = {"a", "b", "c", "d"};  // 3 4 5 6
    for (int i = 0; i < 4; i++) {
        add_piece(&b, letters[i], -10, mm_spm_type_normal);
    }
    add_piece(&b, "ab", -1, mm_spm_type_normal);    // 7
    add_piece(&b, "cd", -2, mm_spm_type_unused);    // 8
    add_piece(&b, "abcd", -3, mm_spm_type_unused);  // 9: ab + cd, and cd in turn c + d
    add_piece(&b, "aa", -4, mm_spm_type_normal);    // 10
    add_piece(&b, "ba", -1, mm_spm_type_normal);    // 11: ties with ab, the leftmost wins
    struct mm_spm m;
    assert_int_equal(mm_spm_init(&m, b.data, b.len, "hand", &err), mm_code_ok);
    struct mm_ids ids = {NULL, 0, 0};
    mm_spm_encode(&m, "abcd", 4, NULL, &ids);
    EXPECT_IDS(&ids, 7, 5, 6);
    ids.n = 0;
    mm_spm_encode(&m, "aba", 3, NULL, &ids);
    EXPECT_IDS(&ids, 7, 3);
    ids.n = 0;
    mm_spm_encode(&m, "aaaaa", 5, NULL, &ids);
    EXPECT_IDS(&ids, 10, 10, 3);
    ids.n = 0;
    mm_spm_encode(&m, "a!!<s>b", 7, NULL, &ids);  // a run of unknown characters is one token
    EXPECT_IDS(&ids, 3, 0, 4);
    mm_ids_free(&ids);
    mm_spm_deinit(&m);
    mm_buf_free(&b);
}

static void refuse_model(const char *data, size_t n, const char *why) {
    struct mm_spm m;
    if (mm_spm_init(&m, data, n, "x.model", &err) == mm_code_ok) fail_msg("accepted: %s", why);
    if (!strstr(err.text, why)) fail_msg("'%s' does not say '%s'", err.text, why);
    assert_non_null(strstr(err.text, "x.model: "));
}

static void test_bad_models(void **state) {
    (void)state;
    refuse_model("", 0, "it has no pieces");
    refuse_model("not a model at all", 18, "cannot be read");
    refuse_model("\x08\x01", 2, "field pieces has wire type 0, must be 2");
    struct mm_buf b = bare_model();
    const size_t n = b.len;
#define WITH(statement, why)              \
    do {                                  \
        b.len = n;                        \
        statement;                        \
        refuse_model(b.data, b.len, why); \
    } while (0)
    WITH(add_piece(&b, "", 0, mm_spm_type_normal), "piece 3 is empty");
    WITH(add_piece(&b, "a", 0.0f / 0.0f, mm_spm_type_normal), "the score of piece 3 'a'");
    WITH(add_piece(&b, "a", 0, 7), "type of piece 3 is 7, must be 1 to 6");
    WITH(add_piece(&b, "u", 0, mm_spm_type_unknown), "pieces 0 and 3 both have type UNKNOWN");
    WITH(add_piece(&b, "<s>", 0, mm_spm_type_control), "pieces 1 and 3 are both '<s>'");
    WITH(add_piece(&b, "<0x41>", 0, mm_spm_type_byte), "byte_fallback is off");
    WITH(add_piece(&b, "<0xZZ>", 0, mm_spm_type_byte), "must be spelled <0xNN>");
    WITH(add_field(&b, 2, "\x98\x02\x01", 3), "piece <0x00> is missing");
    WITH(add_field(&b, 2, "\x18\x03", 2), "model_type is 3, supported are 1 (unigram) and 2 (BPE)");
    WITH(add_field(&b, 3, "\x12\x05\x04\0\0\0a", 7), "precompiled_charsmap");
    WITH(add_field(&b, 3, "\x12\x09\xFF\xFF\xFF\xFF\0\0\0\0\0", 11), "precompiled_charsmap");
    WITH(add_field(&b, 1, "\x0A\x7F", 2), "a piece cannot be read");
    b.len = n;
    struct mm_buf no_unk = {NULL, 0, 0};
    add_piece(&no_unk, "a", 0, mm_spm_type_normal);
    refuse_model(no_unk.data, no_unk.len, "no piece has type UNKNOWN");
    mm_buf_free(&no_unk);
    mm_buf_free(&b);
}

// A model cut anywhere is a smaller model or an error.
static void test_cut_models(void **state) {
    (void)state;
    struct mm_buf model = {NULL, 0, 0};
    assert_int_equal(mm_file_read(&model, "tests/golden/spm/bpe_rules.model", 1 << 20, &err),
                     mm_code_ok);
    int refused = 0;
    for (size_t n = 0; n <= model.len; n += 1 + n / 64) {
        struct mm_spm m;
        if (mm_spm_init(&m, model.data, n, "cut", &err) == mm_code_ok) {
            struct mm_ids ids = {NULL, 0, 0};
            mm_spm_encode(&m, "Hello, world", 12, NULL, &ids);
            mm_ids_free(&ids);
            mm_spm_deinit(&m);
        } else {
            refused++;
        }
    }
    assert_true(refused > 100);
    mm_buf_free(&model);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_golden),        cmocka_unit_test(test_oracle),
        cmocka_unit_test(test_questions),     cmocka_unit_test(test_plain),
        cmocka_unit_test(test_decode),        cmocka_unit_test(test_long_text),
        cmocka_unit_test(test_unused_pieces), cmocka_unit_test(test_bad_models),
        cmocka_unit_test(test_cut_models),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
