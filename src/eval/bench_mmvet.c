// MM-Vet: free answers, graded 0..1 by a judge outside of this program. Here its grades are added
// up as VLMEvalKit's MMVet_acc does. That keeps capabilities and combinations of them in one
// table, so a question whose category is one capability alone counts twice in it.
#include <stdlib.h>
#include "base/log.h"
#include "eval/judge.h"
#include "eval/prompt.h"
#include "eval/questions.h"

static const char *const capabilities[] = {"rec", "ocr", "know", "gen", "spat", "math"};
enum { n_capabilities = 6 };

struct mmvet {
    const struct mm_questions *all;
    struct mm_judge judge;
    struct mm_names groups;
    double *sum;  // (groups.n)
    int64_t *n;
    int64_t group_cap;
    double sum_all;
    int64_t n_all;
    struct mm_buf key;
};

static enum mm_code begin(void **state, const struct mm_questions *all, const struct mm_report *r,
                          struct mm_error *err) {
    struct mmvet *m = mm_xcalloc(1, sizeof *m);
    m->all = all;
    *state = m;
    return mm_judge_read(&m->judge, r->judge_path, mm_judge_kind_grades, all, err);
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
    double grade;
    bool judged;
    MM_TRY(mm_judge_grade(&m->judge, q, &judged, &grade, err));
    if (!judged) return mm_report_unresolved(r, q, prediction, err);
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
    if (r->unresolved) {
        mm_warn(
            "MM-Vet: %lld answers have no grade and are left out of the scores; where the judge "
            "gave up, the kit counts 0",
            (long long)r->unresolved);
    }
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
    mm_judge_free(&m->judge);
    mm_names_free(&m->groups);
    mm_buf_free(&m->key);
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
