// Scoring a file of predictions.
#include "eval/score.h"

#include <stdlib.h>
#include "base/log.h"
#include "eval/indexes.h"
#include "eval/questions.h"
#include "io/file.h"
#include "io/json.h"

struct scoring {
    const struct mm_score_job *job;
    char who[64];  // "<model>: ", or nothing
    struct mm_questions questions;
    struct mm_predictions predictions;
    struct mm_indexes indexes;
    struct mm_sorter *keys;
    void *state;
    struct mm_report *report;
};

// VLMEvalKit writes its results to an xlsx file and reads them back before it scores: a prediction
// that looks like a missing value becomes "nan".
static struct mm_str read_back(const struct scoring *s, struct mm_str prediction) {
    if (s->questions.kit || s->job->bench == &mm_bench_gqa) return prediction;
    return mm_tsv_is_missing(prediction, s->job->pandas1) ? mm_str_of("nan") : prediction;
}

static enum mm_code score_all(struct scoring *s, struct mm_error *err) {
    const struct mm_bench *bench = s->job->bench;
    struct mm_report *r = s->report;
    struct mm_question q;
    struct mm_prediction p;
    for (;;) {
        bool end;
        MM_TRY(mm_questions_next(&s->questions, &q, &end, err));
        if (end) break;
        MM_TRY(mm_indexes_add(&s->indexes, &q, err));
        MM_TRY(mm_predictions_find(&s->predictions, &q, &p, err));
        r->verdict = (struct mm_verdict){0};
        if (!p.found || p.missing_image) {
            r->unanswered += !p.found;
            r->missing_images += p.found;
            if (bench->skip) MM_TRY(bench->skip(s->state, &q, err));
        } else {
            MM_TRY(bench->add(s->state, &q, read_back(s, p.text), r, err));
            r->questions++;
        }
        const struct mm_score_listener *l = s->job->listener;
        if (l) MM_TRY(l->heard(l->arg, &q, &p, &r->verdict, err));
    }
    MM_TRY(mm_indexes_check(&s->indexes, err));
    if (!s->job->limit) MM_TRY(mm_predictions_end(&s->predictions, err));
    if (r->questions == 0) {
        return mm_fail(err, mm_code_input, "%s: has no prediction for a question of %s",
                       s->job->predictions[0], s->job->data);
    }
    if (r->unanswered) {
        mm_warn("%s%lld questions of %s have no prediction and are left out of the scores", s->who,
                (long long)r->unanswered, s->job->data);
    }
    r->missing_images += s->questions.n_dropped;
    if (r->missing_images) {
        mm_warn("%s%lld questions of %s had no picture and are left out of the scores", s->who,
                (long long)r->missing_images, s->job->data);
    }
    return bench->end(s->state, r, err);
}

static enum mm_code open_all(struct scoring *s, struct mm_error *err) {
    const struct mm_score_job *job = s->job;
    MM_TRY(mm_questions_open(&s->questions, job->bench, job->data, job->pandas1, mm_tsv_form_result,
                             job->limit, err));
    s->questions.partial = s->questions.partial || job->partial;
    s->questions.sort_room = job->sort_room;
    s->questions.keys = &s->keys;
    s->indexes.all = &s->questions;
    MM_TRY(mm_predictions_open(&s->predictions, job->predictions, &s->questions, err));
    MM_TRY(job->bench->begin(&s->state, &s->questions, s->report, err));
    return score_all(s, err);
}

enum mm_code mm_score_run(const struct mm_score_job *job, struct mm_report *r,
                          struct mm_error *err) {
    *r = (struct mm_report){
        .bench = job->bench->name, .judge_path = job->judge, .outcomes = job->outcomes};
    const double start = mm_now();
    if (job->unresolved) {
        r->unresolved_to = fopen(job->unresolved, "we");
        if (!r->unresolved_to) return mm_fail_errno(err, "%s: cannot be written", job->unresolved);
    }
    struct scoring s = {.job = job, .report = r};
    if (job->model) snprintf(s.who, sizeof s.who, "%.60s: ", job->model);
    enum mm_code code = open_all(&s, err);
    job->bench->release(s.state);
    mm_predictions_close(&s.predictions);
    mm_indexes_free(&s.indexes);
    mm_sorter_free(s.keys);
    mm_questions_close(&s.questions);
    if (r->unresolved_to && fclose(r->unresolved_to) != 0 && code == mm_code_ok) {
        code = mm_fail_errno(err, "%s: cannot be written", job->unresolved);
    }
    r->unresolved_to = NULL;
    r->seconds = mm_now() - start;
    if (code != mm_code_ok) mm_report_free(r);
    return code;
}

// ---- export ----

// A cell that pandas reads back as it was.
static void add_cell(struct mm_buf *out, struct mm_str s, char then) {
    const bool plain = !s.n || (!memchr(s.s, '\t', s.n) && !memchr(s.s, '\n', s.n) &&
                                !memchr(s.s, '\r', s.n) && !memchr(s.s, '"', s.n));
    if (!plain) mm_buf_add(out, "\"", 1);
    for (size_t i = 0; i < s.n; i++) {
        if (s.s[i] == '"') mm_buf_add(out, "\"", 1);
        mm_buf_add(out, &s.s[i], 1);
    }
    if (!plain) mm_buf_add(out, "\"", 1);
    mm_buf_add(out, &then, 1);
}

// {"v1_<index>": answer}, as the benchmark's own evaluator takes it.
static void add_answer(struct mm_buf *out, const struct mm_question *q, struct mm_str answer) {
    char *key = mm_xasprintf("v1_%.*s", (int)q->index.n, q->index.s);
    mm_json_add_string(out, key, strlen(key));
    free(key);
    mm_buf_adds(out, ": ");
    mm_json_add_string(out, answer.n ? answer.s : "", answer.n);
}

static enum mm_code export_all(struct scoring *s, bool json, struct mm_outfile *f,
                               struct mm_buf *out, struct mm_error *err) {
    struct mm_question q;
    struct mm_prediction p;
    mm_buf_adds(out, json ? "{\n" : "index\tquestion\tanswer\tcategory\tprediction\n");
    for (bool any = false;;) {
        bool end;
        MM_TRY(mm_questions_next(&s->questions, &q, &end, err));
        if (end) break;
        MM_TRY(mm_predictions_find(&s->predictions, &q, &p, err));
        if (!p.found || p.missing_image) continue;
        if (json) {
            mm_buf_adds(out, any ? ",\n" : "");
            add_answer(out, &q, p.text);
        } else {
            add_cell(out, q.index, '\t');
            add_cell(out, q.text, '\t');
            add_cell(out, q.answer, '\t');
            add_cell(out, q.category, '\t');
            add_cell(out, p.text, '\n');
        }
        any = true;
        if (out->len < 1 << 16) continue;
        MM_TRY(mm_outfile_write(f, out->data, out->len, err));
        mm_buf_reset(out);
    }
    if (json) mm_buf_adds(out, "\n}\n");
    return mm_outfile_write(f, out->data, out->len, err);
}

enum mm_code mm_score_export(const struct mm_score_job *job, const char *path,
                             struct mm_error *err) {
    struct scoring s = {.job = job};
    struct mm_buf out = {0};
    struct mm_outfile *f = NULL;
    const size_t n = strlen(path);
    const bool json = n > 5 && !strcmp(path + n - 5, ".json");
    enum mm_code code = mm_questions_open(&s.questions, job->bench, job->data, job->pandas1,
                                          mm_tsv_form_table, job->limit, err);
    if (code == mm_code_ok) {
        code = mm_predictions_open(&s.predictions, job->predictions, &s.questions, err);
    }
    if (code == mm_code_ok) code = mm_outfile_open(&f, path, err);
    if (code == mm_code_ok) code = export_all(&s, json, f, &out, err);
    if (code == mm_code_ok) {
        code = mm_outfile_commit(f, err);
    } else {
        mm_outfile_abort(f);
    }
    mm_predictions_close(&s.predictions);
    mm_questions_close(&s.questions);
    mm_buf_free(&out);
    return code;
}
