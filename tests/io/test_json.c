// JSON: sentences about what is wrong, typed access with ranges, and the spelling of what is
// written.
#include <setjmp.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "io/file.h"
#include "io/json.h"

static struct mm_error err;

static json_t *parse(const char *text) {
    json_t *root = NULL;
    if (mm_json_parse(&root, text, strlen(text), "here", &err) != mm_code_ok) {
        fail_msg("%s", err.text);
    }
    return root;
}

static void refuses_what_is_not_json(void **state) {
    (void)state;
    static const char *const wrong[] = {
        "",
        " ",
        "{",
        "{\"a\":1,}",
        "{\"a\":1 \"b\":2}",
        "[1] 2",
        "nul",
        "\xff",
        "[\"\xc3\"]",
        "[1e999]",
        "[99999999999999999999]",
        "[\"\\u0000\"]",
        "{\"a\":1,\"a\":2}",
        "[NaN]",
        "{\"\\ud800\":1}",
        "[\"a\nb\"]",
        "\xef\xbb\xbf{}",
    };
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        json_t *root = (json_t *)1;
        assert_int_equal(mm_json_parse(&root, wrong[i], strlen(wrong[i]), "here", &err),
                         mm_code_input);
        assert_null(root);
        assert_int_equal(strncmp(err.text, "here: ", 6), 0);
        for (const char *c = err.text; *c; c++)
            assert_true((unsigned char)*c >= 0x20);
    }
    struct mm_buf deep = {0};
    for (int i = 0; i < 1000000; i++)
        mm_buf_adds(&deep, "[");
    json_t *root = NULL;
    assert_int_equal(mm_json_parse(&root, deep.data, deep.len, "here", &err), mm_code_input);
    mm_buf_free(&deep);
    assert_int_equal(mm_json_load(&root, "tests/no-such-file", &err), mm_code_io);
    assert_int_equal(mm_json_load(&root, "tests", &err), mm_code_input);
}

static void typed_access_names_what_it_saw(void **state) {
    (void)state;
    json_t *o = parse(
        "{\"i\":7,\"big\":9223372036854775807,\"r\":0.25,\"t\":true,\"n\":null,\"s\":\"text\","
        "\"a\":[1,2],\"o\":{}}");
    int64_t i = -1;
    double r = -1;
    bool b = false;
    const char *s = NULL;
    assert_int_equal(mm_json_int(o, "i", 0, 7, true, &i, "here", &err), mm_code_ok);
    assert_int_equal(i, 7);
    assert_int_equal(mm_json_int(o, "big", 0, INT64_MAX, true, &i, "here", &err), mm_code_ok);
    assert_true(i == INT64_MAX);
    assert_int_equal(mm_json_int(o, "i", 8, 9, true, &i, "here", &err), mm_code_input);
    assert_string_equal(err.text, "here: 'i' is 7, wanted an integer from 8 to 9");
    assert_int_equal(mm_json_int(o, "r", 0, 9, true, &i, "here", &err), mm_code_input);
    assert_string_equal(err.text, "here: 'r' is 0.25, wanted an integer from 0 to 9");
    assert_int_equal(mm_json_int(o, "none", 0, 9, true, &i, "here", &err), mm_code_input);
    assert_string_equal(err.text, "here: 'none' is missing, wanted an integer from 0 to 9");
    assert_int_equal(mm_json_int(o, "n", 0, 9, true, &i, "here", &err), mm_code_input);
    assert_string_equal(err.text, "here: 'n' is null, wanted an integer from 0 to 9");
    i = 5;
    assert_int_equal(mm_json_int(o, "none", 0, 9, false, &i, "here", &err), mm_code_ok);
    assert_int_equal(mm_json_int(o, "n", 0, 9, false, &i, "here", &err), mm_code_ok);
    assert_int_equal(i, 5);
    assert_int_equal(mm_json_int(o, "s", 0, 9, false, &i, "here", &err), mm_code_input);
    assert_string_equal(err.text, "here: 's' is \"text\", wanted an integer from 0 to 9");
    assert_int_equal(mm_json_float(o, "i", 0, 9, true, &r, "here", &err), mm_code_ok);
    assert_true(r == 7.0);
    assert_int_equal(mm_json_float(o, "r", 0, 9, true, &r, "here", &err), mm_code_ok);
    assert_true(r == 0.25);
    assert_int_equal(mm_json_float(o, "r", 1, 9, true, &r, "here", &err), mm_code_input);
    assert_string_equal(err.text, "here: 'r' is 0.25, wanted a number from 1 to 9");
    assert_int_equal(mm_json_bool(o, "t", true, &b, "here", &err), mm_code_ok);
    assert_true(b);
    assert_int_equal(mm_json_bool(o, "a", true, &b, "here", &err), mm_code_input);
    assert_string_equal(err.text, "here: 'a' is an array of 2, wanted true or false");
    assert_int_equal(mm_json_string(o, "s", true, &s, "here", &err), mm_code_ok);
    assert_string_equal(s, "text");
    assert_int_equal(mm_json_string(o, "o", true, &s, "here", &err), mm_code_input);
    assert_string_equal(err.text, "here: 'o' is an object, wanted a string");
    json_decref(o);
}

static void long_values_are_cut_between_characters(void **state) {
    (void)state;
    struct mm_buf text = {0};
    mm_buf_adds(&text, "{\"s\":\"x");
    for (int i = 0; i < 100; i++)
        mm_buf_adds(&text, "\xc3\xa4");
    mm_buf_adds(&text, "\\n\"}");
    json_t *o = parse(text.data);
    char seen[128];
    mm_json_show(seen, sizeof seen, json_object_get(o, "s"));
    assert_int_equal(strlen(seen), 1 + 59 + 3 + 1);
    assert_string_equal(seen + 60, "...\"");
    json_decref(o);
    mm_buf_free(&text);
}

static void written_files_keep_their_spelling(void **state) {
    (void)state;
    char folder[] = "/tmp/mm_test_json_XXXXXX";
    assert_non_null(mkdtemp(folder));
    char *path = mm_path_join(folder, "a.json");
    static const char text[] =
        "{\n  \"z\": 1,\n  \"eps\": 1e-05,\n  \"theta\": 10000.0,\n  \"x\": 0.1,\n"
        "  \"third\": 0.3333333333333333,\n  \"tiny\": 2.5e-300,\n  \"big\": "
        "1.7976931348623157e+308,\n"
        "  \"neg\": -0.0,\n  \"n\": null,\n  \"t\": true,\n  \"f\": false,\n  \"empty\": {},\n"
        "  \"none\": [],\n  \"s\": \"q\\\" b\\\\ n\\n \\u0001 \xc3\xa4\",\n  \"a\": [\n    -7,\n"
        "    {\n      \"b\": 2\n    }\n  ]\n}\n";
    json_t *root = parse(text);
    assert_int_equal(mm_json_write_file(root, path, &err), mm_code_ok);
    struct mm_buf got = {0};
    assert_int_equal(mm_file_read(&got, path, 10000, &err), mm_code_ok);
    assert_string_equal(got.data, text);
    mm_buf_free(&got);
    json_decref(root);
    unlink(path);
    rmdir(folder);
    free(path);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(refuses_what_is_not_json),
        cmocka_unit_test(typed_access_names_what_it_saw),
        cmocka_unit_test(long_values_are_cut_between_characters),
        cmocka_unit_test(written_files_keep_their_spelling),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
