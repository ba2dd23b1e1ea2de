// TextVQA: ten people's answers; of the others, three must say the same.
#include <stdlib.h>
#include "base/log.h"
#include "eval/prompt.h"
#include "eval/pylist.h"
#include "eval/questions.h"
#include "eval/spool.h"

enum { leaf = 128 };

struct textvqa {
    const struct mm_questions *all;
    struct mm_normalizer room;
    struct mm_pylist answers;
    struct mm_buf wanted;    // their normal forms, one behind the other
    struct mm_spool scores;  // of the rows, in their order
    int64_t n;
    int64_t n_empty;  // questions whose list of answers is empty
};

// ---- the mean, as numpy reckons it to the bit ----

// Up to 128 numbers: eight sums side by side. Longer ones in halves.
static double sum_of(const double *v, int64_t n) {
    if (n < 8) {
        double s = n ? v[0] : 0.0;
        for (int64_t i = 1; i < n; i++)
            s += v[i];
        return s;
    }
    if (n > leaf) {
        const int64_t half = n / 2 - n / 2 % 8;
        return sum_of(v, half) + sum_of(v + half, n - half);
    }
    double s[8];
    memcpy(s, v, sizeof s);
    int64_t i = 8;
    for (; i + 8 <= n; i += 8) {
        for (int k = 0; k < 8; k++)
            s[k] += v[i + k];
    }
    double sum = ((s[0] + s[1]) + (s[2] + s[3])) + ((s[4] + s[5]) + (s[6] + s[7]));
    for (; i < n; i++)
        sum += v[i];
    return sum;
}

// The same over the rows: their order decides the last bit, and their number, which is not known
// before the end, where the halves begin.
static enum mm_code sum_rows(const struct textvqa *t, int64_t from, int64_t n, double *sum,
                             struct mm_error *err) {
    if (n > leaf) {
        const int64_t half = n / 2 - n / 2 % 8;
        double right;
        MM_TRY(sum_rows(t, from, half, sum, err));
        MM_TRY(sum_rows(t, from + half, n - half, &right, err));
        *sum += right;
        return mm_code_ok;
    }
    double v[leaf];
    const int64_t bytes = (int64_t)sizeof *v;
    MM_TRY(mm_spool_read(&t->scores, from * bytes, v, (size_t)(n * bytes), err));
    *sum = sum_of(v, n);
    return mm_code_ok;
}

static enum mm_code begin(void **state, const struct mm_questions *all, const struct mm_report *r,
                          struct mm_error *err) {
    (void)r;
    (void)err;
    struct textvqa *t = mm_xcalloc(1, sizeof *t);
    t->all = all;
    *state = t;
    return mm_code_ok;
}

static double score_of(struct textvqa *t, struct mm_str prediction) {
    enum { few = 64 };
    double few_scores[few], *score = few_scores;
    const int64_t n = t->answers.n;
    int64_t *end = mm_xmalloc(((size_t)n + 1) * sizeof *end);
    if (n > few) score = mm_xmalloc((size_t)n * sizeof *score);
    mm_buf_reset(&t->wanted);
    for (int64_t i = 0; i < n; i++) {
        const struct mm_str w = mm_process_answer(&t->room, mm_pylist_get(&t->answers, i));
        mm_buf_add(&t->wanted, w.s, w.n);
        end[i] = (int64_t)t->wanted.len;
    }
    const struct mm_str said = mm_process_answer(&t->room, prediction);
    int64_t same = 0;
    for (int64_t i = 0, begin_at = 0; i < n; begin_at = end[i++]) {
        const struct mm_str w = {t->wanted.data ? t->wanted.data + begin_at : "",
                                 (size_t)(end[i] - begin_at)};
        score[i] = mm_str_equal(w, said);
        same += mm_str_equal(w, said);
    }
    for (int64_t i = 0; i < n; i++) {
        const double others = (double)(same - (score[i] > 0 ? 1 : 0)) / 3.0;
        score[i] = others < 1.0 ? others : 1.0;
    }
    const double mean = sum_of(score, n) / (double)n;
    if (score != few_scores) free(score);
    free(end);
    return mean;
}

static enum mm_code add(void *state, const struct mm_question *q, struct mm_str prediction,
                        struct mm_report *r, struct mm_error *err) {
    struct textvqa *t = state;
    if (!q->answer.s) return mm_questions_wrong(t->all, "answer", err, "is missing");
    if (!mm_pylist_read(&t->answers, q->answer)) {
        // Anything else is one answer; nobody can agree with it.
        mm_pylist_free(&t->answers);
        t->answers.end = mm_xmalloc(sizeof *t->answers.end);
        t->answers.cap = t->answers.n = 1;
        mm_buf_add(&t->answers.text, q->answer.s, q->answer.n);
        t->answers.end[0] = q->answer.n;
    }
    t->n_empty += t->answers.n == 0;
    const double score = t->answers.n ? score_of(t, prediction) : 0.0;
    const double value[mm_outcome_values] = {score, 1};
    mm_outcomes_add(r->outcomes, q->index, mm_str_of(""), value);
    mm_report_verdict(r, score, mm_process_answer(&t->room, prediction));
    t->n++;
    return mm_spool_add(&t->scores, &score, sizeof score, err);
}

static enum mm_code end(void *state, struct mm_report *r, struct mm_error *err) {
    struct textvqa *t = state;
    if (t->n_empty) {
        mm_warn("%lld questions have an empty list of answers; they count as wrong",
                (long long)t->n_empty);
    }
    if (t->n == 0) return mm_code_ok;
    double sum;
    MM_TRY(sum_rows(t, 0, t->n, &sum, err));
    const double overall = sum / (double)t->n * 100;
    mm_report_headline(r, overall);
    mm_report_add(r, overall, "Overall");
    return mm_code_ok;
}

static void release(void *state) {
    struct textvqa *t = state;
    if (!t) return;
    mm_normalizer_deinit(&t->room);
    mm_pylist_free(&t->answers);
    mm_buf_free(&t->wanted);
    mm_spool_close(&t->scores);
    free(t);
}

const struct mm_bench mm_bench_textvqa = {
    .name = "textvqa",
    .title = "TextVQA",
    .max_new_tokens = {1024, 0},
    .max_tiles = 6,
    .prompt = mm_prompt_vqa,
    .begin = begin,
    .add = add,
    .end = end,
    .release = release,
    .combine = mm_outcomes_mean,
};
