// Sorting in little memory, joining to questions, and the members of a large object.
#include "cmocka_all.h"
#include "scratch.h"

#include <string.h>
#include <unistd.h>
#include "base/rng.h"
#include "eval/indexes.h"
#include "eval/join.h"
#include "eval/members.h"
#include "eval/spool.h"
#include "io/file.h"

static struct mm_error err;

#define OK(call) \
    if ((call) != mm_code_ok) fail_msg("%s", err.text)
#define REFUSED(call, words)                \
    assert_int_not_equal(call, mm_code_ok); \
    if (!strstr(err.text, words)) fail_msg("says '%s', must say '%s'", err.text, words)

static char *put(const char *name, const char *text) {
    char *path = mm_path_join(folder, name);
    OK(mm_file_write(path, text, strlen(text), &err));
    return path;
}

// n records whose keys come again and again, some longer than the room; the value is their number.
static void sort_many(int64_t n, size_t room, uint32_t n_keys) {
    struct mm_sorter *s = mm_sorter_new(room);
    struct mm_rng rng = mm_rng_make(5, mm_rng_stream("keys"));
    int64_t *seen = mm_xcalloc(n_keys, sizeof *seen);  // how many of each key
    for (int64_t i = 0; i < n; i++) {
        const uint32_t k = mm_rng_below(&rng, n_keys);
        char *key = mm_xasprintf("same beginning %0*u", k % 97 == 0 ? 300 : 6, k);
        OK(mm_sorter_add(s, mm_str_of(key), MM_SORTER_VALUE(i), &err));
        free(key);
        seen[k]++;
    }
    OK(mm_sorter_sort(s, &err));
    struct mm_buf last = {0};
    int64_t before = -1, count = 0;
    for (;; count++) {
        struct mm_str key, value;
        int64_t number;
        OK(mm_sorter_next(s, &key, &value, &err));
        if (!key.s) break;
        assert_int_equal(value.n, sizeof number);
        memcpy(&number, value.s, sizeof number);
        const int order = mm_str_compare((struct mm_str){last.data, last.len}, key);
        if (order > 0) fail_msg("record %lld comes too late", (long long)count);
        if (order == 0 && before > number) fail_msg("equal keys changed places");
        before = number;
        mm_buf_reset(&last);
        mm_buf_add(&last, key.s, key.n);
        char *end;
        seen[strtoul(last.data + strlen("same beginning "), &end, 10)]--;
    }
    assert_int_equal(count, n);
    for (uint32_t k = 0; k < n_keys; k++) {
        assert_int_equal(seen[k], 0);
    }
    mm_buf_free(&last);
    free(seen);
    mm_sorter_free(s);
}

static void test_sorter(void **state) {
    (void)state;
    sort_many(0, 0, 1);
    sort_many(1, 0, 1);
    sort_many(5000, 0, 700);       // in memory
    sort_many(5000, 1, 700);       // every record a piece of its own
    sort_many(20000, 4000, 3000);  // merged more than once
    sort_many(20000, 4000, 1);
    // Prefixes, empty keys, keys of zero bytes.
    static const struct mm_str keys[] = {{"b", 1},         {"", 0},        {"a\0", 2},
                                         {"a", 1},         {"\xff", 1},    {"a\0b", 3},
                                         {"abcdefghi", 9}, {"abcdefgh", 8}};
    static const int wanted[] = {1, 3, 2, 5, 7, 6, 0, 4};
    for (size_t room = 0; room <= 64; room += 64) {
        struct mm_sorter *s = mm_sorter_new(room);
        for (int i = 0; i < 8; i++) {
            OK(mm_sorter_add(s, keys[i], MM_SORTER_VALUE(i), &err));
        }
        OK(mm_sorter_sort(s, &err));
        struct mm_str key, value;
        for (int i = 0; i < 8; i++) {
            OK(mm_sorter_next(s, &key, &value, &err));
            assert_true(mm_str_equal(key, keys[wanted[i]]));
        }
        OK(mm_sorter_next(s, &key, &value, &err));
        assert_null(key.s);
        mm_sorter_free(s);
    }
    char room[8];
    assert_true(
        mm_str_compare(mm_sorter_number(255, room), (struct mm_str){"\0\0\0\0\0\0\1\0", 8}) < 0);
    assert_int_equal(mm_sorter_number_of(mm_sorter_number(123456789012345, room)), 123456789012345);
}

// The temporary file is nowhere to be seen, and its folder is chosen. Little needs none.
static void test_spool(void **state) {
    (void)state;
    struct mm_spool s = {0};
    char got[8] = "", *much = mm_xcalloc(1, 1 << 17);
    setenv("TMPDIR", "/nowhere/at/all", 1);
    OK(mm_spool_add(&s, "abc", 3, &err));
    OK(mm_spool_add(&s, "defg", 4, &err));
    OK(mm_spool_read(&s, 2, got, 4, &err));
    assert_string_equal(got, "cdef");
    REFUSED(mm_spool_add(&s, much, 1 << 17, &err),
            "/nowhere/at/all: no temporary file can be made there");
    mm_spool_close(&s);
    char *own = mm_path_join(folder, "tmp");
    OK(mm_folder_make(own, &err));
    setenv("TMPDIR", own, 1);
    OK(mm_spool_add(&s, "abc", 3, &err));
    OK(mm_spool_add(&s, much, 1 << 17, &err));
    assert_int_equal(rmdir(own), 0);  // it is empty
    OK(mm_spool_add(&s, "defg", 4, &err));
    OK(mm_spool_read(&s, 0, got, 4, &err));
    assert_memory_equal(got, "abc", 4);
    OK(mm_spool_read(&s, 3 + (1 << 17) - 1, got, 5, &err));  // from the file and from memory
    assert_memory_equal(got, "\0defg", 5);
    REFUSED(mm_spool_read(&s, 3 + (1 << 17), got, 5, &err), "cannot be read");
    mm_spool_close(&s);
    unsetenv("TMPDIR");
    free(own);
    free(much);
}

static void open_questions(struct mm_questions *q, const char *path, size_t room) {
    OK(mm_questions_open(q, &mm_bench_seed, path, false, mm_tsv_form_table, 0, &err));
    q->sort_room = room;
}

static void test_join(void **state) {
    (void)state;
    char *path = put("q.tsv", "index\tquestion\tanswer\n10\tq\ta\n9\tq\ta\nx\tq\ta\n8\tq\ta\n");
    for (size_t room = 0; room <= 1; room++) {
        struct mm_questions all;
        open_questions(&all, path, room);
        struct mm_join j = {.room = room};
        static const char *const keys[] = {"x", "stray", "9", "9", "9", "8", "unwanted", "a stray"};
        for (int i = 0; i < 8; i++) {
            const struct mm_join_place place = {i / 3, i != 6, i};
            OK(mm_join_add(&j, mm_str_of(keys[i]), place, mm_str_of(keys[i]), &err));
        }
        OK(mm_join_run(&j, &all, &err));
        static const char *const wanted[] = {NULL, "9", "x", "8"};
        for (int i = 0; i < 4; i++) {
            struct mm_str value;
            OK(mm_join_get(&j, i, &value, &err));
            OK(mm_join_get(&j, i, &value, &err));  // again
            if (!wanted[i]) assert_null(value.s);
            if (wanted[i]) assert_true(mm_str_is(value, wanted[i]));
        }
        assert_string_equal(j.twice.key, "9");
        assert_int_equal(j.twice.place.line, 3);
        assert_int_equal(j.twice.place.file, 1);
        assert_int_equal(j.twice.first.line, 2);
        assert_int_equal(j.twice.first.file, 0);
        assert_string_equal(j.stray.key, "stray");
        assert_int_equal(j.stray.place.line, 1);
        mm_join_free(&j);
        mm_questions_close(&all);
    }
    free(path);
}

static enum mm_code look(const char *path, size_t room) {
    struct mm_questions all;
    open_questions(&all, path, room);
    struct mm_indexes x = {.all = &all};
    struct mm_question q;
    for (bool end;;) {
        OK(mm_questions_next(&all, &q, &end, &err));
        if (end) break;
        OK(mm_indexes_add(&x, &q, &err));
    }
    const enum mm_code code = mm_indexes_check(&x, &err);
    mm_indexes_free(&x);
    mm_questions_close(&all);
    return code;
}

static void test_indexes(void **state) {
    (void)state;
    char *good = put("good.tsv", "index\tquestion\tanswer\n8\tq\ta\n9\tq\ta\n10\tq\ta\n1\tq\ta\n");
    char *bad =
        put("bad.tsv",
            "index\tquestion\tanswer\n8\tq\ta\n9\tq\ta\n10\tq\ta\n7\tq\ta\n10\tq\ta\n8\tq\ta\n");
    for (size_t room = 0; room <= 1; room++) {
        OK(look(good, room));
        REFUSED(look(bad, room), "line 6: column 'index': has been there before");
    }
    free(good);
    free(bad);
}

// "key=value;" of every member, or the error.
static enum mm_code list(const char *text, struct mm_buf *out) {
    char *path = put("object.json", text);
    struct mm_members m;
    enum mm_code code = mm_members_open(&m, path, "an object", &err);
    free(path);
    mm_buf_reset(out);
    const bool opened = code == mm_code_ok;
    while (code == mm_code_ok) {
        struct mm_str key;
        const json_t *value;
        code = mm_members_next(&m, &key, &value, &err);
        if (code != mm_code_ok || !key.s) break;
        char *shown = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
        mm_buf_addf(out, "%.*s=%s;", (int)key.n, key.s, shown);
        free(shown);
    }
    if (opened) mm_members_close(&m);
    return code;
}

static void test_members(void **state) {
    (void)state;
    struct mm_buf out = {0};
    OK(list(" {} \n", &out));
    assert_int_equal(out.len, 0);
    OK(list("{\"a\": 1, \"b\" :{\"}\\\"\": [\"]\", {}]},\n\"\\u00e9\": \"x,\\\\\" , \"d\":null}",
            &out));
    assert_string_equal(out.data, "a=1;b={\"}\\\"\":[\"]\",{}]};é=\"x,\\\\\";d=null;");
    REFUSED(list("[1]", &out), "object.json: must be an object");
    REFUSED(list("", &out), "must be an object");
    static const struct {
        const char *text, *words;
    } wrong[] = {{"{\"a\": 1,\n  \"b\": tru}", "line 2, column 11: not valid JSON: "},
                 {"{\"a\": [1,\n2,}\n", "line 2"},
                 {"{\"a\": 1 \"b\": 2}", "line 1, column"},
                 {"{\"a\": 1,}", "line 1, column 9: not valid JSON: a name in quotes expected"},
                 {"{\"a\" 1}", "line 1, column 6: not valid JSON: ':' expected"},
                 {"{\"a\": 1", "line 1, column 8: not valid JSON: ',' or '}' expected"},
                 {"{\"a\": {\"b\": \"", "line 1"},
                 {"{\"a", "line 1"},
                 {"{\"a\": }", "line 1"},
                 {"{\"a\": {\"b\": 1, \"b\": 2}}", "duplicate object key"},
                 {"{\"a\": 1} x", "line 1, column 10: not valid JSON: something stands behind"}};
    for (size_t i = 0; i < sizeof wrong / sizeof wrong[0]; i++) {
        REFUSED(list(wrong[i].text, &out), wrong[i].words);
    }
    mm_buf_free(&out);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_sorter),  cmocka_unit_test(test_spool),   cmocka_unit_test(test_join),
        cmocka_unit_test(test_indexes), cmocka_unit_test(test_members),
    };
    return cmocka_run_group_tests(tests, scratch_make, scratch_remove);
}
