// POPE: is there a thing in the picture. As a TSV it is scored as VLMEvalKit does (an unreadable
// answer is not "yes"; the headline is the F1 of all rows); as the InternVL kit's files as that kit
// does (any answer is yes or no; labels belong to answers by their order within a category; the
// headline is the mean of the three categories' F1).
#include <stdlib.h>
#include "base/log.h"
#include "eval/judge.h"
#include "eval/prompt.h"
#include "eval/questions.h"
#include "io/file.h"

struct counts {
    int64_t tp, fp, fn, tn;
    int64_t n, right;   // TSV: rows, and rows whose answer is exactly the label
    int64_t said, yes;  // predictions, labelled or not; those that are yes
};

enum { n_kinds = 3 };
static const char *const kinds[n_kinds] = {"adversarial", "popular", "random"};

struct pope {
    const struct mm_questions *all;
    struct mm_normalizer room;
    struct mm_judge judge;
    struct mm_names names;
    struct counts *counts;  // (names.n) by category
    int64_t cap;
    struct counts pool;
    struct mm_jsonl labels[n_kinds];  // kit: the next line of each belongs to the next answer
};

static enum mm_code open_labels(struct pope *p, int kind, struct mm_error *err) {
    char *name = mm_xasprintf("coco_pope_%s.json", kinds[kind]);
    char *path = mm_path_join(p->all->path, name);
    const enum mm_code code = mm_jsonl_open(&p->labels[kind], path, err);
    free(path);
    free(name);
    return code;
}

// The next label of a category; *any is false behind the last.
static enum mm_code next_label(struct pope *p, int kind, bool *any, bool *yes,
                               struct mm_error *err) {
    json_t *o;
    struct mm_str label;
    MM_TRY(mm_jsonl_next(&p->labels[kind], &o, err));
    *any = o;
    if (!o) return mm_code_ok;
    const enum mm_code code = mm_jsonl_text(&p->labels[kind], o, "label", true, &label, err);
    if (code == mm_code_ok) *yes = !mm_str_is(label, "no");
    json_decref(o);
    return code;
}

static enum mm_code begin(void **state, const struct mm_questions *all, const struct mm_report *r,
                          struct mm_error *err) {
    struct pope *p = mm_xcalloc(1, sizeof *p);
    p->all = all;
    *state = p;
    if (all->kit && r->judge_path) {
        return mm_fail(err, mm_code_usage,
                       "--judge has no effect here: by InternVL's rule every answer is yes or no");
    }
    MM_TRY(mm_judge_read(&p->judge, r->judge_path, mm_judge_kind_replies, all, err));
    for (int k = 0; k < n_kinds && all->kit; k++) {
        MM_TRY(open_labels(p, k, err));
    }
    return mm_code_ok;
}

static struct counts *counts_of(struct pope *p, struct mm_str name) {
    const int64_t number = mm_names_add(&p->names, name);
    if (p->names.n > p->cap) {
        const int64_t cap = p->cap ? 2 * p->cap : 16;
        p->counts = mm_xrealloc(p->counts, (size_t)cap * sizeof *p->counts);
        memset(p->counts + p->cap, 0, (size_t)(cap - p->cap) * sizeof *p->counts);
        p->cap = cap;
    }
    return &p->counts[number];
}

static void count(struct counts *c, bool label, bool said, bool right) {
    c->tp += label && said;
    c->fp += !label && said;
    c->fn += label && !said;
    c->tn += !label && !said;
    c->n++;
    c->right += right;
    c->said++;
    c->yes += said;
}

static void add_outcome(struct mm_report *r, struct mm_str key, struct mm_str group, bool label,
                        bool said) {
    const double value[mm_outcome_values] = {label && said, !label && said, label && !said, 1};
    mm_outcomes_add(r->outcomes, key, group, value);
}

static enum mm_code add_row(struct pope *p, const struct mm_question *q, struct mm_str prediction,
                            struct mm_report *r, struct mm_error *err) {
    enum mm_yes_no said = mm_yorn_extract(&p->room, prediction);
    struct mm_str reply = {NULL, 0};
    if (said == mm_yes_no_unknown) MM_TRY(mm_judge_reply(&p->judge, q, &reply, err));
    if (reply.s) said = mm_yorn_extract(&p->room, reply);
    const char *text = said == mm_yes_no_yes ? "Yes" : said == mm_yes_no_no ? "No" : "Unknown";
    if (said == mm_yes_no_unknown) MM_TRY(mm_report_unresolved(r, q, prediction, err));
    const bool label = q->answer.s && mm_str_is(q->answer, "Yes");
    const bool right = q->answer.s && mm_str_is(q->answer, text);
    mm_report_verdict(r, right, said == mm_yes_no_unknown ? mm_str_of("") : mm_str_of(text));
    // A row of several categories counts in each of them, and as often in all.
    struct mm_str rest = q->category;
    do {
        const char *comma = rest.n ? memchr(rest.s, ',', rest.n) : NULL;
        const struct mm_str part = {rest.s, comma ? (size_t)(comma - rest.s) : rest.n};
        if (part.s) count(counts_of(p, part), label, said == mm_yes_no_yes, right);
        count(&p->pool, label, said == mm_yes_no_yes, right);
        add_outcome(r, q->index, mm_str_of("all"), label, said == mm_yes_no_yes);
        rest = comma ? (struct mm_str){comma + 1, rest.n - part.n - 1} : (struct mm_str){NULL, 0};
    } while (rest.s);
    return mm_code_ok;
}

static enum mm_code add_line(struct pope *p, const struct mm_question *q, struct mm_str prediction,
                             struct mm_report *r, struct mm_error *err) {
    int kind = 0;
    while (kind < n_kinds && !mm_str_is(q->category, kinds[kind]))
        kind++;
    if (kind == n_kinds) {
        return mm_questions_wrong(p->all, "category", err,
                                  "must be adversarial, popular or random");
    }
    struct counts *c = counts_of(p, q->category);
    const bool said = mm_pope_extract(prediction) == mm_yes_no_yes;
    bool any, label = false;
    MM_TRY(next_label(p, kind, &any, &label, err));
    if (any) {
        count(c, label, said, label == said);
        count(&p->pool, label, said, label == said);
        add_outcome(r, q->index, q->category, label, said);
        mm_report_verdict(r, label == said, mm_str_of(said ? "yes" : "no"));
        mm_report_wanted(r, mm_str_of(label ? "yes" : "no"));
    } else {  // more questions than labels: only the yes ratio hears of them
        c->said++;
        c->yes += said;
        p->pool.said++;
        p->pool.yes += said;
    }
    return mm_code_ok;
}

static enum mm_code add(void *state, const struct mm_question *q, struct mm_str prediction,
                        struct mm_report *r, struct mm_error *err) {
    struct pope *p = state;
    return p->all->kit ? add_line(p, q, prediction, r, err) : add_row(p, q, prediction, r, err);
}

static double part(int64_t a, int64_t b) {
    return b ? (double)a / (double)b : 0.0;
}

static double f1_of(const struct counts *c) {
    const double precision = part(c->tp, c->tp + c->fp), recall = part(c->tp, c->tp + c->fn);
    return precision + recall > 0 ? 2 * precision * recall / (precision + recall) : 0.0;
}

// The mean of the groups' F1: one group where the file is a TSV, three where it is the kit's.
static double combine(const struct mm_outcomes *o, const double (*sums)[mm_outcome_values]) {
    double sum = 0;
    int64_t n = 0;
    for (int64_t g = 0; g < o->groups.n; g++) {
        const struct counts c = {
            .tp = (int64_t)sums[g][0], .fp = (int64_t)sums[g][1], .fn = (int64_t)sums[g][2]};
        if (sums[g][3] <= 0) continue;
        sum += f1_of(&c);
        n++;
    }
    return 100 * (sum / (double)n);
}

static void report(const struct counts *c, const char *name, struct mm_report *r) {
    if (c->tp == 0) {
        mm_warn("POPE: %s: no yes that is right; precision, recall and F1 are put down as 0", name);
    }
    mm_report_add(r, 100 * part(c->right, c->n), "%s/Accuracy", name);
    mm_report_add(r, 100 * part(c->tp, c->tp + c->fp), "%s/Precision", name);
    mm_report_add(r, 100 * part(c->tp, c->tp + c->fn), "%s/Recall", name);
    mm_report_add(r, 100 * f1_of(c), "%s/F1 score", name);
    mm_report_add(r, 100 * part(c->yes, c->said), "%s/Yes ratio", name);
}

static enum mm_code end(void *state, struct mm_report *r, struct mm_error *err) {
    struct pope *p = state;
    double sum = 0;
    for (int k = 0; k < n_kinds && p->all->kit;
         k++) {  // those that nobody needed must be sound, too
        for (bool any = true, yes; any;)
            MM_TRY(next_label(p, k, &any, &yes, err));
    }
    int64_t n = 0;
    int64_t *order = mm_names_sorted(&p->names);
    for (int64_t i = 0; i < p->names.n; i++) {
        const struct counts *c = &p->counts[order[i]];
        report(c, mm_names_get(&p->names, order[i]).s, r);
        sum += f1_of(c);
        n++;
    }
    free(order);
    report(&p->pool, "Overall", r);
    if (p->all->kit && n != n_kinds) {
        mm_warn("POPE: answers of %lld of the 3 categories; the headline is the mean of those",
                (long long)n);
    }
    if (p->pool.said)
        mm_report_headline(r, 100 * (p->all->kit ? sum / (double)n : f1_of(&p->pool)));
    return mm_code_ok;
}

static void release(void *state) {
    struct pope *p = state;
    if (!p) return;
    mm_normalizer_deinit(&p->room);
    mm_judge_free(&p->judge);
    mm_names_free(&p->names);
    for (int k = 0; k < n_kinds; k++) {
        mm_jsonl_close(&p->labels[k]);
    }
    free(p->counts);
    free(p);
}

const struct mm_bench mm_bench_pope = {
    .name = "pope",
    .title = "POPE",
    .has_kit = true,
    .max_new_tokens = {1024, 100},
    .never_empty = {false, true},
    .max_tiles = 6,
    .prompt = mm_prompt_pope,
    .begin = begin,
    .add = add,
    .end = end,
    .release = release,
    .combine = combine,
};
