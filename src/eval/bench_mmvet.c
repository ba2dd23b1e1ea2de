// MM-Vet: free answers, graded 0..1 by a judge outside of this program. Here its grades are added
// up as VLMEvalKit's MMVet_acc does. That keeps capabilities and combinations of them in one
// table, so a question whose category is one capability alone counts twice in it.
#include <stdlib.h>
#include "eval/names.h"
#include "eval/prompt.h"
#include "eval/questions.h"

static const char *const capabilities[] = {"rec", "ocr", "know", "gen", "spat", "math"};
enum { n_capabilities = 6 };

struct mmvet {
    const struct mm_questions *all;
    struct mm_names graded;  // indexes that the judge's file has
    double *grade;           // (graded.n)
    int64_t cap;
    struct mm_names groups;
    double *sum;  // (groups.n)
    int64_t *n;
    int64_t group_cap;
    double sum_all;
    int64_t n_all;
    struct mm_buf key;
};

static enum mm_code add_grade(struct mmvet *m, struct mm_str index, double grade, const char *where,
                              int64_t line, struct mm_error *err) {
    if (!(grade >= 0 && grade <= 1)) {
        return mm_fail(err, mm_code_input, "%s: line %lld: score is %g, must be from 0 to 1", where,
                       (long long)line, grade);
    }
    const int64_t before = m->graded.n;
    if (mm_names_add(&m->graded, index) != before) {
        return mm_fail(err, mm_code_input, "%s: line %lld: index '%.*s' has been graded before",
                       where, (long long)line, (int)index.n, index.s);
    }
    if (before == m->cap) {
        m->cap = m->cap ? 2 * m->cap : 256;
        m->grade = mm_xrealloc(m->grade, (size_t)m->cap * sizeof *m->grade);
    }
    m->grade[before] = grade;
    return mm_code_ok;
}

static enum mm_code read_judge_lines(struct mmvet *m, struct mm_jsonl *file, struct mm_error *err) {
    for (;;) {
        json_t *o;
        char room[24];
        struct mm_str index;
        MM_TRY(mm_jsonl_next(file, &o, err));
        if (!o) return mm_code_ok;
        enum mm_code code = mm_jsonl_index(file, o, "index", room, &index, err);
        const json_t *v = json_object_get(o, "score");
        if (code == mm_code_ok && !json_is_number(v)) {
            code = mm_jsonl_wrong(file, o, "score", "a number from 0 to 1", err);
        }
        if (code == mm_code_ok) {
            code = add_grade(m, index, json_number_value(v), file->path, file->line, err);
        }
        json_decref(o);
        MM_TRY(code);
    }
}

static enum mm_code read_judge_table(struct mmvet *m, const struct mm_tsv *t,
                                     struct mm_tsv_row *row, struct mm_error *err) {
    const int index = mm_tsv_find(t, "index"), score = mm_tsv_find(t, "score");
    if (index < 0 || score < 0) {
        return mm_fail(err, mm_code_input, "%s: line 1: there is no column '%s'", t->path,
                       index < 0 ? "index" : "score");
    }
    for (int64_t i = 0; i < t->n_rows; i++) {
        mm_tsv_row_load(row, i);
        const struct mm_str key = mm_tsv_cell(row, index, mm_tsv_form_table);
        const struct mm_str text = mm_tsv_cell(row, score, mm_tsv_form_table);
        char *end = NULL, *copy = mm_xasprintf("%.*s", (int)text.n, text.s ? text.s : "");
        const double grade = strtod(copy, &end);
        const bool bad = end == copy || *end;
        free(copy);
        if (!key.s) return mm_tsv_wrong(t, i, "index", err, "is missing");
        if (bad) return mm_tsv_wrong(t, i, "score", err, "must be a number from 0 to 1");
        MM_TRY(add_grade(m, key, grade, t->path, mm_tsv_line(t, i), err));
    }
    return mm_code_ok;
}

// JSON lines, or a table with the columns index and score.
static enum mm_code read_judge(struct mmvet *m, const char *path, struct mm_error *err) {
    struct mm_jsonl file;
    MM_TRY(mm_jsonl_open(&file, path, err));
    const bool json = file.map.bytes > 0 && file.map.data[0] == '{';
    enum mm_code code = mm_code_ok;
    if (json) code = read_judge_lines(m, &file, err);
    mm_jsonl_close(&file);
    if (json || code != mm_code_ok) return code;
    struct mm_tsv table;
    struct mm_tsv_row row;
    MM_TRY(mm_tsv_open(&table, path, false, err));
    mm_tsv_row_init(&row, &table);
    code = read_judge_table(m, &table, &row, err);
    mm_tsv_row_deinit(&row);
    mm_tsv_close(&table);
    return code;
}

static enum mm_code begin(void **state, const struct mm_questions *all, const struct mm_report *r,
                          struct mm_error *err) {
    struct mmvet *m = mm_xcalloc(1, sizeof *m);
    m->all = all;
    *state = m;
    return r->judge_path ? read_judge(m, r->judge_path, err) : mm_code_ok;
}

static void count(struct mmvet *m, struct mm_str group, double grade) {
    const int64_t number = mm_names_add(&m->groups, group);
    if (m->groups.n > m->group_cap) {
        const int64_t cap = m->group_cap ? 2 * m->group_cap : 64;
        const size_t more = (size_t)(cap - m->group_cap);
        m->sum = mm_xrealloc(m->sum, (size_t)cap * sizeof *m->sum);
        m->n = mm_xrealloc(m->n, (size_t)cap * sizeof *m->n);
        memset(m->sum + m->group_cap, 0, more * sizeof *m->sum);
        memset(m->n + m->group_cap, 0, more * sizeof *m->n);
        m->group_cap = cap;
    }
    m->sum[number] += grade;
    m->n[number]++;
}

static enum mm_code add(void *state, const struct mm_question *q, struct mm_str prediction,
                        struct mm_report *r, struct mm_error *err) {
    struct mmvet *m = state;
    if (!q->category.s) return mm_questions_wrong(m->all, "category", err, "is missing");
    const int64_t number = mm_names_find(&m->graded, q->index);
    if (number < 0) return mm_report_unresolved(r, q, prediction, err);
    const double grade = m->grade[number];
    const double value[mm_outcome_values] = {grade, 1};
    mm_outcomes_add(r->outcomes, q->index, mm_str_of(""), value);
    mm_report_verdict(r, grade, mm_str_of(""));
    for (int i = 0; i < n_capabilities; i++) {
        const struct mm_str c = mm_str_of(capabilities[i]);
        if (mm_str_contains(q->category, c)) count(m, c, grade);
    }
    mm_buf_reset(&m->key);
    mm_buf_add(&m->key, q->category.s, q->category.n);
    for (size_t i = 0; i < m->key.len; i++) {
        if (m->key.data[i] == ',') m->key.data[i] = '_';
    }
    count(m, (struct mm_str){m->key.data, m->key.len}, grade);
    m->sum_all += grade;
    m->n_all++;
    return mm_code_ok;
}

static bool is_capability(struct mm_str name) {
    for (int i = 0; i < n_capabilities; i++) {
        if (mm_str_is(name, capabilities[i])) return true;
    }
    return false;
}

static enum mm_code end(void *state, struct mm_report *r, struct mm_error *err) {
    (void)err;
    struct mmvet *m = state;
    if (m->n_all == 0) return mm_code_ok;
    const double overall = m->sum_all / (double)m->n_all * 100;
    mm_report_headline(r, overall);
    mm_report_add(r, overall, "Overall");
    for (int i = 0; i < n_capabilities; i++) {
        const int64_t g = mm_names_find(&m->groups, mm_str_of(capabilities[i]));
        if (g >= 0) mm_report_add(r, m->sum[g] / (double)m->n[g] * 100, "%s", capabilities[i]);
    }
    for (int64_t g = 0; g < m->groups.n; g++) {
        const struct mm_str name = mm_names_get(&m->groups, g);
        if (!is_capability(name)) mm_report_add(r, m->sum[g] / (double)m->n[g] * 100, "%s", name.s);
    }
    return mm_code_ok;
}

static void release(void *state) {
    struct mmvet *m = state;
    if (!m) return;
    mm_names_free(&m->graded);
    mm_names_free(&m->groups);
    mm_buf_free(&m->key);
    free(m->grade);
    free(m->sum);
    free(m->n);
    free(m);
}

const struct mm_bench mm_bench_mmvet = {
    .name = "mmvet",
    .title = "MM-Vet",
    .max_new_tokens = {1024, 0},
    .max_tiles = 6,
    .prompt = mm_prompt_bare,
    .begin = begin,
    .add = add,
    .end = end,
    .release = release,
    .combine = mm_outcomes_mean,
};
