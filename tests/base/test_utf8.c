// Characters and the stream that never lets half of one through.
#include <stdlib.h>
#include <string.h>
#include "base/utf8.h"
#include "cmocka_all.h"

static void test_char(void **state) {
    (void)state;
    const struct {
        const char *bytes;
        size_t n;
        int len;
    } cases[] = {
        {"a", 1, 1},
        {"\0", 1, 1},
        {"\x7F", 1, 1},
        {"\x80", 1, 0},
        {"\xC2\x80", 2, 2},
        {"\xC1\xBF", 2, 0},  // overlong
        {"\xDF\xBF", 2, 2},
        {"\xC2", 1, 0},
        {"\xC2"
         "a",
         2, 0},
        {"\xE0\x9F\xBF", 3, 0},  // overlong
        {"\xE0\xA0\x80", 3, 3},
        {"\xE4\xBD\xA0", 3, 3},
        {"\xE4\xBD\xA0", 2, 0},
        {"\xED\x9F\xBF", 3, 3},
        {"\xED\xA0\x80", 3, 0},  // surrogate
        {"\xEF\xBF\xBD", 3, 3},
        {"\xF0\x8F\xBF\xBF", 4, 0},  // overlong
        {"\xF0\x90\x80\x80", 4, 4},
        {"\xF4\x8F\xBF\xBF", 4, 4},
        {"\xF4\x90\x80\x80", 4, 0},  // above U+10FFFF
        {"\xF5\x80\x80\x80", 4, 0},
        {"\xFF", 1, 0},
    };
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        char *exact = malloc(cases[i].n);  // so that a sanitizer sees a step too far
        memcpy(exact, cases[i].bytes, cases[i].n);
        assert_int_equal(mm_utf8_char(exact, cases[i].n), cases[i].len);
        free(exact);
    }
}

// Every cut into two calls gives the text of one call.
static void test_stream_cuts(void **state) {
    (void)state;
    static const char in[] =
        "a\xC3\xA9\xE4\xBD\xA0\xF0\x9F\x98\x80\xE4\xBD"
        "b\xFF\x80\xF0\x9F\x98";
    static const char want[] =
        "a\xC3\xA9\xE4\xBD\xA0\xF0\x9F\x98\x80\xEF\xBF\xBD\xEF\xBF\xBD"
        "b\xEF\xBF\xBD\xEF\xBF\xBD"
        "\xEF\xBF\xBD\xEF\xBF\xBD\xEF\xBF\xBD";
    const size_t n = sizeof in - 1;
    for (size_t cut = 0; cut <= n; cut++) {
        struct mm_utf8_stream s = {{0}, 0};
        struct mm_buf out = {NULL, 0, 0};
        mm_utf8_stream_add(&s, in, cut, &out);
        for (size_t at = 0; at < out.len;) {  // what is out is whole
            const int len = mm_utf8_char(out.data + at, out.len - at);
            assert_true(len > 0);
            at += (size_t)len;
        }
        mm_utf8_stream_add(&s, in + cut, n - cut, &out);
        mm_utf8_stream_end(&s, &out);
        assert_int_equal(out.len, sizeof want - 1);
        assert_memory_equal(out.data, want, out.len);
        mm_buf_free(&out);
    }
}

static void test_stream_holds_back(void **state) {
    (void)state;
    struct mm_utf8_stream s = {{0}, 0};
    struct mm_buf out = {NULL, 0, 0};
    mm_utf8_stream_add(&s, "\xF0\x9F\x98", 3, &out);
    assert_int_equal(out.len, 0);
    mm_utf8_stream_add(&s, "\x80", 1, &out);
    assert_string_equal(out.data, "\xF0\x9F\x98\x80");
    mm_utf8_stream_end(&s, &out);
    assert_int_equal(out.len, 4);
    mm_buf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_char),
        cmocka_unit_test(test_stream_cuts),
        cmocka_unit_test(test_stream_holds_back),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
