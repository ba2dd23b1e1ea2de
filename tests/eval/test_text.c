// Answers: every vector that the original functions gave, and what those do not reach.
#include "cmocka_all.h"

#include <string.h>
#include "eval/contractions.h"
#include "eval/extract.h"
#include "eval/pylist.h"
#include "io/json.h"

static json_t *load(const char *name) {
    char path[128];
    struct mm_error err = {0};
    json_t *root = NULL;
    snprintf(path, sizeof path, "tests/golden/eval/%s.json", name);
    if (mm_json_load(&root, path, &err) != mm_code_ok) fail_msg("%s", err.text);
    return root;
}

static struct mm_str text_of(const json_t *v) {
    return (struct mm_str){json_string_value(v), json_string_length(v)};
}

static void same(const json_t *from, struct mm_str got, const json_t *wanted) {
    if (mm_str_equal(got, text_of(wanted))) return;
    fail_msg("'%s' gives '%.*s', must be '%s'", json_string_value(from), (int)got.n, got.s,
             json_string_value(wanted));
}

static void test_process_answer(void **state) {
    (void)state;
    json_t *cases = load("vec_process_answer");
    struct mm_normalizer room = {0};
    size_t i;
    json_t *c;
    assert_true(json_array_size(cases) > 50);
    json_array_foreach(cases, i, c) {
        const json_t *from = json_array_get(c, 0);
        same(from, mm_process_answer(&room, text_of(from)), json_array_get(c, 1));
    }
    mm_normalizer_deinit(&room);
    json_decref(cases);
}

static void test_contractions(void **state) {
    (void)state;
    json_t *root = load("vqa_norm_vlmevalkit");
    const json_t *table = json_object_get(root, "contractions");
    const size_t n = sizeof contractions / sizeof contractions[0];
    assert_int_equal(json_object_size(table), n);
    for (size_t i = 0; i < n; i++) {
        assert_string_equal(json_string_value(json_object_get(table, contractions[i].word)),
                            contractions[i].becomes);
        if (i) assert_true(strcmp(contractions[i - 1].word, contractions[i].word) < 0);
    }
    struct mm_normalizer room = {0};
    const char *key;
    json_t *v;
    json_object_foreach(json_object_get(root, "number_map"), key, v) {
        same(v, mm_process_answer(&room, mm_str_of(key)), v);
    }
    size_t i;
    json_array_foreach(json_object_get(root, "punct_in_order"), i, v) {
        char with[16];  // between letters a blank, beside a space nothing
        snprintf(with, sizeof with, "x%sy", json_string_value(v));
        const struct mm_str blank = mm_process_punctuation(&room, mm_str_of(with));
        assert_true(mm_str_is(blank, "x y"));
        snprintf(with, sizeof with, "x %sy", json_string_value(v));
        const struct mm_str gone = mm_process_punctuation(&room, mm_str_of(with));
        assert_true(mm_str_is(gone, "x y"));
    }
    assert_int_equal(i, 21);
    mm_normalizer_deinit(&room);
    json_decref(root);
}

static void check_can_infer(const char *name) {
    json_t *root = load(name);
    struct mm_choices choices = {0};
    const char *key;
    json_t *v;
    json_object_foreach(json_object_get(root, "choices"), key, v) {
        choices.text[key[0] - 'A'] = text_of(v);
    }
    struct mm_normalizer room = {0};
    size_t i;
    json_array_foreach(json_object_get(root, "cases"), i, v) {
        const json_t *from = json_array_get(v, 0), *wanted = json_array_get(v, 1);
        const char got = mm_can_infer(&room, text_of(from), &choices);
        const char want = json_is_string(wanted) ? json_string_value(wanted)[0] : 0;
        if (got != want) {
            fail_msg("'%s' gives '%c', must be '%c'", json_string_value(from), got, want);
        }
    }
    assert_true(i > 5);
    mm_normalizer_deinit(&room);
    json_decref(root);
}

static void test_can_infer(void **state) {
    (void)state;
    check_can_infer("vec_can_infer");
    check_can_infer("vec_can_infer_mmmu_open");
}

static void test_yes_no(void **state) {
    (void)state;
    static const char *const yorn[] = {"Unknown", "Yes", "No"}, *const pope[] = {"?", "yes", "no"};
    struct mm_normalizer room = {0};
    size_t i;
    json_t *c, *cases = load("vec_yorn_extraction");
    json_array_foreach(cases, i, c) {
        const json_t *from = json_array_get(c, 0);
        same(from, mm_str_of(yorn[mm_yorn_extract(&room, text_of(from))]), json_array_get(c, 1));
    }
    assert_true(i > 20);
    json_decref(cases);
    cases = load("vec_pope_extract");
    json_array_foreach(cases, i, c) {
        const json_t *from = json_array_get(c, 0);
        same(from, mm_str_of(pope[mm_pope_extract(text_of(from))]), json_array_get(c, 1));
    }
    assert_true(i > 10);
    json_decref(cases);
    // Commas go first, so that they neither part nor join what spaces do not.
    assert_int_equal(mm_pope_extract(mm_str_of("n,o")), mm_yes_no_no);
    assert_int_equal(mm_pope_extract(mm_str_of("n,o,t yes")), mm_yes_no_no);
    assert_int_equal(mm_pope_extract(mm_str_of("nothing")), mm_yes_no_yes);
    assert_int_equal(mm_pope_extract(mm_str_of("yes\tno")), mm_yes_no_yes);
    mm_normalizer_deinit(&room);
}

static void test_gqa(void **state) {
    (void)state;
    struct mm_buf room = {0};
    size_t i;
    json_t *c, *cases = load("vec_gqa_convert");
    json_array_foreach(cases, i, c) {
        const json_t *from = json_array_get(c, 0);
        same(from, mm_gqa_convert(&room, text_of(from)), json_array_get(c, 1));
    }
    mm_buf_free(&room);
    json_decref(cases);
}

static void test_lower(void **state) {
    (void)state;
    static const char *const pairs[][2] = {
        {"", ""},
        {"ABC xyz", "abc xyz"},
        {"ÄÖÜß", "äöüß"},
        {"İI", "i̇i"},
        {"ΟΔΥΣΣΕΥΣ", "οδυσσευς"},  // the last sigma ends the word
        {"Σ", "σ"},
        {"ΑΣ.", "ας."},
        {"ΑΣ.Α", "ασ.α"},  // a full stop is looked through
        {"ΑΣ Α", "ας α"},
        {"Α.Σ", "α.ς"},
        {"ǅ", "ǆ"},
        {"Ⅷ", "ⅷ"},
        {"\xff"
         "A\xc3",
         "\xff"
         "a\xc3"},
    };
    struct mm_buf room = {0};
    for (size_t i = 0; i < sizeof pairs / sizeof pairs[0]; i++) {
        const struct mm_str got = mm_text_lower(&room, mm_str_of(pairs[i][0]));
        if (!mm_str_is(got, pairs[i][1])) fail_msg("%s gives %.*s", pairs[i][0], (int)got.n, got.s);
    }
    mm_buf_free(&room);
}

static void test_words(void **state) {
    (void)state;
    const struct mm_str s = mm_str_of(
        " \x1c a\xc2\xa0"
        "bc\xe3\x80\x80 d\x85 ");
    static const char *const words[] = {"a", "bc", "d\x85"};
    size_t at = 0;
    struct mm_str word;
    for (int i = 0; i < 3; i++) {
        assert_true(mm_text_word(s, &at, &word));
        assert_true(mm_str_is(word, words[i]));
    }
    assert_false(mm_text_word(s, &at, &word));
    assert_true(mm_str_is(mm_text_strip(mm_str_of(" \xc2\x85 x y\t\n")), "x y"));
    assert_int_equal(mm_text_strip(mm_str_of(" \n ")).n, 0);
    assert_int_equal(mm_text_strip(mm_str_of("")).n, 0);
}

static void test_digits_of_any_script(void **state) {
    (void)state;
    struct mm_normalizer room = {0};
    // Arabic-Indic digits around a comma delete every mark; before a full stop they keep it.
    assert_true(mm_str_is(mm_process_answer(&room, mm_str_of("٣,٤ a-b")), "٣٤ ab"));
    assert_true(mm_str_is(mm_process_answer(&room, mm_str_of("x.٣")), "x.٣"));
    assert_true(mm_str_is(mm_process_answer(&room, mm_str_of("x.²")), "x²"));  // not decimal
    mm_normalizer_deinit(&room);
}

static void test_pylist(void **state) {
    (void)state;
    static const struct {
        const char *text;
        int n;  // -1: no list
        const char *items[3];
    } cases[] = {
        {"[]", 0, {0}},
        {" [ ] ", 0, {0}},
        {"['a', \"b\", 'c']", 3, {"a", "b", "c"}},
        {"['a',]", 1, {"a"}},
        {"['it\\'s', \"say \\\"x\\\"\"]", 2, {"it's", "say \"x\""}},
        {"[\"it's\"]", 1, {"it's"}},
        {"['\\n\\t\\r\\\\']", 1, {"\n\t\r\\"}},
        {"['\\x41\\u00e9\\U0001F600\\101\\7']", 1, {"Aé😀A\7"}},
        {"['\\q\\d']", 1, {"\\q\\d"}},
        {"[r'\\n', u'x']", 2, {"\\n", "x"}},
        {"['a' 'b', '''c\nd''']", 2, {"ab", "c\nd"}},
        {"['''it's''', \"\"]", 2, {"it's", ""}},
        {"['a'\n,\n'b']", 2, {"a", "b"}},
        {"['a", -1, {0}},
        {"['a'", -1, {0}},
        {"['a' b]", -1, {0}},
        {"['a'] x", -1, {0}},
        {"[1, 2]", -1, {0}},
        {"['a\nb']", -1, {0}},
        {"['\\x4']", -1, {0}},
        {"['\\UFFFFFFFF']", -1, {0}},
        {"[,]", -1, {0}},
        {"nike", -1, {0}},
        {"", -1, {0}},
    };
    struct mm_pylist list = {0};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const bool ok = mm_pylist_read(&list, mm_str_of(cases[i].text));
        if (ok != (cases[i].n >= 0)) fail_msg("%s: %d", cases[i].text, ok);
        if (!ok) continue;
        assert_int_equal(list.n, cases[i].n);
        for (int k = 0; k < cases[i].n; k++) {
            const struct mm_str got = mm_pylist_get(&list, k);
            if (!mm_str_is(got, cases[i].items[k])) {
                fail_msg("%s: '%.*s'", cases[i].text, (int)got.n, got.s);
            }
        }
    }
    mm_pylist_free(&list);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_process_answer),
        cmocka_unit_test(test_contractions),
        cmocka_unit_test(test_can_infer),
        cmocka_unit_test(test_yes_no),
        cmocka_unit_test(test_gqa),
        cmocka_unit_test(test_lower),
        cmocka_unit_test(test_words),
        cmocka_unit_test(test_digits_of_any_script),
        cmocka_unit_test(test_pylist),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
