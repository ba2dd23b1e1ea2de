// Whole files of the spec's corner cases, scored to the last digit: tables with quotes, line ends
// inside cells, missing options, linked pictures and rows without any. tests/golden/eval/cases
// holds them; the expected scores come from a reckoning with pandas and the xlsx round trip,
// written from the same rules by other hands than the program.
#include "cmocka_all.h"
#include "scratch.h"

#include <math.h>
#include <stdlib.h>
#include <string.h>
#include "base/log.h"
#include "eval/score.h"
#include "io/file.h"
#include "io/json.h"

#define FOLDER "tests/golden/eval/cases/"
static struct mm_error err;

static int begin(void **state) {
    mm_log_set_level(mm_log_level_error);
    return scratch_make(state);
}

static json_t *load(const char *name) {
    char *path = mm_xasprintf(FOLDER "%s.json", name);
    json_t *root = NULL;
    if (mm_json_load(&root, path, &err) != mm_code_ok) fail_msg("%s", err.text);
    free(path);
    return root;
}

static void same(const char *bench, const char *name, double got, double wanted) {
    if (got == wanted) return;
    fail_msg("%s: %s is %.17g, must be %.17g", bench, name, got, wanted);
}

// The lines of a file from the last to the first.
static char *turned(const char *path) {
    struct mm_buf text = {0}, out = {0};
    if (mm_file_read(&text, path, 1 << 24, &err) != mm_code_ok) fail_msg("%s", err.text);
    for (size_t end = text.len; end > 0;) {
        size_t begin = end - 1;
        while (begin > 0 && text.data[begin - 1] != '\n')
            begin--;
        mm_buf_add(&out, text.data + begin, end - begin);
        if (out.data[out.len - 1] != '\n') mm_buf_adds(&out, "\n");
        end = begin;
    }
    char *other = mm_path_join(folder, "turned.jsonl");
    if (mm_file_write(other, out.data, out.len, &err) != mm_code_ok) fail_msg("%s", err.text);
    mm_buf_free(&text);
    mm_buf_free(&out);
    return other;
}

// sort_room: 0 as usual, 1 sorts through files.
static void check(const char *name, bool other_order, size_t sort_room) {
    const struct mm_bench *bench;
    assert_int_equal(mm_bench_find(&bench, name, &err), mm_code_ok);
    char *data = mm_xasprintf(FOLDER "%s.tsv", name);
    char *said = mm_xasprintf(FOLDER "%s.jsonl", name);
    char *other = turned(said);
    const char *const files[] = {other_order ? other : said, NULL};
    struct mm_outcomes outcomes = {0};
    const struct mm_score_job job = {.bench = bench,
                                     .data = data,
                                     .predictions = files,
                                     .sort_room = sort_room,
                                     .outcomes = &outcomes};
    struct mm_report r;
    if (mm_score_run(&job, &r, &err) != mm_code_ok) fail_msg("%s", err.text);

    json_t *wanted = load(name), *scores = json_object_get(wanted, "scores"), *v;
    const char *key;
    same(name, "headline", r.headline, json_real_value(json_object_get(wanted, "headline")));
    json_object_foreach(scores, key, v) {
        same(name, key, mm_report_get(&r, key), json_number_value(v));
    }
    assert_int_equal(r.n_scores, json_object_size(scores));
    assert_int_equal(r.unresolved, json_integer_value(json_object_get(wanted, "unresolved")));
    assert_int_equal(r.missing_images,
                     json_integer_value(json_object_get(wanted, "missing_images")));
    assert_int_equal(r.questions, json_integer_value(json_object_get(wanted, "questions")));
    assert_int_equal(r.unanswered, 0);
    json_decref(wanted);

    // The parts that intervals are drawn from make the same headline.
    double(*sums)[mm_outcome_values] =
        mm_xcalloc((size_t)outcomes.groups.n, sizeof(double[mm_outcome_values]));
    for (int64_t i = 0; i < outcomes.keys.n; i++) {
        for (int k = 0; k < mm_outcome_values; k++) {
            sums[outcomes.group[i]][k] += outcomes.value[i][k];
        }
    }
    const double again = bench->combine(&outcomes, (const double(*)[mm_outcome_values])sums);
    assert_true(fabs(again - r.headline) < 1e-9);
    free(sums);
    mm_outcomes_free(&outcomes);
    mm_report_free(&r);
    free(data);
    free(said);
    free(other);
}

static void test_cases(void **state) {
    (void)state;
    static const char *const names[] = {"sqa", "seed", "mmmu", "mmbench", "textvqa", "mme"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        for (int k = 0; k < 4; k++) {
            check(names[i], k & 1, (size_t)(k >> 1));
        }
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {cmocka_unit_test(test_cases)};
    return cmocka_run_group_tests(tests, begin, scratch_remove);
}
