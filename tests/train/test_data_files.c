// What stands in the files: meta JSON, repeat_time, blank lines, changes, the hash.
#include "data_fixture.h"

#include <sys/stat.h>

static void test_repeat_time(void **state) {
    (void)state;
    write_numbers("n.jsonl", 0, 7);
    write_numbers("m.jsonl", 7, 2);
    static const struct {
        const char *more;
        int times[7];
    } cases[] = {
        {"", {1, 1, 1, 1, 1, 1, 1}},
        {", \"repeat_time\": 1", {1, 1, 1, 1, 1, 1, 1}},
        {", \"repeat_time\": 0.5", {1, 1, 1, 0, 0, 0, 0}},
        {", \"repeat_time\": 2", {2, 2, 2, 2, 2, 2, 2}},
        {", \"repeat_time\": 3.0", {3, 3, 3, 3, 3, 3, 3}},
    };
    for (size_t c = 0; c < sizeof cases / sizeof cases[0]; c++) {
        char text[1024];
        // Three data sets, the second of which is empty; annotations lie beside the meta file.
        snprintf(text, sizeof text,
                 "{\"a\": {\"annotation\": \"n.jsonl\"%s}, \"none\": {\"annotation\": \"m.jsonl\", "
                 "\"repeat_time\": 0.4}, \"b\": {\"annotation\": \"m.jsonl\"}}",
                 cases[c].more);
        write_text("meta.json", text);
        struct mm_data_options o = small_options();
        struct mm_data *d = open_data(in_folder("meta.json"), &o);
        int total = 2, got[64], times[9] = {0};
        for (int i = 0; i < 7; i++)
            total += cases[c].times[i];
        assert_int_equal(mm_data_samples(d), total);
        take_numbers(d, got, total);
        for (int i = 0; i < total; i++)
            times[got[i]]++;
        for (int i = 0; i < 7; i++)
            assert_int_equal(times[i], cases[c].times[i]);
        assert_int_equal(times[7], 1);
        assert_int_equal(times[8], 1);
        mm_data_close(d);
    }
}

static void test_blank_lines(void **state) {
    (void)state;
    // A byte order mark, blank lines, CR LF, no line feed at the end: three samples and a bad one,
    // whose number counts the blank lines.
    write_text("blank.jsonl",
               "\xef\xbb\xbf{\"conversations\": [{\"value\": \"n\"}, {\"value\": \"1\"}]}\r\n"
               "\n  \t\r\n"
               "{\"conversations\": [{\"value\": \"n\"}, {\"value\": \"2\"}]}\n"
               "  broken\n\n"
               "  {\"conversations\": [{\"value\": \"n\"}, {\"value\": \"3\"}]}");
    struct mm_data_options o = small_options();
    struct mm_data *d = open_data(write_meta("blank.jsonl", ""), &o);
    assert_int_equal(mm_data_samples(d), 4);
    int got[3];
    capture_begin();
    take_numbers(d, got, 3);
    (void)next_batch(d);  // into the next epoch, so that the bad one was met
    const char *text = capture_end();
    assert_int_equal(occurrences(text, "blank.jsonl line 5 is skipped: "), 1);
    qsort(got, 3, sizeof *got, compare_int);
    for (int i = 0; i < 3; i++)
        assert_int_equal(got[i], i + 1);
    mm_data_close(d);
}

// Lines that lie across the pieces in which a file is indexed.
static void test_large_file(void **state) {
    (void)state;
    enum { n = 20000, batch = 100 };
    struct mm_buf text = {0};
    for (int i = 0; i < n; i++) {
        mm_buf_addf(&text,
                    "{\"conversations\": [{\"value\": \"n\"}, {\"value\": \"%d\"}], \"id\": "
                    "\"%0*d\"}\n%s",
                    i, 1 + i % 97, i, i % 5 ? "" : "\r\n");
    }
    assert_true(text.len > 2 << 20);
    write_text("large.jsonl", text.data);
    mm_buf_free(&text);
    struct mm_data_options o = small_options();
    o.micro_batch = batch;
    o.n_workers = 2;
    struct mm_data *d = open_data(write_meta("large.jsonl", ""), &o);
    assert_int_equal(mm_data_samples(d), n);
    int *got = mm_xcalloc(n, sizeof *got);
    take_numbers(d, got, n / batch);
    qsort(got, n, sizeof *got, compare_int);
    for (int i = 0; i < n; i++)
        assert_int_equal(got[i], i);
    assert_int_equal(mm_data_tell(d).epoch, 1);
    assert_int_equal(mm_data_tell(d).skipped, 0);
    free(got);
    mm_data_close(d);
}

static void test_hash(void **state) {
    (void)state;
    struct mm_data_options o = small_options();
    uint8_t hash[7][16];
    for (int i = 0; i < 7; i++) {
        write_numbers("n.jsonl", i == 1, 5);  // 1: other content of the same size
        if (i == 2) {
            FILE *f = fopen(in_folder("n.jsonl"), "a");
            fputs("\n", f);  // no sample more, another file all the same
            fclose(f);
        }
        const char *more = i == 3   ? ", \"repeat_time\": 2"
                           : i == 4 ? ", \"max_dynamic_patch\": 3"
                           : i == 5 ? ", \"data_augment\": true"
                                    : "";
        struct mm_data *d = open_data(write_meta("n.jsonl", more), &o);
        mm_data_hash(d, hash[i]);
        mm_data_close(d);
    }
    assert_memory_equal(hash[0], hash[6], 16);
    for (int i = 1; i < 6; i++)
        assert_memory_not_equal(hash[0], hash[i], 16);
}

static void test_bad_meta(void **state) {
    (void)state;
    write_numbers("n.jsonl", 0, 3);
    write_text("empty.jsonl", "\n \n");
    write_text("n.json", "{}");
    assert_int_equal(mkfifo(in_folder("pipe.jsonl"), 0600), 0);
    static const struct {
        const char *meta, *words;
    } bad[] = {
        {"", "meta.json"},
        {"[]", "must be an object"},
        {"{}", "at least one data set"},
        {"{\"a\": 1}", "data set 'a'"},
        {"{\"a\": {}}", "annotation"},
        {"{\"a\": {\"annotation\": 3}}", "annotation"},
        {"{\"a\": {\"annotation\": \"n.json\"}}", "must end with jsonl"},
        {"{\"a\": {\"annotation\": \"missing.jsonl\"}}", "missing.jsonl"},
        {"{\"a\": {\"annotation\": \"pipe.jsonl\"}}", "not a regular file"},
        {"{\"a\": {\"annotation\": \"empty.jsonl\"}}", "hold no sample"},
        {"{\"a\": {\"annotation\": \"n.jsonl\", \"repeat_time\": 1.5}}", "repeat_time"},
        {"{\"a\": {\"annotation\": \"n.jsonl\", \"repeat_time\": -1}}", "repeat_time"},
        {"{\"a\": {\"annotation\": \"n.jsonl\", \"repeat_time\": \"2\"}}", "repeat_time"},
        {"{\"a\": {\"annotation\": \"n.jsonl\", \"repeat_time\": 0}}", "hold no sample"},
        {"{\"a\": {\"annotation\": \"n.jsonl\", \"max_dynamic_patch\": 0}}", "max_dynamic_patch"},
        {"{\"a\": {\"annotation\": \"n.jsonl\", \"data_augment\": 1}}", "data_augment"},
        {"{\"a\": {\"annotation\": \"n.jsonl\", \"root\": 1}}", "root"},
    };
    const struct mm_data_options o = small_options();
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        write_text("meta.json", bad[i].meta);
        struct mm_data *d = NULL;
        struct mm_error err = {0};
        const enum mm_code code =
            mm_data_open(&d, in_folder("meta.json"), tokenizer, tokenizer_folder, &o, &err);
        if (code == mm_code_ok || d || !strstr(err.text, bad[i].words)) {
            fail_msg("%s: code %d, '%s' must tell of '%s'", bad[i].meta, code, err.text,
                     bad[i].words);
        }
    }
}

static void test_file_cut_meanwhile(void **state) {
    (void)state;
    write_numbers("n.jsonl", 0, 30);
    struct mm_data_options o = small_options();
    struct mm_data *d = open_data(write_meta("n.jsonl", ""), &o);
    assert_int_equal(truncate(in_folder("n.jsonl"), 70), 0);  // one line is left, and a bit
    capture_begin();
    const struct mm_batch *b = next_batch(d);
    const struct mm_batch *after = next_batch(d);
    const char *text = capture_end();
    assert_int_equal(number_of(b, 0), 0);
    assert_int_equal(after->cursor.epoch + (after->cursor.index > 0), 2);
    assert_non_null(strstr(text, "become shorter"));
    mm_data_close(d);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_repeat_time), cmocka_unit_test(test_blank_lines),
        cmocka_unit_test(test_large_file),  cmocka_unit_test(test_hash),
        cmocka_unit_test(test_bad_meta),    cmocka_unit_test(test_file_cut_meanwhile),
    };
    return cmocka_run_group_tests_name("data_files", tests, fixture_setup, fixture_teardown);
}
