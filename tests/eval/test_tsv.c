// Tables: what pandas makes of the same bytes, and sentences for what it would guess at.
#include "cmocka_all.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "eval/tsv.h"
#include "eval/tsv_number.h"
#include "io/json.h"

static char path[] = "/tmp/mm_tsv_XXXXXX";
static struct mm_error err;

static int make(void **state) {
    (void)state;
    const int fd = mkstemp(path);
    close(fd);
    return fd < 0;
}

static int clear(void **state) {
    (void)state;
    return unlink(path);
}

static void put(const char *text, size_t n) {
    FILE *f = fopen(path, "wb");  // and no fsync, which takes seconds for the large one
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
}

// The table as one text: cells between '|', '~' for a missing one, rows end with '$'.
static char *shown(const char *text, bool pandas1, enum mm_tsv_form form) {
    struct mm_tsv t;
    struct mm_tsv_row row;
    struct mm_buf out = {0};
    put(text, strlen(text));
    if (mm_tsv_open(&t, path, pandas1, &err) != mm_code_ok) fail_msg("%s", err.text);
    mm_tsv_row_init(&row, &t);
    for (int64_t i = 0; i < t.n_rows; i++) {
        mm_tsv_row_load(&row, i);
        for (int c = 0; c < t.n_columns; c++) {
            const struct mm_str s = mm_tsv_cell(&row, c, form);
            if (c) mm_buf_adds(&out, "|");
            if (s.s) mm_buf_add(&out, s.s, s.n);
            if (!s.s) mm_buf_adds(&out, "~");
        }
        mm_buf_adds(&out, "$");
    }
    mm_tsv_row_deinit(&row);
    mm_tsv_close(&t);
    return out.data ? out.data : mm_xstrdup("");
}

static void reads_as(const char *text, const char *wanted) {
    char *got = shown(text, false, mm_tsv_form_table);
    if (strcmp(got, wanted) != 0) fail_msg("'%s' reads as '%s', must be '%s'", text, got, wanted);
    free(got);
}

static void test_cutting(void **state) {
    (void)state;
    reads_as("a\tb\n", "");
    reads_as("a\tb\nx\ty\n", "x|y$");
    reads_as("a\tb\nx\ty", "x|y$");               // no line end at the end
    reads_as("a\tb\r\nx\ty\r\n", "x|y$");         // CR LF
    reads_as("a\tb\rx\ty\rz\tw", "x|y$z|w$");     // CR alone
    reads_as("a\tb\n\n \n\r\nx\ty\n\n", "x|y$");  // empty lines and lines of spaces
    reads_as("a\tb\n \tx\n", " |x$");
    reads_as(
        "\xef\xbb\xbf"
        "a\tb\nx\ty\n",
        "x|y$");
    reads_as("a\tb\tc\nx\n\ty\n", "x|~|~$~|y|~$");  // short rows
    reads_as("a\tb\nx\t", "x|~$");
    reads_as("a\tb\n\t\n", "~|~$");
}

static void test_quotes(void **state) {
    (void)state;
    reads_as("a\tb\n\"x\ty\"\tz\n", "x\ty|z$");
    reads_as("a\tb\n\"x\ny\r\nz\"\tw\nv\tu\n", "x\ny\r\nz|w$v|u$");
    reads_as("a\tb\n\"say \"\"x\"\"\"\ty\n", "say \"x\"|y$");
    reads_as("a\tb\n\"x\"y\tz\n", "xy|z$");          // text behind the closing quote
    reads_as("a\tb\n\"x\"y\"\"\tz\n", "xy\"\"|z$");  // where quotes are ordinary again
    reads_as("a\tb\nx\"y\t\"\"\n", "x\"y|~$");       // a quote inside, an empty quoted cell
    reads_as("a\tb\nx\"\ty\"z\n", "x\"|y\"z$");
    reads_as("a\tb\n\"\"\"\"\tx\n", "\"|x$");
    reads_as("\"a\nb\"\tb\nx\ty\n", "x|y$");     // a name over two lines
    reads_as("a\tb\n x \t\" y\"\n", " x | y$");  // nothing is trimmed
}

static void test_missing(void **state) {
    (void)state;
    json_t *root = NULL;
    size_t i;
    json_t *token;
    assert_int_equal(mm_json_load(&root, "tests/golden/eval/pandas_na_tokens.json", &err),
                     mm_code_ok);
    json_array_foreach(json_object_get(root, "na"), i, token) {
        const char *s = json_string_value(token);
        assert_true(mm_tsv_is_missing(mm_str_of(s), false));
        assert_int_equal(mm_tsv_is_missing(mm_str_of(s), true), strcmp(s, "None") != 0);
    }
    assert_int_equal(i, 19);
    json_decref(root);
    static const char *const there[] = {"none", "NONE", "Nan", "NAN", " NA", "n/A", "-", "<na>"};
    for (i = 0; i < sizeof there / sizeof there[0]; i++) {
        assert_false(mm_tsv_is_missing(mm_str_of(there[i]), false));
    }
    reads_as("a\tb\nNone\tx\n\"NA\"\tnone\n", "~|x$~|none$");
    char *old = shown("a\tb\nNone\tx\n\"NA\"\ty\n", true, mm_tsv_form_table);
    assert_string_equal(old, "None|x$~|y$");
    free(old);
}

static void test_kinds(void **state) {
    (void)state;
    reads_as("a\tb\n007\tx\n+5\tx\n-0\tx\n \"8\tx\n", "007|x$+5|x$-0|x$ \"8|x$");
    reads_as("a\n007\n+5\n-0\n 8 \n\"9\"\n", "7$5$0$8$9$");
    reads_as("a\tb\n5\tx\n\tx\n-0\tx\n", "5.0|x$~|x$0.0|x$");  // whole numbers with one missing
    reads_as("a\n5\n1.50\n1e3\n.5\n2.\n", "5.0$1.5$1000.0$0.5$2.0$");
    reads_as("a\n1e16\n1e15\n1e-4\n1e-5\ninf\n-Infinity\n",
             "1e+16$1000000000000000.0$0.0001$1e-05$inf$-inf$");
    reads_as("a\n3.14159265358979323846\n", "3.1415926535897927$");  // pandas' own conversion
    reads_as("a\n5e\n6\n", "5e$6$");
    reads_as("a\n1e400\n1\n", "1e400$1$");
    reads_as("a\nTrue\nfalse\nTRUE\n", "True$False$True$");
    reads_as("a\tb\nTrue\tx\n\tx\n", "True|x$~|x$");
    reads_as("a\nTrue\n1\n", "True$1$");
    reads_as("a\n18446744073709551615\n1\n", "18446744073709551615$1$");
    reads_as("a\n0018446744073709551616\n1\n", "0018446744073709551616$1$");  // too large: text
    reads_as("a\n0018446744073709551615\n-1\n", "0018446744073709551615$-1$");
    reads_as("a\tb\n\t\n\t\n", "~|~$~|~$");
}

static void test_result_form(void **state) {
    (void)state;
    char *got = shown("a\tb\tc\td\te\nTrue\t5.0\t5.0\t5.5\tTrue\n\t6.0\t\t6.0\tFalse\n", false,
                      mm_tsv_form_result);
    assert_string_equal(got, "1.0|5|5.0|5.5|True$~|6|~|6.0|False$");
    free(got);
}

static void test_numbers(void **state) {
    (void)state;
    static const struct {
        double v;
        const char *text;
    } cases[] = {{0, "0.0"},
                 {-0.0, "-0.0"},
                 {1e22, "1e+22"},
                 {123456.0, "123456.0"},
                 {0.1, "0.1"},
                 {1.0 / 3, "0.3333333333333333"},
                 {5e-324, "5e-324"},
                 {1e100, "1e+100"},
                 {9007199254740993.0, "9007199254740992.0"}};
    char text[mm_number_text_max];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mm_number_print(text, cases[i].v);
        assert_string_equal(text, cases[i].text);
    }
    mm_number_print(text, NAN);
    assert_string_equal(text, "nan");
}

static void refused_bytes(const char *text, size_t n, const char *words) {
    struct mm_tsv t;
    put(text, n);
    if (mm_tsv_open(&t, path, false, &err) != mm_code_input)
        fail_msg("taken; must say '%s'", words);
    if (!strstr(err.text, words)) fail_msg("says '%s', must say '%s'", err.text, words);
    assert_null(t.column);
}

#define REFUSED(text, words) refused_bytes(text, sizeof(text) - 1, words)

static void test_refused(void **state) {
    (void)state;
    REFUSED("", "is empty");
    REFUSED("\n \n", "is empty");
    REFUSED("a\tb\n\nx\ty\nx\ty\tz\n", "line 4, column 3: the row has 3 cells, the header 2");
    REFUSED("a\tb\nx\t\"y\nz\n", "line 2: column 'b': the quote that opens here never ends");
    REFUSED("a\t\"b\nx", "line 1: the quote of a column name never ends");
    REFUSED("a\tb\nx\ty\xff\n", "line 2: column 'b': byte 2 of the cell is 0xff");
    REFUSED("a\tb\nx\t\0y\n", "line 2: column 'b': byte 1 of the cell is 0x00, which is a zero");
    REFUSED("a\tb\n\"x\n\n\"\ty\nx\ty\tz\n", "line 5, column 3");
    REFUSED("a\tb\rx\ty\rx\ty\tz\r", "line 3, column 3");
    struct mm_tsv t;
    assert_int_not_equal(mm_tsv_open(&t, "/tmp/mm_tsv_none", false, &err), mm_code_ok);
    assert_int_not_equal(mm_tsv_open(&t, "/tmp", false, &err), mm_code_ok);
}

// Rows in any order, with the memory given back behind the reader and taken again.
static void test_large(void **state) {
    (void)state;
    enum { n_rows = 170, cell = 1 << 20 };
    struct mm_buf text = {0};
    char *long_cell = mm_xmalloc(cell + 1);
    memset(long_cell, 'A', cell);
    long_cell[cell] = '\0';
    mm_buf_adds(&text, "index\timage\tanswer\n");
    for (int i = 0; i < n_rows; i++) {
        mm_buf_addf(&text, "%d\t%s\t\"%d\nx\"\n", i, long_cell, i);
    }
    free(long_cell);
    put(text.data, text.len);
    mm_buf_free(&text);
    struct mm_tsv t;
    struct mm_tsv_row row;
    if (mm_tsv_open(&t, path, false, &err) != mm_code_ok) fail_msg("%s", err.text);
    assert_int_equal(t.n_rows, n_rows);
    mm_tsv_row_init(&row, &t);
    for (int pass = 0; pass < 3; pass++) {
        for (int i = 0; i < n_rows; i++) {
            const int k = pass == 0 ? i : pass == 1 ? n_rows - 1 - i : (i * 37) % n_rows;
            char wanted[32];
            snprintf(wanted, sizeof wanted, "%d\nx", k);
            mm_tsv_row_load(&row, k);
            assert_true(mm_str_is(mm_tsv_cell(&row, 2, mm_tsv_form_table), wanted));
            assert_int_equal(mm_tsv_cell(&row, 1, mm_tsv_form_table).n, cell);
        }
    }
    assert_int_equal(mm_tsv_line(&t, 2), 6);
    mm_tsv_row_deinit(&row);
    mm_tsv_close(&t);
    put("a\n", 2);
}

// More rows than places are kept for: any row is found from the place before it.
static void test_many(void **state) {
    (void)state;
    enum { n_rows = 5 * mm_tsv_max_anchors + 77 };
    struct mm_buf text = {0};
    mm_buf_adds(&text, "index\tanswer\n");
    for (int i = 0; i < n_rows; i++) {
        mm_buf_addf(&text, i % 5 ? "%d\tx%d\n" : "\n  \n%d\t\"\nx%d\"\n", i, i);
    }
    put(text.data, text.len);
    mm_buf_free(&text);
    struct mm_tsv t;
    struct mm_tsv_row row;
    if (mm_tsv_open(&t, path, false, &err) != mm_code_ok) fail_msg("%s", err.text);
    assert_int_equal(t.n_rows, n_rows);
    assert_true(t.n_anchors <= mm_tsv_max_anchors && t.step == 8);
    mm_tsv_row_init(&row, &t);
    for (int k = 0; k < 3 * n_rows; k++) {
        const int i = k < n_rows       ? k
                      : k < 2 * n_rows ? 2 * n_rows - 1 - k
                                       : (int)(k * 7919LL % n_rows);
        char wanted[32];
        snprintf(wanted, sizeof wanted, i % 5 ? "x%d" : "\nx%d", i);
        mm_tsv_row_load(&row, i);
        assert_true(mm_str_is(mm_tsv_cell(&row, 1, mm_tsv_form_table), wanted));
    }
    assert_int_equal(mm_tsv_line(&t, 0), 4);
    assert_int_equal(mm_tsv_line(&t, 1), 6);
    assert_int_equal(mm_tsv_line(&t, 100001), 100001 + 3 * 20001 + 2);
    mm_tsv_row_deinit(&row);
    mm_tsv_close(&t);
    put("a\n", 2);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_cutting),     cmocka_unit_test(test_quotes),
        cmocka_unit_test(test_missing),     cmocka_unit_test(test_kinds),
        cmocka_unit_test(test_result_form), cmocka_unit_test(test_numbers),
        cmocka_unit_test(test_refused),     cmocka_unit_test(test_large),
        cmocka_unit_test(test_many),
    };
    return cmocka_run_group_tests(tests, make, clear);
}
