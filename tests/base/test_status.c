// Errors as sentences, and "did you mean".
#include <errno.h>
#include <string.h>
#include "base/status.h"
#include "base/suggest.h"
#include "cmocka_all.h"

static void fail_fills_and_returns(void **state) {
    (void)state;
    struct mm_error err = {0};
    const enum mm_code code =
        mm_fail(&err, mm_code_input, "%s: 'n' is %d, must be positive", "a/config.json", -3);
    assert_int_equal(code, mm_code_input);
    assert_int_equal(err.code, mm_code_input);
    assert_string_equal(err.text, "a/config.json: 'n' is -3, must be positive");
}

static void err_may_be_null(void **state) {
    (void)state;
    assert_int_equal(mm_fail(NULL, mm_code_device, "%d", 1), mm_code_device);
    errno = ENOMEM;
    assert_int_equal(mm_fail_errno(NULL, "x"), mm_code_memory);
    errno = ENOSPC;
    assert_int_equal(mm_fail_errno(NULL, "x"), mm_code_io);
}

static void an_error_can_be_wrapped_in_itself(void **state) {
    (void)state;
    struct mm_error err;
    mm_fail(&err, mm_code_input, "inner");
    mm_fail(&err, err.code, "outer: %s", err.text);
    assert_string_equal(err.text, "outer: inner");
}

static void control_characters_do_not_pass(void **state) {
    (void)state;
    struct mm_error err;
    mm_fail(&err, mm_code_input, "%s: bad", "a\nb\x1b[31m\x7f\tc");
    assert_string_equal(err.text, "a?b?[31m??c: bad");
}

static void long_text_is_cut_at_a_character(void **state) {
    (void)state;
    // 1 + 2 * 700 bytes: the cut at byte 1020 would fall inside a two-byte character.
    char text[1500] = "x";
    for (size_t i = 0; i < 700; i++) {
        memcpy(text + 1 + 2 * i, "\xc3\xa9", 3);
    }
    struct mm_error err;
    mm_fail(&err, mm_code_input, "%s", text);
    assert_int_equal(strlen(err.text), 1022);
    assert_string_equal(err.text + 1019, "...");
    assert_memory_equal(err.text + 1017, "\xc3\xa9", 2);
    // Exactly full is not cut.
    memset(text, 'y', 1023);
    text[1023] = '\0';
    mm_fail(&err, mm_code_input, "%s", text);
    assert_string_equal(err.text, text);
    text[1023] = 'y';
    text[1024] = '\0';
    mm_fail(&err, mm_code_input, "%s", text);
    assert_int_equal(strlen(err.text), 1023);
    assert_string_equal(err.text + 1020, "...");
}

static void errno_keeps_its_reason(void **state) {
    (void)state;
    struct mm_error err;
    errno = ENOENT;
    assert_int_equal(mm_fail_errno(&err, "%s: cannot open", "f"), mm_code_io);
    assert_string_equal(err.text, "f: cannot open: No such file or directory");
    char path[3000];
    memset(path, 'p', sizeof path - 1);
    path[sizeof path - 1] = '\0';
    errno = EACCES;
    mm_fail_errno(&err, "%s", path);
    assert_string_equal(err.text + strlen(err.text) - strlen(": Permission denied"),
                        ": Permission denied");
}

static const char *nearest(const char *wanted) {
    static const char *const names[] = {"chat", "carve", "distill", "train", "eval"};
    struct mm_suggest s = mm_suggest_begin(wanted, strlen(wanted));
    for (size_t i = 0; i < 5; i++) {
        mm_suggest_try(&s, names[i], strlen(names[i]));
    }
    return s.name;
}

static void suggestions(void **state) {
    (void)state;
    assert_string_equal(nearest("distil"), "distill");
    assert_string_equal(nearest("caht"), "chat");  // neighbours swapped
    assert_string_equal(nearest("crave"), "carve");
    assert_string_equal(nearest("evaal"), "eval");
    assert_null(nearest("quantize"));
    assert_null(nearest(""));
    char longest[500];
    memset(longest, 'a', sizeof longest - 1);
    longest[sizeof longest - 1] = '\0';
    assert_null(nearest(longest));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(fail_fills_and_returns),
        cmocka_unit_test(err_may_be_null),
        cmocka_unit_test(an_error_can_be_wrapped_in_itself),
        cmocka_unit_test(control_characters_do_not_pass),
        cmocka_unit_test(long_text_is_cut_at_a_character),
        cmocka_unit_test(errno_keeps_its_reason),
        cmocka_unit_test(suggestions),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
