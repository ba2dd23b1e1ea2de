// Several models side by side: intervals of differences, the tables, the page.
#include "cmocka_all.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include "base/log.h"
#include "eval/compare.h"
#include "eval/embedded.h"
#include "eval/published.h"
#include "io/file.h"
#include "io/json.h"

static char dir[] = "/tmp/mm_compare_XXXXXX";
static struct mm_error err;

#define OK(call) \
    if ((call) != mm_code_ok) fail_msg("%s", err.text)
#define REFUSED(call, words)                \
    assert_int_not_equal(call, mm_code_ok); \
    if (!strstr(err.text, words)) fail_msg("says '%s', must say '%s'", err.text, words)

static int make(void **state) {
    (void)state;
    mm_log_set_level(mm_log_level_error);
    return mkdtemp(dir) == NULL;
}

static int clear(void **state) {
    (void)state;
    char *command = mm_xasprintf("rm -r '%s'", dir);
    const int status = system(command);
    free(command);
    return status;
}

static char *path_to(const char *name) {
    return mm_path_join(dir, name);
}

static void put(const char *name, const char *text, size_t n) {
    char *path = path_to(name);
    FILE *f = fopen(path, "wb");
    assert_non_null(f);
    assert_int_equal(fwrite(text, 1, n, f), n);
    assert_int_equal(fclose(f), 0);
    free(path);
}

// ---- intervals ----

// n units, of which the first `right` are right.
static struct mm_outcomes units(int n, int right) {
    struct mm_outcomes o = {0};
    char key[16];
    for (int i = 0; i < n; i++) {
        const double value[mm_outcome_values] = {i < right, 1};
        snprintf(key, sizeof key, "%d", i);
        mm_outcomes_add(&o, mm_str_of(key), mm_str_of(""), value);
    }
    return o;
}

static void test_intervals(void **state) {
    (void)state;
    struct mm_outcomes a = units(400, 300), b = units(400, 200), c = units(200, 100), none = {0};
    struct mm_difference d, again;
    assert_true(mm_outcomes_compare(&a, &b, mm_outcomes_mean, 2000, 7, &d));
    assert_true(d.a == 75 && d.b == 50 && d.n == 400);
    // Paired, a quarter of the questions differ: the standard error is 100 sqrt(p(1-p)/n), p = 1/4.
    const double half = 1.96 * 100 * sqrt(0.25 * 0.75 / 400);
    assert_true(fabs(d.low - (25 - half)) < 0.6);
    assert_true(fabs(d.high - (25 + half)) < 0.6);
    assert_true(mm_outcomes_compare(&a, &b, mm_outcomes_mean, 2000, 7, &again));
    assert_memory_equal(&d, &again, sizeof d);
    assert_true(mm_outcomes_compare(&b, &a, mm_outcomes_mean, 2000, 7, &again));
    assert_true(again.low == -d.high && again.high == -d.low);
    // Equal answers have no difference, whatever is drawn: the draws are the same for both.
    assert_true(mm_outcomes_compare(&a, &a, mm_outcomes_mean, 500, 1, &d));
    assert_true(d.low == 0 && d.high == 0);
    // Only what both have answered counts.
    assert_true(mm_outcomes_compare(&a, &c, mm_outcomes_mean, 500, 1, &d));
    assert_true(d.n == 200 && d.a == 100 && d.b == 50);
    assert_false(mm_outcomes_compare(&a, &none, mm_outcomes_mean, 500, 1, &d));
    mm_outcomes_free(&a);
    mm_outcomes_free(&b);
    mm_outcomes_free(&c);
}

// Units are drawn within their groups, so a group never gets empty.
static void test_groups(void **state) {
    (void)state;
    struct mm_outcomes a = {0}, b = {0};
    static const double right[mm_outcome_values] = {1, 1, 1, 1};
    static const double wrong[mm_outcome_values] = {0, 1, 0, 1};
    mm_outcomes_add(&a, mm_str_of("x"), mm_str_of("count"), right);
    mm_outcomes_add(&a, mm_str_of("y"), mm_str_of("color"), right);
    mm_outcomes_add(&b, mm_str_of("y"), mm_str_of("color"), wrong);  // in another order
    mm_outcomes_add(&b, mm_str_of("x"), mm_str_of("count"), right);
    struct mm_difference d;
    assert_true(mm_outcomes_compare(&a, &b, mm_bench_mme.combine, 200, 0, &d));
    assert_true(d.a == 400 && d.b == 200 && d.low == 200 && d.high == 200);
    mm_outcomes_free(&a);
    mm_outcomes_free(&b);
}

// ---- reports ----

static char *option(const char *name, const char *file) {
    char *path = path_to(file), *text = mm_xasprintf("%s=%s", name, path);
    free(path);
    return text;
}

static enum mm_code add(struct mm_compare *c,
                        enum mm_code (*how)(struct mm_compare *, const char *, struct mm_error *),
                        const char *name, const char *file) {
    char *text = option(name, file);
    const enum mm_code code = how(c, text, &err);
    free(text);
    return code;
}

static void add_picture(struct mm_buf *out, const char *path) {
    struct mm_buf bytes = {0};
    OK(mm_file_read(&bytes, path, 1 << 24, &err));
    mm_base64_encode(out, bytes.data, bytes.len);
    mm_buf_free(&bytes);
}

static void put_data(void) {
    struct mm_buf text = {0};
    mm_buf_adds(&text, "index\timage\tquestion\tA\tB\tanswer\tcategory\n0\t");
    add_picture(&text, "tests/golden/images/tiny.png");
    mm_buf_adds(&text, "\tIs </script> here?\tcat\tdog\tA\tk\n1\t0\tAnd?\tcat\tdog\tB\tk\n2\t");
    add_picture(&text, "tests/golden/images/photo.jpg");
    mm_buf_adds(&text, "\tWhat?\tcat\tdog\tA\tm\n3\t2\tWhere?\tcat\tdog\tB\tm\n");
    put("seed.tsv", text.data, text.len);
    mm_buf_free(&text);
    static const char pope[] =
        "index\tquestion\tanswer\tcategory\timage_path\n0\tq\tYes\trandom\tnone.png\n"
        "1\tq\tNo\trandom\tnone.png\n";
    put("POPE.tsv", pope, sizeof pope - 1);
    static const char one[] =
        "{\"index\": 0, \"prediction\": \"A\"}\n{\"index\": 1, \"prediction\": \"B\"}\n";
    static const char two[] =
        "{\"index\": 2, \"prediction\": \"A\"}\n{\"index\": 3, \"prediction\": \"B\"}\n";
    static const char bad[] =
        "{\"index\": 0, \"prediction\": \"A\"}\n{\"index\": 1, \"prediction\": \"<b>A</b> & co\"}\n"
        "{\"index\": 2, \"prediction\": \"B\"}\n{\"index\": 3, \"prediction\": \"\", "
        "\"missing_image\": true}\n";
    static const char yes[] =
        "{\"index\": 0, \"prediction\": \"Yes\"}\n{\"index\": 1, \"prediction\": \"Yes\"}\n";
    char *folder = path_to("good");
    OK(mm_folder_make(folder, &err));
    free(folder);
    put("good/seed-1.jsonl", one, sizeof one - 1);
    put("good/seed-2.jsonl", two, sizeof two - 1);
    put("good/seedling.jsonl", "x", 1);  // of something else
    put("bad.jsonl", bad, sizeof bad - 1);
    put("yes.jsonl", yes, sizeof yes - 1);
}

static void fill(struct mm_compare *c) {
    mm_compare_init(c);
    OK(add(c, mm_compare_add_data, "seed", "seed.tsv"));
    OK(add(c, mm_compare_add_data, "pope", "POPE.tsv"));
    OK(add(c, mm_compare_add_predictions, "good", "good"));
    OK(add(c, mm_compare_add_predictions, "a|b/seed", "bad.jsonl"));
    OK(add(c, mm_compare_add_predictions, "a|b/pope", "yes.jsonl"));
    OK(mm_compare_set_teacher(c, "good", &err));
    OK(mm_compare_run(c, &err));
}

static void test_tables(void **state) {
    (void)state;
    struct mm_compare c;
    struct mm_buf out = {0};
    put_data();
    fill(&c);
    mm_compare_print(&c, false, false, &out);
    assert_non_null(strstr(out.data,
                           "model  SEED-Image   POPE\n"
                           "good       100.00\n"
                           "a|b         33.33  66.67\n"));
    assert_non_null(strstr(out.data,
                           "Percent of good\n"
                           "model  SEED-Image  POPE\n"
                           "a|b          33.3\n"));
    assert_non_null(strstr(out.data, "a|b    SEED-Image      -66.67  -100.00"));
    assert_null(strstr(out.data, "HoVLE"));
    mm_buf_reset(&out);
    mm_compare_print(&c, true, true, &out);
    assert_non_null(strstr(out.data, "| model | SEED-Image | POPE |\n|---|---:|---:|\n"));
    assert_non_null(strstr(out.data, "| a\\|b | 33.33 | 66.67 |\n"));
    assert_non_null(strstr(out.data, "not measured here"));
    assert_non_null(strstr(out.data, "| mmMamba | Hybrid | 2.7B | 66.3 | 86.7 |\n"));
    assert_null(strstr(out.data, "| OpenFlamingo"));  // says nothing about these two
    mm_buf_reset(&out);
    mm_compare_print_json(&c, true, &out);
    json_t *root = NULL;
    OK(mm_json_parse(&root, out.data, out.len, "the report", &err));
    const json_t *results = json_object_get(root, "results");
    assert_int_equal(json_array_size(results), 3);
    const json_t *second = json_array_get(results, 1);
    assert_string_equal(json_string_value(json_object_get(second, "model")), "a|b");
    assert_true(fabs(json_number_value(json_object_get(second, "percent_of_teacher")) - 100.0 / 3) <
                1e-9);
    const json_t *d = json_object_get(second, "difference");
    assert_int_equal(json_integer_value(json_object_get(d, "units")), 3);
    assert_int_equal(json_integer_value(json_object_get(second, "missing_images")), 1);
    const json_t *rows = json_object_get(json_object_get(root, "published"), "rows");
    assert_int_equal(json_array_size(rows), 16);
    json_decref(root);
    mm_buf_free(&out);
    mm_compare_free(&c);
}

static void test_refusals(void **state) {
    (void)state;
    struct mm_compare c;
    mm_compare_init(&c);
    REFUSED(mm_compare_add_data(&c, "seed", &err), "--data is 'seed', must be BENCH=PATH");
    REFUSED(mm_compare_add_data(&c, "vqa=x", &err), "'vqa', must be mme");
    OK(add(&c, mm_compare_add_data, "seed", "seed.tsv"));
    REFUSED(mm_compare_add_data(&c, "seed=x", &err), "given twice for seed");
    REFUSED(mm_compare_add_images(&c, "gqa=x", &err), "gqa, which has no --data");
    REFUSED(mm_compare_add_predictions(&c, "m=x", &err), "'m', must be MODEL/BENCH=FILE");
    REFUSED(mm_compare_add_predictions(&c, "m/gqa=x", &err), "gqa, which has no --data");
    REFUSED(add(&c, mm_compare_add_predictions, "m", "."), "no predictions of the benchmarks");
    REFUSED(mm_compare_set_teacher(&c, "who", &err), "'who', which has no --predictions");
    mm_compare_free(&c);
}

// ---- the page ----

// The JSON inside an element of the page; the caller releases it.
static json_t *inside(const char *page, const char *id) {
    char *mark = mm_xasprintf("<script type=\"application/json\" id=\"%s\">", id);
    const char *begin = strstr(page, mark);
    assert_non_null(begin);
    begin += strlen(mark);
    free(mark);
    json_t *root = NULL;
    OK(mm_json_parse(&root, begin, (size_t)(strstr(begin, "</script>") - begin), id, &err));
    return root;
}

static void check_page(int64_t most, size_t n_questions, size_t n_pictures) {
    struct mm_compare c;
    struct mm_buf page = {0};
    char *path = path_to("page.html");
    fill(&c);
    OK(mm_compare_write_page(&c, path, true, most, &err));
    OK(mm_file_read(&page, path, 1 << 24, &err));
    json_t *report = inside(page.data, "report"), *pictures = inside(page.data, "pictures");
    json_t *data = inside(page.data, "data");
    const json_t *questions = json_object_get(data, "questions");
    assert_int_equal(json_array_size(questions), n_questions);
    assert_int_equal(json_object_size(pictures), n_pictures);
    const json_t *q = json_array_get(questions, most ? 0 : 1);  // it is failed, the first is not
    assert_string_equal(json_string_value(json_object_get(q, "q")), "And?");
    const json_t *a = json_array_get(json_object_get(q, "a"), 1);
    assert_string_equal(json_string_value(json_object_get(a, "said")), "<b>A</b> & co");
    assert_int_equal(json_array_size(json_object_get(q, "p")), 1);
    const char *uri = json_string_value(json_object_get(pictures, "0"));
    assert_int_equal(strncmp(uri, "data:image/png;base64,", 22), 0);
    // Nothing is loaded from anywhere, and no text of the data opens or closes an element.
    assert_null(strstr(page.data, "http"));
    assert_null(strstr(page.data, "src=\""));
    assert_null(strstr(page.data, "@DATA@"));
    assert_null(strstr(page.data, "<b>A"));
    json_decref(report);
    json_decref(pictures);
    json_decref(data);
    mm_buf_free(&page);
    mm_compare_free(&c);
    free(path);
}

static void test_page(void **state) {
    (void)state;
    check_page(0, 6, 2);
    check_page(3, 3 + 2, 2);  // of SEED's four, failures first, and POPE's two
}

static void test_published(void **state) {
    (void)state;
    const char *t = mm_embedded_published;
    assert_int_equal(mm_published_rows(t), 17);
    assert_int_equal(mm_published_columns(t), 14);
    static const char *const names[] = {"mme",   "mmbench", "pope", "seed", "mmmu",
                                        "mmvet", "textvqa", "sqa",  "gqa"};
    for (int i = 0; i < 9; i++) {
        assert_int_equal(mm_published_find(t, names[i]), 5 + i);
    }
    assert_true(mm_str_is(mm_published_cell(t, 16, 13), "59.3"));
    assert_true(mm_str_is(mm_published_cell(t, 1, 5), ""));
    assert_int_equal(mm_published_rows(mm_embedded_published_speed), 8);
    assert_true(mm_str_is(mm_published_cell(mm_embedded_published_speed, 7, 7), "1.90"));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_intervals), cmocka_unit_test(test_groups),
        cmocka_unit_test(test_tables),    cmocka_unit_test(test_refusals),
        cmocka_unit_test(test_page),      cmocka_unit_test(test_published),
    };
    return cmocka_run_group_tests(tests, make, clear);
}
